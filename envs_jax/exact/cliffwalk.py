"""CliffWalk: along a cliff to the goal. Sutton & Barto 2018, example 6.6; equal to Gymnasium's CliffWalking-v1."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from envs_jax.exact.tabular import Outcomes, Tabular
from envs_jax.render import BROWN, GREEN, LIGHT, grid

SHAPE = (4, 12)
START, GOAL = (3, 0), (3, 11)                                # in the last row; the cliff is what lies between
MOVES = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])         # (row, column) of the actions up, right, down, left


@dataclass(frozen=True)
class CliffWalk(Tabular):
    """Observation: one of 48 cells, row by row. Actions: up, right, down, left. Each step costs 1 until the goal.

    A step into the cliff costs 100, and leads back to the start, without an end. Undiscounted returns: -13 along the
    edge, which is the best, -17 along the far side. `slippery`: a third of the moves go to either side.
    Gymnasium has no time limit. Ours is 200 steps: random play takes thousands, and falls off again and again.
    """

    slippery: bool = False

    time_limit = 200

    @cached_property
    def outcomes(self):
        places = np.stack(np.unravel_index(np.arange(np.prod(SHAPE)), SHAPE), axis=-1)          # [S, 2]
        row, column = np.moveaxis(np.clip(places[:, None] + MOVES, 0, np.array(SHAPE) - 1), -1, 0)
        fallen = (row == START[0]) & (START[1] < column) & (column < GOAL[1])                   # [S, 4]
        start, goal = (np.ravel_multi_index(place, SHAPE) for place in (START, GOAL))
        moved = np.where(fallen, start, np.ravel_multi_index((row, column), SHAPE))
        slips = np.array([-1, 0, 1]) if self.slippery else np.array([0])
        went = (np.arange(4)[:, None] + slips) % 4                                              # [4, K]
        successor, reward = moved[:, went], np.where(fallen, -100.0, -1.0)[:, went]
        at = np.arange(np.prod(SHAPE))
        return Outcomes(np.full(successor.shape, 1 / len(slips)), successor, reward, at == goal,
                        (at == start).astype(np.float64))

    def render(self, state, params):
        """The cliff is brown, the goal green."""
        cells, labels = np.zeros(SHAPE, int), np.full(SHAPE, "")
        cells[3, 1:], cells[GOAL] = 1, 2
        labels[START], labels[GOAL] = "S", "G"
        return grid(cells, (LIGHT, BROWN, GREEN), cell=48, labels=labels, agent=divmod(int(state.place), SHAPE[1]))
