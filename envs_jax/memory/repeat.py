"""Repeat-previous: name the symbol that was shown some steps ago. After the POPGym task (Morad et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.render import BLUE, GREEN, LIGHT, PINK, RED, SKY, WHITE, YELLOW, grid
from envs_jax.spaces import Box, Discrete

COLOURS = (BLUE, YELLOW, GREEN, RED, SKY, PINK, LIGHT)       # of the symbols, in turn


class RepeatPreviousState(NamedTuple):
    symbols: jax.Array   # [delay + 1] int32, the last one shown at the end; -1 before the episode's start


@dataclass(frozen=True)
class RepeatPrevious(Environment):
    """Each step shows a random symbol, one-hot [symbols]; the action names the one shown `delay` steps before it.

    Reward 1 if right, else 0; nothing can be right in the first `delay` steps. Symbols are independent, so over an
    episode of T steps memory earns at most `optimal_return(T)`, and no memory `chance_return(T)` whatever it does.
    The limit leaves 30 steps that count, whatever the delay: 30 with memory, and with 4 symbols 7.5 without.
    """

    delay: int = 2
    symbols: int = 4

    def __post_init__(self):
        if not (1 <= self.delay <= 10**6 and 2 <= self.symbols <= 10**6):
            raise ValueError("RepeatPrevious needs a delay of 1 and 2 symbols or more, of each a million at most, not "
                             f"{self.delay} and {self.symbols}")

    @property
    def time_limit(self) -> int:
        return self.delay + 30

    def optimal_return(self, steps: int) -> float:
        """Of an episode of `steps`, with perfect memory."""
        return float(max(steps - self.delay, 0))

    def chance_return(self, steps: int) -> float:
        """Of an episode of `steps`, on average, without memory."""
        return self.optimal_return(steps) / self.symbols

    def reset(self, key, params):
        return self._show(key, jnp.full(self.delay, -1, jnp.int32))

    def step(self, key, state, action, params):
        reward = (action == state.symbols[0]).astype(jnp.float32)
        obs, state = self._show(key, state.symbols[1:])
        return obs, state, reward, jnp.bool_(False), jnp.bool_(False), {}

    def _show(self, key, before):
        symbol = jax.random.randint(key, (), 0, self.symbols, jnp.int32)
        state = RepeatPreviousState(jnp.append(before, symbol))
        return jax.nn.one_hot(symbol, self.symbols, dtype=jnp.float32), state

    def observation_space(self, params):
        return Box(0.0, 1.0, (self.symbols,))

    def action_space(self, params):
        return Discrete(self.symbols)

    def render(self, state, params):
        """The last symbols, the one shown now at the right, marked; the one to be named now is at the left."""
        symbols = np.asarray(state.symbols)
        palette = {-1: WHITE, **{i: COLOURS[i % len(COLOURS)] for i in range(self.symbols)}}
        labels = np.stack([np.where(symbols < 0, "", symbols.astype(str)), np.full(len(symbols), "", object)])
        labels[1, 0] = "?"
        cells = np.stack([symbols, np.full(len(symbols), -1)])
        return grid(cells, palette, cell=max(16, 192 // len(symbols)), labels=labels, agent=(1, self.delay))
