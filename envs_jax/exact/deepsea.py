"""DeepSea: one treasure at the end of one path, with a cost for each step toward it.

Osband et al. 2020 (bsuite).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.render import BLUE, DARK, SKY, YELLOW, grid
from envs_jax.spaces import Box, Discrete

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key

    from envs_jax.core import StepResult


class DeepSeaParams(NamedTuple):
    """Parameters of the reward."""

    move_cost: float = 0.01      # cost of `size` moves to the right; one costs move_cost / size


class DeepSeaState(NamedTuple):
    """State: the position of the diver."""

    row: jax.Array               # int32: steps taken; `size` at the end
    column: jax.Array            # int32: at most `row`


@dataclass(frozen=True)
class DeepSea(Environment):
    """Exploration of a grid: observation [size, size] (one-hot), actions left and right, permuted.

    A diver sinks by one row per step. The action that moves right, 0 or 1, differs between cells
    and depends on `seed` (mapping_seed in bsuite, with another generator); it is always 1 if
    `randomize_actions` is False. Moving right in the last column pays 1, which takes `size` moves
    to the right and none to the left. Random actions find this reward once in 2^size episodes, and
    learn from all others that moving right costs something.

    If `deterministic` is False, a move to the right fails with probability 1 / size, and noise from
    N(0, 1) is added to the reward in the two corners of the last row.
    """

    size: int = 8
    deterministic: bool = True
    randomize_actions: bool = True
    seed: int = 0

    default_params = DeepSeaParams()

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"DeepSea needs size >= 1, not {self.size}")

    @property
    def max_steps(self) -> int:
        return self.size

    @cached_property
    def right(self) -> Int[np.ndarray, "size size"]:
        """The action that moves right in each cell."""
        shape = (self.size, self.size)
        if not self.randomize_actions:
            return np.ones(shape, np.int32)
        return np.random.default_rng(self.seed).integers(2, size=shape, dtype=np.int32)

    def optimal_return(self, params: DeepSeaParams = default_params) -> float:
        """Return the best mean return: 1 - move_cost = 0.99 if deterministic.

        Otherwise the best policy moves left, at no cost, after a move has failed. The value that
        bsuite gives for this version, (1 - 1/size)^(size - 1) - move_cost, is slightly smaller,
        because its policy always moves right.
        """
        success = 1.0 if self.deterministic else 1.0 - 1.0 / self.size
        # expected number of moves to the right: one in each row until one has failed
        moves = sum(success**row for row in range(self.size))
        return success ** (self.size - 1) - params.move_cost / self.size * moves

    def reset(self, key: Key[Array, ""], params: DeepSeaParams,
              ) -> tuple[Float[Array, "size size"], DeepSeaState]:
        state = DeepSeaState(jnp.int32(0), jnp.int32(0))
        return self._observe(state), state

    def step(self, key: Key[Array, ""], state: DeepSeaState, action: Int[Array, ""],
             params: DeepSeaParams) -> StepResult:
        row, column = state
        last = self.size - 1
        right = action == jnp.asarray(self.right)[row, column]
        reward = jnp.where(right & (column == last), 1.0, 0.0)
        reward = reward - jnp.where(right, params.move_cost / self.size, 0.0)
        shift = jnp.where(right, jnp.int32(1), -1)
        if not self.deterministic:
            noise_key, fail_key = jax.random.split(key)
            corner = (row == last) & ((column == 0) | (column == last))
            reward += jnp.where(corner, jax.random.normal(noise_key), 0.0)
            failed = right & (jax.random.uniform(fail_key) < 1.0 / self.size)
            shift = jnp.where(failed, 0, shift)
        state = DeepSeaState(row + 1, jnp.clip(column + shift, 0, last))
        obs = self._observe(state)
        return obs, state, reward.astype(jnp.float32), row == last, jnp.bool_(False), {}

    def _observe(self, state: DeepSeaState) -> Float[Array, "size size"]:
        """Return the one-hot position; all zeros after the last row."""
        cell = state.row * self.size + state.column
        one_hot = jax.nn.one_hot(cell, self.size**2, dtype=jnp.float32)
        return one_hot.reshape(self.size, self.size)

    def observation_space(self, params: DeepSeaParams) -> Box:
        return Box(0.0, 1.0, (self.size, self.size))

    def action_space(self, params: DeepSeaParams) -> Discrete:
        return Discrete(2)

    def render(self, state: DeepSeaState, params: DeepSeaParams) -> np.ndarray:
        """Draw the sea above its floor.

        Unreachable cells are dark; moving right in the yellow cell finds the treasure.
        """
        size = self.size
        unreachable = np.triu(np.ones((size, size), int), 1)
        cells = np.vstack([unreachable, np.full((1, size), 2)])
        cells[size - 1, size - 1] = 3
        agent = (int(state.row), int(state.column))
        return grid(cells, (SKY, BLUE, DARK, YELLOW), cell=max(12, 384 // (size + 1)), agent=agent)
