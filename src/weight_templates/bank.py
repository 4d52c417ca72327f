"""The public artefact of pre-training: templates, source scalers and free weights, as named tensors in safetensors."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from . import older, trees
from .config import TASKS, BackboneConfig, Family, depths, found, from_header, to_header
from .constrained import constrain, select, with_backbone
from .constraints import FAMILIES, AbstractConstraint
from .errors import UserError
from .files import expanded, header_of, read_safetensors, write_safetensors
from .models import AbstractHead
from .sites import LAYOUTS, Layout


FORMAT = "weight-templates bank 3"


@dataclasses.dataclass(frozen=True)
class Bank:
    """A model that was pre-trained under a constraint, and where it comes from."""

    model: PyTree
    """Its `backbone` is a `Constrained`: the template and its source scalers. Around it is what the task needs."""
    family: Family
    about: dict[str, Any]
    """Data and steps: for people to read."""
    source: BackboneConfig | None = None
    """The backbone whose template it is, if that is of another size: then the scalers were adapted to this one's."""

    @property
    def config(self) -> BackboneConfig:
        """The source backbone's configuration."""
        return self.model.backbone.config

    @property
    def task(self) -> str:
        """The name of the task that it was trained by."""
        return task_of(self.model)

    @property
    def sizes(self) -> dict[str, int]:
        """How many numbers the template, the scalers, the free leaves and the head have."""
        return sizes(self.model)


def sizes(model: PyTree) -> dict[str, int]:
    """How many numbers the template, the scalers, the free leaves and the head of a constrained model have."""
    backbone = model.backbone
    parts = {"template": backbone.templates, "scalers": backbone.scalers, "free": backbone.free}
    found = {name: trees.count(part) for name, part in parts.items()}
    return found | {"head": trees.count(model) - sum(found.values())}


def build(
    config: BackboneConfig,
    constraint: AbstractConstraint,
    layout: Layout,
    task: str,
    options: dict[str, Any],
    *,
    key: PRNGKeyArray,
) -> PyTree:
    """A random model of a task around a constrained backbone; raises UserError where sizes do not fit."""
    bkey, hkey = jr.split(key)
    return found(TASKS[task].head).around(constrain(config, constraint, layout, key=bkey), options, key=hkey)


def save_bank(path: str | os.PathLike[str], bank: Bank) -> None:
    """Writes a bank; the file appears whole or not at all."""
    backbone = bank.model.backbone
    header = {
        "format": FORMAT,
        "family": bank.family,
        "options": {f.name: getattr(backbone.constraint, f.name) for f in dataclasses.fields(backbone.constraint)},
        "layout": backbone.layout,
        "backbone": to_header(backbone.config),
        "source": None if bank.source is None else to_header(bank.source),
        "task": bank.task,
        "head": bank.model.options,
        "about": bank.about,
    }
    write_safetensors(Path(path), {n: np.asarray(a) for n, a in trees.named_arrays(bank.model).items()}, header)


def is_bank(path: str | os.PathLike[str]) -> bool:
    """Whether a file says of itself that it is a bank, of whatever version; its soundness is not checked."""
    header = header_of(expanded(Path(path))) or {}
    return str(header.get("format")).startswith(FORMAT.rstrip("0123456789"))


def load_bank(path: str | os.PathLike[str], layout: str | None = None) -> Bank:
    """Reads a bank.

    **Arguments:**

    - `layout`: the layout that the caller needs, `unified` or `components`; any if None.

    Raises UserError if there is no such file, it is no bank, it is corrupt, or it has another layout.
    """
    path = expanded(Path(path))
    if not path.is_file():
        raise UserError(f"there is no bank at {path}; give the path of a bank.safetensors that pre-training wrote.")
    arrays, header = older.bank(*read_safetensors(path, remedy="copy it again, or pre-train it anew"))
    if header.get("format") != FORMAT:
        raise UserError(f"{path} is not a {FORMAT!r}; give a bank.safetensors that this version's pre-training wrote.")
    if layout is not None and header["layout"] != layout:
        raise UserError(f"{path} has layout {header['layout']}, not {layout}; pre-train a bank with --layout {layout}.")
    known = {"family": FAMILIES, "layout": LAYOUTS, "task": TASKS}
    if strange := [f"{name} {header[name]!r}" for name, names in known.items() if header[name] not in names]:
        raise UserError(
            f"{path} has {' and '.join(strange)}, which this version does not know; read it with the version that wrote it."
        )
    config = from_header(path, header["backbone"])
    source = from_header(path, header["source"]) if header["source"] else None
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in header["options"].items()}
    constraint = FAMILIES[header["family"]](**options)

    def skeleton() -> PyTree:
        model = build(source or config, constraint, header["layout"], header["task"], header["head"], key=jr.key(0))
        if source is None:
            return model
        return with_backbone(model, select(model.backbone, config, [[0] * depth for depth in depths(config)]))

    shapes = eqx.filter_eval_shape(skeleton)
    if difference := trees.mismatch(shapes, arrays):
        raise UserError(f"{path} does not hold the tensors that its header promises: {difference}.")
    model = trees.with_arrays(shapes, {name: jnp.asarray(array) for name, array in arrays.items()})
    return Bank(model, header["family"], header["about"], source)


def task_of(model: AbstractHead) -> str:
    """The name of the task that puts such a model around a backbone."""
    return next(name for name, entry in TASKS.items() if found(entry.head) is type(model))
