import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from .. import cli
from ..errors import RunError, UserError
from .loop import Interrupt, fit
from .record import Run, Stopwatch
from .sharding import agreed, alone, leads, local, meet, replicate
from .step import TrainState


AHEAD = 8
"""Steps that may be on their way to the device, and between two questions of several processes whether to stop: so many
have to end, and a state to be saved, between a launcher's notice and its end of the job."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long a run trains, and how often it looks up. All numbers are of steps, but `batch`, of images."""

    steps: int
    steps_per_epoch: int
    batch: int
    evaluate_every: int


def train(
    run: Run,
    plan: Plan,
    state: TrainState,
    step: Callable[[TrainState, Any, PRNGKeyArray], TrainState],
    batches: Callable[[int], Iterable[Any]],
    evaluate: Callable[[TrainState], tuple[float, dict[str, float]]],
    *,
    schedule: optax.Schedule,
    identity: str,
    mesh: Mesh,
    key: PRNGKeyArray,
) -> TrainState:
    """Trains in a run's directory, from its last checkpoint if there is one.

    **Arguments:**

    - `run`: entered already.
    - `state`: before the first step.
    - `batches`: from the number of steps done to the batches of the steps that are left.
    - `evaluate`: from a state to a score, of which the lowest is the best, and the metrics to record.
    - `schedule`: the learning rate, to record it.
    - `identity`: what the data are; a run goes on with no others.

    **Returns:** the state after the last step; `run.checkpoints.best` has the one of the best score.

    Raises RunError if the loss is not finite, UserError if the run began on other data, SystemExit if interrupted.
    """
    options = run.options
    start, best = 0, float("inf")
    if (saved := run.checkpoints.restore(state.moving)) is not None:
        moving, about = saved
        state = state.resumed(moving)
        start, best = about["step"], about["best"]
        if about["data"] != identity:
            raise UserError(
                f"{run.path} began on {about['data']}, now there are {identity}; say --run.overwrite to start anew."
            )
        cli.say(f"going on from step {start} of {plan.steps} in {run.path}")
    else:
        cli.say(f"{plan.steps} steps in {run.path}")
    state = replicate(state, mesh)
    run.begin(start, plan.steps)
    watch = Stopwatch(start, plan.steps, plan.batch)

    def finite(loss: float, done: int) -> float:
        # A state is saved only if its losses are finite, so a checkpoint is always sound.
        if not loss < float("inf"):
            raise RunError(
                f"the loss is {loss} at step {done}; lower --optim.base-lr, or say --precision float32. "
                f"Checkpoints in {run.checkpoints.folder} are from before that."
            )
        return loss

    def record(done: int, state: TrainState) -> TrainState:
        means = {name: float(total) / int(state.tallied) for name, total in jax.device_get(state.tally).items()}
        loss = finite(means.pop("loss"), done)
        rate = jnp.asarray(schedule(done - 1)).item()
        run.record(step=done, epoch=done / plan.steps_per_epoch, loss=loss, learning_rate=rate, **means)
        run.time(step=done, images_per_second=watch.lap(done, loss))
        return state.recounted()

    def judge(done: int, state: TrainState) -> None:
        nonlocal best
        finite(float(state.tally["loss"]), done)
        score, metrics = evaluate(local(state))
        finite(score, done)
        run.record(step=done, epoch=done / plan.steps_per_epoch, **metrics)
        better, best = score < best, min(score, best)
        keep(done, state, better)

    def keep(done: int, state: TrainState, better: bool = False) -> None:
        finite(float(state.tally["loss"]), done)
        if leads():
            run.checkpoints.save(done, local(state.moving), {"best": best, "data": identity}, best=better)

    def save(done: int, state: TrainState) -> None:
        if done % plan.evaluate_every and done != plan.steps:  # else it was kept when it was judged
            keep(done, state)

    def heed(done: int, state: TrainState) -> None:
        if asked := agreed(interrupt.asked):
            keep(done, state)
            run.checkpoints.wait()
            cli.say(
                f"\nsaved at step {done}, asked to stop; the same command, less --run.overwrite, goes on from there."
            )
            interrupt.pass_on(asked)

    def wait(done: int, state: TrainState) -> None:
        nonlocal mark
        before, mark = mark, jnp.copy(local(state.step))  # a copy, since the next step donates its buffers
        if before is not None:
            before.block_until_ready()  # of half of AHEAD steps ago: the device has the other half to go on with

    mark = None
    with Interrupt() as interrupt:
        often = 1 if alone() else min(AHEAD, options.log_every)  # several ask each other, which waits for the device
        every = [
            (options.log_every, record),
            (plan.evaluate_every, judge),
            (options.save_every, save),
            (AHEAD // 2, wait),
            (often, heed),
        ]
        state = fit(state, step, batches(start), start=start, stop=plan.steps, key=key, every=every)
        run.checkpoints.wait()
    meet("trained")
    return local(state)
