"""brax (https://github.com/google/brax, 0.14): legged robots and other rigid bodies.

The bare environments: brax's own wrappers, which replay one cached start and hide the last observation, are left out.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.adapters.adapter import Adapter, box
from envs_jax.spaces import Box


@dataclass(frozen=True, init=False)
class Brax(Adapter):
    """A brax environment. Its `done` is termination; the limit of 1000 steps, as in brax's training, is ours."""

    suite = "brax"
    time_limit = 1000

    @classmethod
    def constructor(cls, id):
        from brax import envs

        if id not in envs._envs:
            raise ValueError(f"brax has no environment {id!r}")
        return envs._envs[id]

    def check(self, theirs):
        if not isinstance(_observation_size(theirs), int):
            raise ValueError(f"{self.name} observes {_observation_size(theirs)}; only vectors are supported")

    def start(self, key, params):
        state = self.theirs.reset(key)
        return state.obs, state

    def advance(self, key, state, action, params):
        state = self.theirs.step(state, action)
        return state.obs, state, state.reward, state.done, False, dict(state.metrics)

    def observation_space(self, params):
        return Box(-np.inf, np.inf, (_observation_size(self.theirs),))

    def action_space(self, params):
        low, high = np.asarray(self.theirs.sys.actuator.ctrl_range).T
        return box(low, high, (self.theirs.action_size,), jnp.float32)


@functools.lru_cache(maxsize=64)
def _observation_size(theirs):
    """Once: brax traces a reset to tell it."""
    with jax.numpy_rank_promotion("allow"):
        return theirs.observation_size
