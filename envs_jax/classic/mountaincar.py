"""Mountain car: a car too weak for the hill must first swing back.

Moore 1990; equal to Gymnasium's MountainCar-v0 and MountainCarContinuous-v0. Position and velocity (per step) have no
units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.render import BROWN, DARK, GREY, LIGHT, RED, SKY, YELLOW, Canvas
from envs_jax.spaces import Box, Discrete


class MountainCarParams(NamedTuple):
    force: float = 0.001             # velocity that a full push adds in a step (`power` in Gymnasium's continuous car)
    gravity: float = 0.0025
    goal_position: float = 0.5
    goal_velocity: float = 0.0       # the least velocity that counts at the goal


class MountainCarState(NamedTuple):
    """Two float32 scalars, and the observation in this order."""

    position: jax.Array
    velocity: jax.Array


@dataclass(frozen=True)
class MountainCar(Environment):
    """Observation [2]: position, velocity. Actions: push left, none, push right. The reward is -1, also at the goal.

    The left end is a wall that stops the car. Starts: position U(-0.6, -0.4), at rest.
    """

    min_position: float = -1.2
    max_position: float = 0.6
    max_speed: float = 0.07

    default_params = MountainCarParams()
    time_limit = 200

    def reset(self, key, params):
        position = jax.random.uniform(key, (), jnp.float32, minval=-0.6, maxval=-0.4)
        state = MountainCarState(position, jnp.zeros((), jnp.float32))
        return jnp.stack(state), state

    def step(self, key, state, action, params):
        state, arrived = self._move(state, action - 1, params)
        return jnp.stack(state), state, jnp.float32(-1.0), arrived, jnp.bool_(False), {}

    def _move(self, state, push, params):
        """`push` in [-1, 1] -> (the next state, whether the car is at the goal)."""
        velocity = state.velocity + params.force * push - params.gravity * jnp.cos(3.0 * state.position)
        velocity = jnp.clip(velocity, -self.max_speed, self.max_speed)
        position = jnp.clip(state.position + velocity, self.min_position, self.max_position)
        velocity = jnp.where(position <= self.min_position, jnp.maximum(velocity, 0.0), velocity)
        arrived = (position >= params.goal_position) & (velocity >= params.goal_velocity)
        return MountainCarState(position, velocity), arrived

    def render(self, state, params):
        position, goal = float(state.position), float(params.goal_position)
        left, right = self.min_position - 0.1, self.max_position + 0.1
        canvas = Canvas(600, 400, x=(left, right), y=(-0.1, (right - left) * 400 / 600 - 0.1))
        ground = np.linspace(left, right, 100)
        ground = np.stack([ground, _height(ground)], axis=1)
        canvas.polygon([(left, -0.1), *ground, (right, -0.1)], LIGHT)
        canvas.line(ground, BROWN, 3)
        wall = self.min_position - 0.05                              # the car's tail touches it
        canvas.line([(wall, _height(wall)), (wall, 1.0)], GREY, 4)
        flag = lambda x, y: (goal + x, _height(goal) + y)
        canvas.polygon([flag(0, 0.2), flag(0, 0.13), flag(0.08, 0.165)], YELLOW)
        canvas.line([flag(0, 0), flag(0, 0.2)], DARK, 2)

        slope = math.atan(1.35 * math.cos(3.0 * position))           # of `_height`
        along, up = np.array([[math.cos(slope), math.sin(slope)], [-math.sin(slope), math.cos(slope)]])
        at = lambda x, y: (position, _height(position)) + x * along + y * up
        canvas.polygon([at(-0.06, 0.03), at(0.06, 0.03), at(0.06, 0.065), at(-0.06, 0.065)], RED)
        canvas.polygon([at(-0.04, 0.065), at(0.035, 0.065), at(0.02, 0.095), at(-0.03, 0.095)], SKY)
        for wheel in (-0.036, 0.036):
            canvas.circle(at(wheel, 0.025), 0.022, DARK)
            canvas.circle(at(wheel, 0.025), 0.009, GREY)
        return canvas.image()

    def observation_space(self, params):
        return Box((self.min_position, -self.max_speed), (self.max_position, self.max_speed), (2,))

    def action_space(self, params):
        return Discrete(3)


@dataclass(frozen=True)
class MountainCarContinuous(MountainCar):
    """As MountainCar; the action [1] is the push, clipped to [-1, 1]. The reward is -0.1 action^2, and 100 at the goal.

    That is the action as it was given, not the clipped one (`envs_jax.make` clips before both).
    """

    default_params = MountainCarParams(force=0.0015, goal_position=0.45)
    time_limit = 999

    def step(self, key, state, action, params):
        state, arrived = self._move(state, jnp.clip(action[0], -1.0, 1.0), params)
        reward = jnp.where(arrived, jnp.float32(100.0), 0.0) - 0.1 * jnp.square(action[0])
        return jnp.stack(state), state, reward, arrived, jnp.bool_(False), {}

    def action_space(self, params):
        return Box(-1.0, 1.0, (1,))


def _height(position):
    """Of the ground, as it is drawn; the dynamics have the slope of it, up to a factor, as force along the position."""
    return 0.45 * np.sin(3.0 * position) + 0.55
