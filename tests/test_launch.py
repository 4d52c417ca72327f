"""The launcher, without a cluster: here, as processes of this machine, and what it says of mistakes. On a real SLURM:
`tests/slurm`."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from PIL import Image

from experiments import baseline, pretrain, status
from weight_templates import jobs, launch
from weight_templates.config import DataOptions, RunOptions
from weight_templates.errors import RunError, UserError
from weight_templates.files import write_json
from weight_templates.training import Interrupt

from .helpers import refused
from .slurm import work


ROOT = Path(__file__).parents[1]


def run(tmp_path, *words, module="tests.slurm.work", **options):
    """The command line of a module; returns the process when it has ended."""
    code = f"from weight_templates import launch; launch.command({module!r})"
    root = [] if module == "experiments.pretrain" else [f"--root={tmp_path}"]
    return subprocess.run(
        [sys.executable, "-c", code, *root, *map(str, words)], cwd=ROOT, capture_output=True, text=True, **options
    )


def collected(tmp_path):
    return [cell["number"] for cell in json.loads((tmp_path / "collected.json").read_text())]


def test_a_sweep_runs_here_and_not_twice(tmp_path):
    assert run(tmp_path, "--count=3").returncode == 0
    assert collected(tmp_path) == [0, 1, 2]
    assert run(tmp_path, "--count=4").returncode == 0
    assert collected(tmp_path) == [0, 1, 2, 3]
    assert [len((tmp_path / f"starts-{n}").read_text().split()) for n in range(4)] == [1] * 4


def test_here_one_failure_does_not_stop_the_others(tmp_path):
    done = run(tmp_path, "--count=3", "--fails=0")
    assert done.returncode == 1
    assert "failed   wait-0: cell 0 is broken; mend it.\n" in done.stderr
    assert collected(tmp_path) == [1, 2]


def test_here_a_fault_of_the_program_does_not_stop_the_others(tmp_path, capsys, monkeypatch):
    """It is told as what it is, and where its traceback is."""
    cell = work.cell

    def faulty(asked):
        return 1 / 0 if asked.number == 0 else cell(asked)

    monkeypatch.setattr(work, "cell", faulty)
    with pytest.raises(RunError, match="1 of 2 jobs failed"):
        launch.run_here(work.jobs(work.Config(root=str(tmp_path))))
    assert (tmp_path / "done-1").exists()
    told = capsys.readouterr().err
    assert (
        "failed   wait-0: ZeroDivisionError (division by zero), a fault of the program and not of yours; its traceback"
        in told
    )
    assert (
        "ZeroDivisionError" in Path(told.partition("its traceback is in ")[2].partition(".txt")[0] + ".txt").read_text()
    )
    failed, done = (line for line in status.report(tmp_path).splitlines() if line.startswith("wait-"))
    assert "failed" in failed
    assert failed.endswith("ZeroDivisionError: division by zero.")  # and names no log: that was the terminal
    assert "done" in done


def test_what_is_to_be_overwritten_is_followed(tmp_path, monkeypatch, capsys):
    """A job that is submitted over an old result."""
    config = pretrain.Config(run=RunOptions(root=str(tmp_path), overwrite=True))
    job = jobs.Job("experiments.pretrain:main", config, "pretrain")
    write_json(job.path / "result.json", {"value": "x", "path": False})
    followed = []
    monkeypatch.setattr(launch, "_submit", lambda some, options: None)
    monkeypatch.setattr(launch, "follow", lambda left, wanted, options: followed.extend(left))
    launch.submit([job], launch.LaunchOptions("slurm"))
    assert followed == [job]


def test_a_sweep_of_processes_with_a_failure(tmp_path):
    words = ["--count=3", "--fails=1", "--launch=local", "--parallel=2"]
    done = run(tmp_path, *words)
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if line.startswith("failed ")]
    assert len(told) == 1
    assert "cell 1 is broken; mend it. Log: " in told[0]
    assert "Traceback" not in done.stderr
    assert "cell 1 is broken" in Path(told[0].partition("Log: ")[2]).read_text()
    assert done.stderr.endswith("failed: 1 of 3 jobs failed; the same command submits them again.\n")
    shown = status.report(tmp_path)
    assert shown.count("done") == 2
    assert "cell 1 is broken" in shown
    (tmp_path / "mended").touch()
    done = run(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("finished already") == 2
    assert collected(tmp_path) == [0, 1, 2]
    assert [len((tmp_path / f"starts-{n}").read_text().split()) for n in range(3)] == [1] * 3


def test_dry_runs_tell_the_jobs_and_their_cost(tmp_path):
    assert run(tmp_path, "--count=1").returncode == 0
    (tmp_path / "collected.json").unlink()
    done = run(tmp_path, "--count=3", "--seconds=0.1", "--launch=slurm", "--dry-run", "--gpus=2", "--time=1:30:00")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split("  ")[-1].strip() for line in lines[:3]] == ["finished already", "1e+05 FLOPs", "1e+05 FLOPs"]
    assert lines[3].startswith("2 of 3 jobs to run, 2e+05 FLOPs in all; at most 6.0 hours of GPUs")
    assert not (tmp_path / "collected.json").exists()
    assert len(list((tmp_path / "jobs").iterdir())) == 1


def test_dry_runs_leave_out_what_is_on_its_way(tmp_path, monkeypatch):
    jobs = work.jobs(work.Config(root=str(tmp_path), count=2))
    found = [launch.Found("running", "", "17", ""), launch.Found("new", "", "", "")]
    monkeypatch.setattr(launch, "states", lambda folders: found)
    first, second, total = launch.describe(jobs, launch.LaunchOptions()).splitlines()
    assert first.endswith("running already, as job 17")
    assert second.endswith("FLOPs")
    assert total.startswith("1 of 2 jobs to run")


def test_a_job_that_dies_is_found_dead(tmp_path):
    code = "from weight_templates import launch; launch.command('tests.slurm.work')"
    words = ["--count=1", "--seconds=60", "--launch=local", f"--root={tmp_path}"]
    process = subprocess.Popen([sys.executable, "-c", code, *words], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    started = tmp_path / "starts-0"
    for _ in range(600):
        if started.exists() and started.read_text().endswith("\n"):
            break
        time.sleep(0.1)
    os.kill(int(started.read_text()), signal.SIGKILL)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "failed   wait-0" in told
    assert "it was killed, or ended without a result" in told


def test_last_words_are_no_alarm_and_no_progress(tmp_path):
    """What XLA says of slow compilation stands last in many logs, and is not why a process was killed."""
    log = tmp_path / "1_0_log.err"
    log.write_text(
        "reading images\nstep 3/9  loss 1\nE1126 11:00:01 73 alarm.cc:73] \n*****\n[Compiling module jit_f]\n****.\n"
    )
    folder = tmp_path / "jobs" / "wait"
    write_json(folder / "job.json", {"submissions": [{"cluster": "local", "id": "0", "log": str(log)}]})
    assert (
        jobs.states([folder])[0].why
        == f"it was killed, or ended without a result; last words: reading images. Log: {log}"
    )
    log.unlink()
    assert jobs.states([folder])[0].why == "it was killed before it began, or a line of its --setup failed."


def test_a_process_that_stopped_to_go_on_is_submitted_again(tmp_path, monkeypatch, capsys):
    """submitit starts a process six times; a job that ran out of time once more has not failed."""
    cells = [jobs.Job("tests.slurm.work:cell", work.Cell(str(tmp_path), n, 0.0, False), f"wait-{n}") for n in range(2)]
    for cell in cells:
        write_json(cell.path / "job.json", {"submissions": [{"cluster": "local", "id": "0", "log": "x.log"}]})
    # In place of submitit, which closes the stream that pytest reads when it is imported here.
    for module in ("submitit", "submitit.helpers"):
        monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(DelayedSubmission=lambda job: job))
    cells[0].checkpoint()
    assert [found.state for found in jobs.states([cell.path for cell in cells])] == ["failed", "failed"]
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    for cell in cells:
        cell.checkpoint()
    assert [found.state for found in jobs.states([cell.path for cell in cells])] == ["stopped", "stopped"]
    assert "stopped" in status.report(tmp_path)
    monkeypatch.delenv("SUBMITIT_EXECUTOR")
    submitted = []

    def submit(some, options):
        submitted.extend(some)
        for job in some:
            job()

    monkeypatch.setattr(launch, "_submit", submit)
    monkeypatch.setattr(launch.time, "sleep", lambda seconds: None)
    launch.follow(cells, [], launch.LaunchOptions("local"))
    assert submitted == cells
    told = [line.split()[0] for line in capsys.readouterr().err.splitlines()]
    assert sorted(told) == ["done", "done", "stopped", "stopped"]
    assert not list(tmp_path.glob("jobs/*/again.json"))


@pytest.mark.large
def test_processes_are_started_as_often_as_it_takes(tmp_path):
    done = run(tmp_path, "--count=1", "--again=7", "--launch=local")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("submitted ") == 2
    assert collected(tmp_path) == [0]
    assert len((tmp_path / "starts-0").read_text().split()) == 8


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("90:30", 91), ("1:30:00", 90), ("1-12", 2160), ("2-00:30", 2910), ("1-00:00:00", 1440), ("0:30", 1)],
)
def test_times_are_slurms(text, minutes):
    assert launch.minutes_of(text) == minutes


@pytest.mark.parametrize("text", ["", "3d", "0", "1:2:3:4", "-5", "1:-2", "1-"])
def test_times_that_are_none(text):
    with pytest.raises(UserError, match="--time"):
        launch.minutes_of(text)


def test_mistakes(tmp_path):
    for words, says in (
        (["--launch=slurm", "--time=soon"], "--time soon"),
        (["--launch=moon"], "moon"),
        (["--launch=local", "--parallel=-1"], "--parallel -1"),
        (["--launch=local", "--gpus=1", "--parallel=2"], "--parallel"),
        (["--launch=slurm", "--gpus=4", "--processes=2"], "--processes 2 does not fit --gpus 4"),
        (["--launch=slurm", "--gpus=4", "--nodes=2", "--processes=1"], "--processes 1 does not fit --gpus 4"),
    ):
        done = run(tmp_path, *words)
        assert done.returncode == 2, done.stderr
        assert says in done.stderr
        assert "Traceback" not in done.stderr
    empty = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    assert "no sbatch on this machine" in run(tmp_path, "--launch=slurm", env=empty).stderr
    assert [launch._pair(word) for word in ("exclusive", "--account=a=b")] == [("exclusive", True), ("account", "a=b")]
    with pytest.raises(UserError, match="no folder"):
        status.main(status.Config(str(tmp_path / "nowhere")))


NOWHERE = "~nobody-of-that-name/x"


@pytest.mark.parametrize(
    ("module", "words", "says"),
    [
        ("experiments.pretrain", ["--optim.batch=0", "--dry-run"], "--optim.batch 0"),
        ("experiments.pretrain", ["--model.heads=0", "--dry-run"], "model.heads is 0"),
        ("experiments.pretrain", ["--tucker.ranks", "999", "8", "8", "--launch=local"], "999"),
        ("experiments.pretrain", ["--data=/nonexistent", "--optim.steps=5", "--dry-run"], "/nonexistent"),
        ("experiments.pretrain", ["--data.count=60", "--optim.batch=58", "--launch=local"], "57 training images"),
        ("experiments.pretrain", [f"--run.root={NOWHERE}"], NOWHERE),
        ("experiments.pretrain", [f"--run.root={NOWHERE}", "--dry-run"], NOWHERE),
        ("experiments.adapt", ["/nonexistent.safetensors", "--dry-run"], "/nonexistent.safetensors"),
        ("experiments.adapt", ["x", "--optim.batch=0", "--launch=local"], "--optim.batch 0"),
        ("ablations.constraints", [NOWHERE, "--dry-run"], NOWHERE),
        ("ablations.constraints", ["/nonexistent"], "/nonexistent"),
        ("ablations.constraints", ["/nonexistent", "--dry-run"], "/nonexistent"),
        ("ablations.constraints", ["--patch=5", "--launch=local"], "--patch 5 does not tile"),
        ("ablations.choices", ["--pretraining-steps=1", "--dry-run"], "none for 'half the steps'"),
        ("ablations.constraints", ["--base-lr=inf", "--dry-run"], "--base-lr inf"),
        ("ablations.constraints", ["--pretraining-lr=inf", "--dry-run"], "--pretraining-lr inf"),
        ("ablations.constraints", ["--root=/proc/nothing"], "cannot write to /proc/nothing"),
        ("ablations.choices", ["--depth=0", "--dry-run"], "--depth 0 is not positive"),
        ("tests.slurm.work", ["--count=0", "--launch=slurm", "--no-follow"], "no job"),
    ],
)
def test_mistakes_show_before_anything_is_submitted(tmp_path, capsys, monkeypatch, module, words, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["command", *words])
    assert says in refused(capsys, lambda: launch.command(module))
    assert list(tmp_path.iterdir()) == []


def test_an_ablation_needs_labels(tmp_path, capsys, monkeypatch):
    for number in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(sys, "argv", ["command", str(tmp_path), "--dry-run"])
    assert "no labels" in refused(capsys, lambda: launch.command("ablations.constraints"))


@pytest.mark.parametrize("name", ["partition", "nodes", "cpus", "memory", "sbatch", "follow"])
def test_options_of_slurm_are_refused_elsewhere(name):
    value = {"partition": "gpu", "sbatch": ("foo=bar",), "follow": False}.get(name, 2)
    flag = "--no-follow" if name == "follow" else f"--{name}"
    launch.LaunchOptions("slurm", **{name: value}).check()
    with pytest.raises(UserError, match=f"^{flag} needs SLURM"):
        launch.LaunchOptions("local", **{name: value}).check()
    with pytest.raises(UserError, match=f"^{flag} is for jobs"):
        launch.LaunchOptions("here", **{name: value}).check()


def test_options_of_jobs_are_refused_here():
    for given in ({"time": "5"}, {"gpus": 4}, {"processes": 2}, {"parallel": 2}, {"setup": ("true",)}):
        with pytest.raises(UserError, match=f"^--{next(iter(given))} is for jobs"):
            launch.LaunchOptions("here", **given).check()
        launch.LaunchOptions("here", dry_run=True, **given).check()
        launch.LaunchOptions("local", **given).check()


def test_status_without_squeue_tells_what_the_disk_tells(tmp_path, monkeypatch):
    """Only a job that just the queue knows of is unknown; where there is none, the queue is not asked."""
    monkeypatch.setenv("PATH", str(tmp_path))
    submitted = {"submissions": [{"cluster": "slurm", "id": "7", "log": "x.log"}]}
    for name in ("ended", "broken"):
        write_json(tmp_path / "jobs" / name / "job.json", submitted)
    write_json(tmp_path / "jobs" / "ended" / "result.json", {"value": 1, "path": False})
    write_json(tmp_path / "jobs" / "broken" / "error.json", {"error": "it fell."})
    assert jobs.states([tmp_path / "jobs" / "ended"])[0].state == "done"
    write_json(tmp_path / "jobs" / "begun" / "job.json", submitted)
    told = status.report(tmp_path).splitlines()
    assert {tuple(line.split()[:2]) for line in told if line.endswith(("7", "x.log"))} == {
        ("ended", "done"), ("broken", "failed"), ("begun", "unknown")
    }  # fmt: skip
    assert "squeue does not answer" in told[-1]


def test_status_of_what_others_left(tmp_path, capsys):
    """Of files that are not ours, or not whole, what can be told."""
    run = tmp_path / "pretrain" / "x"
    write_json(run / "config.json", {})
    write_json(tmp_path / "jobs" / "y" / "job.json", {"who": "somebody"})
    (run / "metrics.jsonl").write_text('{"loss": 2.0}\nnothing\n[1]\n{"step": 7, "loss": 1.0}\n{"step": 9')
    told = status.report(tmp_path)
    assert "loss 1.000" in told
    assert "new" in told
    for every in (0.0, float("nan"), float("inf")):
        assert "--every" in refused(capsys, lambda e=every: status.main(status.Config(str(tmp_path), e)))


def test_status_of_a_folder_of_nobody(capsys):
    assert NOWHERE in refused(capsys, lambda: status.main(status.Config(NOWHERE)))


def test_overwriting_is_done_once(tmp_path):
    config = pretrain.Config(run=dataclasses.replace(pretrain.Config().run, root=str(tmp_path), overwrite=True))
    job = jobs.Job("experiments.pretrain:main", config, "pretrain")
    assert job.again().config.run == dataclasses.replace(config.run, overwrite=False)
    assert job.again().path == job.path
    assert job.again().again() == job.again()


def test_jobs_are_functions_of_their_configuration(tmp_path):
    def made(**change):
        return jobs.Job("tests.slurm.work:cell", work.Cell(**{"root": str(tmp_path), "number": 0} | change), "wait")

    def named(method, text):
        start = tmp_path / "start"
        start.write_text(text)
        config = baseline.method(method, source=str(start), run=RunOptions(root=str(tmp_path)))
        return jobs.Job("experiments.baseline:main", config, "baseline").path

    assert named("front", "a") == named("front", "a")
    assert named("front", "a") != named("hydravit", "a")  # of the same fields
    assert named("front", "a") != named("front", "b")  # of another content
    base = {"seconds": 0.0, "fails": False}
    assert made(**base).path == made(**base).path
    assert made(**base).path.name == made(**base, root="elsewhere").path.name
    named_twice = [dataclasses.replace(pretrain.PRESETS["tiny"], data=DataOptions(path)) for path in ("/a/b", "/a/b/")]
    assert len({jobs.Job("experiments.pretrain:main", config, "x").path for config in named_twice}) == 1
    assert made(**base).path != made(**base | {"seconds": 1.0}).path
    job = made(**base)
    assert job.result is None
    job()
    assert job.result == {"number": 0, "waited": 0}
    broken = made(**base | {"fails": True})
    with pytest.raises(UserError):
        broken()
    assert jobs.states([job.path, broken.path])[1].words == "cell 0 is broken; mend it."


def test_a_launchers_signals_wait_for_the_checkpoint():
    """As under submitit: SIGTERM is told and ignored, SIGUSR2 has the job queued again."""
    heard = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        for number in before:
            signal.signal(number, lambda n, _: heard.append(n))
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            assert (heard, interrupt.asked) == ([], 2)
            interrupt.pass_on(interrupt.asked)
            assert (heard, interrupt.asked) == ([signal.SIGTERM], 0)
            os.kill(os.getpid(), signal.SIGUSR2)
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupt.asked == 3  # the weightier one
        os.kill(os.getpid(), signal.SIGUSR2)
        assert heard == [signal.SIGTERM, signal.SIGUSR2]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit) as stop:
            interrupt.pass_on(interrupt.asked)
    assert stop.value.code == 143


@pytest.mark.large
def test_processes_that_train_together_leave_what_one_leaves(tmp_path):
    """Two processes of one device against one process of two, to float tolerance; the second writes nothing."""
    words = ["--data.count=200", "--model.depth=1", "--model.heads=2", "--optim.batch=16", "--optim.steps=6"]
    words += ["--run.save-every=4", "--run.log-every=2"]
    one = run(
        tmp_path, *words, f"--run.root={tmp_path / 'one'}", module="experiments.pretrain",
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "2"},
    )  # fmt: skip
    assert one.returncode == 0, one.stderr
    two = run(
        tmp_path, *words, f"--run.root={tmp_path / 'two'}", "--launch=local", "--processes=2",
        module="experiments.pretrain", env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
    )  # fmt: skip
    assert two.returncode == 0, two.stderr
    import numpy as np

    import weight_templates as wt
    from weight_templates import trees

    found = [next((tmp_path / name / "pretrain").iterdir()) for name in ("one", "two")]
    banks = [trees.named_arrays(wt.load_bank(path / "bank.safetensors").model) for path in found]
    for name, array in banks[0].items():
        np.testing.assert_allclose(banks[1][name], array, atol=1e-6, err_msg=name)
    told = [[json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()] for path in found]
    assert [line["step"] for line in told[0]] == [line["step"] for line in told[1]]
    start = json.loads((found[1] / "environment.json").read_text())
    assert [one["devices"] for one in start] == [2]
    assert "finished already" in run(tmp_path, *words, f"--run.root={tmp_path / 'two'}", "--launch=local", "--processes=2", module="experiments.pretrain").stderr  # fmt: skip


def test_status_tells_how_far_runs_are(tmp_path):
    folder = tmp_path / "pretrain" / "tucker"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"optim": {"batch": 10}}))
    (folder / "environment.json").write_text(json.dumps([{"step": 0, "steps": 100}]))
    (folder / "metrics.jsonl").write_text('{"step": 20, "loss": 0.5}\n{"step": 40, "lo')
    (folder / "timing.jsonl").write_text('{"step": 20, "images_per_second": 8.0}\n')
    assert "stopped" in status.report(tmp_path)
    import fcntl

    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = status.report(tmp_path).splitlines()[1].split("  ")
    words = [word.strip() for word in line if word.strip()]
    assert words[:6] == [
        "pretrain/tucker",
        "running",
        "20/100",
        "loss 0.500",
        "8",
        "1:40",
    ]  # 80 steps of 10 at 8 a second
    (folder / "summary.json").write_text("{}")
    assert "finished" in status.report(tmp_path)


def test_failures_are_told_once(tmp_path, capsys, monkeypatch):
    """A result that appears late is no failure."""
    cell = jobs.Job("tests.slurm.work:cell", work.Cell(str(tmp_path), 0, 0.0, False), "wait-0")
    answers = iter(["failed", "failed"])
    monkeypatch.setattr(
        launch, "states", lambda paths: [jobs.Found(next(answers), "it fell.", "7", "x.log") for _ in paths]
    )
    with pytest.raises(RunError, match="1 of 1"):
        launch.follow([cell], [], launch.LaunchOptions("slurm"))
    assert capsys.readouterr().err == f"failed   {cell.path.name} (job 7): it fell. Log: x.log\n"
