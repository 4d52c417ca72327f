"""A plain vision transformer under other libraries' names: timm's, which MAE's checkpoints share, and Hugging Face's.

One table says which tensor of theirs is which leaf of ours, and how its axes lie. It is read in both directions, so that
`to_*` and `from_*` are each other's converse; and what `from_*` demands is what `to_*` would make of such a model.

Our LayerNorm's epsilon, 1e-6, is timm's and MAE's. Hugging Face's configurations say 1e-12, also for weights that were
trained with 1e-6; it is not read.
"""

import functools
import math
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Float, PRNGKeyArray, Shaped

from . import trees
from .config import BackboneConfig, DecoderConfig, ViTConfig
from .errors import NoDecoderError, UserError
from .models import MAE, AbstractBackbone, Classifier, Pool, ViT


Library = Literal["timm", "huggingface"]
Kind = Literal["vector", "token", "rows", "columns", "pixels"]

TITLES: dict[Library, str] = {"timm": "timm", "huggingface": "Hugging Face"}

# Our leaf, how its axes lie over there (`_turned`), timm's name, Hugging Face's. `#` is the number of a block; `*` is
# query, key and value, a third of the first axis each.
_TABLE: tuple[tuple[str, Kind, str, str], ...] = (
    ("embed.weight", "pixels", "patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight"),
    ("embed.bias", "vector", "patch_embed.proj.bias", "embeddings.patch_embeddings.projection.bias"),
    ("cls", "token", "cls_token", "embeddings.cls_token"),
    ("positions.table", "token", "pos_embed", "embeddings.position_embeddings"),
    ("blocks.norm1.gain", "vector", "blocks.#.norm1.weight", "encoder.layer.#.layernorm_before.weight"),
    ("blocks.norm1.bias", "vector", "blocks.#.norm1.bias", "encoder.layer.#.layernorm_before.bias"),
    ("blocks.attention.qkv", "rows", "blocks.#.attn.qkv.weight", "encoder.layer.#.attention.attention.*.weight"),
    ("blocks.attention.qkv_bias", "vector", "blocks.#.attn.qkv.bias", "encoder.layer.#.attention.attention.*.bias"),
    ("blocks.attention.out", "columns", "blocks.#.attn.proj.weight", "encoder.layer.#.attention.output.dense.weight"),
    ("blocks.attention.out_bias", "vector", "blocks.#.attn.proj.bias", "encoder.layer.#.attention.output.dense.bias"),
    ("blocks.norm2.gain", "vector", "blocks.#.norm2.weight", "encoder.layer.#.layernorm_after.weight"),
    ("blocks.norm2.bias", "vector", "blocks.#.norm2.bias", "encoder.layer.#.layernorm_after.bias"),
    ("blocks.mlp.enter", "rows", "blocks.#.mlp.fc1.weight", "encoder.layer.#.intermediate.dense.weight"),
    ("blocks.mlp.enter_bias", "vector", "blocks.#.mlp.fc1.bias", "encoder.layer.#.intermediate.dense.bias"),
    ("blocks.mlp.leave", "columns", "blocks.#.mlp.fc2.weight", "encoder.layer.#.output.dense.weight"),
    ("blocks.mlp.leave_bias", "vector", "blocks.#.mlp.fc2.bias", "encoder.layer.#.output.dense.bias"),
    ("norm.gain", "vector", "norm.weight", "layernorm.weight"),
    ("norm.bias", "vector", "norm.bias", "layernorm.bias"),
    ("head.weight", "rows", "head.weight", "classifier.weight"),
    ("head.bias", "vector", "head.bias", "classifier.bias"),
)

# Likewise of MAE's decoder; its blocks are those of the encoder by other names.
_DECODER: tuple[tuple[str, Kind, str, str], ...] = (
    ("decoder.embed.weight", "rows", "decoder_embed.weight", "decoder.decoder_embed.weight"),
    ("decoder.embed.bias", "vector", "decoder_embed.bias", "decoder.decoder_embed.bias"),
    ("decoder.mask_token", "token", "mask_token", "decoder.mask_token"),
    ("decoder.positions.table", "token", "decoder_pos_embed", "decoder.decoder_pos_embed"),
    *(
        (f"decoder.{ours}", kind, f"decoder_{timm}", huggingface.replace("encoder.layer", "decoder.decoder_layers"))
        for ours, kind, timm, huggingface in _TABLE
        if ours.startswith("blocks.")
    ),
    ("decoder.norm.gain", "vector", "decoder_norm.weight", "decoder.decoder_norm.weight"),
    ("decoder.norm.bias", "vector", "decoder_norm.bias", "decoder.decoder_norm.bias"),
    ("decoder.predict.weight", "rows", "decoder_pred.weight", "decoder.decoder_pred.weight"),
    ("decoder.predict.bias", "vector", "decoder_pred.bias", "decoder.decoder_pred.bias"),
)

