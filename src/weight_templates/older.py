"""Files of earlier versions: their tensors and headers by the names of this one."""

import re
from typing import Any

import numpy as np


def renamed(arrays: dict[str, Any]) -> dict[str, Any]:
    """Tensors of a bank, or of a checkpoint, by today's names.

    Until bank 2 the backbone of an auto-encoder was its `encoder`, and the template and scalers of a stack were together
    in `factors`.
    """
    rules = (
        (r"\bfactors\.(\w+)\.template\.", r"templates.\1."),
        (r"\bfactors\.(\w+)\.scalers\.", r"scalers.\1."),
        (r"\bencoder\.", "backbone."),
    )
    found = {}
    for name, array in arrays.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        found[name] = array
    return found


def state(arrays: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """The tensors of a checkpoint by the names of a state of this version, whose arrays are `wanted`.

    Until bank 2 the sum of the losses was all that a state summed up; what is watched besides begins at zero.
    """
    if "tally" not in arrays:
        return arrays
    arrays = renamed(arrays)
    arrays["tally.loss"] = arrays.pop("tally")
    zeros = {n: np.zeros(a.shape, a.dtype) for n, a in wanted.items() if n.startswith("tally.") and n not in arrays}
    return arrays | zeros


def bank(arrays: dict[str, Any], header: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors and the header of a bank, as if this version had written it; those of an unknown version unchanged."""
    if header.get("format") != "weight-templates bank 2":
        return arrays, header
    header = dict(header)
    source = header.get("source")
    header |= {
        "format": "weight-templates bank 3",
        "backbone": {"kind": "vit", **header.pop("model")},
        "source": source and {"kind": "vit", **source},
        "task": "masked",
        "head": header.pop("decoder"),
    }
    return renamed(arrays), header
