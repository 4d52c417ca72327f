"""Templates from a model's weights: the source comes back at full ranks, planted ranks are found, and the command."""

import dataclasses
import json

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from PIL import Image

import weight_templates as wt
from experiments import decompose as command
from weight_templates import cli, convert, from_model, sites, trees
from weight_templates.config import depths

from .helpers import BACKBONES, DECODER, ENHANCED, PLAIN, refused, scrambled, vit


FULL = {
    "none": wt.Unconstrained(),
    "linear": wt.Linear(rank=36),
    "kronecker": wt.Kronecker(templates=36, tile=(16, 16)),
    "tucker": wt.Tucker(ranks=(36, 16, 16)),
}


@pytest.mark.parametrize("family", FULL)
def test_at_full_rank_the_source_comes_back(family):
    """Weights, free leaves and what the network computes."""
    source = vit(PLAIN)
    made = from_model.decomposed(source, FULL[family], "unified")
    back = wt.expand(made)
    for name, array in trees.named_arrays(source).items():
        np.testing.assert_allclose(trees.named_arrays(back)[name], array, atol=1e-5, err_msg=name)
    image = jr.normal(jr.key(0), (16, 16, 3))
    np.testing.assert_allclose(back(image), source(image), atol=1e-4)
    assert max(from_model.errors(source, made).values()) < 1e-5


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_is_decomposed(name):
    """Kronecker, one template for all stages: the errors by component are those of the leaves, by numpy."""
    source = scrambled(BACKBONES[name].create(key=jr.key(0)), jr.key(1))
    made = from_model.decomposed(source, wt.Kronecker(parts=4), "unified")
    assert [len(depths(made.config)), made.layout] == [len(source.stages), "unified"]
    back, theirs = sites.governed(wt.expand(made)), sites.governed(source)
    lost, total = 0.0, 0.0
    for leaf in theirs:
        lost += float(np.sum((np.asarray(theirs[leaf], np.float64) - back[leaf]) ** 2))
        total += float(np.sum(np.asarray(theirs[leaf], np.float64) ** 2))
    assert from_model.errors(source, made)["all"] == pytest.approx((lost / total) ** 0.5, rel=1e-4)


def planted(config, ranks, key):
    """A network whose governed weights are a Tucker product of these ranks."""
    constrained = wt.constrain(config, wt.Tucker(ranks), "unified", key=key)
    return scrambled_free(eqx.filter_jit(wt.expand)(constrained))


def scrambled_free(backbone):
    """Biases and gains that matter; the governed weights as they are."""
    noisy = scrambled(backbone, jr.key(3))
    return trees.put(noisy, sites.governed(backbone))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "planted.safetensors"
    convert.save_model(path, planted(PLAIN, (5, 6, 7), jr.key(0)), {})
    return path


def run(tmp_path, *words):
    return command.main(cli.parse(command.PRESETS, [*map(str, words), f"--run.root={tmp_path / 'runs'}"]))


def test_the_command_finds_planted_ranks(saved, tmp_path, capsys):
    """By energy; the bank then stands for the model, and a size cut from it is the prefix of it."""
    made = run(tmp_path, saved, "--discard=1e-9")
    assert "ranks            5 6 7" in capsys.readouterr().err
    bank, source = wt.load_bank(made), wt.load_model(saved).model
    assert bank.model.backbone.constraint == wt.Tucker((5, 6, 7))
    assert bank.task == "features"
    for name, array in trees.named_arrays(wt.initialize(bank)).items():
        np.testing.assert_allclose(array, trees.named_arrays(source)[name], atol=1e-5, err_msg=name)
    summary = json.loads((made.parent / "summary.json").read_text())
    assert summary["errors"]["all"] < 1e-5
    small = wt.initialize(bank, 2, 3)
    np.testing.assert_allclose(small.blocks.attention.out, source.blocks.attention.out[:2, :12, :12], atol=1e-5)


def test_errors_are_told_by_component_and_by_rank(saved, tmp_path, capsys):
    run(tmp_path, saved, "--tucker.ranks", 4, 4, 4)
    told = capsys.readouterr().out
    for word in ("qkv", "out", "enter", "leave", "all", "error by rank", "4 4 4:"):
        assert word in told
    numbers = [float(part.split(": ")[1]) for part in told.split("error by rank")[1].splitlines()[0].split(", ")[1:]]
    assert numbers == sorted(numbers, reverse=True)


