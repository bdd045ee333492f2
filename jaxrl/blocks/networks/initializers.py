"""Orthogonal weights (Saxe et al. 2014), made without LAPACK.

LAPACK's QR, batched by vmap over seeds, can deadlock on the threads that it holds itself. So the
matrices come from Gram-Schmidt with each vector orthogonalized twice (Giraud et al. 2005), which
needs only products of a matrix and a vector.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray


def gain(scale: float) -> Callable:
    """Return a flax initializer that fills a kernel with its gain, for `orthogonalize`."""
    return jax.nn.initializers.constant(scale)


def orthogonalize(key: PRNGKeyArray, params: Any) -> Any:
    """Return `params` with every leaf called "kernel" orthogonal, times the gain that filled it.

    One draw of normals serves all kernels, and kernels of one shape are made together: random
    numbers and loops dominate the compile time of an initialization.
    """
    named, structure = jax.tree_util.tree_flatten_with_path(params)
    leaves = [leaf for _, leaf in named]
    groups = defaultdict(list)
    for i, (path, leaf) in enumerate(named):
        if getattr(path[-1], "key", None) == "kernel":
            groups[_few_many(leaf.shape)].append(i)
    total = sum(few * many * len(group) for (few, many), group in groups.items())
    normal = jax.random.normal(key, (total,))
    used = 0
    for (few, many), group in groups.items():
        size = len(group) * few * many
        part = normal[used: used + size].reshape(len(group), few, many)
        bases = jax.vmap(_gram_schmidt)(part)
        used += size
        for basis, i in zip(bases, group):
            leaves[i] = leaves[i] * _as_kernel(basis, leaves[i].shape)
    return jax.tree.unflatten(structure, leaves)


def orthogonal(scale: float = 1.0) -> Callable:
    """Return a flax initializer (key, shape, dtype) for one orthogonal kernel.

    Columns or rows, whichever are fewer, are orthonormal times `scale`. The last axis is the
    output, all others together are the input.
    """
    def init(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        if len(shape) < 2:
            raise ValueError(f"orthogonal needs a shape of at least two axes, got {shape}")
        normal = jax.random.normal(key, _few_many(shape), jnp.float32)
        return (scale * _as_kernel(_gram_schmidt(normal), shape)).astype(dtype)

    return init


def _few_many(shape: tuple[int, ...]) -> tuple[int, int]:
    rows = math.prod(shape[:-1])
    columns = shape[-1]
    return min(rows, columns), max(rows, columns)


def _as_kernel(basis: Float[Array, "few many"], shape: tuple[int, ...]) -> jax.Array:
    """Return orthonormal rows as a kernel."""
    if math.prod(shape[:-1]) >= shape[-1]:
        basis = basis.T
    return basis.reshape(shape)


def _gram_schmidt(normal: Float[Array, "few many"]) -> Float[Array, "few many"]:
    """Return orthonormal rows, uniform over the orthogonal group if the entries are normal."""
    def add(i: jax.Array, basis: jax.Array) -> jax.Array:
        vector = jax.lax.dynamic_index_in_dim(normal, i, keepdims=False)
        # one pass leaves rounding errors that grow with the condition of the matrix
        for _ in range(2):
            vector = vector - _dot(_dot(basis, vector), basis)
        vector = vector * jax.lax.rsqrt(_dot(vector, vector))
        return jax.lax.dynamic_update_index_in_dim(basis, vector, i, axis=0)

    # later rows are 0 and do not project
    return jax.lax.fori_loop(0, normal.shape[0], add, jnp.zeros_like(normal))


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    # the highest precision, because accelerators would round to fewer bits
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
