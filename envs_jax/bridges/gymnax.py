"""Bridge to gymnax 1.x: environments of this package in gymnax's interface.

    gymnax.register("Ours-v0", functools.partial(envs_jax.to_gymnax, "cartpole"))
    env, params = gymnax.make("Ours-v0", length=1.0)

`params` are those of envs_jax. gymnax's interface has no place for legal actions; they are
`env.env.action_mask(state.env, params)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces as gymnax_spaces

from envs_jax import spaces
from envs_jax.bridges import single_agent
from envs_jax.core import Action, Environment, Obs, Params

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Key


def to_gymnax(env_or_name: Environment | str, params: Params = None, **settings: Any,
              ) -> GymnaxEnvironment:
    """Return a gymnax environment for an environment, or for a name and `settings`.

    Its `default_params` are `params`, or those of `envs_jax.make` with `settings`.
    Raises ValueError if the environment has several agents, or gymnax has no such space.
    """
    return GymnaxEnvironment(*single_agent(env_or_name, params, settings, "gymnax"))


class BridgeState(NamedTuple):
    """State of the environment, and the flags that gymnax reads from the state."""

    env: Any                   # state of the wrapped environment
    time: jax.Array            # int32: steps taken in this episode
    terminated: jax.Array      # bool: flags of the last step
    truncated: jax.Array


class GymnaxEnvironment(gymnax.environments.environment.Environment):
    """Environment in gymnax's interface; see `to_gymnax`.

    `step` and `reset` are gymnax's own, with its auto-reset.
    """

    def __init__(self, env: Environment, params: Params):
        self.env = env
        self._params = params
        self._observation_space = to_space(env.observation_space(params))
        self._action_space = to_space(env.action_space(params))

    @property
    def default_params(self) -> Params:
        """The parameters with which this environment was made."""
        return self._params

    @property
    def name(self) -> str:
        """The name of the wrapped environment."""
        return self.env.name

    @property
    def num_actions(self) -> int:
        """The number of choices, or of entries of a continuous action."""
        space = self._action_space
        if isinstance(space, gymnax_spaces.Discrete):
            return space.n
        return int(np.prod(space.shape))

    def reset_env(self, key: Key[Array, ""], params: Params) -> tuple[Obs, BridgeState]:
        """Return (observation, state) at the start of an episode."""
        obs, state = self.env.reset(key, params)
        return obs, BridgeState(state, jnp.int32(0), jnp.bool_(False), jnp.bool_(False))

    def step_env(self, key: Key[Array, ""], state: BridgeState, action: Action, params: Params,
                 ) -> tuple:
        """Return (observation, state, reward, terminated, info), without auto-reset."""
        obs, inner, reward, terminated, truncated, info = self.env.step(
            key, state.env, action, params)
        state = BridgeState(inner, state.time + 1, terminated, truncated)
        return obs, state, reward, terminated, info

    def is_terminated(self, state: BridgeState, params: Params) -> Bool[Array, ""]:
        """Return True if the episode has ended by itself."""
        return state.terminated

    def is_truncated(self, state: BridgeState, params: Params) -> Bool[Array, ""]:
        """Return True if the episode was cut, for example by a time limit."""
        return state.truncated

    def observation_space(self, params: Params) -> gymnax_spaces.Space:
        """Return the space for the parameters with which this environment was made."""
        return self._observation_space

    def action_space(self, params: Params = None) -> gymnax_spaces.Space:
        """Return the space for the parameters with which this environment was made."""
        return self._action_space


def to_space(space: Any) -> gymnax_spaces.Space:
    """Return the gymnax space for a space, or for a pytree of dicts and tuples of spaces.

    Raises ValueError for a MultiDiscrete, which gymnax does not have.
    """
    if isinstance(space, spaces.Discrete):
        return gymnax_spaces.Discrete(space.n)
    if isinstance(space, spaces.Box):
        low = _bound(space.low, space.dtype)
        high = _bound(space.high, space.dtype)
        return gymnax_spaces.Box(low, high, space.shape, space.dtype)
    if isinstance(space, spaces.MultiDiscrete):
        raise ValueError(f"gymnax has no space for {space}")
    if isinstance(space, dict):
        return gymnax_spaces.Dict({key: to_space(inner) for key, inner in space.items()})
    return gymnax_spaces.Tuple(tuple(map(to_space, space)))


def _bound(bound: Any, dtype: Any) -> Any:
    return bound if np.ndim(bound) == 0 else jnp.asarray(bound, dtype)
