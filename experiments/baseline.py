"""A plain backbone of any size by a method that SWEET is compared with, ready for `experiments/finetune.py`.

    python experiments/baseline.py weight-selection SOURCE --depth 6 --heads 6
    python experiments/baseline.py dmae SOURCE --depth 6 --heads 6 --data PATH
    python experiments/baseline.py scratch --depth 6 --heads 6

SOURCE is a bank, usually one that `experiments/pretrain.py --constraint none` made, or any model that
`experiments/finetune.py` takes, such as an imported MAE ViT-B. Every method leaves `model.safetensors`, and in
`summary.json` what it cost and how many numbers it took from its source, in `runs/baseline/…`.

    scratch            random weights, as all others are where they take nothing from a source
    mimetic            random weights, attention as mimetic initialisation has it
    weight-selection   evenly spaced parts of the first layers
    isomorphic-pruning the parts with the best Taylor scores, kind by kind
    front              low frequencies of the weights
    hydravit           the first layers and heads of a network that was pre-trained with random widths
    dmae               a small auto-encoder, trained next to the source
    wave, tleg, fine   templates that a supervised teacher is distilled into, fitted to the size

The last three take a teacher instead of a source: a classifier that `experiments/finetune.py` made. If there is none,
they first train it on the same data by the same recipe. Teacher and templates are made once, whatever the sizes.
"""

import abc
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from experiments import cut, finetune, learngene, pretrain, student
from weight_templates import cli, launch
from weight_templates.config import (
    DataOptions,
    DecoderConfig,
    KroneckerOptions,
    OptimOptions,
    RecipeOptions,
    RunOptions,
    SvdOptions,
    ViTConfig,
    check_seed,
    to_json,
)
from weight_templates.errors import UserError


@dataclasses.dataclass(frozen=True)
class Sized:
    """What all methods have in common."""

    depth: int | None = None
    """Layers; default the source's."""
    heads: int | None = None
    """Heads, and with them the width; default the source's."""
    seed: int = 0
    """Of whatever is random."""
    run: RunOptions = RunOptions()


@dataclasses.dataclass(frozen=True)
class Scratch(Sized):
    """Random weights."""

    model: ViTConfig = ViTConfig(depth=12, head_dim=16)


@dataclasses.dataclass(frozen=True)
class Mimetic(Scratch):
    """Random weights, attention by mimetic initialisation (Trockman & Kolter, 2023)."""


@dataclasses.dataclass(frozen=True)
class Cut(Sized):
    """From a source, without training."""

    source: tyro.conf.Positional[str] = ""
    """A bank or a model to take from."""
    source_heads: int | None = None
    """Heads of a source that does not tell, such as timm's models of unusual width."""
    image: int | None = None
    """Side of the input, pixels; default what the source was trained for."""


@dataclasses.dataclass(frozen=True)
class WeightSelection(Cut):
    """Evenly spaced parts of the first layers (Xu et al., 2024)."""

    select_heads: Literal["strided", "whole"] | None = None
    """strided: evenly spaced channels through all heads, as published. whole: evenly spaced heads, which under rotary
    positions keeps their frequencies. Default: whole under rotary positions, else strided."""


@dataclasses.dataclass(frozen=True)
class Front(Cut):
    """Low frequencies of the weights (FRONT, 2026); also larger than the source."""


@dataclasses.dataclass(frozen=True)
class HydraViT(Cut):
    """The first layers and heads of an ordinary bank pre-trained with random widths, `--constraint none --scaling.scope
    submodel --scaling.coupled` (Haberer et al., 2024, arXiv 2409.17978; they train supervised, and leave no layers out)."""


@dataclasses.dataclass(frozen=True)
class IsomorphicPruning(Cut):
    """The parts with the best scores, kind by kind (Fang et al., 2024)."""

    importance: Literal["taylor", "magnitude"] | None = None
    """taylor: |weight x gradient| of the reconstruction loss, for banks, and for auto-encoders that others saved whole, with
    their decoder. magnitude: |weight|, for any source. Default: taylor, and magnitude where there is no decoder."""
    norm_pix: bool = True
    """Whether such an auto-encoder predicts normalised pixels; a bank tells."""
    batches: int = 50
    """Batches of 64 images that gradients are taken on."""
    data: DataOptions = DataOptions()


@dataclasses.dataclass(frozen=True)
class Dmae(Cut):
    """A small auto-encoder, trained next to the source (Bai et al., 2023)."""

    data: DataOptions = DataOptions()
    decoder: DecoderConfig = DecoderConfig(depth=2, width=96, heads=6, norm_pix=False)
    """The student's, which the method does not fix; MAE's own has 8 blocks of 512 channels and 16 heads."""
    optim: OptimOptions = OptimOptions(epochs=100, warmup=0.2)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward and backward passes; auto: bfloat16 on a GPU, float32 on a CPU. Parameters are always float32."""


@dataclasses.dataclass(frozen=True)
class Learngene(Sized, abc.ABC):
    """Templates that a supervised teacher is distilled into, fitted to the size."""

    teacher: tyro.conf.Positional[str] = ""
    """A classifier to learn from; default one that is trained first, of the shape of `--model`."""
    teacher_heads: int | None = None
    """Heads of a teacher that does not tell, such as timm's models of unusual width."""
    model: ViTConfig = ViTConfig(depth=12, head_dim=16)
    """The auxiliary network, whose templates are learned."""
    data: DataOptions = DataOptions()
    recipe: RecipeOptions = RecipeOptions()
    optim: OptimOptions = finetune.FINE
    """Of the distillation, and of the teacher."""
    fit: OptimOptions = dataclasses.replace(finetune.FINE, steps=200)
    """Of the scalers for this size."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward and backward passes; auto: bfloat16 on a GPU, float32 on a CPU. Parameters are always float32."""

    @abc.abstractmethod
    def constraint(self) -> Any:
        """What the templates are learned under."""


