"""DMAE (Bai et al., CVPR 2023): a small auto-encoder learns next to a large one that is finished.

Both encoders see the same patches. The student reconstructs, and its tokens z after block ⌈3/4 depth⌉, projected to the
teacher's width by a linear P, approach the teacher's after its own block of that rank,

    L = L_MAE + mean | ν(z_teacher) - ν(P z_student) |,    ν(z) = z / ‖z‖₂ token by token,

the mean over tokens and channels, with weight 1 (arXiv 2208.12256). The ranks are those of the authors' ViT-L; that they follow the
depth is our choice. The authors reconstruct plain pixels; so does `experiments/baseline.py`, unless told otherwise.
"""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray

from .. import bank, constraints, data, programs, trees
from ..config import BackboneConfig, DataOptions, DecoderConfig, OptimOptions, Precision
from ..counting import count, count_mae
from ..data import Batch, normalize
from ..errors import UserError
from ..learning import Recipe, at_width, learn, opened
from ..models import MAE, Reconstruction, ViT
from ..models.mae import random_mask, reconstruction_loss
from ..models.vit import Block, run
from ..nn import Linear
from ..tasks import Terms
from ..tasks.distil import Distil, student_mask
from ..tasks.masked import Masked
from ..training import Run
from .base import FromSource, Made, Source


class Distillation(eqx.Module):
    """A student, its teacher, and the map between their tokens."""

    student: MAE
    teacher: ViT
    project: Linear

    def __init__(self, student: MAE, teacher: ViT, *, key: PRNGKeyArray):
        """The projection starts uniform within ±1/√width, bias included, as PyTorch's do."""
        narrow, wide = student.backbone.config.channels, teacher.config.channels
        bound = narrow**-0.5
        wkey, bkey = jr.split(key)
        start = (
            jr.uniform(wkey, (wide, narrow), minval=-bound, maxval=bound),
            jr.uniform(bkey, (wide,), minval=-bound, maxval=bound),
        )
        self.student, self.teacher = student, teacher
        self.project = eqx.tree_at(lambda p: (p.weight, p.bias), Linear(narrow, wide, key=wkey), start)


@dataclasses.dataclass(frozen=True)
class Dmae(FromSource):
    """A small auto-encoder, trained next to the source (Bai et al., 2023)."""

    data: DataOptions = DataOptions()
    decoder: DecoderConfig = DecoderConfig(depth=2, width=96, heads=6, norm_pix=False)
    """The student's, which the method does not fix; MAE's own has 8 blocks of 512 channels and 16 heads."""
    optim: OptimOptions = OptimOptions(epochs=100, warmup=0.2)
    precision: Precision = "auto"
    """Precision of the forward and backward passes. auto: bfloat16 on a GPU, float32 on a CPU. Parameters are always
    float32."""

    name: ClassVar[str] = "dmae"

    def check_options(self) -> None:
        FromSource.check_options(self)
        self.optim.check()

    def target(self, source: Source | None) -> BackboneConfig:
        target = FromSource.target(self, source)
        self.decoder.check(target)  # pyright: ignore[reportArgumentType]
        if target.channels % target.heads:  # pyright: ignore[reportAttributeAccessIssue]
            raise UserError(
                f"DMAE's losses are of widths in heads, and {target.channels} channels are no multiple of {target.heads} "  # pyright: ignore[reportAttributeAccessIssue]
                "heads; give a source whose width is one."
            )
        return target

    def check(self, source: Source | None, target: BackboneConfig) -> None:
        programs.check_images(Masked(self.decoder, self.seed), self, target)

    def make(self, source: Source | None, target: BackboneConfig, run: Run) -> Made:
        assert source
        key, train_key, _ = jr.split(jr.key(self.seed), 3)
        skey, pkey = jr.split(key)
        constraint, options = constraints.FAMILIES["none"](), dataclasses.asdict(self.decoder)

        def initial() -> Distillation:
            student = bank.build(target, constraint, "unified", "masked", options, key=skey)
            return Distillation(student, source.backbone, key=pkey)

        task = Distil(Masked(self.decoder, self.seed), loss)
        source_of_images = data.open_source(self.data, target.image, self.seed)  # pyright: ignore[reportAttributeAccessIssue]
        images = opened(task, source_of_images, self.data, target, self.optim, run, self.seed)
        recipe = Recipe(self.optim, self.precision, every=run.options.save_every)
        with run:
            learned = learn(
                run,
                task,
                eqx.filter_jit(initial)(),
                images,
                recipe,
                key=train_key,
                moves=student_mask,
                backbone=lambda pair: pair.student.backbone,
            )
        flops = learned.steps * self.optim.batch * self.lesson(source.backbone.config, target)
        before = programs.flops_of(source.bank, self.source) if source.bank else None
        student = at_width(learned.last.student.backbone, "float32")
        return Made(student, flops, 0, before, {"teacher_parameters": trees.count(source.backbone)})

    def cost(self, source: Source | None, target: BackboneConfig) -> int | float:
        assert source
        images = len(data.open_source(self.data, source.backbone.config.image, self.seed))
        chosen = Masked(self.decoder).split(np.arange(images), self.optim.batch, self.seed)
        seen = self.optim.total(chosen.steps_per_epoch) * self.optim.batch
        return seen * self.lesson(source.backbone.config, target)

    def lesson(self, teacher: Any, student: Any) -> int | float:
        """FLOPs of an image in a step: the student's, and the teacher's up to the layer that is looked at."""
        share = (aligned(teacher.depth) + 1) / teacher.depth * (1 - self.decoder.mask_ratio)
        return 3 * count_mae(student, self.decoder) + share * count(teacher).flops


