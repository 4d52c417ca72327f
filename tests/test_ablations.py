"""Ablations of pre-training: their grids, one of them end to end, and pages from records by hand."""

import dataclasses
import json
import shlex

import equinox as eqx
import jax.random as jr
import pytest
from figures import paper, records
from figures import variants as pages
from PIL import Image

from ablations import architecture, choices, constraints, methods, pretraining, sizes, variants
from ablations.protocol import Protocol, check_images, check_tuning
from experiments import pretrain
from weight_templates import launch, trees
from weight_templates.config import ScalingOptions, ViTConfig
from weight_templates.constrained import constrain
from weight_templates.constraints import constraint_of
from weight_templates.errors import UserError
from weight_templates.files import write_json
from weight_templates.sites import stacks

from .helpers import jpeg


ABLATIONS = {"constraints": constraints, "architecture": architecture, "choices": choices}


@pytest.mark.parametrize("name", ABLATIONS)
def test_all_variants_are_possible(name):
    """Every pre-training is one that its command accepts, and no two variants are the same."""
    module = ABLATIONS[name]
    config = module.PRESETS["default"]
    jobs = module.jobs(config)
    assert sum(len(job.config.variants) for job in jobs) == len(module.VARIANTS)
    assert len({job.path for job in jobs}) == len(jobs)
    asked = [variants.pretraining(job.config) for job in jobs]
    assert len({repr(one) for one in asked}) == len(jobs)
    for one in asked:
        one.model.check()
        one.decoder.check(one.model)
        one.scaling.check(one.model, one.constraint.family)
        one.optim.check()
        eqx.filter_eval_shape(constrain, one.model, constraint_of(one.constraint), one.layout, key=jr.key(0))
    assert set(paper.ABLATIONS.get(name, {})) <= {variant.name for variant in module.VARIANTS}
    for job in jobs:
        assert variants.cost(job.config) > 0


def test_families_have_templates_of_equal_size():
    """Table 4: none of them wins by having more to remember."""
    config = ViTConfig(image=32, patch=4, depth=12, heads=12, head_dim=16)
    sizes = {}
    for job in constraints.jobs(constraints.PRESETS["default"]):
        one = variants.pretraining(job.config)
        assert one.model == config
        (stack,) = stacks(config, one.layout)
        factors = eqx.filter_eval_shape(constraint_of(one.constraint).init, stack.shape(config), key=jr.key(0))
        sizes[one.constraint.family] = trees.count(factors.template)
    assert sizes.pop("none") == 0
    assert max(sizes.values()) < 1.01 * min(sizes.values()), sizes


@pytest.mark.parametrize("name", ABLATIONS)
def test_the_command_alone_is_enough(name):
    """Without a path it takes made-up images, as every other command does."""
    asked = launch.parse(ABLATIONS[name], ["--launch", "slurm"])
    assert asked.config.data == "synthetic"
    assert {job.config.config.data for job in ABLATIONS[name].jobs(asked.config)} == {"synthetic"}


def test_steps_and_rates_in_units_of_the_ablations():
    config = variants.Config(sizes=("L1H3",), pretraining_steps=100, pretraining_lr=3e-3)
    rows = (variants.Variant("base"), variants.Variant("long", steps=2), variants.Variant("slow", rate=0.5))
    jobs = variants.jobs("choices", (*rows, variants.Variant("too", method="zero-shot")), config)
    assert [[v.name for v in job.config.variants] for job in jobs] == [["base", "too"], ["long"], ["slow"]]
    asked = [variants.pretraining(job.config).optim for job in jobs]
    assert [(o.steps, o.base_lr) for o in asked] == [(100, 3e-3), (200, 3e-3), (100, 1.5e-3)]


def test_changes_by_dotted_names():
    config = variants.Config(data="x")
    made = variants.changed(config, (("protocol.count", 5), ("sizes", ("L1H1",))))
    assert (made.protocol.count, made.sizes, made.data) == (5, ("L1H1",), "x")
    assert config.protocol.count == Protocol().count


