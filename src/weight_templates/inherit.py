"""Models of other sizes from a bank: so far, of sizes that the source contains."""

import equinox as eqx

from .bank import Bank
from .constrained import Constrained, expand, select
from .errors import UserError
from .models import ViT


def resize(constrained: Constrained, depth: int | None = None, heads: int | None = None) -> Constrained:
    """The first `depth` layers and `heads` heads of a constrained backbone, still constrained; default: all.

    Raises UserError for a size that the source does not contain.
    """
    source = constrained.config
    for what, asked, limit in (("depth", depth, source.depth), ("heads", heads, source.heads)):
        if asked is not None and not 1 <= asked <= limit:
            raise UserError(f"{what} {asked} is not within the bank's {limit}; give a number from 1 to {limit}.")
    target = source.resized(depth, heads)
    return select(constrained, target, list(range(target.depth)))


def initialize(bank: Bank, depth: int | None = None, heads: int | None = None) -> ViT:
    """A plain backbone of another size, initialised from a bank without any training (SWEET §3.4).

    **Arguments:**

    - `depth`: number of layers, the first ones of the source; default all.
    - `heads`: number of heads, and with them the width; the first ones of the source; default all.

    **Returns:** a plain `ViT`. Raises UserError for a size that the source does not contain.
    """
    return eqx.filter_jit(expand)(resize(bank.model.encoder, depth, heads))
