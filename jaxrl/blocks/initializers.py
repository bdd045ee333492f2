"""Weight initialisers with flax's signature (key, shape, dtype)."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

__all__ = ["orthogonal"]


def orthogonal(scale: float = 1.0) -> Callable:
    """Random matrices with orthonormal columns or rows, whichever are fewer, times `scale` (Saxe et al. 2014).

    The last axis is the output, all others together are the input, as in kernels of dense and convolutional layers.
    Made by Gram-Schmidt, each vector twice (Giraud et al. 2005), from products of a matrix and a vector only: the QR
    of LAPACK, batched by vmap over seeds, can wait for ever for the threads that it holds itself.
    """
    def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        if len(shape) < 2:
            raise ValueError(f"orthogonal needs a shape of at least two axes, got {shape}")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        few, many = min(rows, columns), max(rows, columns)
        normal = jax.random.normal(key, (few, many), jnp.float32)

        def add(i, basis):
            vector = jax.lax.dynamic_index_in_dim(normal, i, keepdims=False)
            for _ in range(2):   # one pass leaves rounding errors that grow with the condition of the matrix
                vector = vector - _dot(_dot(basis, vector), basis)
            vector = vector * jax.lax.rsqrt(_dot(vector, vector))
            return jax.lax.dynamic_update_index_in_dim(basis, vector, i, axis=0)

        basis = jax.lax.fori_loop(0, few, add, jnp.zeros_like(normal))   # rows still to come are 0: no projection
        matrix = basis.T if rows >= columns else basis
        return (scale * matrix).reshape(shape).astype(dtype)

    return init


def _dot(a, b) -> jax.Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)   # accelerators would round to fewer bits
