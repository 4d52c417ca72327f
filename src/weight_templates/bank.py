"""The public artefact of pre-training: templates, source scalers and free weights, as named tensors in safetensors."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from . import trees
from .config import DecoderConfig, Family, ViTConfig
from .constrained import Constrained, constrain, select
from .constraints import FAMILIES
from .errors import UserError
from .files import expanded, header_of, read_safetensors, write_safetensors
from .layouts import LAYOUTS
from .models import MAE
from .models.mae import with_encoder


FORMAT = "weight-templates bank 2"


@dataclasses.dataclass(frozen=True)
class Bank:
    """A pre-trained auto-encoder under a constraint, and where it comes from."""

    model: MAE
    """Its `encoder` is a `Constrained`: the template and its source scalers."""
    family: Family
    about: dict[str, Any]
    """Data and steps: for people to read."""
    source: ViTConfig | None = None
    """The backbone whose template it is, if that is of another size: then the scalers were adapted to this one's."""

    @property
    def config(self) -> ViTConfig:
        """The source backbone's configuration."""
        return self.model.encoder.config

    @property
    def sizes(self) -> dict[str, int]:
        """How many numbers the template, the scalers, the free leaves and the decoder have."""
        return sizes(self.model)


def sizes(model: MAE) -> dict[str, int]:
    """How many numbers the template, the scalers, the free leaves and the decoder of a constrained MAE have."""
    factors = model.encoder.factors.values()
    return {
        "template": sum(trees.count(f.template) for f in factors),
        "scalers": sum(trees.count(f.scalers) for f in factors),
        "free": trees.count(model.encoder.free),
        "decoder": trees.count(model.decoder),
    }


def build(vit: ViTConfig, decoder: DecoderConfig, constraint: Any, layout: Any, *, key: Any) -> MAE:
    """A randomly initialised auto-encoder around a constrained backbone; raises UserError where sizes do not fit."""
    ekey, dkey = jr.split(key)
    return MAE(constrain(vit, constraint, layout, key=ekey), vit, decoder, key=dkey)


def save_bank(path: str | os.PathLike[str], bank: Bank) -> None:
    """Writes a bank; the file appears whole or not at all."""
    encoder: Constrained = bank.model.encoder
    header = {
        "format": FORMAT,
        "family": bank.family,
        "options": {f.name: getattr(encoder.constraint, f.name) for f in dataclasses.fields(encoder.constraint)},
        "layout": next(name for name, cls in LAYOUTS.items() if isinstance(encoder.layout, cls)),
        "model": dataclasses.asdict(encoder.config),
        "source": None if bank.source is None else dataclasses.asdict(bank.source),
        "decoder": dataclasses.asdict(bank.model.config),
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
    arrays, header = read_safetensors(path, remedy="copy it again, or pre-train it anew")
    if header.get("format") != FORMAT:
        raise UserError(f"{path} is not a {FORMAT!r}; give a bank.safetensors that this version's pre-training wrote.")
    if layout is not None and header["layout"] != layout:
        raise UserError(f"{path} has layout {header['layout']}, not {layout}; pre-train a bank with --layout {layout}.")
    if header["family"] not in FAMILIES or header["layout"] not in LAYOUTS:
        raise UserError(
            f"{path} has family {header['family']!r} and layout {header['layout']!r}, which this version does not know; "
            "read it with the version that wrote it."
        )
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in header["options"].items()}
    config = ViTConfig(**header["model"])
    source = ViTConfig(**header["source"]) if header.get("source") else None
    skeleton = eqx.filter_eval_shape(
        build,
        source or config,
        DecoderConfig(**header["decoder"]),
        FAMILIES[header["family"]](**options),
        LAYOUTS[header["layout"]](),
        key=jr.key(0),
    )
    if source is not None:
        skeleton = eqx.filter_eval_shape(
            lambda m: with_encoder(m, select(m.encoder, config, [0] * config.depth)), skeleton
        )
    if difference := trees.mismatch(skeleton, arrays):
        raise UserError(f"{path} does not hold the tensors that its header promises: {difference}.")
    model = trees.with_arrays(skeleton, {name: jnp.asarray(array) for name, array in arrays.items()})
    return Bank(model, header["family"], header["about"], source)
