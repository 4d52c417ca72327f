"""The product of tokens with a matrix, whose gradients are products of the same precision and of the faster orientation.

JAX's own gradients differ in two things. In half precision it promotes the gradient that comes back before multiplying, which
matrix units are slow at; and the gradient of a matrix is always written `gᵀ x`, for which a CPU first transposes `g`, all
tokens long, even where `xᵀ g` would transpose far less.
"""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float


@jax.custom_jvp
def product(x: Float[Array, "*batch in"], weight: Float[Array, "out in"]) -> Float[Array, "*batch out"]:
    """`x weightᵀ` in the precision of `x`, summed in float32 at least; so are its gradients."""
    return _multiply(x, weight)


def _multiply(x: Array, weight: Array) -> Array:
    return _summed(x, weight, (x.ndim - 1,), (1,)).astype(x.dtype)


def _summed(a: Array, b: Array, first: tuple[int, ...], second: tuple[int, ...]) -> Array:
    """The sum of products over axes of `a` and as many of `b`."""
    precision = jnp.promote_types(a.dtype, jnp.float32)
    return lax.dot_general(a, b, ((first, second), ((), ())), preferred_element_type=precision)


def _derivative(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x, weight), (dx, dweight) = primals, tangents
    terms = []
    if not isinstance(dx, SymbolicZero):
        terms.append(bilinear.bind(dx, weight))
    if not isinstance(dweight, SymbolicZero):
        terms.append(bilinear.bind(x, dweight))
    y = product(x, weight)
    return y, sum(terms[1:], terms[0]) if terms else jnp.zeros_like(y)


product.defjvp(_derivative, symbolic_zeros=True)


bilinear = Primitive("product")
"""The same again, as JAX differentiates and batches it by the rules below."""
bilinear.def_impl(_multiply)
bilinear.def_abstract_eval(lambda x, weight: jax.core.ShapedArray((*x.shape[:-1], weight.shape[0]), x.dtype))
mlir.register_lowering(bilinear, mlir.lower_fun(_multiply, multiple_results=False))


def _batch(args: tuple[Array, Array], axes: tuple[Any, Any]) -> tuple[Array, int]:
    """One matrix for a batch: the samples' tokens are tokens alike. Several: as JAX does it."""
    (x, weight), (xaxis, waxis) = args, axes
    if waxis is None:
        return bilinear.bind(jnp.moveaxis(x, xaxis, 0), weight), 0
    return jax.vmap(_multiply, axes)(x, weight), 0


def _to_tokens(gradient: Array, x: Any, weight: Array) -> Array:
    return _summed(gradient, weight, (gradient.ndim - 1,), (0,)).astype(x.aval.dtype)


def _to_weight(gradient: Array, x: Array, weight: Any) -> Array:
    tokens = tuple(range(x.ndim - 1))
    if gradient.shape[-1] > x.shape[-1]:
        # The barrier keeps XLA from making `gᵀ x` of it.
        made = lax.optimization_barrier(_summed(x, gradient, tokens, tokens)).T
    else:
        made = _summed(gradient, x, tokens, tokens)
    return made.astype(weight.aval.dtype)


batching.primitive_batchers[bilinear] = _batch
ad.defbilinear(bilinear, _to_tokens, _to_weight)
