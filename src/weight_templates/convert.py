"""Models as files: our own, those of timm, MAE and Hugging Face in both directions, and ONNX."""

import argparse
import dataclasses
import json
import logging
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Array, Float

from . import trees
from .config import from_header, to_header
from .data.augment import DEVIATION, MEAN
from .errors import UserError
from .files import expanded, header_of, read_safetensors, write_bytes, write_json, write_safetensors
from .models import MAE, AbstractBackbone, Classifier, ViT
from .naming import from_huggingface, from_mae, from_timm, library_of, parts, skeleton, to_huggingface, to_timm
from .nn.norm import EPSILON


FORMAT = "weight-templates model 1"
Format = Literal["safetensors", "timm", "huggingface", "onnx"]

LARGEST_ONNX = 2**31 - 2**24
"""Bytes of the weights in an ONNX file; Protocol Buffers allow 2 GiB for all of it."""

_PICKLES = (".pth", ".pt", ".bin")
_FOLDER = ("config.json", "model.safetensors", "preprocessor_config.json")


@dataclasses.dataclass(frozen=True)
class Model:
    """A plain model, and where it comes from."""

    model: AbstractBackbone | Classifier
    about: dict[str, Any]
    """For people to read."""


def save_model(path: str | os.PathLike[str], model: AbstractBackbone | Classifier, about: dict[str, Any]) -> None:
    """Writes a model of either dress as our own file, which appears whole or not at all."""
    vit, classes, pool = parts(model)
    header = {
        "format": FORMAT,
        "model": to_header(vit.config),
        "classes": classes,
        "pool": pool,
        "about": about,
    }
    write_safetensors(Path(path), {n: np.asarray(a) for n, a in trees.named_arrays(model).items()}, header)


def load_model(path: str | os.PathLike[str], *, heads: int | None = None, image: int | None = None) -> Model:
    """Reads a model, whoever wrote it.

    **Arguments:**

    - `path`: a file of `save_model`; a `.safetensors`, `.pth`, `.pt` or `.bin` in the names of timm, of MAE or of
      Hugging Face; or a folder of Hugging Face's, with `config.json` and `model.safetensors`.
    - `heads`: number of attention heads, where the file does not tell; by default channels / 64 there.
    - `image`: side of the input the model is to have, if it is another than the file's; see `at_resolution`.

    Raises UserError if there is no such file, it is damaged, or it does not hold, tensor for tensor, a network of ours.
    """
    path = expanded(Path(path))
    if not path.exists():
        raise UserError(f"there is no model at {path}; give the path of a file, or of a folder of Hugging Face's.")
    if path.is_dir():
        loaded = _imported(path, *_read_folder(path, heads))
    elif path.suffix in _PICKLES:
        loaded = _imported(path, _read_pickle(path), heads)
    elif header_of(path) is not None:
        loaded = _own(path, heads)
    else:
        loaded = _imported(path, _read_plain(path), heads)
    return loaded if image is None else dataclasses.replace(loaded, model=at_resolution(loaded.model, image))


def load_mae(path: str | os.PathLike[str], *, heads: int | None = None, norm_pix: bool = True) -> MAE:
    """Reads a masked auto-encoder that others saved whole; see `load_model` for the files, `naming.from_mae` for the rest.

    A folder of Hugging Face's tells of `heads` and `norm_pix` itself.
    """
    path, decoder_heads = expanded(Path(path)), None
    if path.is_dir():
        arrays, heads = _read_folder(path, heads)
        told = json.loads((path / "config.json").read_text())
        if told.get("norm_pix_loss") and not norm_pix:
            raise UserError(f"{path} says of itself that its pixels are normalised; leave out --no-norm-pix.")
        decoder_heads, norm_pix = told.get("decoder_num_attention_heads"), told.get("norm_pix_loss", norm_pix)
    else:
        arrays = _read_pickle(path) if path.suffix in _PICKLES else _read_plain(path)
    try:
        return from_mae(arrays, heads, decoder_heads, norm_pix)
    except UserError as error:
        raise type(error)(f"{path}: {error}") from None


