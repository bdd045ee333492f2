"""FrozenLake: a path over slippery ice, past holes, to the goal.

Equal to Gymnasium's FrozenLake-v1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from envs_jax.exact.tabular import Outcomes, Tabular
from envs_jax.render import BLUE, GREEN, LIGHT, grid

if TYPE_CHECKING:
    from envs_jax.core import Params
    from envs_jax.exact.tabular import TabularState

MAPS = {       # S start, F frozen, H hole, G goal
    "4x4": ("SFFF", "FHFH", "FFFH", "HFFG"),
    "8x8": ("SFFFFFFF", "FFFFFFFF", "FFFHFFFF", "FFFFFHFF",
            "FFFHFFFF", "FHHFFFHF", "FHFFHFHF", "FFFHFFFG"),
}
MOVES = np.array([(0, -1), (1, 0), (0, 1), (-1, 0)])        # (row, column): left, down, right, up


@dataclass(frozen=True)
class FrozenLake(Tabular):
    """Grid walk on ice with holes: observation of the cell's index, actions left, down, right, up.

    Cells are numbered row by row. The goal pays 1; the goal and the holes end the episode. If
    `slippery`, a move has the intended direction with probability `success_rate`, and otherwise one
    of the two perpendicular ones; moves across the border have no effect. `map` is "4x4", "8x8", or
    the rows of another map, with the letters S, F, H and G; all S are equally likely starts. The
    time limit is 25 steps per row, as in Gymnasium: 100 and 200.

    The return is 1 for success, so `expected_return(100)` is the best probability of success:
    0.744190 on the slippery 4x4 map. The best policy that ignores the time reaches 0.740165, random
    actions 0.013940.
    """

    map: str | tuple[str, ...] = "4x4"
    slippery: bool = True
    success_rate: float = 1 / 3

    def __post_init__(self) -> None:
        if not isinstance(self.map, str):
            object.__setattr__(self, "map", tuple(self.map))
        elif self.map not in MAPS:
            raise ValueError(f"FrozenLake has no map {self.map!r}; known maps: {', '.join(MAPS)}. "
                             "Or give the rows of another map")
        letters = {letter for row in self.rows for letter in row}
        if len(set(map(len, self.rows))) != 1 or not {"S"} <= letters <= set("SFHG"):
            raise ValueError("map needs rows of equal length, with the letters S, F, H, G and at "
                             f"least one S, not {self.rows}")
        if not 0.0 <= self.success_rate <= 1.0:
            raise ValueError(f"success_rate = {self.success_rate} is not between 0 and 1")

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows of the map."""
        return MAPS[self.map] if isinstance(self.map, str) else self.map

    @property
    def time_limit(self) -> int:
        return 25 * len(self.rows)

    @cached_property
    def outcomes(self) -> Outcomes:
        cells = np.array([list(row) for row in self.rows])
        letters = cells.ravel()
        states = np.arange(letters.size)
        places = np.stack(np.unravel_index(states, cells.shape), axis=-1)    # [S, 2]
        last = np.array(cells.shape) - 1
        targets = np.clip(places[:, None] + MOVES, 0, last)    # [S, 4, 2]
        moved = np.ravel_multi_index(tuple(np.moveaxis(targets, -1, 0)), cells.shape)    # [S, 4]
        goal = letters == "G"
        terminal = np.isin(letters, ("G", "H"))
        moved[terminal] = np.flatnonzero(terminal)[:, None]
        slips = np.array([0])
        probability = np.ones(1)
        if self.slippery:
            slips = np.array([-1, 0, 1])
            probability = np.where(slips == 0, self.success_rate, (1 - self.success_rate) / 2)
        successor = moved[:, (np.arange(4)[:, None] + slips) % 4]    # [S, 4, K]
        reward = goal[successor] & ~terminal[:, None, None]
        return Outcomes(
            probability=np.broadcast_to(probability, successor.shape),
            successor=successor,
            reward=reward.astype(np.float64),
            terminal=terminal,
            start=(letters == "S") / np.sum(letters == "S"),
        )

    def render(self, state: TabularState, params: Params) -> np.ndarray:
        """Draw light ice, blue holes and a green goal, with letters at start and goal."""
        cells = [["FSHG".index(letter) for letter in row] for row in self.rows]
        letters = np.array([list(row) for row in self.rows])
        labels = np.where(np.isin(letters, ("S", "G")), letters, "")
        agent = divmod(int(state.place), len(self.rows[0]))
        return grid(cells, (LIGHT, LIGHT, BLUE, GREEN), cell=48, labels=labels, agent=agent)
