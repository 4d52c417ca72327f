import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from types import FrameType
from typing import Any, TypeVar

from jaxtyping import PRNGKeyArray

from ..entry import leave


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
    """While entered, SIGTERM and Ctrl-C only raise a flag, to be looked at between two steps; again, they interrupt.

    Where a launcher has handlers of its own, as submitit has for SIGTERM and SIGUSR2, they are called by `pass_on`.
    """

    ORDER = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)

    def __init__(self) -> None:
        self.asked = 0
        """Which signal has come: 1 + its place in ORDER, the weightiest if several have; 0 if none."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        for number in self.ORDER:
            before = signal.getsignal(number)
            self._before[number] = before
            if number != signal.SIGUSR2 or callable(before):
                signal.signal(number, self._hear)
        return self

    def pass_on(self, asked: int) -> None:
        """To be called when all is saved: what the signal would have done; returns if that is to go on."""
        self.asked, number = 0, self.ORDER[asked - 1]
        if not self._launched(number):
            raise SystemExit(128 + number)
        self._before[number](number, None)
        if number == signal.SIGUSR2:
            if "SLURM_JOB_ID" in os.environ:
                time.sleep(600)  # the first of several processes has the job stopped, and must not miss the others
            raise SystemExit(128 + number)

    def _launched(self, number: int) -> bool:
        before = self._before[number]
        return callable(before) and before not in (signal.default_int_handler, leave)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked and not self._launched(number):
            if self._before[signal.SIGINT] is leave:
                leave()
            raise KeyboardInterrupt
        self.asked = max(self.asked, 1 + self.ORDER.index(number))
