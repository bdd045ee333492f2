"""Adapter of brax 0.14 (https://github.com/google/brax): legged robots and other rigid bodies.

brax's own wrappers are not used: they replay one cached start and hide the last observation.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.adapters.adapter import Adapter, box
from envs_jax.spaces import Box

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Key

    from envs_jax.core import Action, Params


@dataclass(frozen=True, init=False)
class Brax(Adapter):
    """Rigid-body task of brax: observation [n] (joint states), action [m] (actuator controls).

    `done` of brax is termination. The time limit of 1000 steps, as in brax's training, is that of
    the wrapper TimeLimit.
    """

    suite = "brax"
    time_limit = 1000

    @classmethod
    def constructor(cls, id: str) -> Callable[..., Any]:
        from brax import envs

        if id not in envs._envs:
            raise ValueError(f"brax has no environment {id!r}")
        return envs._envs[id]

    def check(self, theirs: Any) -> None:
        size = _observation_size(theirs)
        if not isinstance(size, int):
            raise ValueError(f"{self.name} has observations {size}; only vectors are supported")

    def start(self, key: Key[Array, ""], params: Params) -> tuple[Any, Any]:
        state = self.theirs.reset(key)
        return state.obs, state

    def advance(self, key: Key[Array, ""], state: Any, action: Action, params: Params,
                ) -> tuple[Any, ...]:
        state = self.theirs.step(state, action)
        return state.obs, state, state.reward, state.done, False, dict(state.metrics)

    def observation_space(self, params: Params) -> Box:
        return Box(-np.inf, np.inf, (_observation_size(self.theirs),))

    def action_space(self, params: Params) -> Box:
        low, high = np.asarray(self.theirs.sys.actuator.ctrl_range).T
        return box(low, high, (self.theirs.action_size,), jnp.float32)


@functools.lru_cache(maxsize=64)
def _observation_size(theirs: Any) -> Any:
    """Return the size of observations; cached, because brax traces a reset to compute it."""
    with jax.numpy_rank_promotion("allow"):
        return theirs.observation_size
