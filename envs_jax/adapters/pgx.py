"""Adapter of pgx 2.6 (https://github.com/sotetsuk/pgx): board and card games with turns."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.adapters.adapter import Adapter
from envs_jax.spaces import Box, Discrete

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable

    from jaxtyping import Array, Bool, Key

    from envs_jax.core import Action, Params


@dataclass(frozen=True, init=False)
class Pgx(Adapter):
    """Board or card game of pgx: observation of a player's view of the board, action a move.

    Each player is an agent; a game for one player has no axis of agents. Only the action of the
    player whose turn it is has an effect. The other players have one legal action, 0. An illegal
    move ends the game and loses it. After the end all actions are legal, as in pgx.
    """

    suite = "pgx"

    @classmethod
    def constructor(cls, id: str) -> Callable[..., Any]:
        import pgx

        if id not in pgx.available_envs():
            raise ValueError(f"pgx has no game {id!r}")
        return functools.partial(pgx.make, id)

    @classmethod
    def signature(cls, id: str) -> inspect.Signature:
        # pgx.make takes no other argument
        return super().signature(id).replace(parameters=[])

    @property
    def agents(self) -> int | None:
        return self.theirs.num_players if self.theirs.num_players > 1 else None

    def start(self, key: Key[Array, ""], params: Params) -> tuple[Any, Any]:
        state = self.theirs.init(key)
        return self._observe(state), state

    def advance(self, key: Key[Array, ""], state: Any, action: Action, params: Params,
                ) -> tuple[Any, ...]:
        if self.agents is None:
            state = self.theirs.step(state, action, key)
            reward = state.rewards[0]
            terminated = state.terminated
        else:
            state = self.theirs.step(state, action[state.current_player], key)
            reward = state.rewards
            terminated = jnp.broadcast_to(state.terminated, (self.agents,))
        return self._observe(state), state, reward, terminated, state.truncated, {}

    def action_mask(self, state: Any, params: Params) -> Bool[Array, "*players actions"]:
        """Return the legal actions, [actions] with one player."""
        if self.agents is None:
            return state.legal_action_mask
        waits = (jnp.arange(self.agents) != state.current_player) & ~state.terminated
        nothing = jnp.arange(state.legal_action_mask.shape[0]) == 0
        return jnp.where(waits[:, None], nothing[None], state.legal_action_mask[None])

    def observation_space(self, params: Params) -> Box:
        obs = _first(self.theirs).observation
        low, high = (0, 1) if obs.dtype == bool else (-np.inf, np.inf)
        return Box(low, high, obs.shape, obs.dtype.type)

    def action_space(self, params: Params) -> Discrete:
        return Discrete(_first(self.theirs).legal_action_mask.shape[0])

    def _observe(self, state: Any) -> Array:
        if self.agents is None:
            return state.observation
        players = jnp.arange(self.agents, dtype=jnp.int32)
        return jax.vmap(self.theirs._observe, in_axes=(None, 0))(state, players)


@functools.lru_cache(maxsize=64)
def _first(theirs: Any) -> Any:
    """Return the first state without values: shapes and dtypes."""
    with jax.numpy_rank_promotion("allow"):
        return jax.eval_shape(theirs.init, jax.random.key(0))
