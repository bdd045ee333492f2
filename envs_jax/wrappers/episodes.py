"""When an episode is cut, and what it amounted to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.wrappers.base import Wrapper, agents_axis


class TimeLimitState(NamedTuple):
    env: Any
    time: jax.Array            # int32: steps taken in this episode


@dataclass(frozen=True)
class TimeLimit(Wrapper):
    """Truncates after `limit` steps. An episode whose last allowed step terminates it is terminated, not truncated."""

    limit: int

    def __post_init__(self):
        if self.limit < 1:
            raise ValueError(f"a time limit is at least 1 step, not {self.limit}")

    @property
    def time_limit(self) -> int:
        return self.limit

    @property
    def max_steps(self) -> int:
        return self.limit if self.env.max_steps is None else min(self.limit, self.env.max_steps)

    def inner_state(self, state):
        return state.env

    def reset(self, key, params):
        obs, inner = self.env.reset(key, params)
        return obs, TimeLimitState(inner, jnp.int32(0))

    def step(self, key, state, action, params):
        obs, inner, reward, terminated, truncated, info = self.env.step(key, state.env, action, params)
        time = state.time + 1
        truncated = (truncated | (time >= self.limit)) & ~jnp.all(terminated)   # all: of the agents, if there are any
        return obs, TimeLimitState(inner, time), reward, terminated, truncated, info


class EpisodeStatisticsState(NamedTuple):
    env: Any
    episode_return: jax.Array  # float32, of the shape of the reward: sum of rewards of this episode, undiscounted
    episode_length: jax.Array  # int32: steps taken in this episode


@dataclass(frozen=True)
class EpisodeStatistics(Wrapper):
    """Adds info["episode_return"] and info["episode_length"]: of the episode so far, this step included.

    They are those of `env`: wrappers around this one may scale rewards or repeat actions, and change neither.
    """

    def inner_state(self, state):
        return state.env

    def reset(self, key, params):
        obs, inner = self.env.reset(key, params)
        return obs, EpisodeStatisticsState(inner, jnp.zeros(agents_axis(self), jnp.float32), jnp.int32(0))

    def step(self, key, state, action, params):
        obs, inner, reward, terminated, truncated, info = self.env.step(key, state.env, action, params)
        state = EpisodeStatisticsState(inner, state.episode_return + reward, state.episode_length + 1)
        info = {**info, "episode_return": state.episode_return, "episode_length": state.episode_length}
        return obs, state, reward, terminated, truncated, info
