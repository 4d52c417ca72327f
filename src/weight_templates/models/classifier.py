from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ..nn import Linear


Pool = Literal["mean", "cls"]


class Classifier(eqx.Module):
    """A backbone with a linear head.

    `pool` is what the head sees: `mean`, the last norm of the mean over patches, as MAE fine-tunes (He et al., 2022,
    appendix A.1; timm's `fc_norm`); `cls`, the class token after the last norm, as DeiT has it.

    While its templates are learned, `backbone` is a `Constrained` in the parameters and a `ViT` in the computation.
    """

    backbone: Any
    head: Linear
    pool: Pool = eqx.field(static=True)

    def __init__(self, backbone: Any, classes: int, pool: Pool = "mean", *, key: PRNGKeyArray):
        """The head starts next to zero, with deviation 2e-5 as in MAE's fine-tuning."""
        head = Linear(backbone.config.channels, classes, key=key)
        weight = 2e-5 * jr.truncated_normal(key, -2, 2, head.weight.shape)
        self.backbone = backbone
        self.head = eqx.tree_at(lambda linear: linear.weight, head, weight)
        self.pool = pool

    def __call__(
        self, image: Float[Array, "h w 3"], gates: Float[Array, "layer 2"] | None = None
    ) -> Float[Array, " classes"]:
        """**Arguments:**

        - `image`: pixels, normalised by the mean and deviation of ImageNet.
        - `gates`: see `ViT.features`.

        **Returns:** the logits.
        """
        return self.head(self.pooled(image, gates))

    def pooled(
        self, image: Float[Array, "h w 3"], gates: Float[Array, "layer 2"] | None = None
    ) -> Float[Array, " width"]:
        """What the head sees of an image."""
        tokens = self.backbone.features(image, gates=gates)
        return self.backbone.norm(tokens[0] if self.pool == "cls" else jnp.mean(tokens[1:], axis=0))
