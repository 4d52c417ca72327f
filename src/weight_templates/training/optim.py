import jax
import optax
from jaxtyping import PyTree

from ..config import OptimOptions
from ..trees import name_of


def cosine(options: OptimOptions, steps: int) -> optax.Schedule:
    """MAE's learning rate over `steps`: from 0 up a line to base_lr · batch / 256, then down half a cosine to 0."""
    peak = options.base_lr * options.batch / 256
    warmup = round(options.warmup * steps)
    return optax.warmup_cosine_decay_schedule(0.0 if warmup else peak, peak, warmup, max(steps, warmup + 1))


SPARED = ("gain", "bias")


def adamw(
    options: OptimOptions, schedule: optax.Schedule, spared: tuple[str, ...] = SPARED
) -> optax.GradientTransformation:
    """AdamW that decays everything but gains and biases: template, scalers, weights and, as in MAE, tokens.

    **Arguments:**

    - `spared`: ends of the names of leaves that are not decayed.
    """
    return optax.adamw(
        schedule, *options.betas, weight_decay=options.weight_decay, mask=lambda params: decayed(params, spared)
    )


def decayed(params: PyTree, spared: tuple[str, ...] = SPARED) -> PyTree:
    """True at the leaves whose own name has none of the ends `spared`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: not name_of(path).endswith(spared), params)


def precision_of(asked: str) -> str:
    """The precision to compute in: as asked; `auto` is bfloat16 on a GPU, float32 elsewhere."""
    if asked != "auto":
        return asked
    return "bfloat16" if jax.default_backend() == "gpu" else "float32"
