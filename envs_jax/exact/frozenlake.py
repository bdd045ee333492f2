"""FrozenLake: to the goal over ice that slips, past the holes. Equal to Gymnasium's FrozenLake-v1."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from envs_jax.exact.tabular import Outcomes, Tabular
from envs_jax.render import BLUE, GREEN, LIGHT, grid

MAPS = {       # S the start, F frozen, H a hole, G the goal
    "4x4": ("SFFF", "FHFH", "FFFH", "HFFG"),
    "8x8": ("SFFFFFFF", "FFFFFFFF", "FFFHFFFF", "FFFFFHFF", "FFFHFFFF", "FHHFFFHF", "FHFFHFHF", "FFFHFFFG"),
}
MOVES = np.array([(0, -1), (1, 0), (0, 1), (-1, 0)])        # (row, column) of the actions left, down, right, up


@dataclass(frozen=True)
class FrozenLake(Tabular):
    """Observation: the cell, row by row. Actions: left, down, right, up. Reward 1 at the goal; a hole ends it, too.

    On slippery ice a move goes where it should with probability `success_rate`, and to either side with half of the
    rest; at the border one stays. `map` is "4x4", "8x8" or the rows of another map, of S, F, H and G, with starts S
    that are equally likely. The limit is 25 steps a row, Gymnasium's 100 and 200.
    A return is a success, so `expected_return(100)` is the best chance to get there in time: 0.744190 on the slippery
    4x4 map, 0.740165 with the best actions that do not look at the clock, 0.013940 with random ones.
    """

    map: str | tuple[str, ...] = "4x4"
    slippery: bool = True
    success_rate: float = 1 / 3

    def __post_init__(self):
        if not isinstance(self.map, str):
            object.__setattr__(self, "map", tuple(self.map))
        elif self.map not in MAPS:
            raise ValueError(f"FrozenLake has no map {self.map!r}: {', '.join(MAPS)}, or give the rows of another")
        letters = {letter for row in self.rows for letter in row}
        if len(set(map(len, self.rows))) != 1 or not {"S"} <= letters <= set("SFHG"):
            raise ValueError(f"a map is rows of equal length, of the letters S, F, H, G, with an S; not {self.rows}")
        if not 0.0 <= self.success_rate <= 1.0:
            raise ValueError(f"success_rate = {self.success_rate} is no probability")

    @property
    def rows(self) -> tuple[str, ...]:
        """The map."""
        return MAPS[self.map] if isinstance(self.map, str) else self.map

    @property
    def time_limit(self) -> int:
        return 25 * len(self.rows)

    @cached_property
    def outcomes(self):
        cells = np.array([list(row) for row in self.rows])
        letters, last = cells.ravel(), np.array(cells.shape) - 1
        place = np.stack(np.unravel_index(np.arange(letters.size), cells.shape), axis=-1)       # [S, 2]
        moved = np.clip(place[:, None] + MOVES, 0, last)                                        # [S, 4, 2]
        moved = np.ravel_multi_index(tuple(np.moveaxis(moved, -1, 0)), cells.shape)
        goal, terminal = letters == "G", np.isin(letters, ("G", "H"))
        moved[terminal] = np.flatnonzero(terminal)[:, None]
        slips = np.array([-1, 0, 1]) if self.slippery else np.array([0])
        chances = np.where(slips == 0, self.success_rate, (1 - self.success_rate) / 2) if self.slippery else np.ones(1)
        successor = moved[:, (np.arange(4)[:, None] + slips) % 4]                               # [S, 4, K]
        reward = (goal[successor] & ~terminal[:, None, None]).astype(np.float64)
        start = (letters == "S") / np.sum(letters == "S")
        return Outcomes(np.broadcast_to(chances, successor.shape), successor, reward, terminal, start)

    def render(self, state, params):
        """Ice is light, holes are blue, the goal is green, the start is marked."""
        cells = [["FSHG".index(letter) for letter in row] for row in self.rows]
        labels = [["S" if letter == "S" else "G" if letter == "G" else "" for letter in row] for row in self.rows]
        agent = divmod(int(state.place), len(self.rows[0]))
        return grid(cells, (LIGHT, LIGHT, BLUE, GREEN), cell=48, labels=labels, agent=agent)