@pytest.mark.large
def test_an_ablation_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORDS", tmp_path / "results")
    monkeypatch.setattr(records, "RESULTS", tmp_path / "docs")
    config = variants.Config(
        data="synthetic", sizes=("L1H3",), variants=("without", "tucker"), depth=2, patch=8, pretraining_steps=2,
        pretraining_batch=8, adapt_steps=2, protocol=Protocol(count=60, epochs=1, batch=8, head="new"), root=str(tmp_path),
    )  # fmt: skip
    narrow = variants.Variant("tucker", (("scaling", ScalingOptions(scope="off")), ("decoder.depth", 1)))
    monkeypatch.setattr(constraints, "VARIANTS", (constraints.VARIANTS[0], narrow))
    monkeypatch.setattr(constraints, "jobs", lambda c: variants.jobs("constraints", constraints.VARIANTS, c))
    launch.sweep(constraints, config)
    page = (tmp_path / "docs" / "constraints.md").read_text()
    assert "--sizes L1H3 --variants without tucker --depth 2 --patch 8 --pretraining-steps 2" in page
    assert page.count("\n| without | ") == 2  # accuracy and pre-training
    assert page.count("\n| tucker | ") == 3  # and gains
    assert str(tmp_path) not in page
    runs = json.loads((tmp_path / "results" / "constraints.json").read_text())["runs"]
    assert [run["arm"] for run in runs] == ["without", "tucker"]
    assert len(list(tmp_path.glob("baseline/weight-selection-L1H3-*"))) == 1
    assert len(list(tmp_path.glob("adapt/tucker-L1H3-*"))) == 1

    for run, top1 in zip(runs, (0.2, 0.3), strict=True):
        run |= {"test": {"top1": top1, "top5": 0.9, "images": 60}, "depth": 3, "heads": 5}
    more = [run | {"seed": 1, "test": {"top1": run["test"]["top1"] + 0.02, "top5": 0.9, "images": 60}} for run in runs]
    tree = json.loads((tmp_path / "results" / "constraints.json").read_text()) | {"runs": runs + more}
    (tmp_path / "results" / "constraints.json").write_text(json.dumps(tree))
    pages.main("constraints")
    page = (tmp_path / "docs" / "constraints.md").read_text()
    assert "| without | 21.0 ± 1.4 (2) \\| 57.09 \\| −36.1 | 21.0 \\| 57.09 \\| −36.1 |" in page
    assert "| tucker | 31.0 ± 1.4 (2) \\| 58.99 \\| −28.0 | 31.0 \\| 58.99 \\| −28.0 |" in page
    assert "| linear |  \\| 58.09 \\| |  \\| 58.09 \\| |" in page
    assert "| tucker | +10.0 \\| +1.9 \\| +8.1 |" in page
    assert "2 seed(s)" in page


@pytest.mark.parametrize("ablation", [constraints, architecture], ids=["constraints", "architecture"])
def test_committed_records_say_what_their_pre_training_cost(ablation):
    """As their command counts it."""
    name = ablation.__name__.removeprefix("ablations.")
    tree = json.loads((records.RECORDS / f"{name}.json").read_text())
    config = launch.parse(ablation, shlex.split(tree["about"]["command"])[2:]).config
    cost = {
        v.name: pretrain.cost(variants.pretraining(job.config))
        for job in ablation.jobs(config)
        for v in job.config.variants
    }
    assert {run["arm"] for run in tree["runs"]} == cost.keys()
    for run in tree["runs"]:
        assert run["flops"] == pytest.approx(cost[run["arm"]])


def test_ranks_are_in_units_of_the_defaults():
    """By the template that comes out, at 6 layers of 12 heads as at 3."""
    for depth in (3, 6):
        config = dataclasses.replace(choices.PRESETS["default"], depth=depth)
        cores = {}
        for variant in choices.VARIANTS:
            if variant.name in ("sweet", "half the ranks", "twice the ranks", "full ranks"):
                asked = variants.pretraining(variants.Cell(config, (variant,), 0))
                (stack,) = stacks(asked.model, "unified")
                shape = stack.shape(asked.model)
                made = eqx.filter_eval_shape(constraint_of(asked.constraint).init, shape, key=jr.key(0))
                cores[variant.name] = made.template["core"].shape
        for row, factor in (("half the ranks", 0.5), ("twice the ranks", 2)):
            assert cores[row] == tuple(round(factor * n) for n in cores["sweet"])
        assert cores["full ranks"] == shape.full


