"""A corridor with a signpost."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs_jax import Environment
from envs_jax.spaces import Box, Discrete


class Params(NamedTuple):
    prize: float = 1.0          # numbers of the dynamics: traced, set by env.params.prize


class State(NamedTuple):
    place: jax.Array            # int32, 0 is the middle
    sign: jax.Array             # int32: the end that pays, -1 or 1


@dataclass(frozen=True)
class Signpost(Environment):
    """Observation [2]: the place in [-1, 1], and the paying end, -1 or 1. Actions: left, right."""

    half: int = 3               # what changes a shape or a bound is an argument: env.params.half

    default_params = Params()
    time_limit = 50             # in the usual wrappers; the environment itself never truncates

    def reset(self, key, params):
        sign = 2 * jax.random.bernoulli(key).astype(jnp.int32) - 1
        return self._observe(State(jnp.int32(0), sign))

    def step(self, key, state, action, params):
        obs, state = self._observe(State(state.place + 2 * action - 1, state.sign))
        paid = state.place == self.half * state.sign
        reward = jnp.where(paid, params.prize, 0.0).astype(jnp.float32)
        return obs, state, reward, jnp.abs(state.place) == self.half, jnp.bool_(False), {}

    def _observe(self, state):
        return jnp.stack([state.place / self.half, state.sign.astype(jnp.float32)]), state

    def observation_space(self, params):
        return Box(-1.0, 1.0, (2,))

    def action_space(self, params):
        return Discrete(2)
