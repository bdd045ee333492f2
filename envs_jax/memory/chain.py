"""Memory chain: recall of bits shown at the start. Osband et al. 2020 (bsuite).

bsuite calls its two versions memory_len and memory_size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.render import DARK, GREEN, LIGHT, YELLOW, grid
from envs_jax.spaces import Box, Discrete

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key

    from envs_jax.core import Params, StepResult


class MemoryChainState(NamedTuple):
    """State: the bits to remember, the question, and the time."""

    context: jax.Array     # [bits] int32, 0 or 1
    query: jax.Array       # int32: index of the bit to name at the end
    time: jax.Array        # int32: steps taken


@dataclass(frozen=True)
class MemoryChain(Environment):
    """Recall of bits shown at the start: observation [2 + bits], action the requested bit.

    Only the last action counts. The observation is a clock, the query and the context. The clock
    runs from 1 down to 1 / length. The query is the index of the requested bit, and appears only
    before the last action. The context is -1 or 1 for the bits 0 and 1 at the start, and 0
    afterward. The last step has a reward of 1 for the correct bit, otherwise -1; all other rewards
    are 0. The best return is 1, and 0 without memory.

    As in bsuite, `step` returns the observation from before the clock advances. The first
    observation therefore appears twice, an episode has length + 1 steps, and length - 1 steps lie
    between the last sight of the context and the answer.
    """

    length: int = 8
    bits: int = 1

    def __post_init__(self) -> None:
        if self.length < 1 or self.bits < 1:
            raise ValueError("MemoryChain needs length >= 1 and bits >= 1, not "
                             f"length = {self.length} and bits = {self.bits}")

    @property
    def max_steps(self) -> int:
        return self.length + 1

    def optimal_return(self) -> float:
        """Return the best mean return of an episode, with memory."""
        return 1.0

    def chance_return(self) -> float:
        """Return the mean return of an episode without memory."""
        return 0.0

    def reset(self, key: Key[Array, ""], params: Params,
              ) -> tuple[Float[Array, " features"], MemoryChainState]:
        context_key, query_key = jax.random.split(key)
        context = jax.random.bernoulli(context_key, shape=(self.bits,)).astype(jnp.int32)
        query = jax.random.randint(query_key, (), 0, self.bits, jnp.int32)
        state = MemoryChainState(context, query, jnp.int32(0))
        return self._observe(state), state

    def step(self, key: Key[Array, ""], state: MemoryChainState, action: Int[Array, ""],
             params: Params) -> StepResult:
        over = state.time == self.length
        answer = jnp.where(action == state.context[state.query], jnp.float32(1.0), -1.0)
        obs = self._observe(state)
        state = state._replace(time=state.time + 1)
        return obs, state, jnp.where(over, answer, 0.0), over, jnp.bool_(False), {}

    def _observe(self, state: MemoryChainState) -> Float[Array, " features"]:
        clock = 1.0 - state.time.astype(jnp.float32) / self.length
        query = jnp.where(state.time == self.length - 1, state.query, 0).astype(jnp.float32)
        context = jnp.where(state.time == 0, 2 * state.context - 1, 0).astype(jnp.float32)
        return jnp.concatenate([jnp.stack([clock, query]), context])

    def observation_space(self, params: Params) -> Box:
        low = (0.0, 0.0) + (-1.0,) * self.bits
        high = (1.0, self.bits - 1.0) + (1.0,) * self.bits
        return Box(low, high, (2 + self.bits,))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(2)

    def render(self, state: MemoryChainState, params: Params) -> np.ndarray:
        """Draw the steps of an episode above the bits of the context.

        The disc marks the current step, the context is visible in the yellow steps, and the
        requested bit is green.
        """
        steps = self.length + 1
        time = min(int(state.time), self.length)
        width = max(steps, self.bits)
        cells = np.zeros((2, width), int)
        cells[0, :steps] = 1
        cells[0, :2] = 2
        cells[1, :self.bits] = 1
        cells[1, int(state.query)] = 3
        labels = np.full((2, width), "")
        labels[1, :self.bits] = np.asarray(state.context).astype(str)
        palette = (DARK, LIGHT, YELLOW, GREEN)
        return grid(cells, palette, cell=max(8, 480 // width), labels=labels, agent=(0, time))