# How the names begin of what is known and no part of the encoder: the other half of MAE, the pooler of `ViTModel`.
_LEFT_OUT: dict[Library, tuple[str, ...]] = {
    "timm": ("decoder_", "mask_token"),
    "huggingface": ("decoder.", "pooler.", "vit.pooler.", "embeddings.mask_token", "vit.embeddings.mask_token"),
}


class _Leaf(NamedTuple):
    """A leaf of a model, or one layer of a stacked leaf, and what it is over there."""

    ours: str
    layer: int | None
    kind: Kind
    theirs: tuple[str, ...]


def to_timm(model: AbstractBackbone | Classifier) -> dict[str, Float[np.ndarray, "..."]]:
    """**Returns:** the tensors of a model of the plain dress as `timm.models.VisionTransformer` names them.

    In front of a head on the mean over patches is `fc_norm`; in front of one on the class token, and in a model without
    a head, `norm`. Raises UserError where timm has no such model.
    """
    return _to("timm", model)


def to_huggingface(model: AbstractBackbone | Classifier) -> dict[str, Float[np.ndarray, "..."]]:
    """**Returns:** the tensors of a model of the plain dress as the files of Hugging Face's models name them.

    They are a `ViTForImageClassification` if there is a head, which must see the class token; else a `ViTModel` without
    its pooler. Raises UserError where there is no such model.
    """
    return _to("huggingface", model)


def from_timm(arrays: Mapping[str, Shaped[np.ndarray, "..."]], heads: int | None = None) -> ViT | Classifier:
    """The converse of `to_timm`. The decoder of an MAE checkpoint is left out.

    **Arguments:**

    - `arrays`: tensors of any floating-point precision, by name.
    - `heads`: number of attention heads, which no tensor tells; channels / 64 if None.

    **Returns:** a model in single precision: depth, width, patch, image and classes are the tensors'. Raises UserError
    where one is missing, does not fit the others, or is not part of our network.
    """
    return _from("timm", arrays, heads)


def from_huggingface(arrays: Mapping[str, Shaped[np.ndarray, "..."]], heads: int | None = None) -> ViT | Classifier:
    """The converse of `to_huggingface`; see `from_timm`. A pooler, and the decoder of a `ViTMAE`, are left out."""
    return _from("huggingface", arrays, heads)