def export_model(
    path: str | os.PathLike[str],
    model: AbstractBackbone | Classifier,
    format: Format,
    about: dict[str, Any],
    overwrite: bool = False,
) -> None:
    """Writes a model for others to read; what is written appears whole or not at all.

    - `safetensors`: our own file, `save_model`'s.
    - `timm`: a safetensors file with exactly the tensors of `timm.models.VisionTransformer`.
    - `huggingface`: a folder for `from_pretrained`, with `config.json`, `model.safetensors` and
      `preprocessor_config.json`; without a head it is for `ViTModel` with `add_pooling_layer=False`.
    - `onnx`: `pixels`, normalised by the mean and deviation of ImageNet, of shape (batch, image, image, 3) for any batch,
      to `logits` (batch, classes), or to `tokens` (batch, 1 + patches, channels) if there is no head.

    Raises UserError where the format has no such model, an extra is not installed, or `path` exists and `overwrite` is
    not given.
    """
    path = Path(path)
    if os.path.lexists(path) and not overwrite:
        raise UserError(f"{path} exists already; give another path, or --overwrite.")
    if path.is_dir() != (format == "huggingface") and path.exists():
        raise UserError(
            f"{path} is a {'folder' if path.is_dir() else 'file'}, not what {format} makes; give another path."
        )
    if format == "safetensors":
        save_model(path, model, about)
    elif format == "timm":
        write_bytes(path, safetensors.numpy.save(to_timm(model), {"format": "pt"}))
    elif format == "onnx":
        write_bytes(path, _onnx(model, about))
    else:
        _write_folder(path, model, about)


def at_resolution(model: AbstractBackbone | Classifier, image: int) -> AbstractBackbone | Classifier:
    """The model for square inputs of side `image`.

    A table of positions has its patches resampled as timm does it: bicubic (Keys, a = -1/2), antialiased; the class
    token's row stays. Rotary positions follow the grid, so that nothing but the configuration changes. Raises UserError
    if the model's patches do not tile the image.
    """
    if isinstance(model, Classifier):
        return eqx.tree_at(lambda m: m.backbone, model, at_resolution(model.backbone, image))
    config = dataclasses.replace(model.config, image=image)
    if image < 1 or image % config.patch:
        raise UserError(
            f"patches of {config.patch} px do not tile an image of {image} px; give --image as a multiple of "
            f"{config.patch}."
        )
    if config == model.config:
        return model
    arrays = trees.named_arrays(model)
    if isinstance(model, ViT) and model.positions.table is not None:
        arrays["positions.table"] = resampled(model.positions.table, config.grid)
    return trees.with_arrays(skeleton(config), arrays)


def resampled(table: Float[Array, "token width"], grid: int) -> Float[Array, "new width"]:
    """A table of positions, the class token's row first, on a square grid of another side."""
    side = math.isqrt(len(table) - 1)
    patches = jax.image.resize(table[1:].reshape(side, side, -1), (grid, grid, table.shape[1]), "cubic")
    return jnp.concatenate([table[:1], patches.reshape(grid**2, -1)])


def _own(path: Path, heads: int | None) -> Model:
    arrays, header = read_safetensors(path, remedy="copy it again, or make it anew")
    if header.get("format") != FORMAT:
        raise UserError(
            f"{path} is a {header.get('format')!r}, not a {FORMAT!r}; `initialize` makes a model of a bank, "
            "`save_model` a file of a model."
        )
    config = from_header(path, {"kind": "vit"} | header["model"])  # earlier versions knew one kind
    if heads not in (None, config.heads):
        raise UserError(f"{path} has {config.heads} heads, not {heads}; leave the number out.")
    shapes = skeleton(config, header["classes"], header["pool"])
    if difference := trees.mismatch(shapes, arrays):
        raise UserError(f"{path} does not hold the tensors that its header promises: {difference}.")
    model = trees.with_arrays(shapes, {name: jnp.asarray(array) for name, array in arrays.items()})
    return Model(model, header["about"])


def _imported(path: Path, arrays: Mapping[str, np.ndarray], heads: int | None) -> Model:
    library = library_of(arrays)
    if library is None:
        some = ", ".join(sorted(arrays)[:3]) or "none at all"
        raise UserError(f"{path} has tensors in no names we know ({some}); give a ViT of timm, MAE or Hugging Face.")
    try:
        model = (from_timm if library == "timm" else from_huggingface)(arrays, heads)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return Model(model, {"imported": library, "file": path.name})


def _read_plain(path: Path) -> dict[str, np.ndarray]:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises its own, Unicode and value errors
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is corrupt or no safetensors file ({reason}); copy it again.") from None


