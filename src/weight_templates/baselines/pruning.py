"""Isomorphic pruning (Fang et al., ECCV 2024) of a vision transformer to an exact depth, number of heads and width.

Parts of a network compete with parts of the same kind only: residual channels, heads of attention, hidden units. A
part's score is Σ |w ∂L/∂w| over all weights w that go with it (first-order Taylor, arXiv 2407.04616), gradients summed
over 50 batches of 64 images. The official networks are ragged, and their depth is never pruned; so that the result is
a regular network, we keep

- the layers whose weights have the largest mean score, in order; gradients are then taken anew;
- in every layer the best heads, whole, and the best hidden units;
- one set of residual channels for all layers.

The gradients are those of the reconstruction loss, since the source has no classifier, and the decoder has no score; any
auto-encoder will do, ours or an imported one.
Scores are compared within a kind only, so the paper's division by their mean changes nothing and is left out.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from .. import cli, convert, data, trees
from ..config import BackboneConfig, DataOptions, ViTConfig
from ..counting import count_mae
from ..errors import NoDecoderError, RunError, UserError
from ..models import MAE, ViT
from ..tasks import masked
from ..training import Run
from .base import FromSource, Made, Source, check_smaller, cut
from .parts import hidden_units, parts_of, take


BATCHES, BATCH = 50, 64
"""Images that the authors take gradients on."""


@dataclasses.dataclass(frozen=True)
class IsomorphicPruning(FromSource):
    """The parts with the best scores, kind by kind (Fang et al., 2024)."""

    importance: Literal["taylor", "magnitude"] | None = None
    """taylor: |weight x gradient| of the reconstruction loss, for banks, and for auto-encoders that others saved whole, with
    their decoder. magnitude: |weight|, for any source. Default: taylor, and magnitude where there is no decoder."""
    norm_pix: bool = True
    """Whether such an auto-encoder predicts normalised pixels; a bank tells."""
    batches: int = BATCHES
    """Batches of 64 images that gradients are taken on."""
    data: DataOptions = DataOptions()

    name: ClassVar[str] = "isomorphic-pruning"
    shrinks: ClassVar[bool] = True

    def check_options(self) -> None:
        FromSource.check_options(self)
        if self.batches < 1:
            raise UserError(f"--batches {self.batches} is not positive.")
        given = [n for n in ("batches", "data", "norm_pix") if getattr(self, n) != getattr(type(self)(), n)]
        if self.importance == "magnitude" and given:
            flag = "--" + given[0].replace("_", "-")
            raise UserError(f"{flag} is for Taylor scores; leave it out, or --importance magnitude.")

    def check(self, source: Source | None, target: BackboneConfig) -> None:
        assert source
        if auto_encoder_of(self, source) is not None:
            data.split(np.arange(len(data.open_source(self.data, 32, self.seed))), 1, self.seed)

    def make(self, source: Source | None, target: BackboneConfig, run: Run) -> Made:
        assert source
        mae = auto_encoder_of(self, source)
        if mae is None:
            if self.importance is None:
                cli.say(f"note: {self.source} has no decoder, so its parts are scored by magnitude and not by a loss.")
            return cut(self, source, prune(source.backbone, target, magnitude))
        if self.image not in (None, mae.backbone.config.image):
            raise UserError(
                f"the decoder of {self.source} is for {mae.backbone.config.image} px; leave out --image, which finetune.py "
                "takes too, or say --importance magnitude."
            )
        image = source.backbone.config.image
        loaded = data.load(data.open_source(self.data, image, self.seed), self.data, cli.say)
        size = batch_of(len(loaded.good))
        chosen = data.split(loaded.good, size, self.seed)
        views = [data.evaluation_views(loaded, chosen.indices(step), image) for step in range(self.batches)]
        scores = taylor(mae, views, key=jr.key(self.seed))
        flops = self.batches * size * flops_of_look(mae, target)
        return cut(self, source, prune(source.backbone, target, scores), flops)

    def cost(self, source: Source | None, target: BackboneConfig) -> int | float:
        assert source
        if (mae := auto_encoder_of(self, source)) is None:
            return 0.0
        images = len(data.open_source(self.data, source.backbone.config.image, self.seed))
        return self.batches * batch_of(images) * flops_of_look(mae, target)


def batch_of(images: int) -> int:
    """Images of a batch; a part of so many is held out."""
    return min(BATCH, max(1, int(0.9 * images)))


def auto_encoder_of(method: IsomorphicPruning, source: Source) -> Any:
    """The auto-encoder whose loss gives the scores, or None where they are magnitudes; raises UserError where a loss is asked
    for and the source has no decoder."""
    if method.importance == "magnitude":
        return None
    if source.bank is not None:
        if not method.norm_pix:
            raise UserError(f"{method.source} is a bank, which tells of its pixels; leave out --no-norm-pix.")
        if isinstance(source.bank.model, MAE):
            return source.bank.model
        if method.importance is None:
            return None
        raise UserError(
            f"{method.source} is a bank without a decoder; give one of --task masked, or say --importance magnitude."
        )
    try:
        return convert.load_mae(method.source, heads=method.source_heads, norm_pix=method.norm_pix)
    except UserError as error:
        if isinstance(error, NoDecoderError) and method.importance is None:
            return None
        raise UserError(f"{str(error).rstrip('.')}; or say --importance magnitude.") from None


def flops_of_look(mae: Any, target: BackboneConfig) -> int | float:
    """FLOPs of the gradients of an image: of the source, and where layers go, of those that stay."""
    shape = mae.backbone.config
    return sum(3 * count_mae(shape.resized(depth), mae.config) for depth in {shape.depth, target.depth})


def taylor(mae: MAE, batches: Iterable[UInt8[np.ndarray, "batch h w 3"]], *, key: PRNGKeyArray) -> Callable[[ViT], ViT]:
    """Scores by the reconstruction loss of an auto-encoder; its backbone is replaced by the backbone that is scored.

    **Returns:** from a backbone to |weight x summed gradient|, entry by entry. Masks depend on `key` alone.
    """
    kept = list(batches)

    @eqx.filter_jit
    def gradient(vit: ViT, images: UInt8[Array, "batch h w 3"], key: PRNGKeyArray) -> ViT:
        def loss(vit: ViT) -> Float[Array, ""]:
            model = eqx.tree_at(lambda m: m.backbone, mae, vit)
            return masked.loss(model, {"image": images}, jr.split(key, len(images)))

        return eqx.filter_grad(loss)(vit)

    def scores(vit: ViT) -> ViT:
        total = jax.tree.map(jnp.zeros_like, eqx.filter(vit, eqx.is_inexact_array))
        for i, images in enumerate(kept):
            grads = gradient(vit, jnp.asarray(images), jr.fold_in(key, i))
            total = jax.tree.map(jnp.add, total, grads)
        return jax.tree.map(lambda w, g: jnp.abs(w * g), eqx.filter(vit, eqx.is_inexact_array), total)

    return scores


def magnitude(vit: ViT) -> ViT:
    """Scores without data or decoder: |weight| of matrices. Vectors have none: the gains of norms, near 1 where weights are
    near 0, would alone decide which layers stay; nor has a fixed table of positions, which is no weight."""
    sides = {name: len({"width", "inner", "hidden", "pixel"} & set(part.axes)) for name, part in parts_of(vit).items()}
    scores = {name: jnp.abs(array) * (sides[name] == 2) for name, array in trees.named_arrays(vit).items()}
    return trees.with_arrays(vit, scores)


def prune(source: ViT, target: ViTConfig, scores: Callable[[ViT], ViT]) -> ViT:
    """The backbone of the size `target` that keeps the parts of `source` with the best scores; raises UserError if it
    is larger, RunError if a score is not finite."""
    check_smaller("pruning", source.config, target)
    scored = scores(source)
    if not all(bool(jnp.isfinite(array).all()) for array in jax.tree.leaves(scored)):
        raise RunError("the scores of pruning are not finite; look at the source's weights and at the images.")
    layers = best(layer_scores(scored), target.depth)
    shallow = take(source, source.config.resized(depth=target.depth), {"layer": layers})
    score = part_scores(scores(shallow) if target.depth < source.config.depth else scored)
    head_dim = target.head_dim
    heads = best(score["inner"].reshape(target.depth, -1, head_dim).sum(axis=-1), target.heads)
    chosen = {
        "width": best(score["width"], target.channels),
        "inner": (heads[..., None] * head_dim + np.arange(head_dim)).reshape(target.depth, -1),
        "hidden": best(score["hidden"], hidden_units(target)),
    }
    return take(shallow, target, chosen)


def layer_scores(scores: ViT) -> Float[np.ndarray, " layer"]:
    """The mean over a layer's arrays of their mean score."""
    arrays = [np.asarray(part.array, np.float64) for part in parts_of(scores).values() if part.axes[0] == "layer"]
    return np.mean([array.reshape(len(array), -1).mean(axis=1) for array in arrays], axis=0)


def part_scores(scores: ViT) -> Mapping[str, Float[np.ndarray, "..."]]:
    """The summed scores of all residual channels (`width`), and of each layer's attention channels (`inner`) and hidden
    units (`hidden`): (layer, number)."""
    total: dict[str, np.ndarray] = {}
    for array, axes in parts_of(scores).values():
        for kind in {"width", "inner", "hidden"} & set(axes):
            kept = {kind} if kind == "width" else {"layer", kind}
            away = tuple(i for i, axis in enumerate(axes) if axis not in kept)
            total[kind] = total.get(kind, 0) + np.asarray(array, np.float64).sum(axis=away)
    return total


def best(scores: Float[np.ndarray, "*layer number"], count: int) -> Int[np.ndarray, "*layer count"]:
    """The indices of the `count` largest scores along the last axis, in order of index; the first of equal ones."""
    return np.sort(np.argsort(-scores, axis=-1, kind="stable")[..., :count], axis=-1)
