import concurrent.futures
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .. import older, trees
from ..errors import UserError
from ..files import read_safetensors, write_safetensors


KEPT = 2
REMEDY = "say --run.overwrite to start anew"


class Checkpoints:
    """A folder of training states: the last two, and the best by a held-out score.

    Each is one safetensors file, tensors named by their place in the tree, JSON about them beside. Writing happens on a
    thread, one file at a time, and a file appears whole or not at all: a process may be killed at any instant.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._writing: concurrent.futures.Future[None] | None = None

    def save(self, step: int, state: PyTree, about: dict[str, Any], best: bool = False) -> None:
        """Copies the state from the device now, and writes it in the background; `best` also as the best so far."""
        self.wait()
        arrays = {name: np.array(leaf) for name, leaf in jax.device_get(trees.named_arrays(state)).items()}
        self._writing = self._pool.submit(self._write, step, arrays, about | {"step": step}, best)

    def wait(self) -> None:
        """Until what was saved is on the disk; raises what went wrong there."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def restore(self, like: PyTree) -> tuple[PyTree, dict[str, Any]] | None:
        """The newest sound state, in the shape of `like`, and what was saved about it; None if none was ever saved.

        Raises UserError if no file is sound, or the newest sound one holds other tensors than `like`.
        """
        damaged = []
        for path in reversed(self._numbered()):
            try:
                arrays, about = read_safetensors(path, remedy=REMEDY)
            except UserError as error:
                damaged.append((path, error))  # the one before it is there for this
                continue
            for newer, _ in damaged:  # so that it does not count among those to keep
                newer.unlink(missing_ok=True)
            return _fitted(path, arrays, like), about
        if damaged:
            raise damaged[0][1]
        return None

    def best(self, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """The state of the best score, in the shape of `like`, and what was saved about it; raises UserError."""
        path = self.folder / "best.safetensors"
        arrays, about = read_safetensors(path, remedy=REMEDY)
        return _fitted(path, arrays, like), about

    def _numbered(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.safetensors"))

    def _write(self, step: int, arrays: dict[str, np.ndarray], about: dict[str, Any], best: bool) -> None:
        if best:
            write_safetensors(self.folder / "best.safetensors", arrays, about)
        write_safetensors(self.folder / f"{step:09d}.safetensors", arrays, about)
        for old in self._numbered()[:-KEPT]:
            old.unlink(missing_ok=True)


def _fitted(path: Path, arrays: dict[str, np.ndarray], like: PyTree) -> PyTree:
    arrays = older.state(arrays, trees.named_arrays(like))
    if difference := trees.mismatch(like, arrays):
        raise UserError(f"{path} is of another model: {difference}; {REMEDY}.")
    return trees.with_arrays(like, {name: jnp.asarray(a) for name, a in arrays.items()})
