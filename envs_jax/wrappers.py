"""Wrappers: environments around an environment. They keep the protocol of core.py, so they compose.

The usual order, innermost first: environment, ClipAction, TimeLimit, EpisodeStatistics (`envs_jax.make` builds it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment, Params
from envs_jax.spaces import Box


@dataclass(frozen=True)
class Wrapper(Environment):
    """Passes everything on to `env`.

    A wrapper that adds to the state keeps the inner one in the field `env` of a NamedTuple of its own, and says so by
    `inner_state`. What `env` lacks (action_mask, global_state, render) the wrapper lacks too.
    """

    env: Environment

    def inner_state(self, state: Any) -> Any:
        """The state of `env` inside the state of this wrapper."""
        return state

    @property
    def name(self) -> str:
        return self.env.name

    @property
    def default_params(self) -> Params:
        return self.env.default_params

    @property
    def time_limit(self) -> int | None:
        return self.env.time_limit

    @property
    def max_steps(self) -> int | None:
        return self.env.max_steps

    @property
    def agents(self) -> int | None:
        return self.env.agents

    @property
    def unwrapped(self) -> Environment:
        """The environment inside all wrappers."""
        return self.env.unwrapped if isinstance(self.env, Wrapper) else self.env

    @property
    def action_mask(self):
        return self._of_inner_state(self.env.action_mask)

    @property
    def global_state(self):
        return self._of_inner_state(self.env.global_state)

    @property
    def render(self):
        return self._of_inner_state(self.env.render)

    def _of_inner_state(self, function):
        return function and (lambda state, params: function(self.inner_state(state), params))

    def reset(self, key, params):
        return self.env.reset(key, params)

    def step(self, key, state, action, params):
        return self.env.step(key, state, action, params)

    def observation_space(self, params):
        return self.env.observation_space(params)

    def action_space(self, params):
        return self.env.action_space(params)

    def state_space(self, params):
        return self.env.state_space(params)


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
    """Adds info["episode_return"] and info["episode_length"]: of the episode so far, this step included."""

    def inner_state(self, state):
        return state.env

    def reset(self, key, params):
        obs, inner = self.env.reset(key, params)
        shape = () if self.agents is None else (self.agents,)
        return obs, EpisodeStatisticsState(inner, jnp.zeros(shape, jnp.float32), jnp.int32(0))

    def step(self, key, state, action, params):
        obs, inner, reward, terminated, truncated, info = self.env.step(key, state.env, action, params)
        state = EpisodeStatisticsState(inner, state.episode_return + reward, state.episode_length + 1)
        info = {**info, "episode_return": state.episode_return, "episode_length": state.episode_length}
        return obs, state, reward, terminated, truncated, info


@dataclass(frozen=True)
class ClipAction(Wrapper):
    """Clips the actions of a Box into its bounds before the environment sees them.

    The bounds are those of the default parameters: `params` may be traced, spaces are not.
    """

    def __post_init__(self):
        space = self.action_space(self.default_params)
        if not isinstance(space, Box):
            raise ValueError(f"ClipAction needs a Box of actions; {self.name} has {space}")

    def step(self, key, state, action, params):
        space = self.action_space(self.default_params)
        low, high = (np.broadcast_to(np.asarray(b, space.dtype), action.shape) for b in (space.low, space.high))
        return self.env.step(key, state, jnp.clip(action, low, high), params)
