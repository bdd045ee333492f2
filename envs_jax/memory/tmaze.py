"""T-maze: a sign at the start says which way to turn at the end. Bakker 2001, NIPS 14."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.render import DARK, GREEN, LIGHT, grid
from envs_jax.spaces import Box, Discrete

NORTH, EAST, SOUTH, WEST = range(4)


class TMazeParams(NamedTuple):
    goal: float = 4.0          # reward of the right turn
    penalty: float = 0.1       # what the wrong turn costs, and each step that leads nowhere


class TMazeState(NamedTuple):
    place: jax.Array           # int32: steps from the start; `length` at the junction
    south: jax.Array           # bool: where the goal is


@dataclass(frozen=True)
class TMaze(Environment):
    """Observation [3]: 110 or 011 at the start, goal north or south; 101 in the corridor; 010 at the junction.

    Actions: north, east, south, west. `length` steps east lead to the junction, where north and south end the episode,
    with the reward `goal` or -`penalty`. To walk into a wall costs `penalty`, all other steps are free, so without
    discount the best return is 4, and 1.95 without memory, which turns right half of the time. The sign is seen
    again by who walks back to the start.
    As in the paper (there, lengths of 5 to 70 and gamma = 0.98), but for the time limit: 10 steps for each of the way.
    """

    length: int = 10

    default_params = TMazeParams()

    def __post_init__(self):
        if self.length < 1:
            raise ValueError(f"TMaze needs a length of 1 or more, not {self.length}")

    @property
    def time_limit(self) -> int:
        return 10 * (self.length + 1)

    def optimal_return(self, params: TMazeParams = default_params, gamma: float = 1.0) -> float:
        """Of an episode: straight to the junction, and the right turn."""
        return gamma**self.length * params.goal

    def chance_return(self, params: TMazeParams = default_params, gamma: float = 1.0) -> float:
        """Of an episode, on average, straight to the junction and without memory: every second turn is right."""
        return gamma**self.length * (params.goal - params.penalty) / 2.0

    def reset(self, key, params):
        state = TMazeState(jnp.int32(0), jax.random.bernoulli(key))
        return self._observe(state), state

    def step(self, key, state, action, params):
        at_junction = state.place == self.length
        turn = at_junction & ((action == NORTH) | (action == SOUTH))
        right = turn & ((action == SOUTH) == state.south)
        way = jnp.where(action == EAST, jnp.int32(1), jnp.where(action == WEST, -1, 0))
        place = jnp.clip(state.place + way, 0, self.length)
        stuck = (place == state.place) & ~right            # a wrong turn costs what a wall does
        reward = jnp.where(right, params.goal, jnp.where(stuck, -params.penalty, 0.0)).astype(jnp.float32)
        state = TMazeState(place, state.south)
        return self._observe(state), state, reward, turn, jnp.bool_(False), {}

    def _observe(self, state):
        sign = jnp.stack([~state.south, jnp.bool_(True), state.south])
        corridor, junction = jnp.array([True, False, True]), jnp.array([False, True, False])
        shown = jnp.where(state.place == 0, sign, jnp.where(state.place == self.length, junction, corridor))
        return shown.astype(jnp.float32)

    def observation_space(self, params):
        return Box(0.0, 1.0, (3,))

    def action_space(self, params):
        return Discrete(4)

    def render(self, state, params):
        """The maze, its goal green; at the start the letter that the agent has seen, N or S."""
        south, junction = bool(state.south), self.length
        cells, labels = np.ones((3, junction + 1), int), np.full((3, junction + 1), "")
        cells[1], cells[:, junction] = 0, 0
        cells[2 if south else 0, junction] = 2
        labels[1, 0] = "S" if south else "N"
        return grid(cells, (LIGHT, DARK, GREEN), cell=40, labels=labels, agent=(1, int(state.place)))
