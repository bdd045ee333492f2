"""Environments for the tests of wrappers, which show the actions that they receive."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax import spaces
from envs_jax.core import Environment
from envs_jax.spaces import Box, Discrete, MultiDiscrete


class Counted(NamedTuple):
    steps: Any               # int32


@dataclass(frozen=True)
class Counter(Environment):
    """Environment that counts steps in every leaf of `space`, and whose reward is the action.

    Episodes end after `length` steps.
    """

    space: Any = Box(0.0, 99.0, ())
    action: Any = Discrete(1000)
    length: int = 1000
    agents: int | None = None

    @property
    def max_steps(self):
        return self.length

    def _see(self, steps):
        lead = () if self.agents is None else (self.agents,)
        return jax.tree.map(
            lambda x: x + steps.astype(x.dtype), spaces.zeros(self.space, lead)
        ), Counted(steps)

    def reset(self, key, params):
        return self._see(jnp.int32(0))

    def step(self, key, state, action, params):
        obs, state = self._see(state.steps + 1)
        reward = action.astype(jnp.float32)
        return (
            obs,
            state,
            reward,
            jnp.full(reward.shape, state.steps >= self.length),
            jnp.bool_(False),
            {},
        )

    def observation_space(self, params):
        return self.space

    def action_space(self, params):
        return self.action


class Tree(NamedTuple):
    """An observation with every kind of space."""

    choice: Any
    image: Any
    scalar: Any
    several: Any


TREE = Tree(
    Discrete(9), Box(0, 255, (2, 3, 1), jnp.uint8), Box(-1.0, 9.0, ()), MultiDiscrete((9, 7))
)
