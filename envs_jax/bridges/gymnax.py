"""Our environments as those of gymnax 1.x, for whatever is written for these.

    gymnax.register("Ours-v0", functools.partial(envs_jax.to_gymnax, "cartpole"))
    env, params = gymnax.make("Ours-v0", length=1.0)

`params` are ours. Legal actions have no place in gymnax's interface: `env.env.action_mask(state.env, params)`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces as theirs

from envs_jax import spaces
from envs_jax.bridges import single_agent
from envs_jax.core import Environment


def to_gymnax(env_or_name: Environment | str, params: Any = None, **settings: Any) -> GymnaxEnvironment:
    """A gymnax environment; its `default_params` are `params`, or what `envs_jax.make` gives with `settings`."""
    return GymnaxEnvironment(*single_agent(env_or_name, params, settings, "gymnax"))


class BridgeState(NamedTuple):
    env: Any                   # of the wrapped environment
    time: jax.Array            # int32: steps taken in this episode
    terminated: jax.Array      # bool: what the step that led here said
    truncated: jax.Array


class GymnaxEnvironment(gymnax.environments.environment.Environment):
    """See `to_gymnax`. `step` and `reset` are gymnax's own, with its auto-reset."""

    def __init__(self, env: Environment, params: Any):
        self.env, self._params = env, params
        self._spaces = to_space(env.observation_space(params)), to_space(env.action_space(params))

    @property
    def default_params(self) -> Any:
        """Ours, as this environment was made with them."""
        return self._params

    @property
    def name(self) -> str:
        """Of the environment inside."""
        return self.env.name

    @property
    def num_actions(self) -> int:
        """Choices, or numbers of a continuous action."""
        space = self._spaces[1]
        return space.n if isinstance(space, theirs.Discrete) else int(np.prod(space.shape))

    def reset_env(self, key: jax.Array, params: Any) -> tuple[Any, BridgeState]:
        """-> (observation, state) of a fresh episode."""
        obs, state = self.env.reset(key, params)
        return obs, BridgeState(state, jnp.int32(0), jnp.bool_(False), jnp.bool_(False))

    def step_env(self, key: jax.Array, state: BridgeState, action: Any, params: Any) -> tuple:
        """-> (observation, state, reward, terminated, info), without auto-reset."""
        obs, inner, reward, terminated, truncated, info = self.env.step(key, state.env, action, params)
        return obs, BridgeState(inner, state.time + 1, terminated, truncated), reward, terminated, info

    def is_terminated(self, state: BridgeState, params: Any) -> jax.Array:
        """Whether the episode has ended by itself."""
        return state.terminated

    def is_truncated(self, state: BridgeState, params: Any) -> jax.Array:
        """Whether the episode was cut, by a time limit for instance."""
        return state.truncated

    def observation_space(self, params: Any) -> theirs.Space:
        """Of the parameters that the environment was made with."""
        return self._spaces[0]

    def action_space(self, params: Any = None) -> theirs.Space:
        """As `observation_space`."""
        return self._spaces[1]


def to_space(space: Any) -> theirs.Space:
    """A space, or a pytree of dicts and tuples of them, as gymnax's."""
    if isinstance(space, spaces.Discrete):
        return theirs.Discrete(space.n)
    if isinstance(space, spaces.Box):
        bound = lambda b: b if np.ndim(b) == 0 else jnp.asarray(b, space.dtype)
        return theirs.Box(bound(space.low), bound(space.high), space.shape, space.dtype)
    if isinstance(space, spaces.MultiDiscrete):
        raise ValueError(f"gymnax has no space for {space}")
    if isinstance(space, dict):
        return theirs.Dict({key: to_space(inner) for key, inner in space.items()})
    return theirs.Tuple(tuple(map(to_space, space)))
