import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..trees import cycle
from .base import AbstractConstraint, Arrays, Count, Factors, Shape, check_rank, weight_variance


class Kronecker(AbstractConstraint):
    """`W_s = Σ_t S_st ⊗ T_t`: every slice is tiled by shared templates, tile (i, j) of slice s weighted by S_st[i, j].

    The family of WAVE (Feng et al., 2025) and WeiT; written as numpy's `kron(S, T)`, since a prefix of the width is
    then a prefix of the tiles. Where tiles do not divide a width, the last ones are cropped.
    """

    templates: int | None = eqx.field(default=None, static=True)
    """Number of templates; None: so many that they hold as many numbers as slices / 6 of half a slice, which gives all
    families templates of equal size where that is a whole number."""
    tile: tuple[int, int] | None = eqx.field(default=None, static=True)
    """Rows and columns of a template; None: those of a slice over `parts`, rounded up."""
    parts: int = eqx.field(default=2, static=True)

    def template(self, shape: Shape, *, key: PRNGKeyArray) -> Arrays:
        check_rank("--parts", self.parts, min(shape.rows, shape.cols), "the shorter side of a slice")
        rows, cols = self.tile or (-(-shape.rows // self.parts), -(-shape.cols // self.parts))
        check_rank("--kronecker.tile", rows, shape.rows, "the number of rows")
        check_rank("--kronecker.tile", cols, shape.cols, "the number of columns")
        across, along = -(-shape.rows // rows), -(-shape.cols // cols)
        count = self.templates
        if count is None:
            share = self.parts**2 if self.tile is None else shape.rows * shape.cols / (rows * cols)
            count = max(1, int(shape.slices * share / 24))
        check_rank("--kronecker.templates", count, shape.slices * across * along, "the number of tiles")
        return {"tiles": weight_variance(shape) ** 0.5 * jr.normal(key, (count, rows, cols, *shape.taps))}

    def scalers(self, template: Arrays, shape: Shape, *, key: PRNGKeyArray) -> Arrays:
        count, rows, cols = template["tiles"].shape[:3]
        across, along = -(-shape.rows // rows), -(-shape.cols // cols)
        return {"slice": count**-0.5 * jr.normal(key, (shape.slices, across, along, count))}

    def expand(self, factors: Factors, shape: Shape) -> Float[Array, "slice row col *tap"]:
        tiles, scalers = factors.template["tiles"], factors.scalers
        p, q = tiles.shape[1:3]
        n, a, b, _ = scalers["slice"].shape
        weight = jnp.tensordot(scalers["slice"], tiles, 1).swapaxes(2, 3).reshape(n, a * p, b * q, *shape.taps)
        weight = weight[:, : shape.rows, : shape.cols]
        if "rows" in scalers:
            rows, cols = (scalers[name].reshape(-1, *[1] * len(shape.taps)) for name in ("rows", "cols"))
            weight = weight * rows[:, None] * cols
        return weight

    def select(self, factors: Factors, shape: Shape, slices: Int[np.ndarray, " chosen"]) -> Factors:
        p, q = factors.template["tiles"].shape[1:3]
        across, along = -(-shape.rows // p), -(-shape.cols // q)
        chosen = cycle(cycle(factors.scalers["slice"][slices], across, 1), along, 2)
        return Factors(factors.template, {"slice": chosen})

    def mask(self, factors: Factors, shape: Shape, rows: Count, cols: Count) -> Factors:
        # A width may end inside a tile, so the masks of Eq. 7 stand beside the scalers instead of in them.
        dtype = factors.scalers["slice"].dtype
        row_mask = (jnp.arange(shape.rows) < rows).astype(dtype)
        col_mask = (jnp.arange(shape.cols) < cols).astype(dtype)
        return Factors(factors.template, {**factors.scalers, "rows": row_mask, "cols": col_mask})
