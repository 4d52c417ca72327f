"""The grids of all methods, and their pages."""

import dataclasses
import json

import equinox as eqx
import jax.random as jr
import numpy as np
import pytest

import weight_templates as wt
from experiments import finetune
from weight_templates import launch
from weight_templates.errors import UserError

from .helpers import ENHANCED, PLAIN, vit
from .helpers import mae as constrained_mae


def test_methods_are_tabulated(tmp_path, monkeypatch):
    """Two methods at two sizes, end to end; then the page from records by hand."""
    from figures import methods as figures
    from figures import records

    from ablations import methods
    from ablations.protocol import Protocol

    monkeypatch.setattr(records, "RECORDS", tmp_path)
    monkeypatch.setattr(records, "RESULTS", tmp_path / "docs")
    for family in ("tucker", "none"):
        about = {"data": "synthetic", "steps": 10, "batch": 8}
        wt.save_bank(
            tmp_path / f"{family}.safetensors", wt.Bank(constrained_mae(ENHANCED, family, key=jr.key(0)), family, about)
        )
    config = methods.Config(
        bank=str(tmp_path / "tucker.safetensors"),
        source=str(tmp_path / "none.safetensors"),
        data=("synthetic",),
        pretraining="synthetic",
        methods=("weight-selection", "sweet"),
        sizes=("L1H2", "L2H1"),
        protocol=Protocol(count=60, epochs=1, batch=8, head="new"),
        root=str(tmp_path),
    )
    launch.sweep(methods, config)
    text = (tmp_path / "docs" / "methods.md").read_text()
    assert "--methods weight-selection sweet --sizes L1H2 L2H1 --count 60 --epochs 1 --batch 8" in text
    assert str(tmp_path) not in text
    assert text.count("| weight-selection |") == text.count("| sweet |") == 4  # top-1, top-5, places, cost

    tree = json.loads((tmp_path / "methods.json").read_text())
    for run, score in zip(tree["runs"], (0.1, 0.3, 0.2, 0.1), strict=True):
        run["test"], run["depth"], run["heads"] = (
            {"top1": score, "top5": 1.0, "images": 60},
            6 if run["depth"] == 1 else 12,
            6,
        )
    (tmp_path / "methods.json").write_text(json.dumps(tree))
    figures.main()
    text = (tmp_path / "docs" / "methods.md").read_text()
    assert [(run["arm"], run["depth"]) for run in tree["runs"]] == [
        ("weight-selection", 6), ("sweet", 6), ("weight-selection", 12), ("sweet", 12)
    ]  # fmt: skip
    assert (
        "| weight-selection | 10.0 (1) \\| 67.03 \\| −57.0 | 20.0 (1) \\| 66.51 \\| −46.5 | 15.0 \\| 66.77 \\| −51.8 |"
        in text
    )
    assert "| sweet | 30.0 (1) | 10.0 (1) | 20.0 |" in text
    assert "| weight-selection | 2 \\| 1 \\| 1 | 1 \\| 1 \\| 1 | 1.5 |\n| sweet | 1 | 2 | 1.5 |" in text

    # HydraViT's bank may come later
    nested = tmp_path / "nested.safetensors"
    about = {"data": "synthetic", "steps": 77, "batch": 8, "scaling": "submodel"}
    wt.save_bank(nested, wt.Bank(constrained_mae(ENHANCED, "none", key=jr.key(1)), "none", about))
    launch.sweep(methods, dataclasses.replace(config, nested=str(nested), methods=("hydravit",), sizes=("L1H2",)))
    joined = json.loads((tmp_path / "methods.json").read_text())
    assert joined["runs"][:4] == tree["runs"]
    assert [run["nested"]["steps"] for run in joined["runs"][4:]] == [77]
    assert "HydraViT's another ordinary one, 77 steps of 8 images" in (tmp_path / "docs" / "methods.md").read_text()


def test_each_network_gets_its_best_rate(monkeypatch, tmp_path):
    """By held-out accuracy, though another is better on the test images; probes have a rate of their own."""
    from ablations.protocol import Protocol, tuned

    scores, asked = {0.1: (0.5, 0.9), 0.2: (0.7, 0.6), 0.3: (0.7, 0.8)}, []

    def tune(config):
        rate = config.optim.base_lr
        asked.append((config.mode, rate))
        held_out, test = scores.get(rate, (0.0, 0.0))
        run = tmp_path / f"{config.mode}-{rate}"
        run.mkdir(exist_ok=True)
        summary = {"held_out": {"top1": held_out}, "test": {"top1": test}}
        (run / "summary.json").write_text(json.dumps(summary))
        return run / "model.safetensors"

    monkeypatch.setattr(finetune, "main", tune)
    protocol = Protocol(base_lr=(0.1, 0.2, 0.3))
    best = tuned(protocol, "scratch", "full", "synthetic", PLAIN, 0, "runs")
    assert best == tmp_path / "full-0.2"
    tuned(protocol, "scratch", "probe", "synthetic", PLAIN, 0, "runs")
    assert asked == [("full", 0.1), ("full", 0.2), ("full", 0.3), ("probe", finetune.PROBE.base_lr)]
    assert protocol.flops(PLAIN) == pytest.approx(3 * Protocol(base_lr=(0.1,)).flops(PLAIN))


