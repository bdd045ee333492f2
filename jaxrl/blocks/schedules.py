"""Schedules: a number as a function of progress, from 0 at the start to 1 at the end.

`end_fraction` is the value at the end as a fraction of `start`, 1 for a constant. The value stays
constant before progress 0 and after progress 1. All arguments may be traced.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

__all__ = ["cosine", "exponential", "linear"]


def linear(start: ArrayLike, end_fraction: ArrayLike, progress: ArrayLike) -> jax.Array:
    """Return the value on a straight line from start to start * end_fraction."""
    return start * (1.0 + (end_fraction - 1.0) * jnp.clip(progress, 0.0, 1.0))


def cosine(start: ArrayLike, end_fraction: ArrayLike, progress: ArrayLike) -> jax.Array:
    """Return the value on half a cosine from start to start * end_fraction.

    Loshchilov and Hutter 2017, eq. 5, without restarts.
    """
    shape = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(progress, 0.0, 1.0)))
    return start * (end_fraction + (1.0 - end_fraction) * shape)


def exponential(start: ArrayLike, end_fraction: ArrayLike, progress: ArrayLike) -> jax.Array:
    """Return the value on an exponential from start to start * end_fraction, which must be above 0.

    Equal steps of progress multiply it by equal factors.
    """
    return start * jnp.power(end_fraction, jnp.clip(progress, 0.0, 1.0))
