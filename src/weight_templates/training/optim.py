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


def adamw(options: OptimOptions, schedule: optax.Schedule) -> optax.GradientTransformation:
    """AdamW that decays everything but gains and biases: template, scalers, weights and, as in MAE, tokens."""
    return optax.adamw(schedule, *options.betas, weight_decay=options.weight_decay, mask=decayed)


def decayed(params: PyTree) -> PyTree:
    """True at the leaves whose own name does not end in `gain` or `bias`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: not name_of(path).endswith(("gain", "bias")), params)
