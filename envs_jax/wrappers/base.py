"""The base class of wrappers, and helpers that several wrappers use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from envs_jax.core import Action, Environment, Obs, Params, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Bool, Key

    from envs_jax.core import StepResult
    from envs_jax.spaces import Space


@dataclass(frozen=True)
class Wrapper(Environment):
    """Base class of wrappers: passes everything to `env` unchanged.

    A wrapper with a state of its own keeps the state of `env` in the field `env` of a NamedTuple,
    and overrides `inner_state`. If `env` lacks `action_mask`, `global_state` or `render`, so does
    the wrapper.
    """

    env: Environment

    def inner_state(self, state: State) -> State:
        """Return the state of `env` inside the state of this wrapper."""
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
    def action_mask(self) -> Callable | None:
        return self._of_inner_state(self.env.action_mask)

    @property
    def global_state(self) -> Callable | None:
        return self._of_inner_state(self.env.global_state)

    @property
    def render(self) -> Callable | None:
        return self._of_inner_state(self.env.render)

    def _of_inner_state(self, function: Callable | None) -> Callable | None:
        """Return a method (state, params) of `env` as one of this wrapper; None stays None."""
        if function is None:
            return None
        return lambda state, params: function(self.inner_state(state), params)

    def reset(self, key: Key[Array, ""], params: Params) -> tuple[Obs, State]:
        return self.env.reset(key, params)

    def step(self, key: Key[Array, ""], state: State, action: Action, params: Params) -> StepResult:
        return self.env.step(key, state, action, params)

    def observation_space(self, params: Params) -> Any:
        return self.env.observation_space(params)

    def action_space(self, params: Params) -> Space:
        return self.env.action_space(params)

    def state_space(self, params: Params) -> Any:
        return self.env.state_space(params)


@dataclass(frozen=True)
class DefaultParams(Wrapper):
    """Wrapper that changes only `default_params`, which define spaces while `params` is traced."""

    params: Params

    @property
    def default_params(self) -> Params:
        return self.params


def agents_axis(env: Environment) -> tuple[int, ...]:
    """Return the axes of arrays before those of their spaces: (agents,), or () for one agent."""
    return () if env.agents is None else (env.agents,)


def is_count(x: Any) -> bool:
    """Return True if `x` is an int of at least 1, and not a bool."""
    return isinstance(x, int) and not isinstance(x, bool) and x >= 1


def legal(env: Environment, state: State, action: Action, params: Params,
          ) -> Bool[Array, "*agents"]:
    """Return True where the mask allows `action` in `state`; True without a mask."""
    if env.action_mask is None:
        return jnp.bool_(True)
    mask = env.action_mask(state, params)
    return jnp.take_along_axis(mask, action[..., None], axis=-1)[..., 0]
