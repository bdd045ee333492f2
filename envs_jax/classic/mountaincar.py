"""Mountain car: a car too weak for the hill must first swing back.

Moore 1990. Equal to Gymnasium's MountainCar-v0 and MountainCarContinuous-v0. Position and velocity
(per step) have no units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.render import BROWN, DARK, GRAY, LIGHT, RED, SKY, YELLOW, Canvas
from envs_jax.spaces import Box, Discrete

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Key

    from envs_jax.core import StepResult
    from envs_jax.spaces import Space


class MountainCarParams(NamedTuple):
    """Parameters of the dynamics."""

    force: float = 0.001             # velocity that a full push adds in a step (Gymnasium: `power`)
    gravity: float = 0.0025
    goal_position: float = 0.5
    goal_velocity: float = 0.0       # smallest velocity at the goal that ends the episode


class MountainCarState(NamedTuple):
    """Two float32 scalars, in the order of the observation."""

    position: jax.Array
    velocity: jax.Array


@dataclass(frozen=True)
class MountainCar(Environment):
    """Weak car in a valley: observation [2] (position, velocity), actions left, none, right.

    The reward is -1 in every step, including the last. The left end is a wall that stops the car.
    Starts: position U(-0.6, -0.4), velocity 0.
    """

    min_position: float = -1.2
    max_position: float = 0.6
    max_speed: float = 0.07

    default_params = MountainCarParams()
    time_limit = 200

    def reset(self, key: Key[Array, ""], params: MountainCarParams,
              ) -> tuple[Float[Array, "2"], MountainCarState]:
        position = jax.random.uniform(key, (), jnp.float32, minval=-0.6, maxval=-0.4)
        state = MountainCarState(position, jnp.zeros((), jnp.float32))
        return jnp.stack(state), state

    def step(self, key: Key[Array, ""], state: MountainCarState, action: Int[Array, ""],
             params: MountainCarParams) -> StepResult:
        state, arrived = self._move(state, action - 1, params)
        return jnp.stack(state), state, jnp.float32(-1.0), arrived, jnp.bool_(False), {}

    def _move(self, state: MountainCarState, push: Array, params: MountainCarParams,
              ) -> tuple[MountainCarState, Bool[Array, ""]]:
        """Return (next state, True if the car is at the goal) for `push` in [-1, 1]."""
        velocity = state.velocity + params.force * push
        velocity = velocity - params.gravity * jnp.cos(3.0 * state.position)
        velocity = jnp.clip(velocity, -self.max_speed, self.max_speed)
        position = jnp.clip(state.position + velocity, self.min_position, self.max_position)
        at_wall = position <= self.min_position
        velocity = jnp.where(at_wall, jnp.maximum(velocity, 0.0), velocity)
        arrived = (position >= params.goal_position) & (velocity >= params.goal_velocity)
        return MountainCarState(position, velocity), arrived

    def render(self, state: MountainCarState, params: MountainCarParams) -> np.ndarray:
        left = self.min_position - 0.1
        right = self.max_position + 0.1
        canvas = Canvas(600, 400, x=(left, right), y=(-0.1, (right - left) * 400 / 600 - 0.1))
        x = np.linspace(left, right, 100)
        ground = np.stack([x, _height(x)], axis=1)
        canvas.polygon([(left, -0.1), *ground, (right, -0.1)], LIGHT)
        canvas.line(ground, BROWN, 3)
        wall = self.min_position - 0.05                 # the tail of the car touches it
        canvas.line([(wall, _height(wall)), (wall, 1.0)], GRAY, 4)
        _draw_flag(canvas, float(params.goal_position))
        _draw_car(canvas, float(state.position))
        return canvas.image()

    def observation_space(self, params: MountainCarParams) -> Box:
        low = (self.min_position, -self.max_speed)
        high = (self.max_position, self.max_speed)
        return Box(low, high, (2,))

    def action_space(self, params: MountainCarParams) -> Space:
        return Discrete(3)


@dataclass(frozen=True)
class MountainCarContinuous(MountainCar):
    """Weak car in a valley: observation [2] (position, velocity), action [1] (push).

    The push is the action, clipped to [-1, 1]. The reward is -0.1 action^2, plus 100 at the goal.
    The reward uses the action before clipping, but `envs_jax.make` clips actions for both.
    """

    default_params = MountainCarParams(force=0.0015, goal_position=0.45)
    time_limit = 999

    def step(self, key: Key[Array, ""], state: MountainCarState, action: Float[Array, "1"],
             params: MountainCarParams) -> StepResult:
        state, arrived = self._move(state, jnp.clip(action[0], -1.0, 1.0), params)
        reward = jnp.where(arrived, jnp.float32(100.0), 0.0) - 0.1 * jnp.square(action[0])
        return jnp.stack(state), state, reward, arrived, jnp.bool_(False), {}

    def action_space(self, params: MountainCarParams) -> Box:
        return Box(-1.0, 1.0, (1,))


def _height(position: np.ndarray | float) -> np.ndarray | float:
    """Return the height of the ground in the picture.

    Its slope is, up to a factor, the force of gravity along the position in the dynamics.
    """
    return 0.45 * np.sin(3.0 * position) + 0.55


def _draw_flag(canvas: Canvas, goal: float) -> None:
    def from_foot(x: float, y: float) -> tuple[float, float]:
        return (goal + x, _height(goal) + y)

    canvas.polygon([from_foot(0, 0.2), from_foot(0, 0.13), from_foot(0.08, 0.165)], YELLOW)
    canvas.line([from_foot(0, 0), from_foot(0, 0.2)], DARK, 2)


def _draw_car(canvas: Canvas, position: float) -> None:
    slope = math.atan(1.35 * math.cos(3.0 * position))           # the derivative of `_height`
    along = np.array([math.cos(slope), math.sin(slope)])
    up = np.array([-math.sin(slope), math.cos(slope)])

    def on_car(x: float, y: float) -> np.ndarray:
        return (position, _height(position)) + x * along + y * up

    body = [(-0.06, 0.03), (0.06, 0.03), (0.06, 0.065), (-0.06, 0.065)]
    cabin = [(-0.04, 0.065), (0.035, 0.065), (0.02, 0.095), (-0.03, 0.095)]
    canvas.polygon([on_car(*corner) for corner in body], RED)
    canvas.polygon([on_car(*corner) for corner in cabin], SKY)
    for wheel in (-0.036, 0.036):
        canvas.circle(on_car(wheel, 0.025), 0.022, DARK)
        canvas.circle(on_car(wheel, 0.025), 0.009, GRAY)