def test_mistakes():
    base = constraints.PRESETS["default"]
    for change, says in (
        ({"sizes": ("3x5",)}, "3x5"),
        ({"sizes": ()}, "--sizes"),
        ({"sizes": ("L3H5", "L4H4", "L3H5")}, "--sizes has L3H5 twice"),
        ({"variants": ("none",)}, "without"),
        ({"variants": ("tucker", "tucker")}, "--variants has tucker twice"),
        ({"adapt_steps": 0}, "--adapt-steps 0"),
        ({"pretraining_batch": 0}, "--pretraining-batch 0"),
        ({"protocol": Protocol(seeds=(0, 1, 0))}, "--seeds has 0 twice"),
        ({"protocol": Protocol(seeds=())}, "--seeds needs"),
        ({"protocol": Protocol(seeds=(-1,))}, "--seeds -1"),
        ({"protocol": Protocol(count=0)}, "--count 0"),
        ({"protocol": Protocol(base_lr=(float("nan"),))}, "--base-lr nan"),
    ):
        with pytest.raises(UserError, match=says):
            constraints.jobs(dataclasses.replace(base, **change))


def test_families_pre_trained_alike_are_tabulated(tmp_path, monkeypatch):
    """From what its jobs would have returned; a set whose steps are not timed yet has empty cells."""
    monkeypatch.setattr(records, "RECORDS", tmp_path / "results")
    monkeypatch.setattr(records, "RESULTS", tmp_path / "docs")
    config = pretraining.Config(("/a/cifar10", "/a/tiny:64:8:1"), root=str(tmp_path))
    grid = pretraining.jobs(config)
    assert len({job.path for job in grid}) == len(grid) == 12
    asked = pretraining.configuration(grid[-2].config)
    assert (asked.model.image, asked.model.patch, asked.optim.epochs, asked.constraint.family) == (64, 8, 1, "tucker")
    common = {
        "depth": 4,
        "heads": 12,
        "seed": 0,
        "steps": 30,
        "commit": "c",
        "dirty": False,
        "device": "cpu",
        "cores": 2,
    }
    common |= {"held_out_loss": {"12": 0.5, "3": 0.6}, "sizes": {"template": 1000, "scalers": 7}}
    drawing = tmp_path / "reconstructions.png"
    Image.new("RGB", (4, 3), (255, 128, 0)).save(drawing)
    common |= {"reconstructions": pretraining.shrunk(drawing)}
    for job in grid[:-1]:
        cell = job.config
        seen = pretraining.configuration(cell)
        size = {"image": seen.model.image, "patch": seen.model.patch, "epochs": seen.optim.epochs}
        value = common | size | {"data": job.name.split("-")[1], "arm": cell.family, "loss": 0.1234}
        if cell.rounds:
            value = {"tucker": {"images_per_second": 2000.4, "ratio": [1.5, 1.25, 1.75]}}
        write_json(job.path / "result.json", {"value": value, "path": False})
    pretraining.collect(config, [job for job in grid if job.result is not None])
    page = (tmp_path / "docs" / "pretraining.md").read_text()
    assert "`python ablations/pretraining.py cifar10 tiny:64:8:1`" in page
    assert "held out, 3 heads | held out, 12 heads |" in page
    assert "| tucker | 0.1234 | 0.6000 | 0.5000 | 1,000 | 7 | 2,000 | 1.50 (1.25–1.75) |" in page
    assert "| tucker | 0.1234 | 0.6000 | 0.5000 | 1,000 | 7 |  |  |" in page
    assert page.count("\n## ") == 2
    kept = (tmp_path / "results" / "pretraining.json").read_text()
    assert str(tmp_path) not in kept + page
    drawn = sorted((tmp_path / "docs").glob("pretraining-*-*.png"))
    assert len(drawn) == 4
    assert all(Image.open(path).convert("RGB").getpixel((3, 2)) == (255, 128, 0) for path in drawn)
    for change, says in (
        ({"data": ()}, "no data"),
        ({"data": ("x", "x")}, "x twice"),
        ({"data": ("x:64",)}, "SOURCE:IMAGE:PATCH:EPOCHS"),
        ({"data": ("x:64:8:0",)}, "SOURCE:IMAGE:PATCH:EPOCHS"),
        ({"data": ("/a/x", "/b/x")}, "x twice"),
        ({"epochs": 0}, "--epochs 0"),
        ({"rounds": 1}, "--rounds 1"),
    ):
        with pytest.raises(UserError, match=says):
            pretraining.jobs(dataclasses.replace(config, **change))
    assert pretraining.parts("cars196:/a/b:32:4:1") == ("cars196:/a/b", (32, 4, 1))
    assert pretraining.parts("hub:owner/name") == ("hub:owner/name", ())