def loss(pair: Distillation, batch: Batch, keys: Key[Array, " batch"]) -> tuple[Float[Array, ""], Terms]:
    """The mean over a batch of the student's reconstruction loss and the distance to its teacher."""
    made, distance = jax.vmap(lambda image, key: compare(pair, image, key=key))(normalize(batch["image"]), keys)
    task, far = jnp.mean(jax.vmap(reconstruction_loss)(made)), jnp.mean(distance)
    return task + far, {"task": task, "distance": far}


def compare(
    pair: Distillation, image: Float[Array, "h w 3"], *, key: PRNGKeyArray
) -> tuple[Reconstruction, Float[Array, ""]]:
    """What the student makes of one image, and how far its tokens are from its teacher's, in float32."""
    student, teacher = pair.student, pair.teacher
    visible, hidden = random_mask(student.backbone.config.patches, student.config.mask_ratio, key=key)
    middle, tokens = halfway(student.backbone, image, visible)
    goal, _ = halfway(teacher, image, visible, stop=True)
    difference = unit(jax.lax.stop_gradient(goal)) - unit(pair.project(middle))
    return student.decoded(image, tokens, visible, hidden), jnp.mean(jnp.abs(difference))


def halfway(
    vit: ViT, image: Float[Array, "h w 3"], visible: Any, stop: bool = False
) -> tuple[Float[Array, "token width"], Float[Array, "token width"]]:
    """The tokens after block ⌈3/4 depth⌉, and the normalised ones at the end; with `stop` the former twice."""
    tokens, angles = vit.embedded(image, visible)
    first, rest = cut(vit.blocks, aligned(vit.config.depth) + 1)
    middle = run(first, tokens, angles)
    return middle, middle if stop else vit.norm(run(rest, middle, angles))


def aligned(depth: int) -> int:
    """The index of the block whose tokens are compared, ⌈3/4 depth⌉ - 1: 8 of 12 and 17 of 24, as in the paper."""
    return -(-3 * depth // 4) - 1


def cut(blocks: Block, count: int) -> tuple[Block, Block]:
    """The first `count` of stacked blocks, and the others."""
    arrays, rest = eqx.partition(blocks, eqx.is_array)
    return tuple(
        eqx.combine(jax.tree.map(lambda a, s=s: a[s], arrays), rest) for s in (slice(count), slice(count, None))
    )


def unit(tokens: Float[Array, "token width"]) -> Float[Array, "token width"]:
    """Tokens divided by their lengths, in float32."""
    tokens = tokens.astype(jnp.float32)
    return tokens / jnp.maximum(jnp.linalg.norm(tokens, axis=-1, keepdims=True), 1e-12)
