"""pgx (https://github.com/sotetsuk/pgx, 2.6): board and card games, by turns."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.adapters.adapter import Adapter
from envs_jax.spaces import Box, Discrete


@dataclass(frozen=True, init=False)
class Pgx(Adapter):
    """A pgx game: each player is an agent and sees the board from its side; only the action of who moves counts.

    Who waits has one legal action, 0, which does nothing. An illegal move ends the game and loses it. At the end all
    is legal, as in pgx. With one player there is no axis of agents.
    """

    suite = "pgx"

    @classmethod
    def constructor(cls, id):
        import pgx

        if id not in pgx.available_envs():
            raise ValueError(f"pgx has no game {id!r}")
        return functools.partial(pgx.make, id)

    @classmethod
    def signature(cls, id):
        return super().signature(id).replace(parameters=[])      # the id is all that pgx.make takes

    @property
    def agents(self):
        return self.theirs.num_players if self.theirs.num_players > 1 else None

    def start(self, key, params):
        state = self.theirs.init(key)
        return self._observe(state), state

    def advance(self, key, state, action, params):
        state = self.theirs.step(state, action if self.agents is None else action[state.current_player], key)
        if self.agents is None:
            return self._observe(state), state, state.rewards[0], state.terminated, state.truncated, {}
        terminated = jnp.broadcast_to(state.terminated, (self.agents,))
        return self._observe(state), state, state.rewards, terminated, state.truncated, {}

    def action_mask(self, state, params):
        """[players, actions], or [actions] with one player."""
        if self.agents is None:
            return state.legal_action_mask
        waits = (jnp.arange(self.agents) != state.current_player) & ~state.terminated
        nothing = jnp.arange(state.legal_action_mask.shape[0]) == 0
        return jnp.where(waits[:, None], nothing[None], state.legal_action_mask[None])

    def observation_space(self, params):
        obs = _first(self.theirs).observation
        low, high = (0, 1) if obs.dtype == bool else (-np.inf, np.inf)
        return Box(low, high, obs.shape, obs.dtype.type)

    def action_space(self, params):
        return Discrete(_first(self.theirs).legal_action_mask.shape[0])

    def _observe(self, state):
        if self.agents is None:
            return state.observation
        return jax.vmap(self.theirs._observe, in_axes=(None, 0))(state, jnp.arange(self.agents, dtype=jnp.int32))


@functools.lru_cache(maxsize=64)
def _first(theirs):
    """The abstract first state."""
    with jax.numpy_rank_promotion("allow"):
        return jax.eval_shape(theirs.init, jax.random.key(0))
