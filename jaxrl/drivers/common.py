"""Arithmetic that drivers share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.types import Progress


def begin(schedule: Any) -> Progress:
    """Return the progress of a fresh learner whose schedules end after `schedule` updates."""
    return Progress(jnp.zeros((), jnp.int32), jnp.asarray(schedule, jnp.int32))


def fraction(progress: Progress) -> jax.Array:
    """Return the part of the schedule that is done, from 0 to 1."""
    return jnp.clip(progress.update / jnp.maximum(progress.schedule, 1), 0.0, 1.0)


def mean(total: jax.Array, count: jax.Array) -> jax.Array:
    """Return total / count, NaN if count is 0."""
    return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)


def select(condition: jax.Array, new: Any, old: Any) -> Any:
    """Return the tree `new` where the scalar `condition` holds, else `old`."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
