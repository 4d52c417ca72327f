"""What a user may choose, as frozen dataclasses: the command line, `config.json` and the tests share them.

Nothing here imports JAX, so that `--help` answers at once.
"""

import dataclasses
import hashlib
import json
import re
import typing
from typing import Annotated, Any, Literal

from tyro.conf import arg

from .errors import UserError


Dress = Literal["enhanced", "plain"]
Family = Literal["none", "linear", "kronecker", "svd", "tucker"]
Scope = Literal["submodel", "scalers", "off"]
Execution = Literal["auto", "masked", "sliced"]
Application = Literal["auto", "expanded", "factored"]


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """A vision transformer backbone."""

    image: int = 32
    """Side of the square input, pixels."""
    patch: int = 4
    """Side of a patch, pixels; divides the image."""
    depth: int = 12
    """Number of blocks."""
    heads: int = 12
    """Number of attention heads."""
    head_dim: int = 16
    """Channels per head; a multiple of 4."""
    width: int | None = None
    """Channels of the residual stream; heads x head_dim if not given."""
    dress: Dress = "enhanced"
    """enhanced: RMSNorm, SwiGLU, 2-D RoPE. plain: LayerNorm, GELU, nested sin-cos positions."""

    @property
    def channels(self) -> int:
        """Channels of the residual stream, D."""
        return self.heads * self.head_dim if self.width is None else self.width

    @property
    def inner(self) -> int:
        """Channels inside attention, heads x head_dim; also the rows of a slice."""
        return self.heads * self.head_dim

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image // self.patch

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return self.grid**2

    @property
    def channels_per_head(self) -> int:
        """Residual channels that go with one head when the width is scaled."""
        return self.channels // self.heads

    def resized(self, depth: int | None = None, heads: int | None = None, columns: int | None = None):
        """The same network at another depth, number of heads, and residual width in heads (default: `heads`).

        A width that is no multiple of the heads stays as it is if their number does; see `inherit.target_size`.
        """
        heads = self.heads if heads is None else heads
        columns = heads if columns is None else columns
        width = self.channels if columns == self.heads else columns * self.channels_per_head
        return dataclasses.replace(
            self,
            depth=self.depth if depth is None else depth,
            heads=heads,
            width=None if width == heads * self.head_dim else width,
        )

    def check(self) -> None:
        """Raises UserError where the numbers do not make a network."""
        for name in ("image", "patch", "depth", "heads", "head_dim"):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name} is {getattr(self, name)}; give a positive number.")
        if self.image % self.patch:
            raise UserError(
                f"patches of {self.patch} px do not tile an image of {self.image} px; "
                "choose --model.patch among the divisors of --model.image."
            )
        if self.head_dim % 4:
            raise UserError(f"--model.head-dim {self.head_dim} is not a multiple of 4, which 2-D positions need.")
        if self.channels < 1:
            raise UserError(f"--model.width {self.channels} is not positive.")


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The masked auto-encoder around the backbone."""

    depth: int = 2
    """Decoder blocks. The decoder is most of a small encoder's cost: keep it light."""
    width: int = 96
    """Decoder channels."""
    heads: int = 6
    """Decoder heads; divides the width into heads of a multiple of 4 channels."""
    mask_ratio: float = 0.75
    """Fraction of the patches that is hidden, in (0, 1)."""
    norm_pix: bool = True
    """Predict pixels normalised by their patch's mean and deviation."""

    def check(self, vit: ViTConfig) -> None:
        """Raises UserError where the numbers do not make a decoder of `vit`."""
        if self.depth < 1 or self.width < 1 or self.heads < 1:
            raise UserError("decoder.depth, decoder.width and decoder.heads must be positive.")
        if self.width % self.heads or (self.width // self.heads) % 4:
            raise UserError(
                f"{self.heads} decoder heads do not divide {self.width} channels into multiples of 4; "
                "change --decoder.heads or --decoder.width."
            )
        if not 0 < self.mask_ratio < 1 or int(vit.patches * (1 - self.mask_ratio)) < 1:
            raise UserError(
                f"--decoder.mask-ratio {self.mask_ratio} does not leave some of {vit.patches} patches visible and hide "
                "others; give a ratio between 0 and 1 that leaves at least one."
            )


@dataclasses.dataclass(frozen=True)
class NoneOptions:
    """Ordinary pre-training: the weights are their own parameters."""


@dataclasses.dataclass(frozen=True)
class LinearOptions:
    """Every slice is a learned mixture of shared D x D slices."""

    rank: int | None = None
    """Number of shared slices; default slices / 24."""
    tleg: bool = False
    """Fixed mixtures, as in TLEG: every matrix grows linearly with the depth."""


@dataclasses.dataclass(frozen=True)
class KroneckerOptions:
    """Every slice is tiled by shared templates, scaled tile by tile (WAVE, WeiT)."""

    templates: int | None = None
    """Number of templates; default: as many template parameters as the other families."""
    tile: tuple[int, int] | None = None
    """Rows and columns of a template; default half a slice's, in the baseline wave a quarter."""


@dataclasses.dataclass(frozen=True)
class SvdOptions:
    """Shared bases left and right, one diagonal per slice (FINE)."""

    rank: int | None = None
    """Columns of the shared bases; default: as many template parameters as the other families."""


@dataclasses.dataclass(frozen=True)
class TuckerOptions:
    """A core, and factors along slices, rows and columns (SWEET)."""

    ranks: tuple[int, int, int] | None = None
    """Core sizes along slices, rows, columns; default slices / 6, rows / 2, columns / 2."""


@dataclasses.dataclass(frozen=True)
class ConstraintOptions:
    """The family of constraints, with each family's options beside it."""

    family: Annotated[Family, arg(name="")] = "tucker"
    """Constraint to pre-train under."""
    none: Annotated[NoneOptions, arg(prefix_name=False)] = NoneOptions()
    linear: Annotated[LinearOptions, arg(prefix_name=False)] = LinearOptions()
    kronecker: Annotated[KroneckerOptions, arg(prefix_name=False)] = KroneckerOptions()
    svd: Annotated[SvdOptions, arg(prefix_name=False)] = SvdOptions()
    tucker: Annotated[TuckerOptions, arg(prefix_name=False)] = TuckerOptions()

    @property
    def chosen(self) -> NoneOptions | LinearOptions | KroneckerOptions | SvdOptions | TuckerOptions:
        """The options of the chosen family."""
        return getattr(self, self.family)

    def check(self) -> None:
        """Raises UserError if an option of a family that is not chosen was given."""
        for other in typing.get_args(Family):
            if other != self.family and getattr(self, other) != type(getattr(self, other))():
                raise UserError(
                    f"options --{other}.* were given, but the constraint is {self.family}; "
                    f"drop them or say --constraint {other}."
                )


@dataclasses.dataclass(frozen=True)
class ScalingOptions:
    """Width-wise stochastic scaling (SWEET Eq. 7-8): every step sees a random prefix of the width."""

    scope: Scope | None = None
    """What a mask reaches. submodel: all that the narrower model lacks, so that masked equals sliced. scalers: the
    constrained weights alone, Eq. 7-8 to the letter. off: no masks. Default: submodel, and off for `none`."""
    heads: tuple[int, ...] | None = None
    """Widths to draw from, in heads; default all from a quarter of the model's heads."""
    coupled: bool = False
    """Draw one width for rows (heads) and columns (residual channels) instead of two."""
    execution: Execution = "auto"
    """masked: one program, which computes the full width and hides a part. sliced: a program for every width drawn,
    compiled when it first is, which computes that width only; same losses and gradients; scope submodel only. auto:
    sliced where the run is long enough for that to pay: 200 steps for every pair of widths there is to draw."""

    def scope_for(self, family: str) -> Scope:
        """The scope in force: as given, else `submodel` under a constraint and `off` without one."""
        return self.scope or ("off" if family == "none" else "submodel")

    def check(self, vit: ViTConfig, family: Family) -> None:
        """Raises UserError if the width does not scale with the heads, the widths are none of the model's, or there are no
        narrower models to compute."""
        if vit.channels % vit.heads:
            raise UserError(
                f"{vit.heads} heads do not divide a residual width of {vit.channels}; "
                "choose --model.width as a multiple of --model.heads."
            )
        if self.heads is not None and not (self.heads and all(1 <= n <= vit.heads for n in self.heads)):
            given = " ".join(map(str, self.heads))
            raise UserError(f"--scaling.heads {given} are not all between 1 and the model's {vit.heads} heads.")
        scope = self.scope_for(family)
        if self.execution == "sliced" and scope != "submodel":
            raise UserError(
                f"--scaling.execution sliced computes narrower models, which --scaling.scope {scope} does not "
                "make; say --scaling.scope submodel, or --scaling.execution masked."
            )


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Images to learn from."""

    source: Annotated[str, arg(name="")] = "synthetic"
    """`synthetic`; a folder of images (plain, or one folder per class); a Parquet file or a folder of them in the
    Hugging Face image layout; an .npz file with `images`, and perhaps `labels` and `classes`; WebDataset's .tar files;
    `NAME:FOLDER`, one of SWEET's downstream sets as its authors distribute it, NAME being
    flowers102, cub200, cars196, cifar10, cifar100, food101 or inat2019; `hub:OWNER/NAME`, any Hugging Face data set; or
    `NAME` alone, a downstream set from there (extra: hub). A folder with the name of a set is ./NAME."""
    split: str = "train"
    """Split to read where the source has several; the downstream sets have train and test."""
    count: int | None = None
    """Images of the synthetic source (default 4096), or at most so many of any other."""
    label: str | None = None
    """Column of the labels of Parquet or hub data; default label, labels or fine_label, or the only one whose classes the
    file names. In .tar files the ending of the members with labels, or their entry in JSON; default cls, and label."""
    on_corrupt: Literal["refuse", "skip"] = "refuse"
    """An image that does not decode: refuse to start, or leave it out. Both name its path."""
    resident_mb: int = 2048
    """Sets of equal-sized images below this many MB of pixels live on the device; others stream from the disk."""
    threads: int | None = None
    """Decoding threads; default one per core. Their number changes no result."""

    def check(self) -> None:
        """Raises UserError where a number is out of range."""
        if self.count is not None and self.count < 1:
            raise UserError(f"--data.count {self.count} leaves no image; give a positive number.")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"--data.threads {self.threads} is not positive.")
        if self.resident_mb < 0:
            raise UserError(f"--data.resident-mb {self.resident_mb} is negative.")


@dataclasses.dataclass(frozen=True)
class OptimOptions:
    """AdamW with MAE's schedule: linear warm-up, then half a cosine to zero, step by step."""

    base_lr: float = 1.5e-4
    """Learning rate per 256 images; the peak rate is base_lr x batch / 256."""
    batch: int = 256
    """Images per optimiser step, over all devices and micro-batches."""
    epochs: int = 40
    """Passes over the training images."""
    steps: int | None = None
    """Optimiser steps, instead of epochs."""
    warmup: float = 0.1
    """Fraction of the steps that warm up."""
    weight_decay: float = 0.05
    """Decoupled decay of everything but gains and biases."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's moments."""
    microbatches: int = 1
    """Gradient accumulation: parts that a batch is computed in."""
    ema: float | None = None
    """Decay of an exponential moving average of the parameters; the bank then holds the average."""

    def total(self, steps_per_epoch: int) -> int:
        """Optimiser steps in all."""
        return self.steps or self.epochs * steps_per_epoch

    def check(self, flag: str = "--optim") -> None:
        """Raises UserError where a number is out of range; `flag` is what these options are called."""
        if self.batch < 1:
            raise UserError(f"{flag}.batch {self.batch} has no image; give a positive number.")
        if self.microbatches < 1 or self.batch % self.microbatches:
            raise UserError(
                f"{flag}.batch {self.batch} does not divide into {self.microbatches} micro-batches; "
                f"choose {flag}.microbatches among its divisors."
            )
        if self.epochs < 1 or (self.steps is not None and self.steps < 1):
            raise UserError(f"{flag}.epochs and {flag}.steps must be at least 1.")
        if not self.base_lr > 0:
            raise UserError(f"{flag}.base-lr {self.base_lr} is not positive.")
        if not 0 <= self.warmup < 1:
            raise UserError(f"{flag}.warmup {self.warmup} is not in [0, 1): it is a fraction of the steps.")
        if self.weight_decay < 0:
            raise UserError(f"{flag}.weight-decay {self.weight_decay} is negative.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"{flag}.betas {self.betas} are not both in [0, 1).")
        if self.ema is not None and not 0 < self.ema < 1:
            raise UserError(f"{flag}.ema {self.ema} is not in (0, 1).")


@dataclasses.dataclass(frozen=True)
class RecipeOptions:
    """What fine-tuning adds to AdamW, after MAE and DeiT. Zero switches off; layer_decay 1 does."""

    layer_decay: float = 1.0
    """Learning rate of a layer over that of the one above it, in the model's own depth: block i of 1 … L has
    layer_decay^(L + 1 - i) of the head's, the embedding layer_decay^(L + 1)."""
    drop_path: float = 0.0
    """Stochastic depth: probability that the last block's branches are dropped; it grows linearly from 0 at the first."""
    crop: float = 0.2
    """Smallest share of an image that a random crop shows."""
    randaugment: float = 0.0
    """Magnitude of RandAugment, 0 to 10: two of fifteen operations on every image."""
    erasing: float = 0.0
    """Probability that a random rectangle is replaced by noise."""
    mixup: float = 0.0
    """Alpha of mixup; if cutmix is on too, each batch takes one of them."""
    cutmix: float = 0.0
    """Alpha of cutmix."""
    smoothing: float = 0.1
    """Label smoothing."""

    def check(self) -> None:
        """Raises UserError where a number is out of range."""
        ranges = {"drop_path": 1, "randaugment": 10, "erasing": 1, "smoothing": 1}
        for name, most in ranges.items():
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"--recipe.{name.replace('_', '-')} {getattr(self, name)} is not in [0, {most}].")
        if self.drop_path == 1:
            raise UserError("--recipe.drop-path 1 drops the last block always; give a number below 1.")
        if not 0 < self.layer_decay <= 1 or not 0 < self.crop <= 1:
            raise UserError("--recipe.layer-decay and --recipe.crop must be in (0, 1].")
        if self.mixup < 0 or self.cutmix < 0:
            raise UserError("--recipe.mixup and --recipe.cutmix must not be negative.")


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Where a run lives and what it tells. None of this changes a result, nor the run's directory."""

    root: str = "runs"
    """Folder of all runs; a run's own directory is a function of its configuration."""
    out: str | None = None
    """Directory of this run, instead of the derived one."""
    overwrite: bool = False
    """Start anew, whatever the directory holds."""
    log_every: int = 20
    """Steps between two records of the loss."""
    save_every: int = 200
    """Steps between two checkpoints."""
    logger: Literal["none", "tensorboard", "wandb"] = "none"
    """Also send the metrics to TensorBoard or Weights & Biases (extra: track)."""
    devices: int | None = None
    """Devices of this host to share each batch among; default all."""

    def check(self) -> None:
        """Raises UserError where a number is out of range."""
        if self.log_every < 1 or self.save_every < 1:
            raise UserError("--run.log-every and --run.save-every must be at least 1.")


def check_seed(seed: int, flag: str = "--seed") -> None:
    """Raises UserError unless 0 <= seed < 2³²; `flag` is what the seed is called."""
    if not 0 <= seed < 2**32:
        raise UserError(f"{flag} {seed} is not in [0, 2³²).")


def to_json(config: Any, *, without: tuple[str, ...] = ("run",)) -> dict[str, Any]:
    """A configuration as JSON, less what does not change a result: some fields, and the slash after a folder's name, which
    the completion of names leaves."""
    tree = {k: v for k, v in dataclasses.asdict(config).items() if k not in without}
    if isinstance(tree.get("data"), dict):
        del tree["data"]["threads"]
        if tree["data"].get("label") is None:  # what runs were called before there was this option
            tree["data"].pop("label", None)
    return json.loads(re.sub(r'(?<=[^"/])/+"', '"', json.dumps(tree)))


def digest(tree: dict[str, Any] | list[Any]) -> str:
    """Eight hexadecimal digits that name a JSON tree."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]
