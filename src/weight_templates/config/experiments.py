"""What determines the result of a pre-training, an adaptation and a fine-tuning: the commands and notebooks share these."""

import dataclasses
from typing import Any, Literal

import tyro

from ..errors import UserError
from .backbones import BACKBONES, Sizes, ViTConfig
from .constraint import Application, ConstraintOptions, Layout, ScalingOptions
from .data import DataOptions
from .optim import OptimOptions
from .run import LATER, check_seed
from .tasks import TASKS, DecoderConfig, RecipeOptions


Precision = Literal["auto", "float32", "bfloat16"]
Layers = Literal["first", "uniform", "interpolate"]
Pool = Literal["mean", "cls"]


def later(default: Any) -> Any:
    """A field that earlier versions lacked; see `run.LATER`."""
    return dataclasses.field(default=default, metadata=LATER)


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """Pre-train weight templates under a constraint."""

    constraint: ConstraintOptions = ConstraintOptions()
    layout: Layout = "unified"
    """unified: one template for all matrices. components: one for each kind of matrix."""
    task: Literal["masked", "classify"] = later("masked")
    """What the templates are trained for. masked: to reconstruct hidden patches (SWEET). classify: to classify labelled
    images (WAVE, and WeiT as far as its abstract tells)."""
    data: DataOptions = DataOptions()
    backbone: Literal["vit", "convnext"] = later("vit")
    """The network whose sizes --model.* describe."""
    model: Sizes = ViTConfig(depth=6, head_dim=8)
    decoder: DecoderConfig = DecoderConfig(depth=1, width=64, heads=4)
    recipe: RecipeOptions = later(RecipeOptions())
    pool: Pool = later("mean")
    """What a classifier's head sees: the mean over positions, or the class token."""
    scaling: ScalingOptions = ScalingOptions()
    application: Application = "auto"
    """How the constrained weights are used in a step. expanded: multiplied out first. factored: factor by factor (tucker),
    which is cheaper at low ranks. auto: expanded, unless that takes far more multiplications."""
    optim: OptimOptions = OptimOptions(base_lr=6e-3, batch=128, epochs=10)
    precision: Precision = "auto"
    """Precision of the forward and backward passes. auto: bfloat16 on a GPU, float32 on a CPU. Parameters are always
    float32."""
    seed: int = 0
    """Seed of initialisation, order, augmentation and masks."""

    def check(self, base: "Pretraining | None" = None) -> None:
        """Raises UserError for what can be refused without JAX; `base` is where all values start from, a preset."""
        self.model.check()
        check_task(self, base or Pretraining())
        if self.task == "masked":
            if not isinstance(self.model, ViTConfig):
                raise UserError("masked auto-encoding is for --backbone vit; say --task classify.")
            self.decoder.check(self.model)
        self.recipe.check()
        if self.recipe.layer_decay < 1:
            raise UserError("--recipe.layer-decay is for fine-tuning: templates belong to all layers; leave it out.")
        self.scaling.check(self.model, self.constraint.family)
        self.optim.check()
        check_seed(self.seed)


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """Adapt a bank to another size: train its scalers, with the template frozen."""

    bank: tyro.conf.Positional[str] = ""
    """A bank.safetensors that pre-training wrote."""
    depth: int | None = None
    """Layers; default the bank's."""
    heads: int | None = None
    """Heads, and with them the width; default the bank's."""
    layers: Layers = "first"
    """Which source layers the new layers' scalers are copied from."""
    scalers: Literal["inherited", "random"] = "inherited"
    """Where the scalers start."""
    also: tuple[Literal["free", "head"], ...] = ()
    """What else is trained: the backbone's free leaves (norms, biases, embeddings), the head (decoder or classifier)."""
    layout: Layout | None = None
    """Refuse a bank of another layout."""
    data: DataOptions = DataOptions()
    recipe: RecipeOptions = RecipeOptions()
    optim: OptimOptions = OptimOptions(base_lr=2e-3, batch=128, steps=200)
    precision: Precision = "auto"
    """Precision of the forward and backward passes. auto: bfloat16 on a GPU, float32 on a CPU. Parameters are always
    float32."""
    seed: int = 0
    """Seed of random scalers, order, augmentation and masks."""

    def check(self) -> None:
        """Raises UserError for what can be refused without JAX."""
        self.recipe.check()
        self.optim.check()
        check_seed(self.seed)


