"""Acrobot: swing the end of a two-link arm up, with a motor at the elbow only.

Sutton 1996; Sutton and Barto's book, whose equations are these; equal to Gymnasium's Acrobot-v1. Units: radians (0 0
hangs down, the second angle is relative to the first link), seconds, kilograms, metres, newton metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.core import Environment
from envs_jax.render import BLUE, DARK, GREEN, GREY, SKY, Canvas
from envs_jax.spaces import Box, Discrete


class AcrobotParams(NamedTuple):
    gravity: float = 9.8
    link_length_1: float = 1.0       # of the first link; that of the second changes nothing
    link_mass_1: float = 1.0
    link_mass_2: float = 1.0
    link_com_pos_1: float = 0.5      # metres from a link's upper end to its centre of mass
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
    """Observation [6]: cos and sin of theta1, cos and sin of theta2, theta1_dot, theta2_dot. Actions: torque -1, 0, 1.

    The reward is -1 until the end is more than a link's length above the fixed point (unit links), which ends the
    episode with 0. One step is one of Runge and Kutta's fourth order. Starts are U(-0.1, 0.1) in each.
    """

    max_speed_1: float = 4 * math.pi
    max_speed_2: float = 9 * math.pi

    default_params = AcrobotParams()
    time_limit = 500

    def reset(self, key, params):
        state = AcrobotState(*jax.random.uniform(key, (4,), jnp.float32, minval=-0.1, maxval=0.1))
        return _observe(state), state

    def step(self, key, state, action, params):
        torque = params.torque * (action - 1)
        theta1, theta2, speed1, speed2 = _runge_kutta(lambda s: _derivative(s, torque, params), state, params.dt)
        state = AcrobotState(
            _wrap(theta1),
            _wrap(theta2),
            jnp.clip(speed1, -self.max_speed_1, self.max_speed_1),
            jnp.clip(speed2, -self.max_speed_2, self.max_speed_2),
        )
        obs = _observe(state)
        cos1, sin1, cos2, sin2, *_ = obs
        up = -cos1 - (cos1 * cos2 - sin1 * sin2) > 1.0               # the height of the end
        return obs, state, jnp.where(up, jnp.float32(0.0), -1.0), up, jnp.bool_(False), {}

    def render(self, state, params):
        theta1, theta2, *_ = map(float, state)
        length = float(params.link_length_1)
        elbow = length * math.sin(theta1), -length * math.cos(theta1)
        end = elbow[0] + length * math.sin(theta1 + theta2), elbow[1] - length * math.cos(theta1 + theta2)
        view = (-2.3 * length, 2.3 * length)
        canvas = Canvas(400, 400, x=view, y=view)
        canvas.line([(view[0], length), (view[1], length)], GREEN, 2)
        canvas.line([(0, 0), elbow], BLUE, 16)
        canvas.line([elbow, end], SKY, 16)
        for joint in ((0, 0), elbow):
            canvas.circle(joint, 0.09 * length, DARK)
            canvas.circle(joint, 0.04 * length, GREY)
        return canvas.image()

    def observation_space(self, params):
        high = (1.0, 1.0, 1.0, 1.0, self.max_speed_1, self.max_speed_2)
        return Box(tuple(-h for h in high), high, (6,))

    def action_space(self, params):
        return Discrete(3)


def _derivative(state, torque, params):
    """d state / dt: the 2 x 2 system of the two angular accelerations, solved by Cramer's rule."""
    theta1, theta2, speed1, speed2 = state
    g, l1, m1, m2, c1, c2, inertia, *_ = params
    sin2, cos2 = jnp.sin(theta2), jnp.cos(theta2)
    coupling = m2 * l1 * c2
    first, second = m1 * c1 * c1 + m2 * l1 * l1 + inertia, m2 * c2 * c2 + inertia
    d2 = second + coupling * cos2
    d1 = first + d2 + coupling * cos2
    phi2 = m2 * c2 * g * jnp.sin(theta1 + theta2)
    phi1 = (m1 * c1 + m2 * l1) * g * jnp.sin(theta1) + phi2 - coupling * sin2 * speed2 * (speed2 + 2.0 * speed1)
    drive = torque - phi2 - coupling * sin2 * speed1 * speed1
    scale = 1.0 / (first * second - jnp.square(coupling * cos2))     # d1 * second - d2^2, without its cancellation
    return AcrobotState(speed1, speed2, -(second * phi1 + d2 * drive) * scale, (d1 * drive + d2 * phi1) * scale)


def _runge_kutta(derivative, state, dt):
    """`state` after `dt`, by the classical method of fourth order."""
    ahead = lambda h, slope: AcrobotState(*(s + h * k for s, k in zip(state, slope)))
    k1 = derivative(state)
    k2 = derivative(ahead(0.5 * dt, k1))
    k3 = derivative(ahead(0.5 * dt, k2))
    k4 = derivative(ahead(dt, k3))
    return ahead(dt / 6.0, [a + 2.0 * (b + c) + d for a, b, c, d in zip(k1, k2, k3, k4)])


def _wrap(angle):
    """Into [-pi, pi], and not touched, to the last bit, where it is there already."""
    return angle - 2 * math.pi * jnp.round(angle / (2 * math.pi))


def _observe(state: AcrobotState) -> jax.Array:
    theta1, theta2, speed1, speed2 = state
    return jnp.stack([jnp.cos(theta1), jnp.sin(theta1), jnp.cos(theta2), jnp.sin(theta2), speed1, speed2])
