import signal
from collections.abc import Callable, Iterable, Sequence
from types import FrameType
from typing import Any, TypeVar

from jaxtyping import PRNGKeyArray


State = TypeVar("State")


def fit(
    state: State,
    step: Callable[[State, Any, PRNGKeyArray], State],
    batches: Iterable[Any],
    *,
    start: int,
    stop: int,
    key: PRNGKeyArray,
    every: Sequence[tuple[int, Callable[[int, State], State | None]]] = (),
) -> State:
    """The one training loop: steps `start` … `stop - 1`.

    **Arguments:**

    - `batches`: the batches of these steps, in order.
    - `every`: pairs `(n, hook)`; `hook(done, state)` is called whenever the number `done` of steps is a multiple of
        `n`, and at the end. A hook may return another state, such as one with an emptied tally.

    **Returns:** the state after the last step.
    """
    for done, batch in enumerate(batches, start=start + 1):
        state = step(state, batch, key)
        for n, hook in every:
            if done % n == 0 or done == stop:
                changed = hook(done, state)
                state = state if changed is None else changed
    return state


class Interrupt:
    """While entered, SIGTERM and Ctrl-C only raise a flag, to be looked at between two steps; again, they interrupt."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            raise KeyboardInterrupt
        self.asked = number
