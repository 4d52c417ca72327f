"""The command: what it leaves behind, how it goes on after being killed, and what it says to mistakes."""

import dataclasses
import json
import os
import platform
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from PIL import Image

import weight_templates as wt
from experiments import pretrain, reconstruct
from weight_templates import cli, programs
from weight_templates.config import (
    ConstraintOptions,
    DataOptions,
    DecoderConfig,
    OptimOptions,
    RunOptions,
    ScalingOptions,
    ViTConfig,
)
from weight_templates.counting import count_mae
from weight_templates.errors import UserError
from weight_templates.tasks.masked import Masked
from weight_templates.training import read_metrics

from .helpers import image_folder, refused
from .helpers import mae as constrained_mae


ROOT = Path(__file__).parents[1]
NEVER = 10**9
SMALL = [
    "--model.image=16", "--model.depth=2", "--model.heads=4", "--model.head-dim=4",
    "--decoder.width=16", "--decoder.heads=2", "--data.count=100", "--optim.batch=8",
]  # fmt: skip


def configured(tmp_path, *words):
    return cli.parse(pretrain.PRESETS, [*SMALL, "--optim.steps=6", f"--run.root={tmp_path}", *words])


@pytest.mark.parametrize("family", wt.FAMILIES)
def test_every_family_leaves_a_bank_and_pictures(tmp_path, family, capsys):
    path = pretrain.main(configured(tmp_path, "--constraint", family, "--run.log-every=2", "--run.save-every=4"))
    assert path == next(tmp_path.glob(f"pretrain/{family}-synthetic-tiny-*/bank.safetensors"))
    bank = wt.load_bank(path)
    assert bank.family == family
    assert wt.initialize(bank, depth=1, heads=2)(jnp.zeros((16, 16, 3))).shape == (17, 8)
    metrics = read_metrics(path.parent)
    assert [line["step"] for line in metrics if "loss" in line] == [2, 4, 6]
    assert [line["step"] for line in metrics if "held_out_loss" in line] == [4, 6]
    assert all(np.isfinite(line.get("loss", 0)) for line in metrics)
    summary = json.loads((path.parent / "summary.json").read_text())
    assert summary["steps"] == 6
    assert list(summary["held_out_loss"]) == ["1", "2", "3", "4"]
    assert summary["sizes"] == bank.sizes
    for picture in ("loss.png", "reconstructions.png"):
        with Image.open(path.parent / picture) as image:
            assert min(image.size) > 300
            assert len(np.unique(np.asarray(image.convert("L")))) > 20
    heard = capsys.readouterr().err
    assert "images/s" in heard
    assert "ETA" in heard
    assert f"python experiments/finetune.py {path} --data synthetic" in heard
    before = {f: f.stat().st_mtime_ns for f in path.parent.rglob("*")}
    assert (
        pretrain.main(configured(tmp_path, "--constraint", family, "--run.log-every=2", "--run.save-every=4")) == path
    )
    assert "finished already" in capsys.readouterr().err
    assert before == {f: f.stat().st_mtime_ns for f in path.parent.rglob("*")}


def test_components_ema_accumulation_and_plain_dress_work_together(tmp_path):
    path = pretrain.main(configured(
        tmp_path, "--layout=components", "--optim.ema=0.5", "--optim.microbatches=2", "--model.dress=plain",
        "--scaling.scope=scalers", "--scaling.coupled", "--precision=bfloat16", "--run.devices=2",
    ))  # fmt: skip
    assert set(wt.load_bank(path).model.backbone.templates) == {"qkv", "out", "enter", "leave"}


def test_streamed_real_images(tmp_path, rng):
    image_folder(tmp_path / "images", rng, count=20)
    path = pretrain.main(
        configured(tmp_path, f"--data={tmp_path / 'images'}", "--data.resident-mb=0", "--optim.batch=4")
    )
    picture = reconstruct.main(
        reconstruct.Config(
            (str(path),),
            data=DataOptions(str(tmp_path / "images")),
            heads=(1, 4),
            images=2,
            out=str(tmp_path / "x.png"),
        )
    )
    with Image.open(picture) as image:
        assert image.size[0] > image.size[1]
    both = reconstruct.main(
        reconstruct.Config((str(path), str(path)), data=DataOptions(str(tmp_path / "images")), images=2)
    )
    with Image.open(both) as image:
        assert image.size[0] > image.size[1]
    with pytest.raises(UserError, match="single bank"):
        reconstruct.main(reconstruct.Config((str(path), str(path)), heads=(1,)))


