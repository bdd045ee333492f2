"""A bandit whose best arm is not always there: is the action mask respected?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.core import Environment
from envs_jax.spaces import Box, Discrete


class MaskedBanditParams(NamedTuple):
    penalty: float = 1.0     # what an illegal arm costs


class MaskedBanditState(NamedTuple):
    best_legal: jax.Array    # bool: whether the last arm may be pulled in this step


@dataclass(frozen=True)
class MaskedBandit(Environment):
    """Arm k of `arms` pays k / (arms - 1); the last and best one is legal in half of the steps, at random.

    Only the mask tells: the observation is always [0]. An illegal arm costs `penalty`, and info["illegal"] is 1 for it,
    else 0. A policy that respects the mask earns at most `optimal_reward` a step, (1 + second best) / 2 = 5/6 with the
    default; one that cannot see it earns the second best at most, 2/3.
    """

    arms: int = 4

    default_params = MaskedBanditParams()
    time_limit = 16

    def __post_init__(self):
        if self.arms < 2:
            raise ValueError(f"MaskedBandit needs two arms or more, not {self.arms}")

    @property
    def optimal_reward(self) -> float:
        """Mean reward of a step under the best policy."""
        return 0.5 * (1.0 + self.blind_reward)

    @property
    def blind_reward(self) -> float:
        """Mean reward of a step under the best policy that never picks the last arm."""
        return (self.arms - 2) / (self.arms - 1)

    def reset(self, key, params):
        return jnp.zeros(1, jnp.float32), MaskedBanditState(jax.random.bernoulli(key))

    def step(self, key, state, action, params):
        illegal = (action == self.arms - 1) & ~state.best_legal
        reward = jnp.where(illegal, -params.penalty, action.astype(jnp.float32) / (self.arms - 1))
        obs, state = self.reset(key, params)
        return obs, state, reward, jnp.bool_(False), jnp.bool_(False), {"illegal": illegal.astype(jnp.int32)}

    def action_mask(self, state, params):
        """[arms] bool"""
        return (jnp.arange(self.arms) < self.arms - 1) | state.best_legal

    def observation_space(self, params):
        return Box(0.0, 0.0, (1,))

    def action_space(self, params):
        return Discrete(self.arms)