def test_batches_that_the_images_do_not_fill_are_refused_before_anything_runs(tmp_path, rng):
    """By the option that the batch is from, whatever it is of: 20 images, of which one, or by labels two, are held out."""
    for label in "ab":
        (tmp_path / "few" / label).mkdir(parents=True)
        for number in range(10):
            (tmp_path / "few" / label / f"{number}.jpg").write_bytes(jpeg(rng))
    few = str(tmp_path / "few")
    check_images(few, 19)
    check_images(few, 18, labelled=True)
    check_tuning(Protocol(batch=9, count=10), few)
    for check, says in (
        (lambda: check_images(few, 20), "19 training images .* give more images"),
        (lambda: check_images(few, 19, labelled=True), "18 training images"),
        (lambda: check_tuning(Protocol(batch=10, count=10), few), "choose --batch 9 or less"),
        (lambda: check_images(str(tmp_path / "few" / "a"), labelled=True), "no labels"),
    ):
        with pytest.raises(UserError, match=says):
            check()
    base = dataclasses.replace(constraints.PRESETS["default"], data=few, protocol=Protocol(batch=8))
    small = dataclasses.replace(base, pretraining_batch=8)
    variants.check(constraints.jobs(small)[0].config)
    for change, says in (
        ({"pretraining_batch": 20}, "choose --pretraining-batch 19 or less"),
        ({"protocol": Protocol(batch=19)}, "choose --batch 18 or less"),
    ):
        with pytest.raises(UserError, match=says):
            variants.check(constraints.jobs(dataclasses.replace(small, **change))[0].config)
    bank = dataclasses.replace(sizes.Config("bank.safetensors"), data=(few,), protocol=Protocol(batch=8))
    cell = sizes.Cell(bank.bank, bank.data, few, 1, 3, 3, bank.protocol, "runs")
    with pytest.raises(UserError, match="give more images"):  # of adaptation's batch there is no option
        sizes.check(cell)
    sizes.check(dataclasses.replace(cell, adapt=""))


def test_mistakes_in_grids_over_a_bank(tmp_path):
    """What a seed, a size or a method that comes twice would fabricate: more runs than there are, without a spread."""
    bank = tmp_path / "bank.safetensors"
    bank.touch()
    grid = sizes.Config(str(bank), ("synthetic",))
    compared = methods.Config(str(bank), ("synthetic",), source=str(bank), pretraining="synthetic")
    for jobs, base, change, says in (
        (sizes.jobs, grid, {"depths": (3, 3)}, "--depths has 3 twice"),
        (sizes.jobs, grid, {"heads": ()}, "--heads needs"),
        (sizes.jobs, grid, {"heads": (0, 3)}, "L3H0"),
        (sizes.jobs, grid, {"adapt_steps": 0}, "--adapt-steps 0"),
        (sizes.jobs, grid, {"protocol": Protocol(seeds=(1, 1))}, "--seeds has 1 twice"),
        (methods.jobs, compared, {"methods": ("sweet", "sweet")}, "--methods has sweet twice"),
        (methods.jobs, compared, {"sizes": ()}, "--sizes needs"),
        (methods.jobs, compared, {"protocol": Protocol(epochs=0)}, "--epochs 0"),
    ):
        assert jobs(base)
        with pytest.raises(UserError, match=says):
            jobs(dataclasses.replace(base, **change))
