"""Acrobot: swing the end of a two-link arm up, with a motor at the elbow only.

Sutton 1996, with the equations of Sutton and Barto's book. Equal to Gymnasium's Acrobot-v1. Units:
radians (both angles are 0 when the arm hangs down; the second is relative to the first link),
seconds, kilograms, meters, newton meters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.core import Environment
from envs_jax.render import BLUE, DARK, GRAY, GREEN, SKY, Canvas
from envs_jax.spaces import Box, Discrete

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Array, Float, Int, Key

    from envs_jax.core import StepResult


class AcrobotParams(NamedTuple):
    """Parameters of the dynamics."""

    gravity: float = 9.8
    link_length_1: float = 1.0       # first link; the dynamics do not use that of the second
    link_mass_1: float = 1.0
    link_mass_2: float = 1.0
    link_com_pos_1: float = 0.5      # distance from the upper end of a link to its center of mass
    link_com_pos_2: float = 0.5
    link_moi: float = 1.0            # moment of inertia of either link
    torque: float = 1.0
    dt: float = 0.2                  # seconds between steps


class AcrobotState(NamedTuple):
    """Four float32 scalars."""

    theta1: jax.Array        # in [-pi, pi]
    theta2: jax.Array
    theta1_dot: jax.Array
    theta2_dot: jax.Array


@dataclass(frozen=True)
class Acrobot(Environment):
    """Two-link arm swing-up: observation [6] (angles, velocities), actions torque -1, 0, 1.

    The observation is cos theta1, sin theta1, cos theta2, sin theta2, theta1_dot, theta2_dot. The
    reward is -1 in each step, and 0 in the last one: the episode ends when the end of the arm is
    more than one unit above the fixed point. One step is one fourth-order Runge-Kutta step. Starts
    are U(-0.1, 0.1) in each number of the state.
    """

    max_speed_1: float = 4 * math.pi
    max_speed_2: float = 9 * math.pi

    default_params = AcrobotParams()
    time_limit = 500

    def reset(self, key: Key[Array, ""], params: AcrobotParams,
              ) -> tuple[Float[Array, "6"], AcrobotState]:
        start = jax.random.uniform(key, (4,), jnp.float32, minval=-0.1, maxval=0.1)
        state = AcrobotState(*start)
        return _observe(state), state

    def step(self, key: Key[Array, ""], state: AcrobotState, action: Int[Array, ""],
             params: AcrobotParams) -> StepResult:
        torque = params.torque * (action - 1)
        theta1, theta2, speed1, speed2 = _runge_kutta(
            lambda s: _derivative(s, torque, params), state, params.dt)
        state = AcrobotState(
            _wrap(theta1),
            _wrap(theta2),
            jnp.clip(speed1, -self.max_speed_1, self.max_speed_1),
            jnp.clip(speed2, -self.max_speed_2, self.max_speed_2),
        )
        obs = _observe(state)
        cos1, sin1, cos2, sin2, *_ = obs
        up = -cos1 - (cos1 * cos2 - sin1 * sin2) > 1.0        # height of the end, for unit links
        reward = jnp.where(up, jnp.float32(0.0), -1.0)
        return obs, state, reward, up, jnp.bool_(False), {}

    def render(self, state: AcrobotState, params: AcrobotParams) -> np.ndarray:
        theta1, theta2, *_ = map(float, state)
        length = float(params.link_length_1)
        elbow = _moved((0, 0), theta1, length)
        end = _moved(elbow, theta1 + theta2, length)
        view = (-2.3 * length, 2.3 * length)
        canvas = Canvas(400, 400, x=view, y=view)
        canvas.line([(view[0], length), (view[1], length)], GREEN, 2)
        canvas.line([(0, 0), elbow], BLUE, 16)
        canvas.line([elbow, end], SKY, 16)
        for joint in ((0, 0), elbow):
            canvas.circle(joint, 0.09 * length, DARK)
            canvas.circle(joint, 0.04 * length, GRAY)
        return canvas.image()

    def observation_space(self, params: AcrobotParams) -> Box:
        high = (1.0, 1.0, 1.0, 1.0, self.max_speed_1, self.max_speed_2)
        return Box(tuple(-h for h in high), high, (6,))

    def action_space(self, params: AcrobotParams) -> Discrete:
        return Discrete(3)


def _derivative(state: AcrobotState, torque: Float[Array, ""], params: AcrobotParams,
                ) -> AcrobotState:
    """Return d state / dt: the two angular accelerations solve a 2 x 2 system (Cramer's rule)."""
    theta1, theta2, speed1, speed2 = state
    g, l1, m1, m2, c1, c2, inertia, *_ = params
    sin2 = jnp.sin(theta2)
    cos2 = jnp.cos(theta2)
    coupling = m2 * l1 * c2
    first = m1 * c1 * c1 + m2 * l1 * l1 + inertia
    second = m2 * c2 * c2 + inertia
    d2 = second + coupling * cos2
    d1 = first + d2 + coupling * cos2
    phi2 = m2 * c2 * g * jnp.sin(theta1 + theta2)
    phi1 = ((m1 * c1 + m2 * l1) * g * jnp.sin(theta1) + phi2
            - coupling * sin2 * speed2 * (speed2 + 2.0 * speed1))
    drive = torque - phi2 - coupling * sin2 * speed1 * speed1
    # the determinant d1 * second - d2^2, in a form without cancellation
    scale = 1.0 / (first * second - jnp.square(coupling * cos2))
    return AcrobotState(
        speed1,
        speed2,
        -(second * phi1 + d2 * drive) * scale,
        (d1 * drive + d2 * phi1) * scale,
    )


def _runge_kutta(derivative: Callable[[AcrobotState], AcrobotState], state: AcrobotState, dt: float,
                 ) -> AcrobotState:
    """Return `state` after `dt`, by the classical fourth-order method."""
    def ahead(h: float, slope: Iterable[Array]) -> AcrobotState:
        return AcrobotState(*(s + h * k for s, k in zip(state, slope)))

    k1 = derivative(state)
    k2 = derivative(ahead(0.5 * dt, k1))
    k3 = derivative(ahead(0.5 * dt, k2))
    k4 = derivative(ahead(dt, k3))
    return ahead(dt / 6.0, [a + 2.0 * (b + c) + d for a, b, c, d in zip(k1, k2, k3, k4)])


def _wrap(angle: Float[Array, ""]) -> Float[Array, ""]:
    """Return the angle in [-pi, pi]; one that is inside already keeps all of its bits."""
    return angle - 2 * math.pi * jnp.round(angle / (2 * math.pi))


def _observe(state: AcrobotState) -> Float[Array, "6"]:
    theta1, theta2, speed1, speed2 = state
    return jnp.stack([
        jnp.cos(theta1), jnp.sin(theta1), jnp.cos(theta2), jnp.sin(theta2), speed1, speed2])


def _moved(point: tuple[float, float], angle: float, length: float) -> tuple[float, float]:
    """Return the lower end of a link that hangs from `point` at `angle`."""
    return point[0] + length * math.sin(angle), point[1] - length * math.cos(angle)
