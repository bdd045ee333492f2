"""Memory chain: what was shown first is asked for last. Osband et al. 2020 (bsuite's memory_len and memory_size)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.render import DARK, GREEN, LIGHT, YELLOW, grid
from envs_jax.spaces import Box, Discrete


class MemoryChainState(NamedTuple):
    context: jax.Array     # [bits] int32, 0 or 1: what must be remembered
    query: jax.Array       # int32: which bit will be asked for
    time: jax.Array        # int32: steps taken


@dataclass(frozen=True)
class MemoryChain(Environment):
    """Observation [2 + bits]: a clock, the query, the context. The last action names the context's bit that is asked.

    The context (-1 or 1 for the bits 0 and 1) is shown at first and then no more (0), the query, the number of a bit,
    only before the last action; the clock runs from 1 down to 1 / length. Reward in the last step only: 1 if
    right, else -1. The best return is 1, and 0 without memory.
    As in bsuite, where `step` returns what is seen before the clock moves on: the first observation comes twice, so
    an episode has length + 1 steps, and length - 1 lie between the last sight of the context and the answer.
    """

    length: int = 8
    bits: int = 1

    def __post_init__(self):
        if self.length < 1 or self.bits < 1:
            raise ValueError(f"MemoryChain needs length >= 1 and bits >= 1, not {self.length} and {self.bits}")

    @property
    def max_steps(self) -> int:
        return self.length + 1

    def optimal_return(self) -> float:
        """Of an episode, with memory."""
        return 1.0

    def chance_return(self) -> float:
        """Of an episode, on average, without memory."""
        return 0.0

    def reset(self, key, params):
        context_key, query_key = jax.random.split(key)
        context = jax.random.bernoulli(context_key, shape=(self.bits,)).astype(jnp.int32)
        query = jax.random.randint(query_key, (), 0, self.bits, jnp.int32)
        state = MemoryChainState(context, query, jnp.int32(0))
        return self._observe(state), state

    def step(self, key, state, action, params):
        over = state.time == self.length
        answer = jnp.where(action == state.context[state.query], jnp.float32(1.0), -1.0)
        obs = self._observe(state)
        state = state._replace(time=state.time + 1)
        return obs, state, jnp.where(over, answer, 0.0), over, jnp.bool_(False), {}

    def _observe(self, state):
        clock = 1.0 - state.time.astype(jnp.float32) / self.length
        query = jnp.where(state.time == self.length - 1, state.query, 0).astype(jnp.float32)
        context = jnp.where(state.time == 0, 2 * state.context - 1, 0).astype(jnp.float32)
        return jnp.concatenate([jnp.stack([clock, query]), context])

    def observation_space(self, params):
        low, high = (0.0, 0.0) + (-1.0,) * self.bits, (1.0, self.bits - 1.0) + (1.0,) * self.bits
        return Box(low, high, (2 + self.bits,))

    def action_space(self, params):
        return Discrete(2)

    def render(self, state, params):
        """The steps of an episode, where we are, yellow where the context is seen; below it, green what is asked."""
        steps, bits = self.length + 1, self.bits
        time, width = min(int(state.time), self.length), max(steps, bits)
        cells, labels = np.zeros((2, width), int), np.full((2, width), "")
        cells[0, :steps], cells[0, :2] = 1, 2
        cells[1, :bits], cells[1, int(state.query)] = 1, 3
        labels[1, :bits] = np.asarray(state.context).astype(str)
        return grid(cells, (DARK, LIGHT, YELLOW, GREEN), cell=max(8, 480 // width), labels=labels, agent=(0, time))
