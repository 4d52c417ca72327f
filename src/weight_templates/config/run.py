"""Runs: where they live, and the configuration that names them."""

import dataclasses
import hashlib
import json
import re
from typing import Any, Literal

from ..errors import UserError


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Where a run lives and what it tells. None of this changes a result, nor the run's directory."""

    root: str = "runs"
    """Folder of all runs; a run's own directory is a function of its configuration."""
    out: str | None = None
    """Directory of this run, instead of the derived one."""
    overwrite: bool = False
    """Start anew, whatever the directory holds."""
    log_every: int = 20
    """Steps between two records of the loss."""
    save_every: int = 200
    """Steps between two checkpoints."""
    logger: Literal["none", "tensorboard", "wandb"] = "none"
    """Also send the metrics to TensorBoard or Weights & Biases (extra: track)."""
    devices: int | None = None
    """Devices of this host to share each batch among; default all."""

    def check(self) -> None:
        """Raises UserError where a number is out of range."""
        if self.log_every < 1 or self.save_every < 1:
            raise UserError("--run.log-every and --run.save-every must be at least 1.")


def check_seed(seed: int, flag: str = "--seed") -> None:
    """Raises UserError unless 0 <= seed < 2³²; `flag` is what the seed is called."""
    if not 0 <= seed < 2**32:
        raise UserError(f"{flag} {seed} is not in [0, 2³²).")


LATER = {"later": True}
"""Metadata of a field that earlier versions lacked: at its default it is left out of `config.json`, so that the directory
of a run that they began is found again."""


def to_json(config: Any, *, without: tuple[str, ...] = ("run",)) -> dict[str, Any]:
    """A configuration as JSON, less what does not change a result: some fields, and the slash after a folder's name, which
    the completion of names leaves. See also `LATER`."""
    tree = {name: value for name, value in _tree(config).items() if name not in without}
    if isinstance(tree.get("data"), dict):
        del tree["data"]["threads"]
    return json.loads(re.sub(r'(?<=[^"/])/+"', '"', json.dumps(tree)))


def _tree(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {
            field.name: _tree(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not (field.metadata.get("later") and getattr(value, field.name) == _default(field))
        }
    return [_tree(one) for one in value] if isinstance(value, tuple | list) else value


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def digest(tree: dict[str, Any] | list[Any]) -> str:
    """Eight hexadecimal digits that name a JSON tree."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]
