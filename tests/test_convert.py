"""Models as files: against timm, transformers and Pillow; round trips; and everything that is refused."""

import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import weight_templates as wt
from weight_templates import naming, trees
from weight_templates.convert import at_resolution, export_model, load_mae, load_model, save_model
from weight_templates.files import read_safetensors, write_safetensors
from weight_templates.models import ViT
from weight_templates.models.mae import reconstruction_loss

from .helpers import BACKBONES, CONFIGS, ENHANCED, GOLDEN, PLAIN, WIDE, model_of, same


OUTPUTS = json.loads((GOLDEN / "outputs.json").read_text())
FILES = {
    "timm-token": "timm-token.safetensors",
    "timm-avg": "timm-avg.safetensors",
    "mae": "mae.safetensors",
    "huggingface": "huggingface",
}
HEADS = {"timm-token": 3, "timm-avg": 3, "mae": 3, "huggingface": None}  # the folder tells
WIDE_PLAIN = CONFIGS["wide-plain"]


def golden_images():
    """The formula of `golden/make.py`."""
    n, y, x, c = np.meshgrid(np.arange(2), np.arange(32), np.arange(32), np.arange(3), indexing="ij")
    pixels = 0.5 + 0.3 * np.sin(0.37 * x + 0.9 * c + n) + 0.2 * np.cos(0.23 * y * (1 + n) - 0.05 * x + 2.1 * c)
    return jnp.asarray(((pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).astype(np.float32))


def golden_arrays(name):
    path = GOLDEN / FILES[name]
    return safetensors.numpy.load_file(path / "model.safetensors" if path.is_dir() else path)


# What other libraries compute


@pytest.mark.parametrize("name", FILES)
def test_models_of_other_libraries_compute_what_they_did_there(name):
    found = load_model(GOLDEN / FILES[name], heads=HEADS[name])
    outputs = jax.vmap(lambda image: found.model(image))(golden_images())
    expected = np.array(OUTPUTS["outputs"][name]).reshape(OUTPUTS["shapes"][name])
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


@pytest.mark.parametrize("name", FILES)
def test_exports_have_exactly_the_tensors_of_other_libraries(name):
    arrays = {n: a for n, a in golden_arrays(name).items() if not n.startswith(("decoder_", "mask_token"))}
    model = load_model(GOLDEN / FILES[name], heads=HEADS[name]).model
    again = naming.to_huggingface(model) if name == "huggingface" else naming.to_timm(model)
    assert again.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(again[key], array, err_msg=key)
        assert again[key].dtype == np.float32


def test_what_is_told_by_the_tensors():
    model = load_model(GOLDEN / "timm-avg.safetensors", heads=3).model
    assert model.backbone.config == wt.ViTConfig(image=32, patch=8, depth=1, heads=3, head_dim=8, dress="plain")
    assert model.pool == "mean"
    assert load_model(GOLDEN / "timm-token.safetensors", heads=3).model.pool == "cls"
    found = load_model(GOLDEN / "mae.safetensors", heads=3)
    assert isinstance(found.model, ViT)
    assert found.about == {"imported": "timm", "file": "mae.safetensors"}
    for heads, head_dim in ((3, 64), (16, 80)):  # ViT-Ti and ViT-H, known by their channels
        vit = model_of(dataclasses.replace(PLAIN, depth=1, heads=heads, head_dim=head_dim))
        assert same(naming.from_timm(naming.to_timm(vit)), vit)
    vit = model_of(dataclasses.replace(PLAIN, depth=1, heads=2, head_dim=64))
    with pytest.raises(wt.UserError, match="number of heads of 128 channels"):
        naming.from_timm(naming.to_timm(vit))


# Round trips


@pytest.mark.parametrize("pool", [None, "mean", "cls"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_our_own_file_keeps_every_bit(tmp_path, config, pool):
    model = model_of(config, pool)
    save_model(tmp_path / "model.safetensors", model, {"data": "synthetic"})
    found = load_model(tmp_path / "model.safetensors")
    assert same(found.model, model)
    assert found.about == {"data": "synthetic"}


@pytest.mark.parametrize("name", ["convnext", "staged"])
@pytest.mark.parametrize("pool", [None, "mean"])
def test_our_own_file_keeps_other_backbones(tmp_path, name, pool):
    """And tells their kind; no other library's names are known for them."""
    model = model_of(BACKBONES[name], pool)
    save_model(tmp_path / "model.safetensors", model, {})
    assert read_safetensors(tmp_path / "model.safetensors", "")[1]["model"]["kind"] == name
    assert same(load_model(tmp_path / "model.safetensors").model, model)
    for format in ("timm", "huggingface"):
        with pytest.raises(wt.UserError, match=r"vision transformers only; export it with --format safetensors"):
            export_model(tmp_path / "other", model, format, {})
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("pool", [None, "mean", "cls"])
def test_names_round_trip(pool):
    model = model_of(PLAIN, pool)
    assert same(naming.from_timm(naming.to_timm(model), 4), model)
    if pool != "mean":
        assert same(naming.from_huggingface(naming.to_huggingface(model), 4), model)


@pytest.mark.parametrize(
    ("format", "pool"),
    [
        (f, p)
        for f in ("safetensors", "timm", "huggingface")
        for p in (None, "mean", "cls")
        if (f, p) != ("huggingface", "mean")
    ],
)
def test_exports_are_read_again(tmp_path, format, pool):
    model = model_of(PLAIN, pool)
    path = tmp_path / "deep" / ("folder" if format == "huggingface" else "file.safetensors")
    export_model(path, model, format, {"data": "synthetic"})
    assert same(load_model(path, heads=4).model, model)
    assert {p.name for p in path.parent.iterdir()} == {path.name}


def test_a_head_of_one_class_is_a_head(tmp_path):
    model = model_of(PLAIN, "cls", classes=1)
    export_model(tmp_path / "hf", model, "huggingface", {})
    assert same(load_model(tmp_path / "hf").model, model)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_precisions_become_single(tmp_path, dtype):
    model = model_of(PLAIN, "cls")
    arrays = {name: array.astype(dtype) for name, array in naming.to_timm(model).items()}
    (tmp_path / "half.safetensors").write_bytes(safetensors.numpy.save(arrays))
    found = load_model(tmp_path / "half.safetensors", heads=4).model
    for name, array in naming.to_timm(found).items():
        np.testing.assert_array_equal(array, arrays[name].astype(np.float32))


def test_what_belongs_to_a_pooler_is_left_out():
    model = model_of(PLAIN)
    pooler = {"pooler.dense.weight": np.zeros((16, 16), np.float32), "pooler.dense.bias": np.zeros(16, np.float32)}
    assert same(naming.from_huggingface(naming.to_huggingface(model) | pooler, 4), model)
    bare = naming.to_huggingface(model)
    assert same(naming.from_huggingface({f"vit.{name}": array for name, array in bare.items()}, 4), model)


def as_published(arrays):
    """Tensors of Hugging Face's under the names of models_mae.py of facebookresearch/mae, whose q, k, v are one."""
    found = {}
    for name, array in arrays.items():
        for theirs, official in (
            ("vit.embeddings.patch_embeddings.projection", "patch_embed.proj"), ("vit.embeddings.cls_token", "cls_token"),
            ("vit.embeddings.position_embeddings", "pos_embed"), ("vit.encoder.layer.", "blocks."),
            ("vit.layernorm.", "norm."), ("decoder.decoder_encoder.layer.", "decoder_blocks."), ("decoder.", ""),
            ("attention.output.dense", "attn.proj"), ("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"),
            ("layernorm_before", "norm1"), ("layernorm_after", "norm2"),
        ):  # fmt: skip
            name = name.replace(theirs, official)
        part, _, rest = name.partition("attention.attention.")
        if rest:
            kind, leaf = rest.split(".")
            found.setdefault(f"{part}attn.qkv.{leaf}", {})[kind] = array
        else:
            found[name] = array
    return {
        name: np.concatenate([a["query"], a["key"], a["value"]]) if isinstance(a, dict) else a
        for name, a in found.items()
    }


def check_mae(mae):
    """It predicts what transformers' does, for the noise of `golden/make.py`, and its loss is theirs."""
    losses, predicted = [], np.reshape(OUTPUTS["outputs"]["huggingface-mae"], OUTPUTS["shapes"]["huggingface-mae"])
    for image, expected, (times, plus) in zip(golden_images(), predicted, ((7, 3), (5, 1)), strict=True):
        order = np.argsort([(times * i + plus) % 16 for i in range(16)])
        visible, hidden = jnp.asarray(order[:4]), jnp.ones(16, bool).at[order[:4]].set(False)
        made = mae.decoded(image, mae.backbone(image, visible), visible, hidden)
        np.testing.assert_allclose(made.predicted, expected, atol=2e-5)
        losses.append(reconstruction_loss(made))
    assert float(np.mean(losses)) == pytest.approx(OUTPUTS["outputs"]["huggingface-mae-loss"][0], rel=1e-5)


def test_auto_encoders_of_others_reconstruct_as_there(tmp_path):
    mae = load_mae(GOLDEN / "huggingface-mae")
    whole = safetensors.numpy.load_file(GOLDEN / "huggingface-mae" / "model.safetensors")
    assert (mae.config.depth, mae.config.width, mae.config.heads, mae.config.norm_pix) == (2, 32, 1, True)
    check_mae(mae)
    older = {n.replace("decoder_encoder.layer", "decoder_layers"): a for n, a in whole.items()}
    check_mae(naming.from_mae(older, heads=3, decoder_heads=1))
    path = tmp_path / "mae_full.safetensors"
    safetensors.numpy.save_file(as_published(whole), path)
    check_mae(load_mae(path, heads=3))
    assert not load_mae(path, heads=3, norm_pix=False).config.norm_pix


def test_auto_encoders_that_are_none_are_refused(tmp_path):
    whole = as_published(safetensors.numpy.load_file(GOLDEN / "huggingface-mae" / "model.safetensors"))
    path = tmp_path / "mae.safetensors"
    for change, says in (
        (lambda a: {n: x for n, x in a.items() if not n.startswith(("decoder", "mask_token"))}, "no decoder"),
        (lambda a: {n: x for n, x in a.items() if n != "decoder_pred.bias"}, r"decoder_pred\.bias is missing"),
        (lambda a: {n: x for n, x in a.items() if not n.startswith("decoder_blocks")}, "0"),
        (lambda a: a | {"decoder_more": np.zeros(2, np.float32)}, "decoder_more is not expected"),
        (lambda a: {n: x for n, x in a.items() if n != "norm.bias"}, r"norm\.bias is missing"),
    ):
        safetensors.numpy.save_file(change(whole), path)
        with pytest.raises(wt.UserError, match=says):
            load_mae(path, heads=3)


def test_huggingface_folder_tells_what_transformers_needs(tmp_path):
    export_model(tmp_path / "hf", model_of(PLAIN, "cls"), "huggingface", {"data": "synthetic"})
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    theirs = json.loads((GOLDEN / "huggingface" / "config.json").read_text())
    assert config["architectures"] == theirs["architectures"]
    for key in ("model_type", "hidden_act", "layer_norm_eps", "num_channels", "qkv_bias"):
        assert config[key] == theirs[key], key
    assert (config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]) == (16, 3, 4)
    assert (config["intermediate_size"], config["image_size"], config["patch_size"]) == (64, 16, 4)
    assert (config["num_labels"], len(config["id2label"]), len(config["label2id"])) == (5, 5, 5)
    assert config["weight_templates"] == {"data": "synthetic"}
    processor = json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())
    assert processor["image_mean"] == [0.485, 0.456, 0.406]
    assert processor["image_std"] == [0.229, 0.224, 0.225]
    export_model(tmp_path / "bare", model_of(PLAIN), "huggingface", {})
    bare = json.loads((tmp_path / "bare" / "config.json").read_text())
    assert bare["architectures"] == ["ViTModel"]
    assert "num_labels" not in bare


# Other resolutions


@pytest.mark.parametrize("image", [8, 12, 20, 32, 64])
def test_positions_are_resampled_as_pillow_does(image):
    """Pillow's bicubic filter is also Keys's with a = -1/2, widened where it shrinks."""
    model = model_of(PLAIN, "mean")
    found = at_resolution(model, image)
    assert found.backbone.config == dataclasses.replace(PLAIN, image=image)
    assert found.backbone.positions.grid == image // 4
    table, new = np.asarray(model.backbone.positions.table), np.asarray(found.backbone.positions.table)
    np.testing.assert_array_equal(new[0], table[0])
    for channel in range(16):
        plane = Image.fromarray(table[1:, channel].reshape(4, 4))
        expected = np.asarray(plane.resize((image // 4, image // 4), Image.Resampling.BICUBIC))
        np.testing.assert_allclose(new[1:, channel].reshape(expected.shape), expected, atol=1e-6)
    assert found(jnp.zeros((image, image, 3))).shape == (5,)
    one, two = trees.named_arrays(model), trees.named_arrays(found)
    assert [name for name in one if not np.array_equal(one[name], two[name])] == ["backbone.positions.table"]


def test_rotary_positions_follow_the_grid():
    model = model_of(ENHANCED)
    found = at_resolution(model, 24)
    assert found.config.image == 24
    assert found.positions.angles.shape == (37, 2)
    assert found(jnp.zeros((24, 24, 3))).shape == (37, 16)
    assert all(map(np.array_equal, jax.tree.leaves(found), jax.tree.leaves(model)))  # nothing but the configuration


@pytest.mark.parametrize("config", [ENHANCED, PLAIN], ids=["enhanced", "plain"])
def test_the_same_resolution_is_the_same_model(tmp_path, config):
    model = model_of(config, "mean")
    assert same(at_resolution(model, 16), model)
    save_model(tmp_path / "model.safetensors", model, {})
    assert same(load_model(tmp_path / "model.safetensors", image=32).model, at_resolution(model, 32))


@pytest.mark.parametrize("image", [0, -4, 18])
def test_images_that_patches_do_not_tile_are_refused(image):
    with pytest.raises(wt.UserError, match="patches of 4 px do not tile"):
        at_resolution(model_of(PLAIN), image)


# What is refused


def spoilt(change, name="timm-token"):
    arrays = golden_arrays(name) | change
    return {key: array for key, array in arrays.items() if array is not None}


BAD = {
    "missing": ({"blocks.1.norm1.weight": None}, "blocks.1.norm1.weight is missing"),
    "missing kernel": ({"patch_embed.proj.weight": None}, "patch_embed.proj.weight is missing"),
    "missing table": ({"pos_embed": None}, "pos_embed is missing"),
    "missing norm": ({"norm.weight": None, "norm.bias": None}, "norm.bias is missing"),
    "missing head bias": ({"head.bias": None}, "head.bias is missing"),
    "no blocks": ({f"blocks.{i}.mlp.fc1.weight": None for i in (0, 1)}, "blocks.0.mlp.fc1.weight is missing"),
    "layer scale": ({"blocks.0.ls1.gamma": np.ones(24, np.float32)}, "blocks.0.ls1.gamma is not expected"),
    "registers": ({"reg_token": np.ones((1, 4, 24), np.float32)}, "reg_token is not expected"),
    "distilled": ({"dist_token": np.ones((1, 1, 24), np.float32)}, "dist_token is not expected"),
    "pre_logits": ({"pre_logits.fc.weight": np.ones((24, 24), np.float32)}, "pre_logits.fc.weight is not expected"),
    "two norms": ({f"fc_norm.{x}": np.ones(24, np.float32) for x in ("weight", "bias")}, "norm.bias is not expected"),
    "layer 7": ({"blocks.7.norm1.weight": np.ones(24, np.float32)}, r"blocks.2\S+ is missing"),
    "shape": (
        {"blocks.1.attn.qkv.weight": np.ones((71, 24), np.float32)},
        r"blocks.1.attn.qkv.weight has shape \(71, 24\) instead of \(72, 24\)",
    ),
    "axes": ({"patch_embed.proj.weight": np.ones((24, 192), np.float32)}, r"\(24, 192\)"),
    "grey": ({"patch_embed.proj.weight": np.ones((24, 1, 8, 8), np.float32)}, "1 colours"),
    "oblong": ({"patch_embed.proj.weight": np.ones((24, 3, 8, 4), np.float32)}, "8 x 4"),
    "no class token": ({"pos_embed": np.ones((1, 16, 24), np.float32)}, "16 rows"),
    "hidden": ({"blocks.0.mlp.fc1.weight": np.ones((48, 24), np.float32)}, "48 hidden units, not 4 x 24"),
    "quantised": ({"head.weight": np.ones((10, 24), np.int8)}, "head.weight holds int8"),
}


@pytest.mark.parametrize(("change", "says"), BAD.values(), ids=BAD)
def test_tensors_that_are_no_network_of_ours_are_named(tmp_path, change, says):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.numpy.save(spoilt(change)))
    with pytest.raises(wt.UserError, match=says) as error:
        load_model(path, heads=3)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_tensors_of_huggingface_that_are_no_network_of_ours_are_named():
    for change, says in (
        (
            {"vit.encoder.layer.1.attention.attention.key.bias": None},
            r"layer.1.attention.attention.key.bias is missing",
        ),
        ({"vit.layernorm.bias": np.ones(9, np.float32)}, r"vit.layernorm.bias has shape \(9,\) instead of \(24,\)"),
        ({"vit.extra": np.ones(9, np.float32)}, r"vit.extra is not expected"),
    ):
        with pytest.raises(wt.UserError, match=says):
            naming.from_huggingface(spoilt(change, "huggingface"), 3)


@pytest.mark.parametrize(
    ("heads", "says"), [(None, "give it with --heads"), (5, "5 heads"), (0, "0 heads"), (12, "12 heads")]
)
def test_heads_that_do_not_fit_are_refused(heads, says):
    with pytest.raises(wt.UserError, match=says):
        load_model(GOLDEN / "timm-token.safetensors", heads=heads)


def test_heads_against_what_the_file_tells_are_refused(tmp_path):
    with pytest.raises(wt.UserError, match="has 3 heads, not 6"):
        load_model(GOLDEN / "huggingface", heads=6)
    save_model(tmp_path / "ours.safetensors", model_of(), {})
    with pytest.raises(wt.UserError, match="has 4 heads, not 2"):
        load_model(tmp_path / "ours.safetensors", heads=2)


def test_files_that_are_no_models_are_refused(tmp_path):
    with pytest.raises(wt.UserError, match="there is no model at"):
        load_model(tmp_path / "nowhere.safetensors")
    (tmp_path / "noise.safetensors").write_bytes(b"not a model")
    with pytest.raises(wt.UserError, match="corrupt or no safetensors"):
        load_model(tmp_path / "noise.safetensors")
    (tmp_path / "other.safetensors").write_bytes(safetensors.numpy.save({"conv1.weight": np.zeros(3)}))
    with pytest.raises(wt.UserError, match=r"no names we know \(conv1.weight\)"):
        load_model(tmp_path / "other.safetensors")
    write_safetensors(tmp_path / "bank.safetensors", {}, {"format": "weight-templates bank 3"})
    with pytest.raises(wt.UserError, match="is a 'weight-templates bank 3'"):
        load_model(tmp_path / "bank.safetensors")


def test_our_own_file_is_checked(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, model_of(PLAIN, "cls"), {})
    content = bytearray(path.read_bytes())
    arrays, header = read_safetensors(path, "")
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(wt.UserError, match="digest"):
        load_model(path)
    for change in ({"backbone.cls": None}, {"extra": np.zeros(2, np.float32)}, {"head.bias": np.zeros(9, np.float32)}):
        write_safetensors(path, {n: a for n, a in (arrays | change).items() if a is not None}, header)
        with pytest.raises(wt.UserError, match=next(iter(change))):
            load_model(path)


def test_folders_that_are_no_models_are_refused(tmp_path):
    with pytest.raises(wt.UserError, match=r"holds no config\.json"):
        load_model(tmp_path)
    export_model(tmp_path / "hf", model_of(PLAIN, "cls"), "huggingface", {})
    config = tmp_path / "hf" / "config.json"
    told = json.loads(config.read_text())
    config.write_text(json.dumps(told | {"hidden_act": "relu"}))
    with pytest.raises(wt.UserError, match="hidden_act 'relu'"):
        load_model(tmp_path / "hf")
    for text in ("{", "[1]", "3"):
        config.write_text(text)
        with pytest.raises(wt.UserError, match="is not a JSON object"):
            load_model(tmp_path / "hf")
    (tmp_path / "hf" / "model.safetensors").unlink()
    with pytest.raises(wt.UserError, match=r"holds no model\.safetensors"):
        load_model(tmp_path / "hf")


@pytest.mark.parametrize("format", ["timm", "huggingface"])
@pytest.mark.parametrize(
    ("config", "says"), [(ENHANCED, "enhanced_vit.py"), (WIDE, "enhanced_vit.py"), (WIDE_PLAIN, "24 residual channels")]
)
def test_what_other_libraries_do_not_have_is_not_exported(tmp_path, format, config, says):
    with pytest.raises(wt.UserError, match=says) as error:
        export_model(tmp_path / "model", model_of(config), format, {})
    assert "--format safetensors" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_huggingface_has_no_head_on_the_mean(tmp_path):
    with pytest.raises(wt.UserError, match="--format timm"):
        export_model(tmp_path / "model", model_of(PLAIN, "mean"), "huggingface", {})


@pytest.mark.parametrize("format", ["safetensors", "timm", "huggingface"])
def test_nothing_is_overwritten_unasked(tmp_path, format):
    path = tmp_path / "model"
    export_model(path, model_of(seed=1), format, {})
    with pytest.raises(wt.UserError, match=f"{path} exists already.*--overwrite"):
        export_model(path, model_of(seed=2), format, {})
    assert same(load_model(path, heads=4).model, model_of(seed=1))
    export_model(path, model_of(seed=2), format, {}, overwrite=True)
    assert same(load_model(path, heads=4).model, model_of(seed=2))
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_what_is_no_model_is_never_overwritten(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("years of work")
    with pytest.raises(wt.UserError, match="holds more than a model"):
        export_model(tmp_path / "folder", model_of(), "huggingface", {}, overwrite=True)
    with pytest.raises(wt.UserError, match="is a folder, not what timm makes"):
        export_model(tmp_path / "folder", model_of(), "timm", {}, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(wt.UserError, match="is a file, not what huggingface makes"):
        export_model(tmp_path / "file", model_of(), "huggingface", {}, overwrite=True)


@pytest.mark.parametrize("fails_at", [1, 2])
def test_half_a_folder_never_appears(tmp_path, monkeypatch, fails_at):
    """Whatever fails, the folder is what it was: here the move of the old one away, then that of the new one in."""
    path = tmp_path / "hf"
    export_model(path, model_of(seed=1), "huggingface", {})
    replace, calls = os.replace, []

    def broken(source, target):
        if not str(target).endswith((".json", ".safetensors")):
            calls.append(target)
            if len(calls) == fails_at:
                raise OSError("no space left")
        replace(source, target)

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="no space"):
        export_model(path, model_of(seed=2), "huggingface", {}, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]
    assert same(load_model(path).model, model_of(seed=1))


def test_every_leaf_is_in_the_table():
    """A new leaf of the plain dress must be given a name over there."""
    shapes = naming.skeleton(PLAIN, 5, "cls")
    table = naming._leaves("timm", PLAIN.depth, 5, "cls", "")
    assert {leaf.ours for leaf in table} == set(trees.named_arrays(shapes))