def from_mae(
    arrays: Mapping[str, Shaped[np.ndarray, "..."]],
    heads: int | None = None,
    decoder_heads: int | None = None,
    norm_pix: bool = True,
) -> MAE:
    """A masked auto-encoder whose decoder was kept: MAE's `*_full` checkpoints, Hugging Face's `ViTMAEForPreTraining`.

    **Arguments:**

    - `arrays`, `heads`: see `from_timm`.
    - `decoder_heads`: number of the decoder's heads; its width / 32 if None, as published.
    - `norm_pix`: whether it predicts normalised pixels, which no tensor tells.

    **Returns:** it, around a plain `ViT`; hides three quarters. Raises UserError as `from_timm` does, and
    NoDecoderError where there is no decoder.
    """
    library = library_of(arrays) or "timm"
    rest, own = {}, {}
    for name, array in arrays.items():
        if name.startswith(("decoder", "mask_token")):
            # transformers 4 says decoder_layers, as published files do; what 5 writes is decoder_encoder.layer.
            own[name.replace("decoder_encoder.layer.", "decoder_layers.")] = _single(name, array)
        else:
            rest[name] = array
    vit = _from(library, rest, heads) if own else None
    if not isinstance(vit, ViT):
        raise NoDecoderError("there is no decoder; give an auto-encoder that was saved whole.")
    names = {leaf.ours: leaf.theirs[0] for leaf in _decoder_leaves(library, 1)}
    bias, block = names["decoder.embed.bias"], re.escape(names["decoder.blocks.norm1.gain"].split("0")[0]) + r"(\d+)\."
    width = own[bias].size if bias in own else 0
    depth = len({found[1] for name in own if (found := re.match(block, name))})
    config = DecoderConfig(depth, width, decoder_heads or max(1, width // 32), norm_pix=norm_pix)
    shapes = eqx.filter_eval_shape(lambda: MAE(skeleton(vit.config), config, key=jr.key(0)))
    wanted, table = trees.named_arrays(shapes.decoder), _decoder_leaves(library, depth)
    ours = _read(library, table, {f"decoder.{name}": leaf for name, leaf in wanted.items()}, own)
    return trees.with_arrays(shapes, ours | {f"backbone.{n}": a for n, a in trees.named_arrays(vit).items()})


def library_of(names: Mapping[str, Any]) -> Library | None:
    """The library in whose names these tensors are; None if they are no vision transformer's."""
    patches: dict[str, Library] = {"patch_embed.": "timm", "embeddings.patch_embeddings.": "huggingface"}
    for start, library in patches.items():
        if any(name.removeprefix("vit.").startswith(start) for name in names):
            return library
    return None


def skeleton(config: BackboneConfig, classes: int = 0, pool: Pool | None = None) -> AbstractBackbone | Classifier:
    """The shapes of a model; of a backbone without a head if `classes` is 0."""

    def build(key: PRNGKeyArray) -> AbstractBackbone | Classifier:
        backbone = config.create(key=key)
        return Classifier(backbone, classes, pool or "mean", key=key) if classes else backbone

    return eqx.filter_eval_shape(build, jr.key(0))


def parts(model: AbstractBackbone | Classifier) -> tuple[Any, int, Any]:
    """**Returns:** the backbone, the number of classes (0: no head), and what the head sees."""
    if isinstance(model, AbstractBackbone):
        return model, 0, None
    return model.backbone, model.head.weight.shape[0], model.pool


def _leaves(library: Library, depth: int, classes: int, pool: Pool | None, prefix: str) -> list[_Leaf]:
    """The table for one model; `prefix` is in front of all names over there but the head's."""
    found = []
    for ours, kind, timm, huggingface in _TABLE:
        theirs = timm if library == "timm" else huggingface
        if ours.startswith("head."):
            if classes:
                found.append(_Leaf(ours, None, kind, (theirs,)))
            continue
        if pool == "mean" and ours.startswith("norm."):
            theirs = f"fc_{theirs}"
        found += _numbered(f"backbone.{ours}" if classes else ours, kind, prefix + theirs, depth)
    return found


def _decoder_leaves(library: Library, depth: int) -> list[_Leaf]:
    """The table of a decoder."""
    at = 2 if library == "timm" else 3
    return [leaf for row in _DECODER for leaf in _numbered(row[0], row[1], row[at], depth)]


def _numbered(ours: str, kind: Kind, theirs: str, depth: int) -> list[_Leaf]:
    """The leaves of a line of the table: one, or one a block."""
    names = [theirs.replace("*", part) for part in ("query", "key", "value")] if "*" in theirs else [theirs]
    layers = range(depth) if "#" in theirs else (None,)
    return [_Leaf(ours, layer, kind, tuple(name.replace("#", str(layer)) for name in names)) for layer in layers]


def _turned(array: Any, kind: Kind) -> Any:
    """A leaf of ours as theirs. Their matrices are (out, in); ours have the residual channels last."""
    if kind == "vector":
        return array.reshape(-1)
    if kind == "token":
        return array.reshape(1, -1, array.shape[-1])
    if kind == "pixels":
        side = math.isqrt(array.shape[1] // 3)
        return array.reshape(-1, side, side, 3).transpose(0, 3, 1, 2)
    rows = array.reshape(-1, array.shape[-1])
    return rows.T if kind == "columns" else rows


def _turned_back(array: np.ndarray, kind: Kind, shape: tuple[int, ...]) -> np.ndarray:
    """The converse of `_turned`, for a leaf of `shape`."""
    if kind == "pixels":
        array = array.transpose(0, 2, 3, 1)
    return (array.T if kind == "columns" else array).reshape(shape)


def _spelt(ours: dict[str, Any], table: list[_Leaf]) -> dict[str, Any]:
    """The arrays of a model under their names."""
    found = {}
    for leaf in table:
        array = _turned(ours[leaf.ours] if leaf.layer is None else ours[leaf.ours][leaf.layer], leaf.kind)
        share = array.shape[0] // len(leaf.theirs)
        for i, name in enumerate(leaf.theirs):
            found[name] = array[i * share : (i + 1) * share]
    return found


def _to(library: Library, model: AbstractBackbone | Classifier) -> dict[str, np.ndarray]:
    vit, classes, pool = parts(model)
    config, title = vit.config, TITLES[library]
    if not isinstance(vit, ViT):
        raise UserError(f"{title}'s names are known for vision transformers only; export it with --format safetensors.")
    if config.dress != "plain":
        raise UserError(
            f"{title} has no model of the {config.dress} dress; export it with --format safetensors, "
            "which docs/enhanced_vit.py reads in PyTorch."
        )
    if config.inner != config.channels:
        raise UserError(
            f"{title} has no model whose {config.heads} heads of {config.head_dim} channels are not as wide as its "
            f"{config.channels} residual channels; export it with --format safetensors."
        )
    if library == "huggingface" and pool == "mean":
        raise UserError(
            "the head of Hugging Face's model sees the class token and this one's the mean over patches; "
            "export it with --format timm."
        )
    prefix = "vit." if library == "huggingface" and classes else ""
    ours = {name: np.asarray(array) for name, array in trees.named_arrays(model).items()}
    theirs = _spelt(ours, _leaves(library, config.depth, classes, pool, prefix))
    return {name: np.ascontiguousarray(array) for name, array in theirs.items()}


def _from(library: Library, arrays: Mapping[str, np.ndarray], heads: int | None) -> ViT | Classifier:
    arrays = {n: _single(n, array) for n, array in arrays.items() if not n.startswith(_LEFT_OUT[library])}
    prefix = "vit." if library == "huggingface" and any(name.startswith("vit.") for name in arrays) else ""
    pool: Pool = "mean" if library == "timm" and "fc_norm.weight" in arrays else "cls"
    head = arrays.get("head.weight" if library == "timm" else "classifier.weight")
    classes = 0 if head is None else len(head)
    config = _config(library, arrays, prefix, heads)
    shapes = skeleton(config, classes, pool)
    table = _leaves(library, config.depth, classes, pool, prefix)
    return trees.with_arrays(shapes, _read(library, table, trees.named_arrays(shapes), arrays))


def _read(
    library: Library, table: list[_Leaf], wanted: dict[str, Any], arrays: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """The arrays of a model of ours, of the shapes `wanted`, from theirs; raises UserError where these do not fit."""
    if difference := trees.mismatch(jax.eval_shape(functools.partial(_spelt, table=table), wanted), dict(arrays)):
        raise _unlike(library, difference)
    layers: dict[str, list[np.ndarray]] = {}
    for leaf in table:
        shape = wanted[leaf.ours].shape[0 if leaf.layer is None else 1 :]
        array = np.concatenate([arrays[name] for name in leaf.theirs])
        layers.setdefault(leaf.ours, []).append(_turned_back(array, leaf.kind, shape))
    return {name: jnp.asarray(np.concatenate(found).reshape(wanted[name].shape)) for name, found in layers.items()}


HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
"""Heads of the vision transformers that everybody trains, tiny to huge, by their channels: no tensor tells."""


def _config(library: Library, arrays: dict[str, np.ndarray], prefix: str, heads: int | None) -> ViTConfig:
    """What the tensors tell of the network; raises UserError where they contradict each other."""
    names = {leaf.ours: leaf.theirs[0] for leaf in _leaves(library, 1, 0, None, prefix)}

    def shape(ours: str, axes: int, means: str) -> tuple[int, ...]:
        name = names[ours]
        if name not in arrays:
            raise _unlike(library, f"{name} is missing")
        if arrays[name].ndim != axes:
            raise _unlike(library, f"{name} has shape {arrays[name].shape}, which is not ({means})")
        return arrays[name].shape

    width, colours, patch, columns = shape("embed.weight", 4, "channels, 3, patch, patch")
    if colours != 3 or patch != columns:
        raise _unlike(library, f"{names['embed.weight']} is for {colours} colours and patches of {patch} x {columns}")
    rows = shape("positions.table", 3, "1, tokens, channels")[1]
    grid = math.isqrt(max(rows - 1, 0))
    if grid < 1 or grid**2 != rows - 1:
        raise _unlike(library, f"{names['positions.table']} has {rows} rows, not one and those of a square grid")
    hidden = shape("blocks.mlp.enter", 2, "hidden units, channels")[0]
    if hidden != 4 * width:
        raise _unlike(library, f"{names['blocks.mlp.enter']} has {hidden} hidden units, not 4 x {width}")
    if heads is None:
        if width not in HEADS:
            raise UserError(
                f"no tensor tells the number of heads of {width} channels; give it with --heads, or for the source or "
                "teacher of a baseline with --source-heads or --teacher-heads."
            )
        heads = HEADS[width]
    if heads < 1 or width % heads or width // heads % 4:
        raise UserError(
            f"{heads} heads do not divide {width} channels into multiples of 4; give another number of heads."
        )
    block = re.escape(names["blocks.norm1.gain"].split("0")[0]) + r"(\d+)\."
    depth = len({found[1] for name in arrays if (found := re.match(block, name))})
    return ViTConfig(grid * patch, patch, max(depth, 1), heads, width // heads, dress="plain")


def _single(name: str, array: np.ndarray) -> np.ndarray:
    """An array in the precision of our models."""
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f"{name} holds {array.dtype}, not floating-point numbers; give a model that is not quantised.")
    return np.asarray(array, jnp.result_type(float))


def _unlike(library: Library, difference: str) -> UserError:
    return UserError(
        f"not the tensors of a plain vision transformer of {TITLES[library]}: {difference}; "
        "give a model with a class token, 4 x wide blocks, biases, and no parts besides."
    )
