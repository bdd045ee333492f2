"""The two-step game: two agents must take a risk together.

Rashid et al. 2018, arXiv:1803.11485, section 6.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.spaces import Box, Discrete

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key

    from envs_jax.core import Params, StepResult

START, SAFE, RISKY = range(3)


class TwoStepState(NamedTuple):
    """State: the current place."""

    place: jax.Array     # int32: START, SAFE (2A in the paper) or RISKY (2B)


@dataclass(frozen=True)
class TwoStepGame(Environment):
    """Coordination of two agents in two steps: observation [3] (place, one-hot), actions 0 and 1.

    In START the first agent chooses SAFE (action 0) or RISKY (action 1). There, SAFE pays 7 for any
    actions, and RISKY pays `payoff[first action, second action]`. Both agents receive the same
    reward. With gamma = 0.99 the values of START for the first agent are [6.93, 7.92]; the best
    return is 8. Agents whose values are added up (VDN) choose 7. `global_state` is the place, too.
    """

    payoff: ClassVar[np.ndarray] = np.float32([[0.0, 1.0], [1.0, 8.0]])

    agents = 2
    max_steps = 2

    def reset(self, key: Key[Array, ""], params: Params,
              ) -> tuple[Float[Array, "agents 3"], TwoStepState]:
        state = TwoStepState(jnp.int32(START))
        return self._observe(state), state

    def step(self, key: Key[Array, ""], state: TwoStepState, action: Int[Array, " agents"],
             params: Params) -> StepResult:
        safe = state.place == SAFE
        pay = jnp.where(safe, jnp.float32(7.0), jnp.asarray(self.payoff)[action[0], action[1]])
        over = state.place != START
        reward = jnp.where(over, pay, 0.0)
        chosen = jnp.where(action[0] == 0, jnp.int32(SAFE), RISKY)
        state = TwoStepState(jnp.where(over, state.place, chosen))
        obs = self._observe(state)
        reward = jnp.stack([reward] * self.agents)
        terminated = jnp.stack([over] * self.agents)
        return obs, state, reward, terminated, jnp.bool_(False), {}

    def global_state(self, state: TwoStepState, params: Params) -> Float[Array, "3"]:
        """Return the place as a one-hot vector."""
        return jax.nn.one_hot(state.place, 3, dtype=jnp.float32)

    def _observe(self, state: TwoStepState) -> Float[Array, "agents 3"]:
        return jnp.stack([self.global_state(state, ())] * self.agents)

    def observation_space(self, params: Params) -> Box:
        return Box(0.0, 1.0, (3,))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(2)

    def state_space(self, params: Params) -> Box:
        return Box(0.0, 1.0, (3,))
