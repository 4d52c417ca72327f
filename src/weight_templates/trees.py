"""Pytrees by name: leaves as `a.b.c`, the names of their axes, counts, and what differs between two trees."""

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree


def name_of(path: tuple[Any, ...]) -> str:
    """A key path as `encoder.blocks.attention.qkv`."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def named_arrays(tree: PyTree) -> dict[str, Any]:
    """The array leaves of a tree by name, in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, _is_arraylike))
    return {name_of(path): leaf for path, leaf in leaves}


def with_arrays(tree: PyTree, arrays: dict[str, Any]) -> PyTree:
    """`tree` with its array leaves replaced by those of the same name; the converse of `named_arrays`."""
    dynamic, static = eqx.partition(tree, _is_arraylike)
    paths, treedef = jax.tree_util.tree_flatten_with_path(dynamic)
    return eqx.combine(jax.tree.unflatten(treedef, [arrays[name_of(p)] for p, _ in paths]), static)


def mismatch(expected: PyTree, found: dict[str, Any]) -> str | None:
    """The first difference in names, shapes or types between a tree and named arrays, in words; None if none."""
    wanted = named_arrays(expected)
    for name in wanted:
        if name not in found:
            return f"{name} is missing"
    for name in found:
        if name not in wanted:
            return f"{name} is not expected"
    for name, leaf in wanted.items():
        if tuple(leaf.shape) != tuple(found[name].shape):
            return f"{name} has shape {tuple(found[name].shape)} instead of {tuple(leaf.shape)}"
        if np.dtype(leaf.dtype) != np.dtype(found[name].dtype):
            return f"{name} is {found[name].dtype} instead of {leaf.dtype}"
    return None


def count(tree: PyTree) -> int:
    """Numbers in the arrays of a tree."""
    return sum(int(np.prod(leaf.shape)) for leaf in named_arrays(tree).values())


def shared(source: PyTree, tree: PyTree) -> int:
    """Numbers in the arrays of a tree that a source of other sizes can have given: of every array, what both have."""
    arrays, sources = named_arrays(tree), named_arrays(source)
    return sum(min(int(np.prod(leaf.shape)), int(np.prod(sources[name].shape))) for name, leaf in arrays.items())


def cast(tree: PyTree, dtype: Any) -> PyTree:
    """The floating-point arrays of a tree in another precision."""
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, tree)


def axes(module: eqx.Module) -> dict[str, tuple[str, ...]]:
    """Returns the names of the axes of every array in a module, by the array's name, as its annotation spells them.

    A field `weight: Float[Array, "inner width"]` has the axes `("inner", "width")`, one annotated `Float[Array, ""]`
    has none. An array with more axes than its annotation has is one of a stack: the axes in front are called `layer`.
    Modules inside tuples, lists and dictionaries are found, too. A module with a static field `axis_names`, pairs of
    names, has other names for its axes than its class has: so two stages of one class may differ in width.

    Raises TypeError for an array whose axes no annotation names.
    """
    found = {}
    for field in dataclasses.fields(module):
        value = getattr(module, field.name, None)
        if _is_arraylike(value):
            names = _annotated(type(module), field.name)
            found[field.name] = ("layer",) * (len(value.shape) - len(names)) + names
        else:
            found |= {f"{field.name}.{name}": names for name, names in _axes_within(value).items()}
    other = dict(getattr(module, "axis_names", ()))
    return {name: tuple(other.get(axis, axis) for axis in names) for name, names in found.items()}


def _axes_within(value: Any) -> dict[str, tuple[str, ...]]:
    if isinstance(value, eqx.Module):
        return axes(value)
    if _is_arraylike(value):
        raise TypeError("an array in a tuple, list or dictionary has no annotation that names its axes")
    inside = dict(enumerate(value)) if isinstance(value, tuple | list) else value if isinstance(value, dict) else {}
    return {f"{key}.{name}": names for key, one in inside.items() for name, names in _axes_within(one).items()}


def at(tree: PyTree, name: str) -> Any:
    """The part of a tree that `name` leads to, such as `blocks.attention.qkv` or `stages.0`."""
    for part in name.split("."):
        tree = tree[int(part)] if isinstance(tree, tuple | list) else tree[part] if isinstance(tree, dict) else getattr(tree, part)  # fmt: skip
    return tree


def put(tree: PyTree, parts: dict[str, Any]) -> PyTree:
    """`tree` with other parts at the places that their names lead to."""
    return eqx.tree_at(
        lambda t: [at(t, name) for name in parts], tree, list(parts.values()), is_leaf=lambda node: node is None
    )


def constant() -> Any:
    """A field of a module whose arrays are never trained, such as a table of positions."""
    return eqx.field(metadata={"constant": True})


def variables(tree: PyTree) -> PyTree:
    """True at the floating-point arrays of a tree, but for those in fields declared as `constant`."""
    still = tuple(_constants(tree))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: eqx.is_inexact_array(leaf) and name_of(path) not in still, tree
    )


def _constants(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, eqx.Module):
        for field in dataclasses.fields(node):
            if field.metadata.get("constant"):
                yield prefix + field.name
            yield from _constants(getattr(node, field.name, None), f"{prefix}{field.name}.")
    elif isinstance(node, tuple | list | dict):
        for key, inside in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _constants(inside, f"{prefix}{key}.")


def resized(array: Array, names: tuple[str, ...], sizes: dict[str, int]) -> Array:
    """`array` with `sizes[name]` entries along every axis that `sizes` names; see `cycle`."""
    for axis, name in enumerate(names):
        if name in sizes:
            array = cycle(array, sizes[name], axis)
    return array


def cycle(array: Array, size: int, axis: int) -> Array:
    """The first `size` entries along `axis`; where there are fewer, those over and over."""
    count = array.shape[axis]
    return (
        jax.lax.slice_in_dim(array, 0, size, axis=axis) if size <= count else array.take(np.arange(size) % count, axis)
    )


def prefix_mask(array: Array, names: tuple[str, ...], sizes: dict[str, Any]) -> Array:
    """`array` with zeros beyond the first `sizes[name]` entries along every axis that `sizes` names; may be traced."""
    for axis, name in enumerate(names):
        if name in sizes:
            array = first(array, sizes[name], axis)
    return array


def first(array: Array, count: Any, axis: int) -> Array:
    """`array` with zeros beyond the first `count` entries along `axis`; `count` may be traced."""
    kept = jnp.arange(array.shape[axis]) < count
    return jnp.where(jnp.expand_dims(kept, [a for a in range(array.ndim) if a != axis % array.ndim]), array, 0)


def _is_arraylike(x: Any) -> bool:
    return eqx.is_array(x) or isinstance(x, jax.ShapeDtypeStruct | np.ndarray)


def _annotated(cls: type, field: str) -> tuple[str, ...]:
    for owner in cls.__mro__:
        annotation = vars(owner).get("__annotations__", {}).get(field)
        if isinstance(annotation, str):
            annotation = typing.get_type_hints(owner)[field]
        options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        for option in options:
            if hasattr(option, "dim_str"):
                return tuple(option.dim_str.split())
    raise TypeError(f"{cls.__name__}.{field} holds an array, but its annotation names no axes")
