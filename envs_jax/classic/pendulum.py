"""Pendulum: swing a pendulum up and hold it, with a torque too weak to lift it at once.

Equal to Gymnasium's Pendulum-v1. Units: radians (0 is upright), seconds, kilograms, metres, newton metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.core import Environment
from envs_jax.render import DARK, GREY, LIGHT, RED, WHITE, Canvas
from envs_jax.spaces import Box


class PendulumParams(NamedTuple):
    g: float = 10.0
    m: float = 1.0
    l: float = 1.0
    dt: float = 0.05     # seconds between steps


class PendulumState(NamedTuple):
    theta: jax.Array       # float32 radians, not wrapped
    theta_dot: jax.Array   # float32 radians per second


@dataclass(frozen=True)
class Pendulum(Environment):
    """Observation [3]: cos theta, sin theta, theta_dot. Action [1]: the torque, clipped to its bounds.

    The cost of a step is angle^2 + 0.1 theta_dot^2 + 0.001 torque^2, the reward its negative. Episodes never end by
    themselves. Starts: theta U(-pi, pi), theta_dot U(-1, 1).
    """

    max_speed: float = 8.0
    max_torque: float = 2.0

    default_params = PendulumParams()
    time_limit = 200

    def reset(self, key, params):
        theta, theta_dot = jax.random.uniform(key, (2,), jnp.float32, minval=-1.0, maxval=1.0)
        state = PendulumState(math.pi * theta, theta_dot)
        return _observe(state), state

    def step(self, key, state, action, params):
        theta, theta_dot = state
        g, m, l, dt = params
        torque = jnp.clip(action[0], -self.max_torque, self.max_torque)
        angle = (theta + math.pi) % (2 * math.pi) - math.pi
        cost = angle * angle + 0.1 * theta_dot * theta_dot + 0.001 * torque * torque

        theta_dot = theta_dot + (3 * g / (2 * l) * jnp.sin(theta) + 3.0 / (m * l * l) * torque) * dt
        theta_dot = jnp.clip(theta_dot, -self.max_speed, self.max_speed)
        state = PendulumState(theta + theta_dot * dt, theta_dot)
        return _observe(state), state, -cost, jnp.bool_(False), jnp.bool_(False), {}

    def observation_space(self, params):
        high = (1.0, 1.0, self.max_speed)
        return Box(tuple(-h for h in high), high, (3,))

    def action_space(self, params):
        return Box(-self.max_torque, self.max_torque, (1,))

    def render(self, state, params):
        theta = float(state.theta)
        tip = (-math.sin(theta), math.cos(theta))             # theta grows anticlockwise; the rod's length is the unit
        canvas = Canvas(400, 400, x=(-1.3, 1.3), y=(-1.3, 1.3))
        canvas.circle((0.0, 0.0), 1.0, LIGHT)
        canvas.circle((0.0, 0.0), 0.99, WHITE)
        canvas.line([(0.0, 0.0), tip], RED, 22)
        canvas.circle((0.0, 0.0), 0.1, DARK)
        canvas.circle((0.0, 0.0), 0.045, GREY)
        return canvas.image()


def _observe(state: PendulumState) -> jax.Array:
    return jnp.stack([jnp.cos(state.theta), jnp.sin(state.theta), state.theta_dot])
