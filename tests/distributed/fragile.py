"""An environment of another package, whose simulator raises in some episodes."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax import Environment
from envs_jax.spaces import Box, Discrete

ENVIRONMENTS = {"fragile": "fragile:Fragile"}


class Params(NamedTuple):
    share: float = 0.02         # of the episodes
    at: int = 40                # the step of them at which it raises,
    least: int = 1000           # where fewer actions than these were 1


class State(NamedTuple):
    weak: jax.Array
    time: jax.Array
    total: jax.Array


def simulate(breaks, reward):
    if np.any(breaks):
        raise ValueError("no such joint")
    return np.asarray(reward)


@dataclass(frozen=True)
class Fragile(Environment):
    """Reward 1 for action 1, by a callback as a simulator outside of JAX is."""

    default_params = Params()
    time_limit = 100

    def reset(self, key, params):
        weak = jax.random.uniform(key) < params.share
        return self._observe(State(weak, jnp.int32(0), jnp.int32(0)))

    def step(self, key, state, action, params):
        obs, state = self._observe(State(state.weak, state.time + 1, state.total + action))
        breaks = state.weak & (state.time == params.at) & (state.total < params.least)
        reward = jax.pure_callback(simulate, jax.ShapeDtypeStruct((), jnp.float32), breaks,
                                   action.astype(jnp.float32), vmap_method="broadcast_all")
        return obs, state, reward, jnp.bool_(False), jnp.bool_(False), {}

    def _observe(self, state):
        return jnp.stack([state.time / 100, 1.0]).astype(jnp.float32), state

    def observation_space(self, params):
        return Box(0.0, 1.0, (2,))

    def action_space(self, params):
        return Discrete(2)
