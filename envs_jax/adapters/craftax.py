"""Adapter of Craftax 1.6 (https://github.com/MichaelTMatthews/Craftax): an open world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from envs_jax.adapters.adapter import Adapter, space_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Key

    from envs_jax.core import Action, Params

FAR = 2**30                  # steps: a time limit that is never reached


@dataclass(frozen=True, init=False)
class Craftax(Adapter):
    """Open world of Craftax: observation of symbols or pixels, discrete actions of a player.

    Without Craftax's auto-reset. The environment truncates after params.max_timesteps steps. To
    tell death from truncation, Craftax is asked again with a time limit that is never reached.
    """

    suite = "craftax"

    @classmethod
    def constructor(cls, id: str) -> Callable[..., Any]:
        from craftax.craftax_env import make_craftax_env_from_name

        def make() -> Any:
            return make_craftax_env_from_name(id, auto_reset=False)

        return make

    @property
    def default_params(self) -> Params:
        return self.theirs.default_params

    @property
    def max_steps(self) -> int:
        return self.default_params.max_timesteps

    def start(self, key: Key[Array, ""], params: Params) -> tuple[Any, Any]:
        return self.theirs.reset_env(key, params)

    def advance(self, key: Key[Array, ""], state: Any, action: Action, params: Params,
                ) -> tuple[Any, ...]:
        obs, state, reward, done, info = self.theirs.step_env(key, state, action, params)
        endless = params.replace(max_timesteps=jnp.int32(FAR))
        terminated = self.theirs.is_terminal(state, endless)
        return obs, state, reward, terminated, done & ~terminated, info

    def observation_space(self, params: Params) -> Any:
        with jax.ensure_compile_time_eval():
            return space_of(self.theirs.observation_space(params))

    def action_space(self, params: Params) -> Any:
        return space_of(self.theirs.action_space(params))
