"""The two-step game: two agents who must dare together. Rashid et al. 2018, arXiv:1803.11485, section 6.1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.spaces import Box, Discrete

START, SAFE, RISKY = range(3)


class TwoStepState(NamedTuple):
    place: jax.Array     # int32: START, SAFE (2A in the paper) or RISKY (2B)


@dataclass(frozen=True)
class TwoStepGame(Environment):
    """In START the first agent's action picks SAFE (0) or RISKY (1); there both agents' actions pick the reward.

    SAFE pays 7 whatever they do, RISKY pays `payoff[first action, second action]`; both agents get the same reward.
    With gamma 0.99 START is worth [6.93, 7.92] to the first agent, so 8 is the best return; agents whose values add up
    (VDN) choose 7. Each agent observes the place, one-hot [3]; so does `global_state`.
    """

    payoff: ClassVar[np.ndarray] = np.float32([[0.0, 1.0], [1.0, 8.0]])

    agents = 2
    max_steps = 2

    def reset(self, key, params):
        state = TwoStepState(jnp.int32(START))
        return self._observe(state), state

    def step(self, key, state, action, params):
        pay = jnp.where(state.place == SAFE, jnp.float32(7.0), jnp.asarray(self.payoff)[action[0], action[1]])
        over = state.place != START
        reward = jnp.where(over, pay, 0.0)
        state = TwoStepState(jnp.where(over, state.place, jnp.where(action[0] == 0, jnp.int32(SAFE), RISKY)))
        both = lambda x: jnp.stack([x, x])
        return self._observe(state), state, both(reward), both(over), jnp.bool_(False), {}

    def global_state(self, state, params):
        """[3] float32"""
        return jax.nn.one_hot(state.place, 3, dtype=jnp.float32)

    def _observe(self, state):
        return jnp.stack([self.global_state(state, ())] * self.agents)

    def observation_space(self, params):
        return Box(0.0, 1.0, (3,))

    def action_space(self, params):
        return Discrete(2)

    def state_space(self, params):
        return Box(0.0, 1.0, (3,))