def test_downstream_sets_are_columns(tmp_path, monkeypatch):
    """The page of Table 3, from records by hand."""
    from figures import methods as figures
    from figures import paper, records

    from ablations import downstream, methods

    monkeypatch.setattr(records, "RECORDS", tmp_path)
    monkeypatch.setattr(records, "RESULTS", tmp_path / "docs")
    bank = {"family": "tucker", "data": "x", "steps": 1, "batch": 2}
    protocol = {"count": 9, "epochs": 1, "batch": 2, "base_lr": [1e-3], "head": "new"}
    about = {"command": "python ablations/downstream.py BANK", "bank": bank, "source": bank, "steps": 5, **protocol}
    about["model"] = {"depth": 12, "heads": 12, "head_dim": 16, "image": 32, "patch": 4}
    common = {"depth": 6, "heads": 6, "seed": 0, "curve": [[1, 0.5]], "commit": "c", "dirty": False, "device": "cpu"}
    common |= {"held_out": None, "cost": {"source_flops": 2e9, "size_flops": 1e6, "transferred": 7}}
    scores = {"cifar10": {"dmae": 0.5, "sweet-adapted": 0.9}, "flowers102": {"dmae": 0.6, "sweet-adapted": 0.7}}
    runs = [
        common | {"data": data, "arm": arm, "test": {"top1": top1, "top5": 1.0, "images": 1000}}
        for data, row in scores.items()
        for arm, top1 in row.items()
    ]
    records.keep("downstream", about, runs)
    figures.main("downstream")
    text = (tmp_path / "docs" / "downstream.md").read_text()
    assert "## L6H6" in text
    assert "|  | flowers102 | cifar10 | mean |" in text
    assert "| sweet-adapted | 70.0 (1) \\| 83.12 \\| −13.1 | 90.0 (1) \\| 97.03 \\| −7.0 | 80.0 \\| 90.0" in text
    # DMAE is better than SWEET on flowers102 in the paper alone.
    assert "in the paper's order in 1 of 2 pairs; among the 2 pairs" in text
    assert (tmp_path / "docs" / "downstream-L6H6-curves.pdf").exists()

    names = ("weight-selection", "dmae", "isomorphic-pruning", "wave")
    average = {row: np.mean([*values.values()]) for row, values in paper.DOWNSTREAM.items()}
    assert f"{average['wave']:.2f}" == "72.88" in paper.NOTES["downstream"]
    assert f"{average['sweet-adapted'] - max(average[name] for name in names):.2f}" == "2.93"
    margins = [
        value - max(paper.DOWNSTREAM[name][data] for name in names)
        for data, value in paper.DOWNSTREAM["sweet-adapted"].items()
    ]
    assert (f"{np.mean(margins):.2f}", f"{margins[0]:.2f}") == ("2.01", "-0.06")

    assert downstream.PRESETS["default"].sizes == ("L6H6",)
    assert methods.called("cars196:/a/b") == "cars196"
    assert methods.called("/a/cifar10") == "cifar10"


