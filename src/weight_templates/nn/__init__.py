"""Layers. Each takes one sample; `jax.vmap` makes a batch.

Arrays are stored the way the constraints see them: internal axis first (heads, hidden units), residual axis last, so
that the first entries along every axis are the narrower layer. Names of axes: `width` (residual channels), `inner`
(heads x channels of a head), `third` (a third of inner, rounded down: one component of SwiGLU in one slice).
"""

from .attention import Attention
from .linear import Factored, Linear, project
from .mlp import Gelu, SwiGlu
from .norm import AbstractNorm, LayerNorm, RMSNorm
from .position import nested_sincos, rotary


__all__ = [
    "AbstractNorm",
    "Attention",
    "Factored",
    "Gelu",
    "LayerNorm",
    "Linear",
    "RMSNorm",
    "SwiGlu",
    "nested_sincos",
    "project",
    "rotary",
]
