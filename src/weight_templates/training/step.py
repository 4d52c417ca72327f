import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, PyTree

from .. import trees


class TrainState(eqx.Module):
    """All that changes from step to step. Random keys are not in it: they follow from the seed and `step`."""

    step: Int[Array, ""]
    trained: PyTree
    """The parameters that the optimiser moves; None elsewhere."""
    frozen: PyTree
    """The other leaves; None where `trained` has one."""
    optimizer: PyTree
    average: PyTree | None
    """Exponential moving average of `trained`, if asked for."""
    tally: dict[str, Float[Array, ""]]
    """Sums since the last record, of the `loss` and of what else is watched."""
    tallied: Int[Array, ""]
    """How many steps these are of."""

    def recounted(self) -> "TrainState":
        """The same state with an empty tally."""
        return eqx.tree_at(
            lambda s: (s.tally, s.tallied), self, jax.tree.map(jnp.zeros_like, (self.tally, self.tallied))
        )

    @property
    def moving(self) -> "TrainState":
        """Without the frozen leaves, which a run has from its configuration: what a checkpoint needs."""
        return dataclasses.replace(self, frozen=None)

    def resumed(self, moving: "TrainState") -> "TrainState":
        """What `moving` was before its frozen leaves, the same as here, were left out."""
        return dataclasses.replace(moving, frozen=self.frozen)

    @property
    def model(self) -> PyTree:
        """The parameters, trained and frozen."""
        return eqx.combine(self.trained, self.frozen)

    @property
    def result(self) -> PyTree:
        """What the run is for: the moving average of the parameters if there is one, else the parameters."""
        return self.model if self.average is None else eqx.combine(self.average, self.frozen)


@dataclasses.dataclass(frozen=True)
class Watch:
    """What is recorded of a step beside its loss."""

    terms: tuple[str, ...] = ()
    """What the loss reports, by name."""
    label: Callable[[str], str] | None = None
    """Returns what a trained leaf is a part of, given its name. Of each part the size of the update over the size of the
    parameters is recorded. None: nothing but the terms is recorded."""

    def names(self, trained: PyTree) -> tuple[str, ...]:
        """The names of all that is recorded."""
        if self.label is None:
            return self.terms
        parts = sorted({self.label(name) for name in trees.named_arrays(trained)})
        return (*self.terms, "gradient_norm", "parameter_norm", *(f"update_ratio/{part}" for part in parts))

    def measured(self, terms: dict[str, Any], grads: PyTree, updates: PyTree, trained: PyTree) -> dict[str, Any]:
        """The numbers of one step: Euclidean norms, in float32."""
        found = {name: terms[name] for name in self.terms}
        if self.label is None:
            return found
        found |= {"gradient_norm": optax.tree.norm(grads), "parameter_norm": optax.tree.norm(trained)}
        parts: dict[str, list[tuple[Array, Array]]] = {}
        for (name, update), leaf in zip(
            trees.named_arrays(updates).items(), trees.named_arrays(trained).values(), strict=True
        ):
            parts.setdefault(self.label(name), []).append((update, leaf))
        for part, pairs in parts.items():
            moved, size = (optax.tree.norm(leaves) for leaves in zip(*pairs, strict=True))
            found[f"update_ratio/{part}"] = moved / jnp.maximum(size, 1e-12)
        return found


NOTHING = Watch()


def init_state(
    model: PyTree, trainable: PyTree, optimizer: optax.GradientTransformation, ema: bool, watch: Watch = NOTHING
) -> TrainState:
    """The state before the first step.

    **Arguments:**

    - `trainable`: a tree of booleans, True at the leaves of `model` to train.
    - `ema`: whether to keep a moving average.
    - `watch`: what the step records.
    """
    trained, frozen = eqx.partition(model, trainable)
    average = jax.tree.map(jnp.copy, trained) if ema else None  # a copy, since the step donates its buffers
    step, tallied = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
    tally = {name: jnp.zeros((), jnp.float32) for name in ("loss", *watch.names(trained))}
    return TrainState(step, trained, frozen, optimizer.init(trained), average, tally, tallied)


def step_keys(key: PRNGKeyArray, step: Int[Array, ""] | int) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    """The keys of a step: for preparing the model, and for the samples. `key` is the loop's."""
    pkey, skey = jr.split(jr.fold_in(key, step))
    return pkey, skey


def make_step(
    prepare: Callable[[PyTree, PRNGKeyArray], PyTree],
    loss: Callable[[PyTree, Any, Key[Array, " batch"]], tuple[Float[Array, ""], dict[str, Any]]],
    optimizer: optax.GradientTransformation,
    *,
    microbatches: int = 1,
    ema: float | None = None,
    watch: Watch = NOTHING,
) -> Callable[[TrainState, Any, PRNGKeyArray], TrainState]:
    """The one training step, pure, compiled once, its state donated.

    **Arguments:**

    - `prepare`: from parameters and the step's key to the model that computes: expansion, masks, precision. It runs
        once a step, however many micro-batches there are, and gradients are pulled back through it once.
    - `loss`: returns the mean loss of a batch and its terms by name, given that model, a batch and one key a sample.
    - `microbatches`: parts that a batch is computed in, one after the other.
    - `ema`: decay of the moving average, if the state has one.
    - `watch`: what is recorded beside the loss.

    **Returns:** `step(state, batch, key) -> state`. Sample `i` of step `n` sees the same key whatever the number of
    micro-batches or devices.
    """

    def gradient(model: PyTree, batch: Any, keys: Key[Array, " batch"]) -> tuple[tuple[Any, Any], PyTree]:
        value_and_grad = eqx.filter_value_and_grad(loss, has_aux=True)
        if microbatches == 1:
            return value_and_grad(model, batch, keys)
        # Strided parts: each has its share of every device's samples.
        parts = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), (batch, keys))
        zero = jax.tree.map(
            lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)),
            eqx.filter(model, eqx.is_inexact_array),
        )

        def add(total: Any, part: Any) -> tuple[Any, Any]:
            (value, terms), grads = value_and_grad(model, *part)
            return (total[0] + value, jax.tree.map(lambda a, b: a + b.astype(a.dtype), total[1], grads)), terms

        (value, grads), terms = jax.lax.scan(add, (jnp.array(0.0), zero), parts)
        value, grads = jax.tree.map(lambda x: x / microbatches, (value, grads))
        terms = jax.tree.map(lambda x: x.mean(axis=0), terms)
        floats = eqx.filter(model, eqx.is_inexact_array)
        return (value, terms), jax.tree.map(lambda g, x: g.astype(x.dtype), grads, floats)

    def step(state: TrainState, batch: Any, key: PRNGKeyArray) -> TrainState:
        pkey, skey = step_keys(key, state.step)
        keys = jr.split(skey, jax.tree.leaves(batch)[0].shape[0])
        model, pull_back = eqx.filter_vjp(lambda t: prepare(eqx.combine(t, state.frozen), pkey), state.trained)
        (value, terms), grads = gradient(model, batch, keys)
        (grads,) = pull_back(grads)
        updates, moments = optimizer.update(grads, state.optimizer, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        average = state.average
        if average is not None and ema is not None:
            average = optax.incremental_update(trained, average, 1 - ema)
        seen = {"loss": value, **watch.measured(terms, grads, updates, state.trained)}
        tally = {name: total + seen[name].astype(jnp.float32) for name, total in state.tally.items()}
        return TrainState(state.step + 1, trained, state.frozen, moments, average, tally, state.tallied + 1)

    return jax.jit(step, donate_argnums=0)