def test_a_fit_makes_prefixes_of_the_width_compute_the_features(saved, tmp_path):
    """The distance of the half width falls; a finished fit is not done again; a picture is left."""
    words = (saved, "--tucker.ranks", 5, 6, 7, "--data.count=64", "--optim.batch=16", "--optim.base-lr=0.05")
    words += ("--scaling.coupled", "--scaling.heads", 2, 4, "--run.save-every=10")
    before = json.loads((run(tmp_path, *words, "--steps=1").parent / "summary.json").read_text())
    made = run(tmp_path, *words, "--steps=60")
    after = json.loads((made.parent / "summary.json").read_text())
    assert after["held_out_distance"]["2"] < 0.8 * before["held_out_distance"]["2"]
    assert after["flops"] > 0
    with Image.open(made.parent / "features.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20
    assert run(tmp_path, *words, "--steps=60") == made


def test_a_head_and_a_decoder_stay(tmp_path):
    """A classifier's bank classifies, an auto-encoder's reconstructs: what is around the backbone is not decomposed."""
    classifier = wt.Classifier(vit(ENHANCED), 3, key=jr.key(0))
    assert from_model.bank_of(classifier, wt.Tucker(), "components", {}).task == "classify"
    bank = from_model.bank_of(wt.MAE(vit(PLAIN), DECODER, key=jr.key(0)), wt.Tucker(), "unified", {})
    wt.save_bank(tmp_path / "bank.safetensors", bank)
    assert wt.load_bank(tmp_path / "bank.safetensors").task == "masked"


def test_a_bank_is_decomposed_again(saved, tmp_path):
    """Its weights are multiplied out first: the source of another family."""
    first = run(tmp_path, saved, "--discard=1e-9")
    second = wt.load_bank(run(tmp_path, first, "--constraint=linear", "--linear.rank=36"))
    assert second.family == "linear"
    source = wt.load_model(saved).model
    np.testing.assert_allclose(wt.initialize(second).blocks.mlp.enter, source.blocks.mlp.enter, atol=1e-4)


def test_mistakes(saved, tmp_path, capsys):
    other = tmp_path / "nan.safetensors"
    broken = eqx.tree_at(
        lambda v: v.blocks.attention.out, vit(ENHANCED), replace_fn=lambda x: x.at[0, 0, 0].set(jnp.nan)
    )
    convert.save_model(other, broken, {})
    for words, says in (
        ([], "no model was given"),
        ([tmp_path / "no.safetensors"], "no.safetensors"),
        ([saved, "--discard=1"], "--discard 1"),
        ([saved, "--discard=0.1", "--constraint=svd"], "--constraint tucker"),
        ([saved, "--discard=0.1", "--layout=components"], "--layout unified"),
        ([saved, "--tucker.ranks", 99, 1, 1], "99"),
        ([saved, "--steps=-1"], "--steps -1"),
        ([saved, "--data=synthetic", "--data.count=3"], "--steps 300"),
        ([other], "NaN"),
    ):
        assert says in refused(capsys, lambda w=words: run(tmp_path, *w))


@pytest.mark.large
def test_a_vit_b_with_planted_ranks(tmp_path):
    """ViT-B/16: 144 slices of 768 x 768 of rank 24, 384, 384 are found by energy, and come back."""
    big = wt.ViTConfig(image=224, patch=16, depth=12, heads=12, head_dim=64, dress="plain")
    source = planted(big, (24, 384, 384), jr.key(0))
    convert.save_model(tmp_path / "big.safetensors", source, {})
    made = run(tmp_path, tmp_path / "big.safetensors", "--discard=1e-9")
    bank = wt.load_bank(made)
    assert bank.model.backbone.constraint == wt.Tucker((24, 384, 384))
    assert bank.about["errors"]["all"] < 1e-5
    assert bank.sizes["template"] == 24 * 384 * 384
    assert dataclasses.asdict(bank.config) == dataclasses.asdict(big)
