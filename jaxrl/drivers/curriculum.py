"""Curricula: parameters of environments that move along straight lines with the training progress.

`lines` is `EnvConfig.curriculum`: parameter -> (value at progress 0, value at progress 1). The
values depend on progress alone, so that a resumed run continues with the right ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from envs_jax import core, parameters
from envs_jax.wrappers import cover
from jaxrl.types import EnvSpec

Lines = Mapping[str, tuple[float, float]]


def at_start(params: Any, lines: Lines) -> Any:
    """Return `params` at progress 0."""
    return parameters.replace(params, **{name: first for name, (first, _) in lines.items()})


def at_end(params: Any, lines: Lines) -> Any:
    """Return `params` at progress 1, the ones that evaluations use."""
    return parameters.replace(params, **{name: last for name, (_, last) in lines.items()})


def follow(lines: Lines) -> Callable[[Any, jax.Array], Any] | None:
    """Return (params of arrays, progress) -> params, or None without lines.

    Parameters that are whole numbers are rounded to the nearest.
    """
    def params_at(params: Any, progress: jax.Array) -> Any:
        known = parameters.fields(params)
        values = {name: _between(first, last, progress, known[name].dtype)
                  for name, (first, last) in lines.items()}
        return parameters.replace(params, **values)

    return params_at if lines else None


def spec(env: core.Environment, params: Any, lines: Lines) -> EnvSpec:
    """Return the EnvSpec of `env`, with spaces that hold every value from start to end."""
    observation = cover(env.observation_space, params, lines)
    state = cover(env.state_space, params, lines)
    return core.spec(env, params)._replace(observation=observation, state=state)


def _between(first: float, last: float, progress: jax.Array, dtype: Any) -> jax.Array:
    value = (1.0 - progress) * first + progress * last           # exact at both ends
    if jnp.issubdtype(dtype, jnp.integer):
        value = jnp.round(value)
    return value.astype(dtype)