@dataclasses.dataclass(frozen=True)
class Wave(Learngene):
    """Kronecker templates, distilled, fitted to the size (Feng et al., 2025)."""

    kronecker: KroneckerOptions = KroneckerOptions()
    parts: int = 4
    """Templates across a slice, and along it, where `tile` does not say. Theirs is not published; with four, all multiples of
    a quarter of the width are made of whole templates."""

    def constraint(self) -> Any:
        from weight_templates import constraints

        return constraints.Kronecker(**dataclasses.asdict(self.kronecker), parts=self.parts)


@dataclasses.dataclass(frozen=True)
class Tleg(Learngene):
    """Matrices that grow linearly with depth, distilled (Xia et al., 2024)."""

    def constraint(self) -> Any:
        from weight_templates import constraints

        return constraints.Linear(tleg=True)


@dataclasses.dataclass(frozen=True)
class Fine(Learngene):
    """Shared bases with a diagonal per slice, distilled, fitted to the size (Xie et al., 2024)."""

    svd: SvdOptions = SvdOptions()

    def constraint(self) -> Any:
        from weight_templates import constraints

        return constraints.Svd(**dataclasses.asdict(self.svd))


METHODS: dict[str, Sized] = {
    "scratch": Scratch(),
    "mimetic": Mimetic(),
    "weight-selection": WeightSelection(),
    "isomorphic-pruning": IsomorphicPruning(),
    "front": Front(),
    "hydravit": HydraViT(),
    "dmae": Dmae(),
    "wave": Wave(),
    "tleg": Tleg(),
    "fine": Fine(),
}


def method_of(config: Sized) -> str:
    """The name of the method that a configuration is of."""
    return next(name for name, default in METHODS.items() if type(default) is type(config))


def check_options(config: Sized) -> None:
    """Raises UserError for what can be refused before a source is read or anything is trained."""
    check_seed(config.seed)
    config.run.check()
    if isinstance(config, Cut):
        if not config.source:
            raise UserError(
                f"no source was given; say `python experiments/baseline.py {method_of(config)} PATH/TO/bank.safetensors`."
            )
        finetune.identity(config.source, "give the path of one")
    else:
        config.model.check()  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(config, Learngene):
        if config.teacher:
            finetune.identity(config.teacher, "give the path of a classifier, or none")
        learngene.check(config)
    if isinstance(config, IsomorphicPruning):
        cut.check_scores(config)
    if isinstance(config, Wave) and config.kronecker.tile and config.parts != Wave().parts:
        raise UserError("--parts and --kronecker.tile both tell the size of a template; leave one out.")
    if isinstance(config, Dmae):
        config.optim.check()


def target_of(config: Sized, source: cut.Source | None) -> ViTConfig:
    """The size that is asked for; raises UserError where the method does not make it, or not of this source."""
    from weight_templates import inherit
    from weight_templates.baselines.parts import check_smaller

    shape = source.vit.config if source else config.model  # pyright: ignore[reportAttributeAccessIssue]
    target = inherit.target_size(shape, config.depth, config.heads)
    if isinstance(config, HydraViT) and source:
        cut.check_nested(config, source)
    if isinstance(config, WeightSelection | IsomorphicPruning | HydraViT):
        check_smaller(method_of(config), shape, target)
    if isinstance(config, Dmae):
        config.decoder.check(target)
        if target.channels % target.heads:
            raise UserError(
                f"DMAE's losses are of widths in heads, and {target.channels} channels are no multiple of {target.heads} heads; "
                "give a source whose width is one."
            )
    return target


def check(config: Sized) -> None:
    """Raises UserError as `check_options` does, and for whatever else a job would fail with before it trains."""
    check_options(config)
    source = cut.open_source(config) if isinstance(config, Cut) else None
    target_of(config, source)
    if isinstance(config, Learngene) and config.teacher:
        learngene.read_teacher(config)
    if isinstance(config, Dmae) or (
        isinstance(config, IsomorphicPruning) and source and cut.auto_encoder_of(config, source) is not None
    ):
        from weight_templates import data

        images = np.arange(len(data.open_source(config.data, 32, config.seed)))
        data.split(images, config.optim.batch if isinstance(config, Dmae) else 1, config.seed)


