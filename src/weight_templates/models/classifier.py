from typing import Any

import equinox as eqx
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ..nn import Linear
from .backbone import AbstractHead


class Classifier(AbstractHead):
    """A backbone with a linear head.

    While its templates are learned, `backbone` is a `Constrained` in the parameters and a plain backbone in the
    computation.
    """

    backbone: Any
    head: Linear
    pool: str = eqx.field(static=True)
    """What the head sees; see the backbone's `pooled`."""

    def __init__(self, backbone: Any, classes: int, pool: str = "mean", *, key: PRNGKeyArray):
        """The head starts next to zero, with deviation 2e-5 as in MAE's fine-tuning."""
        axis = backbone.config.features
        head = Linear(backbone.config.axes()[axis], classes, reads=axis, key=key)
        weight = 2e-5 * jr.truncated_normal(key, -2, 2, head.weight.shape)
        self.backbone = backbone
        self.head = eqx.tree_at(lambda linear: linear.weight, head, weight)
        self.pool = pool

    @property
    def options(self) -> dict[str, Any]:
        return {"classes": len(self.head.bias), "pool": self.pool}

    @classmethod
    def around(cls, backbone: Any, options: dict[str, Any], *, key: PRNGKeyArray) -> "Classifier":
        return cls(backbone, **options, key=key)

    def __call__(
        self, image: Float[Array, "h w 3"], gates: Float[Array, "layer branch"] | None = None
    ) -> Float[Array, " classes"]:
        """**Arguments:**

        - `image`: pixels, normalised by the mean and deviation of ImageNet.
        - `gates`: what the branches of every block are multiplied with, for stochastic depth; None: with 1.

        **Returns:** the logits.
        """
        return self.head(self.pooled(image, gates))

    def pooled(
        self, image: Float[Array, "h w 3"], gates: Float[Array, "layer branch"] | None = None
    ) -> Float[Array, " features"]:
        """What the head sees of an image."""
        return self.backbone.pooled(image, self.pool, gates)
