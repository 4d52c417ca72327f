"""The bank on disk: what it keeps, what it refuses, and the models that come out of it."""

import json
import os

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import safetensors.numpy

import weight_templates as wt
from weight_templates import trees
from weight_templates.files import read_safetensors, write_bytes, write_safetensors

from .helpers import ENHANCED, PLAIN, WIDE, mae


def bank_of(family="tucker", layout="unified", config=ENHANCED):
    return wt.Bank(mae(config, family, layout, key=jr.key(0)), family, {"data": "synthetic"})


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "bank.safetensors"
    wt.save_bank(path, bank_of())
    return path


@pytest.mark.parametrize("layout", ["unified", "components"])
@pytest.mark.parametrize("family", wt.FAMILIES)
def test_round_trip(tmp_path, family, layout):
    path = tmp_path / "bank.safetensors"
    bank = bank_of(family, layout, WIDE)
    wt.save_bank(path, bank)
    found = wt.load_bank(path, layout)
    assert (found.family, found.about, found.config) == (family, {"data": "synthetic"}, WIDE)
    assert found.model.backbone.constraint == bank.model.backbone.constraint
    assert trees.named_arrays(bank.model).keys() == trees.named_arrays(found.model).keys()
    assert eqx.tree_equal(bank.model, found.model)  # bits, types, and all that is not an array: what it computes, too


def test_tensors_have_names_that_tell_what_they_are(saved):
    names = safetensors.numpy.load_file(saved).keys()
    assert {
        "backbone.templates.all.core",
        "backbone.scalers.all.slice",
        "backbone.free.norm.gain",
        "decoder.predict.weight",
    } <= names
    assert not any("qkv" in name and "bias" not in name and name.startswith("backbone") for name in names)


def test_sizes_are_those_of_the_arrays():
    """ENHANCED: 36 slices of 16 x 16; core 6 x 8 x 8, X 36 x 6, U and V 16 x 8."""
    sizes = bank_of().sizes
    assert sizes["template"] == 6 * 8 * 8
    assert sizes["scalers"] == 36 * 6 + 2 * 16 * 8
    assert sum(sizes.values()) == trees.count(bank_of().model)


def test_any_flipped_bit_is_noticed(saved, rng):
    content = saved.read_bytes()
    header = int.from_bytes(content[:8], "little")
    places = [0, 3, 7, 8, 20, header + 7, header + 8, len(content) - 1, *rng.integers(len(content), size=30)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        saved.write_bytes(damaged)
        with pytest.raises(wt.UserError, match=str(saved)) as error:
            wt.load_bank(saved)
        assert "\n" not in str(error.value)
    for length in (0, 5, 100, header, len(content) - 1):
        saved.write_bytes(content[:length])
        with pytest.raises(wt.UserError, match="corrupt"):
            wt.load_bank(saved)


def test_banks_of_another_kind_are_refused(tmp_path, saved):
    with pytest.raises(wt.UserError, match="has layout unified, not components"):
        wt.load_bank(saved, "components")
    with pytest.raises(wt.UserError, match="there is no bank"):
        wt.load_bank(tmp_path / "nowhere.safetensors")
    arrays, header = read_safetensors(saved, "")
    other = tmp_path / "other.safetensors"
    write_safetensors(other, arrays, header | {"format": "weight-templates bank 99"})
    with pytest.raises(wt.UserError, match="is not a 'weight-templates bank 3'"):
        wt.load_bank(other)
    write_safetensors(other, arrays, header | {"family": "butterfly"})
    with pytest.raises(wt.UserError, match="butterfly"):
        wt.load_bank(other)
    for change in (
        {"decoder.mask_token": None},
        {"decoder.extra": np.zeros(2, np.float32)},
        {"decoder.mask_token": np.zeros(9, np.float32)},
    ):
        changed = {k: v for k, v in (arrays | change).items() if v is not None}
        write_safetensors(other, changed, header)
        with pytest.raises(wt.UserError, match=next(iter(change))):
            wt.load_bank(other)


@pytest.mark.parametrize(
    ("family", "config"),  # the dresses take turns: `test_inherit` has every size of both
    [pytest.param(family, (ENHANCED, PLAIN)[i % 2], id=family) for i, family in enumerate(wt.FAMILIES)],
)
def test_initialized_models_are_plain_prefixes(family, config):
    bank = bank_of(family, config=config)
    vit = wt.initialize(bank, depth=2, heads=3)
    assert type(vit) is wt.ViT
    assert (vit.config.depth, vit.config.heads, vit.config.channels) == (2, 3, 12)
    full, names = trees.named_arrays(wt.expand(bank.model.backbone)), trees.axes(vit)
    sizes = {"layer": 2, "inner": 12, "third": 4, "width": 12}
    for name, leaf in trees.named_arrays(vit).items():
        np.testing.assert_allclose(leaf, trees.resized(full[name], names[name], sizes), atol=1e-6, err_msg=name)
    assert vit(jnp.zeros((16, 16, 3))).shape == (17, 12)


def test_half_a_file_never_appears(tmp_path, monkeypatch):
    target = tmp_path / "deep" / "file"
    write_bytes(target, b"first")

    def killed(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(OSError, match="no space"):
        write_bytes(target, b"second, much longer")
    assert target.read_bytes() == b"first"


def test_public_names_exist():
    for name in wt.__all__:
        assert getattr(wt, name) is not None
    with pytest.raises(AttributeError):
        wt.nothing  # noqa: B018
    assert set(dir(wt)) == set(wt.__all__)


def test_metadata_is_json(saved):
    _, header = read_safetensors(saved, "")
    assert json.dumps(header)
    assert header["layout"] == "unified"
    assert header["backbone"]["heads"] == 4
    assert (header["task"], header["head"]["width"]) == ("masked", 16)
