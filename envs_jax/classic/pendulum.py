"""Pendulum: swing a pendulum up and hold it, with a torque too weak to lift it at once.

Equal to Gymnasium's Pendulum-v1. Units: radians (0 is upright), seconds, kilograms, meters, newton
meters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.core import Environment
from envs_jax.render import DARK, GRAY, LIGHT, RED, WHITE, Canvas
from envs_jax.spaces import Box

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Array, Float, Key

    from envs_jax.core import StepResult


class PendulumParams(NamedTuple):
    """Parameters of the dynamics: gravity, mass, length, and seconds between steps."""

    g: float = 10.0
    m: float = 1.0
    l: float = 1.0
    dt: float = 0.05


class PendulumState(NamedTuple):
    """Angle and angular velocity."""

    theta: jax.Array       # float32 radians, not wrapped
    theta_dot: jax.Array   # float32 radians per second


@dataclass(frozen=True)
class Pendulum(Environment):
    """Pendulum swing-up: observation [3] (cos, sin, velocity), action [1] (torque).

    The observation is cos theta, sin theta, theta_dot. The torque is clipped to its bounds. The
    reward is -(theta^2 + 0.1 theta_dot^2 + 0.001 torque^2), with theta wrapped to [-pi, pi].
    Episodes end only by the time limit. Starts: theta U(-pi, pi), theta_dot U(-1, 1).
    """

    max_speed: float = 8.0
    max_torque: float = 2.0

    default_params = PendulumParams()
    time_limit = 200

    def reset(self, key: Key[Array, ""], params: PendulumParams,
              ) -> tuple[Float[Array, "3"], PendulumState]:
        theta, theta_dot = jax.random.uniform(key, (2,), jnp.float32, minval=-1.0, maxval=1.0)
        state = PendulumState(math.pi * theta, theta_dot)
        return _observe(state), state

    def step(self, key: Key[Array, ""], state: PendulumState, action: Float[Array, "1"],
             params: PendulumParams) -> StepResult:
        theta, theta_dot = state
        g, m, l, dt = params
        torque = jnp.clip(action[0], -self.max_torque, self.max_torque)
        angle = (theta + math.pi) % (2 * math.pi) - math.pi
        cost = angle * angle + 0.1 * theta_dot * theta_dot + 0.001 * torque * torque

        acceleration = 3 * g / (2 * l) * jnp.sin(theta) + 3.0 / (m * l * l) * torque
        theta_dot = theta_dot + acceleration * dt
        theta_dot = jnp.clip(theta_dot, -self.max_speed, self.max_speed)
        state = PendulumState(theta + theta_dot * dt, theta_dot)
        return _observe(state), state, -cost, jnp.bool_(False), jnp.bool_(False), {}

    def observation_space(self, params: PendulumParams) -> Box:
        high = (1.0, 1.0, self.max_speed)
        return Box(tuple(-h for h in high), high, (3,))

    def action_space(self, params: PendulumParams) -> Box:
        return Box(-self.max_torque, self.max_torque, (1,))

    def render(self, state: PendulumState, params: PendulumParams) -> np.ndarray:
        theta = float(state.theta)
        tip = (-math.sin(theta), math.cos(theta))       # theta grows counterclockwise
        canvas = Canvas(400, 400, x=(-1.3, 1.3), y=(-1.3, 1.3))
        canvas.circle((0.0, 0.0), 1.0, LIGHT)
        canvas.circle((0.0, 0.0), 0.99, WHITE)
        canvas.line([(0.0, 0.0), tip], RED, 22)
        canvas.circle((0.0, 0.0), 0.1, DARK)
        canvas.circle((0.0, 0.0), 0.045, GRAY)
        return canvas.image()


def _observe(state: PendulumState) -> Float[Array, "3"]:
    return jnp.stack([jnp.cos(state.theta), jnp.sin(state.theta), state.theta_dot])
