"""Models for ONNX and of PyTorch: what they compute there, and checkpoints that are read or refused."""

import dataclasses
import importlib.util
import json
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import weight_templates as wt
from weight_templates import convert, naming
from weight_templates.convert import export_model, load_model, save_model

from .helpers import BACKBONES, ENHANCED, PLAIN, WIDE, model_of, same


def test_missing_extras_are_named(tmp_path, monkeypatch):
    for module in ("torch", "jax2onnx"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "model.pth").write_bytes(b"")
    with pytest.raises(wt.UserError, match=r"pip install 'weight-templates\[torch\]'"):
        load_model(tmp_path / "model.pth")
    with pytest.raises(wt.UserError, match=r"pip install 'weight-templates\[onnx\]'"):
        export_model(tmp_path / "model.onnx", model_of(), "onnx", {})


# ONNX


@pytest.mark.parametrize("pool", [None, "mean"])
@pytest.mark.parametrize("config", [ENHANCED, PLAIN], ids=["enhanced", "plain"])
@pytest.mark.filterwarnings("default")  # they are other people's
def test_onnx_computes_the_same(tmp_path, config, pool):
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    model = model_of(config, pool)
    export_model(tmp_path / "model.onnx", model, "onnx", {"data": "synthetic"})
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    for batch in (1, 3):
        images = jr.normal(jr.key(batch), (batch, 16, 16, 3))
        (found,) = session.run(["tokens" if pool is None else "logits"], {"pixels": np.asarray(images)})
        np.testing.assert_allclose(found, jax.vmap(lambda image: model(image))(images), atol=1e-5)


def test_onnx_is_asked_for_any_batch_and_named_ends(tmp_path, monkeypatch):
    """What is handed to jax2onnx, where it is not installed."""
    asked = {}

    class Made:
        metadata_props = types.SimpleNamespace(add=lambda **entry: asked.update(entry))

        def SerializeToString(self):
            return b"onnx"

    def to_onnx(function, inputs, **rest):
        shape = jax.ShapeDtypeStruct((2, *inputs[0][1:]), jnp.float32)
        asked.update(rest, inputs=inputs, out=jax.eval_shape(function, shape).shape)
        assert "scan" not in str(jax.make_jaxpr(function)(jnp.zeros(shape.shape)))
        return Made()

    monkeypatch.setitem(sys.modules, "jax2onnx", types.SimpleNamespace(to_onnx=to_onnx))
    export_model(tmp_path / "model.onnx", model_of(PLAIN, "mean"), "onnx", {"data": "synthetic"})
    assert (tmp_path / "model.onnx").read_bytes() == b"onnx"
    assert (asked["inputs"], asked["out"]) == ([("batch", 16, 16, 3)], (2, 5))
    assert (asked["input_names"], asked["output_names"]) == (["pixels"], ["logits"])
    assert (asked["key"], json.loads(asked["value"])) == ("about", {"data": "synthetic"})


def test_models_too_large_for_onnx_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", types.SimpleNamespace(to_onnx=None))
    monkeypatch.setattr(convert, "LARGEST_ONNX", 1000)
    with pytest.raises(wt.UserError, match="holds 2 GB at most"):
        export_model(tmp_path / "model.onnx", model_of(), "onnx", {})


# PyTorch


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("config", "pool"),
    [(ENHANCED, None), (WIDE, "mean"), (dataclasses.replace(ENHANCED, heads=2, head_dim=12, width=20), "cls")],
    ids=["tokens", "mean", "cls"],
)
def test_the_pytorch_module_of_the_documents_computes_the_same(tmp_path, torch, config, pool):
    spec = importlib.util.spec_from_file_location(
        "enhanced_vit", Path(__file__).parents[1] / "docs" / "enhanced_vit.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = model_of(config, pool)
    save_model(tmp_path / "model.safetensors", model, {})
    images = jr.normal(jr.key(1), (2, 16, 16, 3))
    with torch.no_grad():
        found = module.EnhancedViT.load(tmp_path / "model.safetensors")(
            torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
        )
    np.testing.assert_allclose(found.numpy(), jax.vmap(lambda image: model(image))(images), atol=1e-5)
    save_model(tmp_path / "plain.safetensors", model_of(PLAIN), {})
    with pytest.raises(ValueError, match="--format timm"):
        module.EnhancedViT.load(tmp_path / "plain.safetensors")
    save_model(tmp_path / "other.safetensors", model_of(BACKBONES["convnext"]), {})
    with pytest.raises(ValueError, match="a convnext, not a vision transformer"):
        module.EnhancedViT.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize("under", ["model", "state_dict", "model_state", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_checkpoints_of_pytorch_are_read(tmp_path, torch, under, prefix):
    import argparse

    model = model_of(PLAIN, "mean")
    tensors = {prefix + name: torch.from_numpy(np.array(array)) for name, array in naming.to_timm(model).items()}
    content = tensors if under is None else {under: tensors, "epoch": 3, "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "model.pth")
    assert same(load_model(tmp_path / "model.pth", heads=4).model, model)


def test_half_precision_checkpoints_are_read(tmp_path, torch):
    model = model_of(PLAIN, "cls")
    tensors = {
        n: torch.nn.Parameter(torch.from_numpy(np.array(a)).bfloat16()) for n, a in naming.to_timm(model).items()
    }
    torch.save(tensors, tmp_path / "model.pt")
    for name, array in naming.to_timm(load_model(tmp_path / "model.pt", heads=4).model).items():
        np.testing.assert_array_equal(array, tensors[name].float().detach().numpy())


class Malicious:
    """Touches a file when it is unpickled by anything that runs what a pickle says."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_checkpoints_that_run_code_are_refused(tmp_path, torch):
    torch.save({"model": {}, "optimizer": Malicious(tmp_path / "touched")}, tmp_path / "evil.pth")
    with pytest.raises(wt.UserError, match="holds more than tensors and is not opened") as error:
        load_model(tmp_path / "evil.pth")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    assert not (tmp_path / "touched").exists()


def test_checkpoints_without_a_model_are_refused(tmp_path, torch):
    (tmp_path / "noise.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(wt.UserError, match="is corrupt, or holds more than tensors"):
        load_model(tmp_path / "noise.pth")
    for content in ({"epoch": 3}, [1, 2], torch.zeros(2)):
        torch.save(content, tmp_path / "empty.pth")
        with pytest.raises(wt.UserError, match="none at all"):
            load_model(tmp_path / "empty.pth")