def _read_folder(path: Path, heads: int | None) -> tuple[dict[str, np.ndarray], int | None]:
    for name in _FOLDER[:2]:
        if not (path / name).is_file():
            raise UserError(
                f"{path} holds no {name}; give a file, or a folder that `save_pretrained` wrote in one piece."
            )
    try:
        config = json.loads((path / "config.json").read_text())
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise UserError(f"{path / 'config.json'} is not a JSON object; copy it again.")
    act, told = config.get("hidden_act", "gelu"), config.get("num_attention_heads")
    if act != "gelu":
        raise UserError(f"{path} has hidden_act {act!r}, ours is the exact 'gelu'; give another model.")
    if None not in (heads, told) and heads != told:
        raise UserError(f"{path} has {told} heads, not {heads}; leave the number out.")
    return _read_plain(path / "model.safetensors"), told or heads


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint of PyTorch, which may hold nothing but tensors, plain values and parsed arguments."""
    try:
        import torch  # pyright: ignore[reportMissingImports] - an extra
    except ImportError:
        raise UserError(
            f"{path.suffix} files are PyTorch's, which is not installed; pip install 'weight-templates[torch]'."
        ) from None
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # training scripts keep their arguments beside
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle's, zip's and torch's own
        reason = str(error).strip().split("\n")[0].split(". ")[0].rstrip(".")
        raise UserError(
            f"{path} is corrupt, or holds more than tensors and is not opened ({reason}); "
            "save the model's state_dict alone."
        ) from None
    for key in ("model", "state_dict", "model_state"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = content.items() if isinstance(content, Mapping) else ()
    return {
        str(name).removeprefix("module."): (t.float() if t.is_floating_point() else t).detach().numpy()
        for name, t in tensors
        if isinstance(t, torch.Tensor)
    }


def _write_folder(path: Path, model: AbstractBackbone | Classifier, about: dict[str, Any]) -> None:
    """Writes a folder of Hugging Face's beside its place and moves it there."""
    vit, classes, _ = parts(model)
    arrays, c = to_huggingface(model), vit.config
    labels = {str(i): f"LABEL_{i}" for i in range(classes)}
    config = {
        "architectures": ["ViTForImageClassification" if classes else "ViTModel"],
        "model_type": "vit",
        "hidden_size": c.channels,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.heads,
        "intermediate_size": 4 * c.channels,
        "image_size": c.image,
        "patch_size": c.patch,
        "num_channels": 3,
        "layer_norm_eps": EPSILON,
        "hidden_act": "gelu",
        "qkv_bias": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "weight_templates": about,
    } | (
        {"num_labels": classes, "id2label": labels, "label2id": {v: int(k) for k, v in labels.items()}}
        if classes
        else {}
    )
    preprocessor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": c.image, "width": c.image},
        "resample": 3,  # bicubic
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [round(float(x), 6) for x in MEAN],
        "image_std": [round(float(x), 6) for x in DEVIATION],
    }
    place = Path(os.path.abspath(path))
    if place.is_dir() and not set(os.listdir(place)) <= set(_FOLDER):
        raise UserError(f"{path} holds more than a model, and is not overwritten; give another path.")
    made, old = (place.with_name(f".{place.name}.{os.getpid()}.{kind}") for kind in ("tmp", "old"))
    try:
        write_json(made / "config.json", config)
        write_json(made / "preprocessor_config.json", preprocessor)
        write_bytes(made / "model.safetensors", safetensors.numpy.save(arrays, {"format": "pt"}))
        if place.is_dir():
            os.replace(place, old)
        os.replace(made, place)
    except BaseException:
        if old.is_dir():
            os.replace(old, place)
        shutil.rmtree(made, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _onnx(model: AbstractBackbone | Classifier, about: dict[str, Any]) -> bytes:
    try:
        from jax2onnx import to_onnx  # pyright: ignore[reportMissingImports] - an extra
    except ImportError:
        raise UserError(
            "ONNX is written by jax2onnx, which is not installed; pip install 'weight-templates[onnx]'."
        ) from None
    vit, classes, _ = parts(model)
    image = vit.config.image
    if 4 * trees.count(model) > LARGEST_ONNX:
        raise UserError("an ONNX file holds 2 GB at most, and this model has more; export it in another format.")
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # a warning for every shape in the graph, all harmless

    def batched(pixels: Float[Array, "batch h w 3"]) -> Float[Array, "batch *out"]:
        with (
            jax.disable_jit()
        ):  # the layers one after the other: the loop that a scan becomes is slow and ill supported
            return jax.vmap(lambda one: model(one))(pixels)

    made = to_onnx(
        batched,
        [("batch", image, image, 3)],
        model_name="weight_templates",
        input_names=["pixels"],
        output_names=["logits" if classes else "tokens"],
    )
    made.metadata_props.add(key="about", value=json.dumps(about, sort_keys=True))
    return made.SerializeToString()
