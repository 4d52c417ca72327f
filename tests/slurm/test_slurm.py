"""The launcher on a real SLURM of one node: submit, array, failure, cancel, preemption, time-out, several processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import weight_templates as wt
from weight_templates import trees


pytestmark = pytest.mark.slurm
ROOT = Path(__file__).parents[2]
TINY = ["--data.count=200", "--model.depth=1", "--model.heads=2", "--optim.batch=16", "--run.log-every=2"]


def started(cluster, module, *words):
    code = f"from weight_templates import launch; launch.command({module!r})"
    return subprocess.Popen(
        [sys.executable, "-c", code, "--launch=slurm", *map(str, words)],
        cwd=ROOT, env=cluster, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def launched(cluster, module, *words):
    process = started(cluster, module, *words)
    _, told = process.communicate(timeout=400)
    return process.returncode, told


def until(condition, seconds=120):
    for _ in range(10 * seconds):
        if found := condition():
            return found
        time.sleep(0.1)
    raise TimeoutError


def number_of(root, name):
    """The id of a job that has been submitted."""

    def asked():
        folders = list((root / "jobs").glob(f"{name}-*/job.json"))
        return folders and json.loads(folders[0].read_text())["submissions"][-1]["id"]

    return until(asked)


def begun(root, number):
    return until(lambda: (path := root / f"starts-{number}").exists() and path.read_text().endswith("\n"))


def command(cluster, *words):
    return subprocess.run(words, env=cluster, capture_output=True, text=True, check=True).stdout


def collected(root):
    return [cell["number"] for cell in json.loads((root / "collected.json").read_text())]


def test_a_sweep_of_eight_one_of_which_is_killed(cluster, tmp_path):
    words = ["--count=8", "--seconds=4", f"--root={tmp_path}", "--time=5", "--sbatch", "comment=sweep"]
    process = started(cluster, "tests.slurm.work", *words)
    begun(tmp_path, 2)
    number = number_of(tmp_path, "wait-2")
    assert "_" in number  # one array
    assert "Comment=sweep" in command(cluster, "scontrol", "show", "job", number)
    os.kill(int((tmp_path / "starts-2").read_text()), signal.SIGKILL)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 1
    assert told.count("submitted ") == 8
    assert len([line for line in told.splitlines() if line.startswith("done ")]) == 7
    failed = [line for line in told.splitlines() if line.startswith("failed ")]
    assert len(failed) == 1
    assert failed[0].startswith("failed   wait-2-")
    assert "Log: " in failed[0]
    assert collected(tmp_path) == [0, 1, 3, 4, 5, 6, 7]
    code, told = launched(cluster, "tests.slurm.work", *words)
    assert code == 0, told
    assert told.count("finished already") == 7
    assert collected(tmp_path) == list(range(8))
    assert [len((tmp_path / f"starts-{n}").read_text().split()) for n in range(8)] == [1, 1, 2, 1, 1, 1, 1, 1]


def test_failures_are_told_in_a_sentence(cluster, tmp_path):
    words = ["--count=2", "--fails=0", f"--root={tmp_path}"]
    code, told = launched(cluster, "tests.slurm.work", *words)
    assert code == 1
    line = next(line for line in told.splitlines() if line.startswith("failed "))
    assert "cell 0 is broken; mend it. Log: " in line
    assert "Traceback" not in told
    assert "cell 0 is broken" in Path(line.partition("Log: ")[2]).read_text()
    (tmp_path / "mended").touch()
    code, told = launched(cluster, "tests.slurm.work", *words)
    assert code == 0, told


def test_cancelled_jobs_have_failed(cluster, tmp_path):
    process = started(cluster, "tests.slurm.work", "--count=1", "--seconds=60", f"--root={tmp_path}")
    begun(tmp_path, 0)
    command(cluster, "scancel", number_of(tmp_path, "wait-0"))
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "failed   wait-0" in told
    assert "CANCELLED" in told
    assert 0 < float((tmp_path / "done-0").read_text()) < 60


def test_what_is_queued_is_not_submitted_again(cluster, tmp_path):
    words = ["--count=1", "--seconds=3", f"--root={tmp_path}"]
    code, told = launched(cluster, "tests.slurm.work", *words, "--no-follow")
    assert code == 0, told
    code, told = launched(cluster, "tests.slurm.work", *words)
    assert code == 0, told
    assert "already, as job" in told
    assert collected(tmp_path) == [0]
    assert len((tmp_path / "starts-0").read_text().split()) == 1


def test_refused_submissions(cluster, tmp_path):
    code, told = launched(cluster, "tests.slurm.work", "--partition=gone", f"--root={tmp_path}")
    assert code == 2
    assert told.splitlines()[-1].startswith("error: the jobs were not accepted: ")
    assert "partition" in told.splitlines()[-1]


def test_preempted_jobs_go_on(cluster, tmp_path):
    """A job of higher priority takes all cores; the other one is queued again, and goes on where it was."""
    process = started(cluster, "tests.slurm.work", "--count=1", "--seconds=8", f"--root={tmp_path}", "--cpus=4")
    begun(tmp_path, 0)
    command(cluster, "sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert "waiting" in told
    assert collected(tmp_path) == [0]
    assert len((tmp_path / "starts-0").read_text().split()) == 2


def bank(root):
    return wt.load_bank(next(root.glob("pretrain/*/bank.safetensors")))


def test_a_training_that_runs_out_of_time_ends_as_if_it_had_not(cluster, tmp_path):
    """Queued again by the signal before its limit of one minute, it ends bit by bit as one that was not interrupted.

    SLURM's signal may come up to a minute early: a start can end before its first step, or after its last one.
    """
    words = [*TINY, "--optim.steps=1500", "--run.save-every=1000"]
    process = started(cluster, "experiments.pretrain", *words, f"--run.root={tmp_path / 'limited'}", "--time=1")
    _, told = process.communicate(timeout=500)
    assert process.returncode == 0, told
    assert "waiting" in told
    code, told = launched(cluster, "experiments.pretrain", *words, f"--run.root={tmp_path / 'straight'}")
    assert code == 0, told
    straight, limited = (next((tmp_path / name / "pretrain").iterdir()) for name in ("straight", "limited"))
    for name in ("bank.safetensors", "metrics.jsonl"):
        assert (limited / name).read_bytes() == (straight / name).read_bytes()
    starts = [start["step"] for start in json.loads((limited / "environment.json").read_text())]
    assert any(0 < step < 1500 for step in starts)
    assert starts == sorted(starts)  # none begins before the one that it follows


def test_two_processes_train_as_one(cluster, tmp_path):
    words = [*TINY, "--optim.steps=6", "--run.save-every=4"]
    for name, devices, more in (("one", "2", []), ("two", "1", ["--processes=2"])):
        environment = cluster | {"JAX_NUM_CPU_DEVICES": devices}
        code, told = launched(environment, "experiments.pretrain", *words, f"--run.root={tmp_path / name}", *more)
        assert code == 0, told
    one, two = (trees.named_arrays(bank(tmp_path / name).model) for name in ("one", "two"))
    for name, array in one.items():
        np.testing.assert_allclose(two[name], array, atol=1e-6, err_msg=name)
    start = json.loads(next((tmp_path / "two").glob("pretrain/*/environment.json")).read_text())
    assert [one["devices"] for one in start] == [2]
