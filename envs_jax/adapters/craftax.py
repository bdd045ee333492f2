"""Craftax (https://github.com/MichaelTMatthews/Craftax, 1.6): an open world to explore, and its smaller Classic."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from envs_jax.adapters.adapter import Adapter, space_of

FAR = 2**30                  # steps


@dataclass(frozen=True, init=False)
class Craftax(Adapter):
    """A Craftax environment, without auto-reset. It truncates by itself, after params.max_timesteps steps.

    Whether the last step is a death is asked of Craftax with the limit put far away.
    """

    suite = "craftax"

    @classmethod
    def constructor(cls, id):
        from craftax.craftax_env import make_craftax_env_from_name

        def make():
            return make_craftax_env_from_name(id, auto_reset=False)

        return make

    @property
    def default_params(self):
        return self.theirs.default_params

    @property
    def max_steps(self):
        return self.default_params.max_timesteps

    def start(self, key, params):
        return self.theirs.reset_env(key, params)

    def advance(self, key, state, action, params):
        obs, state, reward, done, info = self.theirs.step_env(key, state, action, params)
        terminated = self.theirs.is_terminal(state, params.replace(max_timesteps=jnp.int32(FAR)))
        return obs, state, reward, terminated, done & ~terminated, info

    def observation_space(self, params):
        with jax.ensure_compile_time_eval():
            return space_of(self.theirs.observation_space(params))

    def action_space(self, params):
        return space_of(self.theirs.action_space(params))
