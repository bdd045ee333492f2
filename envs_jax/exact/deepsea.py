"""DeepSea: one treasure at the end of one path, and every step towards it costs. Osband et al. 2020 (bsuite)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.render import BLUE, DARK, SKY, YELLOW, grid
from envs_jax.spaces import Box, Discrete


class DeepSeaParams(NamedTuple):
    move_cost: float = 0.01      # of a whole episode of moves to the right: one costs move_cost / size


class DeepSeaState(NamedTuple):
    row: jax.Array               # int32: steps taken; `size` at the end
    column: jax.Array            # int32: at most `row`


@dataclass(frozen=True)
class DeepSea(Environment):
    """Observation [size, size], one-hot: where a diver is who sinks a row a step. Actions: left, right, in disguise.

    Which of 0 and 1 is right differs from cell to cell, by `seed` (bsuite's mapping_seed; another generator, other
    maps); it is always 1 without `randomize_actions`. Right in the last column pays 1, which takes `size` moves to the
    right and nothing else: random play gets it once in 2^size episodes, and what it learns from the rest is that moving
    right costs. Without `deterministic`, a move to the right fails with probability 1 / size, and N(0, 1) noise is
    added to the reward in the two corners of the last row.
    """

    size: int = 8
    deterministic: bool = True
    randomize_actions: bool = True
    seed: int = 0

    default_params = DeepSeaParams()

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"DeepSea needs a size of 1 or more, not {self.size}")

    @property
    def max_steps(self) -> int:
        return self.size

    @cached_property
    def right(self) -> np.ndarray:
        """[size, size] int32: the action that is right, in each cell."""
        if not self.randomize_actions:
            return np.ones((self.size, self.size), np.int32)
        return np.random.default_rng(self.seed).integers(2, size=(self.size, self.size), dtype=np.int32)

    def optimal_return(self, params: DeepSeaParams = default_params) -> float:
        """Of an episode, on average: 1 - move_cost = 0.99 if deterministic.

        Otherwise a diver whom a move has failed moves left from then on, for free. bsuite's figure for that variant,
        (1 - 1/size)^(size - 1) - move_cost, is of one who goes on, and a little less.
        """
        holds = 1.0 if self.deterministic else 1.0 - 1.0 / self.size
        moves = sum(holds**row for row in range(self.size))          # expected: one more as long as none has failed
        return holds ** (self.size - 1) - params.move_cost / self.size * moves

    def reset(self, key, params):
        state = DeepSeaState(jnp.int32(0), jnp.int32(0))
        return self._observe(state), state

    def step(self, key, state, action, params):
        row, column = state
        last = self.size - 1
        right = action == jnp.asarray(self.right)[row, column]
        reward = jnp.where(right & (column == last), 1.0, 0.0) - jnp.where(right, params.move_cost / self.size, 0.0)
        shift = jnp.where(right, jnp.int32(1), -1)
        if not self.deterministic:
            noise, wind = jax.random.split(key)
            corner = (row == last) & ((column == 0) | (column == last))
            reward += jnp.where(corner, jax.random.normal(noise), 0.0)
            shift = jnp.where(right & (jax.random.uniform(wind) < 1.0 / self.size), 0, shift)
        state = DeepSeaState(row + 1, jnp.clip(column + shift, 0, last))
        return self._observe(state), state, reward.astype(jnp.float32), row == last, jnp.bool_(False), {}

    def _observe(self, state):
        """All zeros after the last row."""
        return jax.nn.one_hot(state.row * self.size + state.column, self.size**2, dtype=jnp.float32).reshape(
            self.size, self.size)

    def observation_space(self, params):
        return Box(0.0, 1.0, (self.size, self.size))

    def action_space(self, params):
        return Discrete(2)

    def render(self, state, params):
        """The sea above its floor; dark what cannot be reached, yellow where a move to the right finds the treasure."""
        size = self.size
        cells = np.vstack([np.triu(np.ones((size, size), int), 1), np.full((1, size), 2)])
        cells[size - 1, size - 1] = 3
        cell = max(12, 384 // (size + 1))
        return grid(cells, (SKY, BLUE, DARK, YELLOW), cell=cell, agent=(int(state.row), int(state.column)))
