"""What wrappers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from envs_jax.core import Environment, Params


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


@dataclass(frozen=True)
class DefaultParams(Wrapper):
    """Changes nothing but `default_params`: with them wrappers ask for spaces while `params` is traced."""

    params: Params

    @property
    def default_params(self):
        return self.params


def agents_axis(env: Environment) -> tuple[int, ...]:
    """The axes that observations, actions and rewards of `env` have before those of their spaces: (agents,) or ()."""
    return () if env.agents is None else (env.agents,)


def legal(env: Environment, state: Any, action: Any, params: Any) -> Any:
    """Whether the mask allows `action` in `state`: a bool, [agents] with agents; True without a mask."""
    if env.action_mask is None:
        return jnp.bool_(True)
    return jnp.take_along_axis(env.action_mask(state, params), action[..., None], axis=-1)[..., 0]
