"""Pytrees as named arrays and back. Names are slash paths: agent/params/actor/dense_0/kernel."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from jaxrl.errors import Problem, UserError

_LISTED = 3      # problems that are listed before "and 12 more"


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Return every leaf of a pytree by name, on the host.

    NamedTuple fields, dict keys and tuple indices make up the path. Typed PRNG keys become their
    key data. None and () hold no leaves and leave no trace.
    """
    import jax

    leaves = _named_leaves(tree)
    for name, leaf in leaves.items():
        if _is_key(leaf):
            leaves[name] = jax.random.key_data(leaf)
    return {name: np.asarray(leaf) for name, leaf in jax.device_get(leaves).items()}


def unflatten(template: Any, arrays: dict[str, np.ndarray], prefix: str = "") -> Any:
    """Return a tree like `template` with the leaves in `arrays`: the inverse of `flatten`.

    Template leaves may be arrays or jax.ShapeDtypeStruct (jax.eval_shape of an init). They give
    shape, dtype, PRNG implementation and, if spread over devices, sharding. prefix: restore a
    subtree; "agent" reads agent/... alone. Raises UserError naming the first arrays that are
    missing, unknown, or of another shape or dtype.
    """
    import jax

    start = f"{prefix}/" if prefix else ""
    found = {name[len(start):]: array for name, array in arrays.items() if name.startswith(start)}
    leaves = _named_leaves(template)
    misfits = [_misfit(name, leaf, found) for name, leaf in leaves.items()]
    problems = [text for text in misfits if text]
    for name in found:
        if name not in leaves:
            problems.append(f"{name} is in the checkpoint, not in the config")
    if problems:
        lines = [Problem(f"checkpoint does not fit: {text}") for text in problems[:_LISTED]]
        if len(problems) > _LISTED:
            more = len(problems) - _LISTED
            lines.append(Problem(f"checkpoint does not fit: and {more} more"))
        raise UserError(lines)
    restored = [_restore(leaf, found[name]) for name, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(template), restored)


def _named_leaves(tree: Any) -> dict[str, Any]:
    import jax

    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    leaves = {"/".join(map(_part, path)) or "value": leaf for path, leaf in paths}
    if len(leaves) != len(paths):
        raise ValueError("two leaves of the tree have the same name: a dict key holds a slash")
    return leaves


def _part(entry: Any) -> str:
    """Return one step of a path: a GetAttrKey, DictKey, FlattenedIndexKey or SequenceKey."""
    for attribute in ("name", "key", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def _is_key(leaf: Any) -> bool:
    import jax

    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _shape_dtype(leaf: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and dtype of the array that `flatten` makes of a leaf."""
    import jax

    if _is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    if not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    return tuple(leaf.shape), np.dtype(leaf.dtype)


def _misfit(name: str, leaf: Any, found: dict[str, np.ndarray]) -> str | None:
    """Return why the stored array of a leaf cannot be used; None if it can."""
    shape, dtype = _shape_dtype(leaf)
    if name not in found:
        return f"{name} is missing, the config says {shape}"
    array = found[name]
    if array.shape != shape:
        return f"{name} is {array.shape}, the config says {shape}"
    if array.dtype != dtype:
        return f"{name} is {array.dtype}, the config says {dtype}"
    return None


def _restore(leaf: Any, array: np.ndarray) -> Any:
    """Return an array as the kind of `leaf`: typed key, jax array, NumPy array or Python number."""
    import jax

    if _is_key(leaf):
        return jax.random.wrap_key_data(jax.numpy.array(array), impl=_implementation(leaf))
    if isinstance(leaf, (bool, int, float, complex)):
        return type(leaf)(array.item())
    if isinstance(leaf, (np.ndarray, np.generic)):
        return array
    sharding = getattr(leaf, "sharding", None)
    if sharding is not None and len(sharding.device_set) > 1:
        return jax.device_put(array, sharding)
    return jax.numpy.array(array)      # a copy: a donated buffer must not alias NumPy's


def _implementation(leaf: Any) -> Any:
    """Return the PRNG implementation of a key, or of a ShapeDtypeStruct of a key."""
    import jax

    if isinstance(leaf, jax.Array):
        return jax.random.key_impl(leaf)
    for name in ("threefry2x32", "rbg", "unsafe_rbg"):
        key = jax.eval_shape(functools.partial(jax.random.key, 0, impl=name))
        if key.dtype == leaf.dtype:
            return name
    raise TypeError(f"unknown PRNG implementation {leaf.dtype}")
