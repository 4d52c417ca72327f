"""Pre-train weight templates, and initialise vision models of any size from them.

    import weight_templates as wt

    bank = wt.load_bank("runs/pretrain/…/bank.safetensors")
    vit = wt.initialize(bank, depth=6, heads=6)  # a plain Equinox module
    wt.save_model("vit.safetensors", vit, about={})

Names are imported when they are first used, so that a command line that only parses does not wait for JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .bank import Bank, is_bank, load_bank, save_bank
    from .config import (
        ConstraintOptions,
        ConvNextConfig,
        DataOptions,
        DecoderConfig,
        OptimOptions,
        RecipeOptions,
        ScalingOptions,
        ViTConfig,
        Widths,
    )
    from .constrained import Constrained, constrain, expand, materialize, select
    from .constraints import FAMILIES, Factors, Kronecker, Linear, Shape, Svd, Tucker, Unconstrained
    from .convert import at_resolution, export_model, load_model, save_model
    from .counting import Count, count
    from .errors import RunError, UserError
    from .inherit import initialize, resize
    from .models import MAE, Classifier, ConvNext, ViT
    from .notebooks import adapt, finetune, pretrain


_HOMES = {
    "bank": ("Bank", "is_bank", "load_bank", "save_bank"),
    "config": (
        "ConstraintOptions",
        "ConvNextConfig",
        "DataOptions",
        "DecoderConfig",
        "OptimOptions",
        "RecipeOptions",
        "ScalingOptions",
        "ViTConfig",
        "Widths",
    ),
    "constrained": ("Constrained", "constrain", "expand", "materialize", "select"),
    "constraints": ("FAMILIES", "Factors", "Kronecker", "Linear", "Shape", "Svd", "Tucker", "Unconstrained"),
    "convert": ("at_resolution", "export_model", "load_model", "save_model"),
    "counting": ("Count", "count"),
    "errors": ("RunError", "UserError"),
    "inherit": ("initialize", "resize"),
    "models": ("MAE", "Classifier", "ConvNext", "ViT"),
    "notebooks": ("adapt", "finetune", "pretrain"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__: list[str] = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