def interrupted(command, metrics, lines, number):
    """Starts the command and sends it a signal once its metrics have so many lines; returns the exit code."""
    process = subprocess.Popen(command, cwd=ROOT, env=environment(metrics), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= lines:
            process.send_signal(number)
            break
        time.sleep(0.002)
    return process.wait(240)


def environment(somewhere):
    return os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(somewhere.parents[1] / "jax"),
        "XDG_CACHE_HOME": str(somewhere.parents[1]),
    }


def test_killed_three_times_ends_as_if_never_killed(tmp_path):
    """SIGKILL at three random moments, then SIGTERM: parameters, metrics and summary are those of a straight run."""
    command = [
        sys.executable, "experiments/pretrain.py", *SMALL, "--optim.steps=160",
        "--run.log-every=3", "--run.save-every=5", "--run.out",
    ]  # fmt: skip
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert interrupted([*command, str(straight)], straight / "metrics.jsonl", NEVER, 0) == 0
    total = (straight / "metrics.jsonl").read_text().count("\n")
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    moments = sorted(chance.sample(range(1, total * 3 // 4), 3))
    for lines in moments:
        assert interrupted([*command, str(killed)], killed / "metrics.jsonl", lines, signal.SIGKILL) == -signal.SIGKILL
    code = interrupted([*command, str(killed)], killed / "metrics.jsonl", moments[-1] + 5, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert not (killed / "summary.json").exists()
    assert interrupted([*command, str(killed)], killed / "metrics.jsonl", NEVER, 0) == 0
    starts = json.loads((killed / "environment.json").read_text())
    assert len(starts) == 5
    assert starts[-1]["step"] > 0
    for name in (
        "metrics.jsonl",
        "summary.json",
        "bank.safetensors",
        "checkpoints/000000160.safetensors",
        "checkpoints/best.safetensors",
    ):
        assert (straight / name).read_bytes() == (killed / name).read_bytes(), name


def test_a_loss_that_is_not_finite_fails_with_code_one(tmp_path, capsys):
    config = configured(tmp_path, "--optim.base-lr=1e30", "--optim.warmup=0", "--run.log-every=1", "--run.save-every=1")
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: pretrain.main(config))
    assert stop.value.code == 1
    heard = capsys.readouterr().err.splitlines()[-1]
    assert heard.startswith("failed: the loss is")
    assert "--optim.base-lr" in heard
    assert not list(tmp_path.glob("pretrain/*/checkpoints/*"))  # its only states were not finite


def mistaken(capsys, *words):
    return refused(capsys, lambda: pretrain.main(cli.parse(pretrain.PRESETS, [*SMALL, "--optim.steps=2", *words])))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--constraint=butterfly"], ["butterfly", "tucker"]),
        (["--preset=huge"], ["huge", "tiny, small, paper"]),
        (["--no-such-flag=3"], ["--no-such-flag"]),
        (["--optim.batch=many"], ["many"]),
        (["--tucker.ranks", "4", "17", "8"], ["17", "number of rows is 16"]),
        (["--tucker.ranks", "25", "8", "8"], ["25", "number of slices is 24"]),
        (["--constraint=svd", "--tucker.ranks", "4", "8", "8"], ["--tucker", "svd"]),
        (["--constraint=none", "--linear.rank=3"], ["--linear", "none"]),
        (["--data=/no/such/path"], ["/no/such/path"]),
        (["--data.count=60", "--optim.batch=58"], ["58", "57 training images", "--optim.batch"]),
        (["--model.width=30"], ["4 heads", "30", "--model.width"]),
        (["--model.head-dim=6"], ["6", "multiple of 4"]),
        (["--model.patch=5"], ["patch", "--model.patch"]),
        (["--decoder.heads=3"], ["3 decoder heads"]),
        (["--scaling.heads", "2", "5"], ["2 5", "4 heads"]),
        (["--scaling.execution=sliced", "--scaling.scope=scalers"], ["sliced", "scalers", "submodel"]),
        (["--scaling.execution=sliced", "--constraint=none"], ["sliced", "--scaling.scope off", "submodel"]),
        (["--optim.microbatches=3"], ["3 micro-batches"]),
        (["--optim.base-lr=-1"], ["-1"]),
        (["--optim.warmup=40"], ["fraction"]),
        (["--optim.ema=1.5"], ["1.5"]),
        (["--optim.betas", "0.9", "1.5"], ["1.5"]),
        (["--optim.weight-decay=-1"], ["negative"]),
        (["--seed=-1"], ["--seed -1"]),
        (["--data.threads=0"], ["--data.threads 0"]),
        (["--decoder.mask-ratio=nan"], ["nan", "finite"]),
        (["--data=~nobody-of-that-name/images"], ["nobody-of-that-name"]),
        (["--run.devices=7"], ["7", "this host has 2"]),
        (["--run.log-every=0"], ["--run.log-every"]),
        (["--data=hub:nobody/nothing"], ["hub"]),
    ],
)
def test_mistakes_get_one_sentence(tmp_path, capsys, words, says):
    sentence = mistaken(capsys, f"--run.root={tmp_path}", *words)
    for part in says:
        assert part in sentence
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_folders_that_will_not_do_get_one_sentence(tmp_path, capsys, rng):
    (tmp_path / "empty").mkdir()
    assert "holds no images" in mistaken(capsys, f"--data={tmp_path / 'empty'}")
    image_folder(tmp_path / "bad", rng)
    victim = tmp_path / "bad" / "train" / "cat" / "1.jpg"
    victim.write_bytes(victim.read_bytes()[:300])
    sentence = mistaken(capsys, f"--data={tmp_path / 'bad'}")
    assert str(victim) in sentence
    assert "--data.on-corrupt skip" in sentence


def test_a_directory_of_another_configuration_is_kept(tmp_path, capsys):
    out = f"--run.out={tmp_path / 'run'}"
    pretrain.main(configured(tmp_path, out))
    before = {f: f.read_bytes() for f in (tmp_path / "run").rglob("*") if f.is_file()}
    sentence = mistaken(capsys, out, "--seed=1")
    assert str(tmp_path / "run") in sentence
    assert "--run.overwrite" in sentence
    mistaken(capsys, out, "--seed=1", "--run.overwrite", "--data=/no/such/path")  # a mistake deletes nothing either
    assert before == {f: f.read_bytes() for f in (tmp_path / "run").rglob("*") if f.is_file()}
    pretrain.main(configured(tmp_path, out, "--seed=1", "--run.overwrite"))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 1


def test_images_that_changed_under_a_run_are_noticed(tmp_path, rng, capsys):
    folder = image_folder(tmp_path / "images", rng, count=20)
    words = (f"--data={folder}", "--optim.batch=4", f"--run.out={tmp_path / 'run'}")
    pretrain.main(configured(tmp_path, *words))
    (tmp_path / "run" / "summary.json").unlink()
    (folder / "train" / "cat" / "new.jpg").write_bytes((folder / "train" / "cat" / "0.jpg").read_bytes())
    sentence = mistaken(capsys, *words, "--optim.steps=6")
    assert "began on 40 images of images, now there are 41" in sentence


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no bank was given"),
        (["/nowhere.safetensors"], "there is no bank"),
        (["BANK", "--heads", "9"], "4 heads"),
    ],
)
def test_reconstruct_refuses_mistakes(tmp_path, capsys, words, says):
    if "BANK" in words:
        words = [str(pretrain.main(configured(tmp_path))), *words[1:]]
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: reconstruct.main(cli.parse({"default": reconstruct.Config()}, words)))
    assert stop.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        (
            "experiments/pretrain",
            ["--constraint", "--tucker.ranks", "--data", "--preset", "--scaling.scope", "--run.overwrite", "--launch"],
        ),
        ("experiments/reconstruct", ["--data"]),
        ("experiments/initialize", ["--depth", "--heads", "--out"]),
        ("experiments/adapt", ["--scalers", "--optim.steps"]),
        ("experiments/finetune", ["--mode", "--recipe.mixup"]),
        ("experiments/export", ["--format"]),
        ("experiments/baseline", ["weight-selection", "evenly spaced parts"]),
        ("experiments/status", ["--root"]),
        ("ablations/constraints", ["--sizes", "--dry-run"]),
        ("ablations/downstream", ["--source", "--methods"]),
        ("ablations/sizes", ["--adapt", "--seeds"]),
    ],
)
def test_help_does_not_wait_for_jax(name, flags):
    """`--help` is fast because nothing heavy is imported for it."""
    script = (
        f"import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_path('{name}.py', run_name='__main__')\nexcept SystemExit as stop: assert not stop.code\n"
        "heavy = {'jax', 'equinox', 'matplotlib', 'pandas', 'pyarrow', 'scipy', 'tensorly', 'torch'}\n"
        "assert not heavy & sys.modules.keys()"
    )
    environ = os.environ | {"GLIBC_TUNABLES": ""}  # else the process would start itself again, and check nothing
    done = subprocess.run([sys.executable, "-c", script], env=environ, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for flag in ["--help", *flags]:
        assert flag in done.stdout


def test_commands_tune_the_allocator():
    """On Linux the process starts itself again, once, with its own arguments."""
    script = "import os, sys; from weight_templates import cli; cli.run(lambda: print(os.environ['GLIBC_TUNABLES'], sys.argv[1:]))"
    plain = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    for environ, expected in ((plain, cli.TUNABLES), (plain | {"GLIBC_TUNABLES": "x"}, "x")):
        done = subprocess.run([sys.executable, "-c", script, "a b", "--c"], env=environ, capture_output=True, text=True)
        if sys.platform == "linux":
            assert done.stdout == f"{expected} ['a b', '--c']\n", done.stderr


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_temporaries_are_kept_from_step_to_step():
    """A program that needs 72 MB does not have them from the kernel again every time."""
    script = """if True:
        import resource
        from weight_templates import cli, jobs
        def main():
            jobs.compute_inline()
            import jax, jax.numpy as jnp
            program = jax.jit(lambda x: jnp.linalg.norm((ones := x + jnp.ones((3000, 3000))) @ ones))
            faults = []
            for step in range(12):
                program(float(step)).block_until_ready()
                faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
            print(faults[-1] - faults[3])
        cli.run(main)"""
    plain = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    kept, untuned = (
        int(subprocess.run([sys.executable, "-c", script], env=environ, stdout=subprocess.PIPE, check=True).stdout)
        for environ in (plain, plain | {"GLIBC_TUNABLES": ""})
    )
    assert kept < untuned / 4


def test_presets_start_where_they_say():
    paper = cli.parse(pretrain.PRESETS, ["--preset", "paper", "--constraint", "kronecker", "--optim.epochs", "3"])
    assert (paper.model.image, paper.model.depth, paper.model.heads, paper.model.head_dim) == (
        224,
        12,
        12,
        64,
    )
    assert (paper.optim.batch, paper.optim.epochs, paper.constraint.family) == (1024, 3, "kronecker")
    assert paper.optim.base_lr * paper.optim.batch / 256 == pytest.approx(6e-4)  # SWEET §4.1
    assert pretrain.PRESETS["paper"].optim.epochs == 450
    assert cli.parse(pretrain.PRESETS, []) == pretrain.Config()
    assert dataclasses.replace(pretrain.Config(), constraint=ConstraintOptions("svd")) == cli.parse(
        pretrain.PRESETS, ["--constraint=svd"]
    )
    for name, config in pretrain.PRESETS.items():
        assert config.preset == name
        config.model.check()
        config.decoder.check(config.model)
        config.scaling.check(config.model, config.constraint.family)
        config.optim.check()
    assert isinstance(paper.run, RunOptions)
    assert isinstance(paper.optim, OptimOptions)


def test_cost_is_that_of_the_widths_computed(tmp_path):
    """Masked: the whole width at every step. Sliced: the mean over the pairs of widths, of which each is as likely."""
    vit, decoder = ViTConfig(image=16, patch=4, depth=2, heads=4, head_dim=8), DecoderConfig(depth=1, width=32, heads=2)

    def each(**options):
        return programs.flops_of_image(Masked(decoder), vit, ScalingOptions(**options)) / 3

    def at(rows, columns):
        return count_mae(vit.resized(heads=rows, columns=columns), decoder)

    assert each(heads=(2, 4)) == at(4, 4)
    assert each(heads=(2, 4), coupled=True, execution="sliced") == (at(2, 2) + at(4, 4)) / 2
    assert each(heads=(2, 4), execution="sliced") == (at(2, 2) + at(4, 4) + at(2, 4) + at(4, 2)) / 4

    model, path = constrained_mae(vit, "tucker", key=jr.key(0)), tmp_path / "bank.safetensors"
    bank = wt.Bank(model, "tucker", {"steps": 10, "batch": 3})
    whole, half = (count_mae(vit.resized(heads=n), model.config) for n in (4, 2))
    assert programs.flops_of(bank, path) == 3 * 30 * whole
    scaling = {"heads": [2, 4], "coupled": True, "execution": "sliced"}
    (tmp_path / "config.json").write_text(json.dumps({"scaling": scaling}))
    assert programs.flops_of(bank, path) == 3 * 15 * (whole + half)
    assert programs.flops_of(dataclasses.replace(bank, about={"flops": 7}), path) == 7
    assert programs.flops_of(dataclasses.replace(bank, about={}), path) is None
    adapted = {"pretraining": {"pretraining": {"flops": 7}, "flops": 2}, "flops": 1}
    assert programs.flops_of(dataclasses.replace(bank, about=adapted), path) == 7
    for other in ('{"scaling": {"min_heads": 3}}', '{"scaling": {"heads": [2', "[]"):
        (tmp_path / "config.json").write_text(other)
        assert programs.flops_of(bank, path) is None, other
