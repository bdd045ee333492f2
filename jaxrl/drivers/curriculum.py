"""Curricula: parameters of the environments that follow the progress of training, each along a straight line.

`lines` is `EnvConfig.curriculum`: parameter -> (its value at progress 0, its value at progress 1). What is in force is
a pure function of progress, so that a resumed run goes on with the parameters it would have had.
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
    """`params` as training begins."""
    return parameters.replace(params, **{name: first for name, (first, _) in lines.items()})


def at_end(params: Any, lines: Lines) -> Any:
    """`params` at the end, for which all the training is: those of evaluations."""
    return parameters.replace(params, **{name: last for name, (_, last) in lines.items()})


def follow(lines: Lines) -> Callable[[Any, jax.Array], Any] | None:
    """-> (params of arrays, progress) -> params; None without lines. Whole numbers are rounded to the nearest."""
    def now(params: Any, progress: jax.Array) -> Any:
        known = parameters.fields(params)
        values = {name: _between(*ends, progress, known[name].dtype) for name, ends in lines.items()}
        return parameters.replace(params, **values)

    return now if lines else None


def spec(env: core.Environment, params: Any, lines: Lines) -> EnvSpec:
    """What an algorithm is told of `env`: its spaces hold whatever is seen from start to end."""
    everywhere = lambda space_of: cover(space_of, params, lines)
    return core.spec(env, params)._replace(observation=everywhere(env.observation_space),
                                           state=everywhere(env.state_space))


def _between(first: float, last: float, progress: jax.Array, dtype: Any) -> jax.Array:
    value = (1.0 - progress) * first + progress * last           # exact at both ends
    return (jnp.round(value) if jnp.issubdtype(dtype, jnp.integer) else value).astype(dtype)
