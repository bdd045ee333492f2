"""Wrappers for the end of episodes, and for their returns and lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.core import Action, Obs, Params, State
from envs_jax.wrappers.base import Wrapper, agents_axis

if TYPE_CHECKING:
    from jaxtyping import Array, Key

    from envs_jax.core import StepResult


class TimeLimitState(NamedTuple):
    """State of TimeLimit."""

    env: Any
    time: jax.Array            # int32: steps taken in this episode


@dataclass(frozen=True)
class TimeLimit(Wrapper):
    """Wrapper that truncates an episode after `limit` steps, unless it terminates in that step."""

    limit: int

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"a time limit must be at least 1 step, not {self.limit}")

    @property
    def time_limit(self) -> int:
        return self.limit

    @property
    def max_steps(self) -> int:
        longest = self.env.max_steps
        return self.limit if longest is None else min(self.limit, longest)

    def inner_state(self, state: TimeLimitState) -> State:
        return state.env

    def reset(self, key: Key[Array, ""], params: Params) -> tuple[Obs, TimeLimitState]:
        obs, inner = self.env.reset(key, params)
        return obs, TimeLimitState(inner, jnp.int32(0))

    def step(self, key: Key[Array, ""], state: TimeLimitState, action: Action, params: Params,
             ) -> StepResult:
        obs, inner, reward, terminated, truncated, info = self.env.step(
            key, state.env, action, params)
        time = state.time + 1
        truncated = (truncated | (time >= self.limit)) & ~jnp.all(terminated)     # all agents
        return obs, TimeLimitState(inner, time), reward, terminated, truncated, info


class EpisodeStatisticsState(NamedTuple):
    """State of EpisodeStatistics."""

    env: Any
    episode_return: jax.Array  # float32, in the shape of the reward: undiscounted sum so far
    episode_length: jax.Array  # int32: steps taken in this episode


@dataclass(frozen=True)
class EpisodeStatistics(Wrapper):
    """Wrapper that adds info["episode_return"] and info["episode_length"], including this step.

    Both describe `env`. Outer wrappers that scale rewards or repeat actions do not change them.
    """

    def inner_state(self, state: EpisodeStatisticsState) -> State:
        return state.env

    def reset(self, key: Key[Array, ""], params: Params) -> tuple[Obs, EpisodeStatisticsState]:
        obs, inner = self.env.reset(key, params)
        total = jnp.zeros(agents_axis(self), jnp.float32)
        return obs, EpisodeStatisticsState(inner, total, jnp.int32(0))

    def step(self, key: Key[Array, ""], state: EpisodeStatisticsState, action: Action,
             params: Params) -> StepResult:
        obs, inner, reward, terminated, truncated, info = self.env.step(
            key, state.env, action, params)
        total = state.episode_return + reward
        length = state.episode_length + 1
        info = {**info, "episode_return": total, "episode_length": length}
        state = EpisodeStatisticsState(inner, total, length)
        return obs, state, reward, terminated, truncated, info
