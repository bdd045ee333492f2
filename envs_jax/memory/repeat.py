"""Repeat-previous: recall of the symbol shown some steps ago.

After the POPGym task of the same name (Morad et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.render import BLUE, GREEN, LIGHT, PINK, RED, SKY, WHITE, YELLOW, grid
from envs_jax.spaces import Box, Discrete

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key

    from envs_jax.core import Params, StepResult

COLORS = (BLUE, YELLOW, GREEN, RED, SKY, PINK, LIGHT)       # of the symbols, repeated if needed


class RepeatPreviousState(NamedTuple):
    """State: the last symbols, the newest at the end."""

    symbols: jax.Array   # [delay + 1] int32; -1 before the start of the episode


@dataclass(frozen=True)
class RepeatPrevious(Environment):
    """Recall of a symbol shown `delay` steps ago: observation [symbols] (one-hot), action a symbol.

    Each step shows a random symbol. The reward is 1 for the correct symbol, otherwise 0; it is
    always 0 in the first `delay` steps. Symbols are independent, so an episode of T steps earns at
    most `optimal_return(T)`, and `chance_return(T)` without memory. The time limit leaves 30 steps
    with a reward for any delay: 30 with memory, and 7.5 without memory for 4 symbols.
    """

    delay: int = 2
    symbols: int = 4

    def __post_init__(self) -> None:
        if not (1 <= self.delay <= 10**6 and 2 <= self.symbols <= 10**6):
            raise ValueError("RepeatPrevious needs 1 <= delay <= 1000000 and 2 <= symbols <= "
                             f"1000000, not delay = {self.delay} and symbols = {self.symbols}")

    @property
    def time_limit(self) -> int:
        return self.delay + 30

    def optimal_return(self, steps: int) -> float:
        """Return the return of an episode of `steps` with perfect memory."""
        return float(max(steps - self.delay, 0))

    def chance_return(self, steps: int) -> float:
        """Return the mean return of an episode of `steps` without memory."""
        return self.optimal_return(steps) / self.symbols

    def reset(self, key: Key[Array, ""], params: Params,
              ) -> tuple[Float[Array, " symbols"], RepeatPreviousState]:
        return self._show(key, jnp.full(self.delay, -1, jnp.int32))

    def step(self, key: Key[Array, ""], state: RepeatPreviousState, action: Int[Array, ""],
             params: Params) -> StepResult:
        reward = (action == state.symbols[0]).astype(jnp.float32)
        obs, state = self._show(key, state.symbols[1:])
        return obs, state, reward, jnp.bool_(False), jnp.bool_(False), {}

    def _show(self, key: Key[Array, ""], previous: Int[Array, " delay"],
              ) -> tuple[Float[Array, " symbols"], RepeatPreviousState]:
        """Return (observation, state) with a new symbol after `previous`."""
        symbol = jax.random.randint(key, (), 0, self.symbols, jnp.int32)
        state = RepeatPreviousState(jnp.append(previous, symbol))
        return jax.nn.one_hot(symbol, self.symbols, dtype=jnp.float32), state

    def observation_space(self, params: Params) -> Box:
        return Box(0.0, 1.0, (self.symbols,))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(self.symbols)

    def render(self, state: RepeatPreviousState, params: Params) -> np.ndarray:
        """Draw the last symbols: the newest is at the right, the correct answer at the left."""
        symbols = np.asarray(state.symbols)
        palette = {-1: WHITE, **{i: COLORS[i % len(COLORS)] for i in range(self.symbols)}}
        names = np.where(symbols < 0, "", symbols.astype(str))
        labels = np.stack([names, np.full(len(symbols), "", object)])
        labels[1, 0] = "?"
        cells = np.stack([symbols, np.full(len(symbols), -1)])
        size = max(16, 192 // len(symbols))
        return grid(cells, palette, cell=size, labels=labels, agent=(1, self.delay))
