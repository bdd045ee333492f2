"""CliffWalk: a path along a cliff to the goal.

Sutton and Barto 2018, example 6.6. Equal to Gymnasium's CliffWalking-v1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from envs_jax.exact.tabular import Outcomes, Tabular
from envs_jax.render import BROWN, GREEN, LIGHT, grid

if TYPE_CHECKING:
    from envs_jax.core import Params
    from envs_jax.exact.tabular import TabularState

SHAPE = (4, 12)
START = (3, 0)
GOAL = (3, 11)               # the cells of the last row between START and GOAL are the cliff
MOVES = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])         # (row, column): up, right, down, left


@dataclass(frozen=True)
class CliffWalk(Tabular):
    """Grid walk along a cliff: observation of the cell's index, actions up, right, down, left.

    The 48 cells are numbered row by row. Each step costs 1 until the goal ends the episode. A step
    into the cliff costs 100 and leads back to the start. Undiscounted returns: -13 along the edge,
    which is optimal, -17 along the opposite border. If `slippery`, each of the two perpendicular
    directions replaces a third of the moves. Gymnasium has no time limit; here the limit is 200
    steps, because random actions take thousands.
    """

    slippery: bool = False

    time_limit = 200

    @cached_property
    def outcomes(self) -> Outcomes:
        states = np.arange(np.prod(SHAPE))
        places = np.stack(np.unravel_index(states, SHAPE), axis=-1)    # [S, 2]
        targets = np.clip(places[:, None] + MOVES, 0, np.array(SHAPE) - 1)    # [S, 4, 2]
        row, column = np.moveaxis(targets, -1, 0)
        fallen = (row == START[0]) & (START[1] < column) & (column < GOAL[1])    # [S, 4]
        start = np.ravel_multi_index(START, SHAPE)
        goal = np.ravel_multi_index(GOAL, SHAPE)
        moved = np.where(fallen, start, np.ravel_multi_index((row, column), SHAPE))
        slips = np.array([-1, 0, 1]) if self.slippery else np.array([0])
        direction = (np.arange(4)[:, None] + slips) % 4    # [4, K]
        successor = moved[:, direction]
        return Outcomes(
            probability=np.full(successor.shape, 1 / len(slips)),
            successor=successor,
            reward=np.where(fallen, -100.0, -1.0)[:, direction],
            terminal=states == goal,
            start=(states == start).astype(np.float64),
        )

    def render(self, state: TabularState, params: Params) -> np.ndarray:
        """Draw the grid with a brown cliff and a green goal."""
        cells = np.zeros(SHAPE, int)
        cells[3, 1:] = 1
        cells[GOAL] = 2
        labels = np.full(SHAPE, "")
        labels[START] = "S"
        labels[GOAL] = "G"
        agent = divmod(int(state.place), SHAPE[1])
        return grid(cells, (LIGHT, BROWN, GREEN), cell=48, labels=labels, agent=agent)
