"""Orthogonal weights (Saxe et al. 2014), made without LAPACK.

The QR of LAPACK, batched by vmap over seeds, can wait for ever for the threads that it holds itself. So the matrices
come from Gram-Schmidt, each vector twice (Giraud et al. 2005): products of a matrix and a vector only.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def gain(scale: float) -> Callable:
    """A flax initialiser that only marks a kernel for `orthogonalize`: filled with the scale it is to have."""
    return jax.nn.initializers.constant(scale)


def orthogonalize(key: jax.Array, params: Any) -> Any:
    """`params` with every leaf called "kernel" made orthogonal, times the gain that `gain` filled it with.

    One draw of normals serves all kernels, and those of one shape are made together: random numbers and loops are what
    an initialisation takes long to compile for.
    """
    named, structure = jax.tree_util.tree_flatten_with_path(params)
    leaves, groups = [leaf for _, leaf in named], defaultdict(list)
    for i, (path, leaf) in enumerate(named):
        if getattr(path[-1], "key", None) == "kernel":
            groups[_few_many(leaf.shape)].append(i)
    normal = jax.random.normal(key, (sum(few * many * len(group) for (few, many), group in groups.items()),))
    used = 0
    for (few, many), group in groups.items():
        size = len(group) * few * many
        bases = jax.vmap(_gram_schmidt)(normal[used: used + size].reshape(len(group), few, many))
        used += size
        for basis, i in zip(bases, group):
            leaves[i] = leaves[i] * _as_kernel(basis, leaves[i].shape)
    return jax.tree.unflatten(structure, leaves)


def orthogonal(scale: float = 1.0) -> Callable:
    """The same for one kernel, with flax's signature (key, shape, dtype): columns or rows, whichever are fewer, are
    orthonormal times `scale`. The last axis is the output, all others together are the input."""
    def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        if len(shape) < 2:
            raise ValueError(f"orthogonal needs a shape of at least two axes, got {shape}")
        normal = jax.random.normal(key, _few_many(shape), jnp.float32)
        return (scale * _as_kernel(_gram_schmidt(normal), shape)).astype(dtype)

    return init


def _few_many(shape: tuple[int, ...]) -> tuple[int, int]:
    rows, columns = math.prod(shape[:-1]), shape[-1]
    return min(rows, columns), max(rows, columns)


def _as_kernel(basis: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Orthonormal rows [few, many] as a kernel."""
    return (basis.T if math.prod(shape[:-1]) >= shape[-1] else basis).reshape(shape)


def _gram_schmidt(normal: jax.Array) -> jax.Array:
    """Rows [few, many] -> orthonormal rows, uniform over the orthogonal group when the entries are normal."""
    def add(i, basis):
        vector = jax.lax.dynamic_index_in_dim(normal, i, keepdims=False)
        for _ in range(2):   # one pass leaves rounding errors that grow with the condition of the matrix
            vector = vector - _dot(_dot(basis, vector), basis)
        vector = vector * jax.lax.rsqrt(_dot(vector, vector))
        return jax.lax.dynamic_update_index_in_dim(basis, vector, i, axis=0)

    return jax.lax.fori_loop(0, normal.shape[0], add, jnp.zeros_like(normal))   # rows to come are 0: no projection


def _dot(a, b) -> jax.Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)   # accelerators would round to fewer bits
