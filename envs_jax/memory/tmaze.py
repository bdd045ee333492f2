"""T-maze: a sign at the start shows which way to turn at the end. Bakker 2001, NIPS 14."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.render import DARK, GREEN, LIGHT, grid
from envs_jax.spaces import Box, Discrete

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key

    from envs_jax.core import StepResult

NORTH, EAST, SOUTH, WEST = range(4)


class TMazeParams(NamedTuple):
    """Parameters of the reward."""

    goal: float = 4.0          # reward of the correct turn
    penalty: float = 0.1       # cost of the wrong turn, and of a step into a wall


class TMazeState(NamedTuple):
    """State: the place and the side of the goal."""

    place: jax.Array           # int32: distance from the start; `length` at the junction
    south: jax.Array           # bool: the goal is in the south, otherwise in the north


@dataclass(frozen=True)
class TMaze(Environment):
    """Corridor with a sign at the start: observation [3], actions north, east, south, west.

    Observations: 110 (goal in the north) or 011 (south) at the start, 101 in the corridor, 010 at
    the junction. Actions: north, east, south, west. The junction is `length` steps east of the
    start. There, north and south end the episode with the reward `goal` or -`penalty`. A step into
    a wall costs `penalty`; all other steps have the reward 0. Without discount, the best return is
    4, and 1.95 without memory, where half of the turns are correct. An agent that returns to the
    start sees the sign again.

    As in the paper (lengths of 5 to 70, gamma = 0.98), except for the time limit of
    10 * (length + 1) steps.
    """

    length: int = 10

    default_params = TMazeParams()

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"TMaze needs length >= 1, not {self.length}")

    @property
    def time_limit(self) -> int:
        return 10 * (self.length + 1)

    def optimal_return(self, params: TMazeParams = default_params, gamma: float = 1.0) -> float:
        """Return the best return: straight to the junction, then the correct turn."""
        return gamma**self.length * params.goal

    def chance_return(self, params: TMazeParams = default_params, gamma: float = 1.0) -> float:
        """Return the best mean return without memory: straight to the junction, then a guess."""
        return gamma**self.length * (params.goal - params.penalty) / 2.0

    def reset(self, key: Key[Array, ""], params: TMazeParams,
              ) -> tuple[Float[Array, "3"], TMazeState]:
        state = TMazeState(jnp.int32(0), jax.random.bernoulli(key))
        return self._observe(state), state

    def step(self, key: Key[Array, ""], state: TMazeState, action: Int[Array, ""],
             params: TMazeParams) -> StepResult:
        at_junction = state.place == self.length
        turn = at_junction & ((action == NORTH) | (action == SOUTH))
        correct = turn & ((action == SOUTH) == state.south)
        move = jnp.where(action == EAST, jnp.int32(1), jnp.where(action == WEST, -1, 0))
        place = jnp.clip(state.place + move, 0, self.length)
        blocked = (place == state.place) & ~correct      # by a wall, or after the wrong turn
        cost = jnp.where(blocked, -params.penalty, 0.0)
        reward = jnp.where(correct, params.goal, cost).astype(jnp.float32)
        state = TMazeState(place, state.south)
        return self._observe(state), state, reward, turn, jnp.bool_(False), {}

    def _observe(self, state: TMazeState) -> Float[Array, "3"]:
        sign = jnp.stack([~state.south, jnp.bool_(True), state.south])
        corridor = jnp.array([True, False, True])
        junction = jnp.array([False, True, False])
        at_start = state.place == 0
        place = jnp.where(state.place == self.length, junction, corridor)
        return jnp.where(at_start, sign, place).astype(jnp.float32)

    def observation_space(self, params: TMazeParams) -> Box:
        return Box(0.0, 1.0, (3,))

    def action_space(self, params: TMazeParams) -> Discrete:
        return Discrete(4)

    def render(self, state: TMazeState, params: TMazeParams) -> np.ndarray:
        """Draw the maze with a green goal, and the sign, N or S, at the start."""
        cells = np.ones((3, self.length + 1), int)
        cells[1] = 0
        cells[:, self.length] = 0
        goal_row, sign = (2, "S") if state.south else (0, "N")
        cells[goal_row, self.length] = 2
        labels = np.full((3, self.length + 1), "")
        labels[1, 0] = sign
        agent = (1, int(state.place))
        return grid(cells, (LIGHT, DARK, GREEN), cell=40, labels=labels, agent=agent)