def test_less_is_better_where_images_are_made(tmp_path, monkeypatch):
    """The page of Table 2, from records by hand: FID, beside the paper's."""
    from figures import methods as figures
    from figures import records

    monkeypatch.setattr(records, "RECORDS", tmp_path)
    monkeypatch.setattr(records, "RESULTS", tmp_path / "docs")
    bank = {"family": "tucker", "data": "x", "steps": 1, "batch": 2}
    about = {"command": "python ablations/generation.py BANK", "bank": bank, "source": bank, "steps": 5, "count": 9}
    about |= {"epochs": 1, "batch": 2, "base_lr": [1e-3], "head": "new"}
    about["model"] = {"depth": 12, "heads": 12, "head_dim": 16, "image": 32, "patch": 4}
    common = {
        "depth": 6,
        "heads": 6,
        "seed": 0,
        "curve": [],
        "commit": "c",
        "dirty": False,
        "device": "cpu",
        "data": "x",
    }
    common |= {"held_out": None, "cost": {"source_flops": 2e9, "size_flops": 1e6, "transferred": 7}}
    runs = [
        common | {"arm": arm, "test": {"fid": fid, "is": 9.0, "images": 1000}}
        for arm, fid in (("dmae", 40.0), ("sweet-adapted", 30.0))
    ]
    records.keep("generation", about, runs)
    figures.main("generation")
    text = (tmp_path / "docs" / "generation.md").read_text()
    assert "In a cell: FID, of which less is better, on test images" in text
    assert "| dmae | 40.0 (1) \\| 33.50 \\| +6.5 |" in text
    assert "Inception Score, of which more is better:" in text
    assert "| dmae | 9.0 (1) \\| 19.47 \\| −10.5 |" in text
    assert "after the bars the paper's, on ImageNet after 50 epochs" in text
    assert "| dmae | 2 \\| 2 \\| 2 | 2.0 |\n| sweet-adapted | 1 \\| 1 \\| 1 | 1.0 |" in text


def test_methods_need_sources_of_their_kind_and_cost(tmp_path, capsys):
    from ablations import methods

    def bank(name, family, config=ENHANCED, flops=100):
        path = tmp_path / f"{name}.safetensors"
        model = eqx.filter_jit(lambda: constrained_mae(config, family, key=jr.key(0)))()
        wt.save_bank(path, wt.Bank(model, family, {"flops": flops}))
        return str(path)

    tucker, equal, dear = bank("tucker", "tucker"), bank("equal", "none"), bank("dear", "none", flops=112)
    full = methods.Config(bank=tucker, source=equal, data=("c",), pretraining="d", sizes=("L1H1", "L2H2"))
    methods.check_banks(tucker, equal, "")
    assert not capsys.readouterr().err
    methods.check_banks(tucker, dear, equal)
    assert "1.12 of what" in capsys.readouterr().err
    other = tmp_path / "model.safetensors"
    wt.save_model(other, vit(ENHANCED), {})
    for source, says in (
        (tucker, "--constraint none"),
        (bank("deep", "none", PLAIN), "different networks"),
        (str(other), "model.safetensors is no bank"),
    ):
        for others in ((source, ""), (equal, source)):
            with pytest.raises(UserError, match=says):
                methods.check_banks(tucker, *others)
    abroad = dataclasses.replace(full, source=str(other), data=("synthetic",), pretraining="synthetic")
    with pytest.raises(UserError, match="is no bank"):  # before anything is submitted
        methods.check(methods.jobs(abroad)[0].config)
    names = [job.name for job in methods.jobs(full)]
    assert not any("hydravit" in name for name in names)
    more = [job.name for job in methods.jobs(dataclasses.replace(full, nested=equal))]
    assert len(more) == len(names) + 2


def test_strided_selection_is_a_row_where_it_is_another(tmp_path, capsys):
    from ablations import methods
    from weight_templates.baselines import selection

    banks = {}
    for config in (ENHANCED, PLAIN):
        model = eqx.filter_jit(lambda config=config: constrained_mae(config, "none", key=jr.key(0)))()
        banks[config.dress] = tmp_path / f"{config.dress}.safetensors"
        wt.save_bank(banks[config.dress], wt.Bank(model, "none", {}))
    small = ENHANCED.resized(2, 2)
    asked = methods.Config(bank=str(banks["enhanced"]), source=str(banks["enhanced"]), root=str(tmp_path))
    made = [
        wt.load_model(methods.backbone(asked, method, ENHANCED, small, 0)[0]).model
        for method in ("weight-selection", "weight-selection-strided")
    ]
    source = wt.expand(wt.load_bank(banks["enhanced"]).model.backbone)
    for model, heads in zip(made, ("whole", "strided"), strict=True):
        expected = selection.select_weights(source, small, heads)
        np.testing.assert_array_equal(model.blocks.attention.qkv, expected.blocks.attention.qkv)
    plain = dataclasses.replace(asked, bank=str(banks["plain"]), source=str(banks["plain"]))
    assert methods.cell(methods.Cell(plain, ("weight-selection-strided",), ("L1H1",))) == []
    assert "no row of its own" in capsys.readouterr().err


def test_methods_refuse_what_they_do_not_know():
    from ablations import methods

    full = methods.Config(bank="a", source="b", data=("c",), pretraining="d")
    full.check()
    for change, says in (
        ({"source": ""}, "--source"),
        ({"methods": ("butterfly",)}, "butterfly"),
        ({"sizes": ("6x6",)}, "6x6"),
    ):
        with pytest.raises(UserError, match=says):
            dataclasses.replace(full, **change).check()