def main(config: Sized) -> Path:
    """Makes the backbone by the method that `config` is of, unless that has been done.

    **Returns:** the path of the model. Raises UserError for a mistake in `config`, RunError if a loss stops being finite.
    """
    check_options(config)
    method = method_of(config)
    about: dict[str, Any] = to_json(config) | {"method": method}
    if isinstance(config, Cut):
        about["source"] = finetune.identity(config.source)

    from weight_templates import convert, training, trees

    source = cut.open_source(config) if isinstance(config, Cut) else None
    target = target_of(config, source)
    if isinstance(config, Learngene):
        config = dataclasses.replace(config, teacher=learngene.teacher_of(config))
        about["teacher"] = finetune.identity(config.teacher, "give the path of a classifier, or none")
    name = f"{method}-L{target.depth}H{target.heads}"
    run = training.Run("baseline", name, about, config.run)
    made = run.path / "model.safetensors"
    if run.summary is not None:
        cli.say(f"finished already: {run.path}; say --run.overwrite to do it again.")
        return made
    vit, cost = MAKERS[method](config, source, target, run)
    spent = {"source_flops": 0, "size_flops": 0, "transferred": 0}
    if isinstance(config, Cut) and source:
        before = pretrain.flops_of(source.bank, config.source) if source.bank else None
        spent |= {"source_flops": before, "transferred": trees.shared(source.vit, vit)}
    spent |= cost
    with run:
        if training.leads():
            convert.save_model(made, vit, {"method": method, "source": source.about if source else None, "cost": spent})
        run.finish(parameters=trees.count(vit), model=dataclasses.asdict(target), cost=spent)
    report(target, trees.count(vit), spent)
    cli.say(f"model            {made}\nnext             python experiments/finetune.py {made} --data PATH")
    return made


def report(target: ViTConfig, parameters: int, cost: dict[str, Any]) -> None:
    """Prints the cost account."""
    source = "unknown" if cost["source_flops"] is None else f"{cost['source_flops']:.3g} FLOPs"
    source += f", {cost['distillation_flops']:.3g} of them distillation" if "distillation_flops" in cost else ""
    print(
        f"{target.depth} layers, {target.heads} heads, {parameters:,} parameters, made from {cost['transferred']:,} numbers of "
        f"the source; source pre-training {source}, for this size {cost['size_flops']:.3g} FLOPs"
    )


def scratch(config: Scratch, source: None, target: ViTConfig, run: Any) -> tuple[Any, dict[str, Any]]:
    """See `weight_templates.models.ViT`."""
    import jax.random as jr

    from weight_templates.models import ViT

    return ViT(target, key=jr.key(config.seed)), {}


def mimetic(config: Mimetic, source: None, target: ViTConfig, run: Any) -> tuple[Any, dict[str, Any]]:
    """See `weight_templates.baselines.mimetic`."""
    import jax.random as jr

    from weight_templates.baselines import mimetic
    from weight_templates.models import ViT

    vkey, mkey = jr.split(jr.key(config.seed))
    return mimetic.mimic(ViT(target, key=vkey), key=mkey), {}


def cost(config: Sized) -> float:
    """FLOPs of what the method trains, teacher and templates included even where they are there already; raises UserError
    where there is no source, or no images."""
    from weight_templates import data
    from weight_templates.baselines import pruning
    from weight_templates.counting import count

    source = cut.open_source(config) if isinstance(config, Cut) else None
    shape = source.vit.config if source else config.model  # pyright: ignore[reportAttributeAccessIssue]
    target = target_of(config, source)

    def images(options: DataOptions) -> int:
        return len(data.open_source(options, shape.image, config.seed))

    if isinstance(config, IsomorphicPruning) and source and (mae := cut.auto_encoder_of(config, source)) is not None:
        size = min(pruning.BATCH, max(1, int(0.9 * images(config.data))))
        return config.batches * size * cut.flops_of_look(mae, target)
    if isinstance(config, Dmae):
        chosen = data.split(np.arange(images(config.data)), config.optim.batch, config.seed)
        seen = config.optim.total(chosen.steps_per_epoch) * config.optim.batch
        return seen * student.flops_of_lesson(config, shape, target)
    if isinstance(config, Learngene):
        own, train = count(shape).flops, int(0.9 * images(config.data))
        seen, fit = (optim.total(train // optim.batch) * optim.batch for optim in (config.optim, config.fit))
        teacher = count(learngene.read_teacher(config).model.backbone.config).flops if config.teacher else own
        lessons = (0 if config.teacher else 3 * own) + 3 * own + teacher
        return seen * lessons + (0 if config.constraint().fixed else 3 * count(target).flops * fit)
    return 0.0


Maker = Callable[..., tuple[Any, dict[str, Any]]]
MAKERS: dict[str, Maker] = {
    "scratch": scratch,
    "mimetic": mimetic,
    "weight-selection": cut.weight_selection,
    "isomorphic-pruning": cut.isomorphic_pruning,
    "front": cut.front,
    "hydravit": cut.hydravit,
    "dmae": student.distilled,
    "wave": learngene.fitted,
    "tleg": learngene.fitted,
    "fine": learngene.fitted,
}


if __name__ == "__main__":
    launch.command("experiments.baseline")
