"""What a user may choose, as frozen dataclasses: the command line, `config.json` and the tests share them.

Nothing here imports JAX, so that `--help` answers at once.
"""

from .backbones import (
    BACKBONES,
    BackboneConfig,
    ConvNextConfig,
    Dress,
    Sizes,
    ViTConfig,
    Widths,
    depths,
    from_header,
    to_header,
)
from .constraint import (
    Application,
    ConstraintOptions,
    Execution,
    Family,
    KroneckerOptions,
    Layout,
    LinearOptions,
    NoneOptions,
    ScalingOptions,
    Scope,
    SvdOptions,
    TuckerOptions,
)
from .data import DataOptions
from .experiments import FINE, PROBE, Adaptation, Finetuning, Precision, Pretraining, with_backbone
from .optim import OptimOptions
from .run import RunOptions, check_seed, digest, to_json
from .tasks import TASKS, DecoderConfig, RecipeOptions, TaskEntry, found


__all__ = [
    "BACKBONES",
    "FINE",
    "PROBE",
    "TASKS",
    "Adaptation",
    "Application",
    "BackboneConfig",
    "ConstraintOptions",
    "ConvNextConfig",
    "DataOptions",
    "DecoderConfig",
    "Dress",
    "Execution",
    "Family",
    "Finetuning",
    "KroneckerOptions",
    "Layout",
    "LinearOptions",
    "NoneOptions",
    "OptimOptions",
    "Precision",
    "Pretraining",
    "RecipeOptions",
    "RunOptions",
    "ScalingOptions",
    "Scope",
    "Sizes",
    "SvdOptions",
    "TaskEntry",
    "TuckerOptions",
    "ViTConfig",
    "Widths",
    "check_seed",
    "depths",
    "digest",
    "found",
    "from_header",
    "to_header",
    "to_json",
    "with_backbone",
]