FINE = OptimOptions(base_lr=1e-3, batch=128, epochs=10, betas=(0.9, 0.999))
PROBE = OptimOptions(base_lr=4e-3, batch=256, epochs=50, weight_decay=0.0, betas=(0.9, 0.999))
"""A probe's optimiser where none is given: the problem is convex and its steps are cheap."""


@dataclasses.dataclass(frozen=True)
class Finetuning:
    """Train a plain model for a task, from a bank, an exported model or scratch."""

    start: tyro.conf.Positional[str] = "scratch"
    """A bank.safetensors; a model, ours or of timm or Hugging Face, .safetensors or .pth; or `scratch`."""
    task: Literal["classify"] = later("classify")
    """What the model is trained for."""
    mode: Literal["full", "probe"] = "full"
    """full: all weights are trained. probe: a linear head on frozen features; takes no recipe."""
    depth: int | None = None
    """Layers to initialise from a bank, or of a new network; default the bank's, or --model.depth."""
    heads: int | None = None
    """Heads likewise, and with them the width. For a model whose file does not record it: its number of heads."""
    layers: Layers = "first"
    """Which layers of a bank the layers are made of."""
    image: int | None = None
    """Side of the input, pixels; default what the bank or model was trained for."""
    backbone: Literal["vit", "convnext"] = later("vit")
    """The network, from scratch, whose sizes --model.* describe."""
    model: Sizes = ViTConfig(depth=6, head_dim=8)
    data: DataOptions = DataOptions()
    test: str | None = None
    """Split to report on at the end; default the first of test, val, validation that the data have."""
    pool: Pool = "mean"
    """What the head sees: the mean over patches, as in MAE, or the class token, as in DeiT."""
    head: Literal["new", "probe"] = "new"
    """Where full fine-tuning has its head from. new: next to zero. probe: from a linear probe, trained first on the same
    images, so that the features are not spoilt before the head knows what to ask of them (Kumar et al., 2022)."""
    recipe: RecipeOptions = RecipeOptions()
    optim: OptimOptions = FINE
    precision: Precision = "auto"
    """Precision of the forward and backward passes. auto: bfloat16 on a GPU, float32 on a CPU. Parameters are always
    float32."""
    seed: int = 0
    """Seed of initialisation, held-out images, order and augmentation."""

    def check(self) -> None:
        """Raises UserError for what can be refused without JAX."""
        self.recipe.check()
        self.optim.check()
        check_seed(self.seed)

    def probing(self, base: "Finetuning") -> "Finetuning":
        """The linear probe that full fine-tuning has its head from; its recipe is that of `base`, a preset."""
        optim = dataclasses.replace(PROBE, batch=self.optim.batch)
        return dataclasses.replace(self, mode="probe", head="new", recipe=base.recipe, optim=optim)


def check_task(config: Any, base: Any) -> None:
    """Raises UserError if an option of a task that is not chosen was given.

    **Arguments:**

    - `config`: has `task`, and the fields that `TASKS` names.
    - `base`: likewise; where all values start from.
    """
    chosen = TASKS[config.task].options
    for name, entry in TASKS.items():
        for field in entry.options:
            if field not in chosen and hasattr(base, field) and getattr(config, field) != getattr(base, field):
                flag = f"--{field}.*" if dataclasses.is_dataclass(getattr(config, field)) else f"--{field}"
                raise UserError(f"{flag} was given, but the task is {config.task}; drop it or say --task {name}.")


def with_backbone(config: Any, name: str) -> Any:
    """A configuration with another kind of backbone, which keeps what both kinds have in common.

    **Arguments:**

    - `config`: has `backbone`, the name of a kind, and `model`, the sizes of one.
    """
    if name == config.backbone:
        return config
    kind, model = BACKBONES[name], config.model
    common = {f.name for f in dataclasses.fields(kind)} & {f.name for f in dataclasses.fields(model)}
    return dataclasses.replace(config, backbone=name, model=kind(**{field: getattr(model, field) for field in common}))
