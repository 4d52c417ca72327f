import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from ..config import OptimOptions
from ..trees import name_of


def schedule_of(options: OptimOptions, steps: int) -> optax.Schedule:
    """The learning rate over `steps`: from 0 up a line to base_lr · batch / 256, then down as `options.schedule` says."""
    peak = options.base_lr * options.batch / 256
    warmup = round(options.warmup * steps)
    rest = max(steps, warmup + 1) - warmup
    down = {
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest),
        "linear": lambda: optax.linear_schedule(peak, 0.0, rest),
        "constant": lambda: optax.constant_schedule(peak),
        "stable": lambda: optax.linear_schedule(peak, 0.0, max(1, round(0.2 * rest)), rest - max(1, round(0.2 * rest))),
    }[options.schedule]()
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), down], [warmup]) if warmup else down


SPARED = ("gain", "bias")


def adamw(
    options: OptimOptions, schedule: optax.Schedule, spared: tuple[str, ...] = SPARED
) -> optax.GradientTransformation:
    """AdamW that decays everything but gains and biases: template, scalers, weights and, as in MAE, tokens.

    **Arguments:**

    - `spared`: ends of the names of leaves that are not decayed.
    """
    made = optax.adamw(
        schedule, *options.betas, weight_decay=options.weight_decay, mask=lambda params: decayed(params, spared)
    )
    return made if options.clip is None else optax.chain(optax.clip_by_global_norm(options.clip), made)


def scaled(optimizer: optax.GradientTransformation, scales: PyTree) -> optax.GradientTransformation:
    """An optimiser whose every update, decay included, is multiplied leaf by leaf."""
    return optax.chain(optimizer, optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, scales)))


def decayed(params: PyTree, spared: tuple[str, ...] = SPARED) -> PyTree:
    """True at the leaves whose own name has none of the ends `spared`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: not name_of(path).endswith(spared), params)


def precision_of(asked: str) -> str:
    """The precision to compute in: as asked; `auto` is bfloat16 on a GPU, float32 elsewhere."""
    if asked != "auto":
        return asked
    return "bfloat16" if jax.default_backend() == "gpu" else "float32"
