"""Schedules: a number as a function of progress, 0 at the start of a run's schedule and 1 at its end.

`end_fraction` is the value at the end as a fraction of `start`, 1 for a constant; before 0 and after 1 nothing changes.
All arguments may be traced.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = ["cosine", "exponential", "linear"]


def linear(start, end_fraction, progress) -> jax.Array:
    """A straight line from start to start * end_fraction."""
    return start * (1.0 + (end_fraction - 1.0) * jnp.clip(progress, 0.0, 1.0))


def cosine(start, end_fraction, progress) -> jax.Array:
    """Half a cosine from start to start * end_fraction (Loshchilov and Hutter 2017, eq. 5, without restarts)."""
    return start * (end_fraction + (1.0 - end_fraction) * 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(progress, 0.0, 1.0))))


def exponential(start, end_fraction, progress) -> jax.Array:
    """The same factor for every equal piece of progress, from start to start * end_fraction, which must be above 0."""
    return start * jnp.power(end_fraction, jnp.clip(progress, 0.0, 1.0))
