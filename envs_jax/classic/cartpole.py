"""CartPole: keep a pole upright on a cart that is pushed left or right.

Barto, Sutton, Anderson 1983; equal to Gymnasium's CartPole-v1 (Euler integration, reward 1 every step, the terminal
one included). Units: metres, radians, seconds, kilograms, newtons.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.render import BLUE, BROWN, DARK, GREY, LIGHT, RED, Canvas
from envs_jax.spaces import Box, Discrete


class CartPoleParams(NamedTuple):
    gravity: float = 9.8
    masscart: float = 1.0
    masspole: float = 0.1
    length: float = 0.5                                 # half the pole's length
    force_mag: float = 10.0
    tau: float = 0.02                                   # seconds between steps
    theta_threshold: float = 12 * 2 * math.pi / 360     # radians: a pole further from upright has fallen
    x_threshold: float = 2.4                            # metres: a cart further from the centre has left the track


class CartPoleState(NamedTuple):
    """Four float32 scalars, and the observation in this order."""

    x: jax.Array
    x_dot: jax.Array
    theta: jax.Array
    theta_dot: jax.Array


@dataclass(frozen=True)
class CartPole(Environment):
    """Observation [4]: x, x_dot, theta, theta_dot. Action 0 pushes left, 1 right. Starts are U(-0.05, 0.05) in each."""

    default_params = CartPoleParams()
    time_limit = 500

    def reset(self, key, params):
        start = jax.random.uniform(key, (4,), jnp.float32, minval=-0.05, maxval=0.05)
        return start, CartPoleState(*start)

    def step(self, key, state, action, params):
        x, x_dot, theta, theta_dot = state
        total_mass = params.masscart + params.masspole
        polemass_length = params.masspole * params.length
        force = jnp.where(action == 1, params.force_mag, -params.force_mag)
        cos, sin = jnp.cos(theta), jnp.sin(theta)

        push = (force + polemass_length * theta_dot * theta_dot * sin) / total_mass
        theta_acc = (params.gravity * sin - cos * push) / (
            params.length * (4.0 / 3.0 - params.masspole * cos * cos / total_mass)
        )
        x_acc = push - polemass_length * theta_acc * cos / total_mass

        state = CartPoleState(
            x + params.tau * x_dot,
            x_dot + params.tau * x_acc,
            theta + params.tau * theta_dot,
            theta_dot + params.tau * theta_acc,
        )
        fallen = (jnp.abs(state.x) > params.x_threshold) | (jnp.abs(state.theta) > params.theta_threshold)
        return jnp.stack(state), state, jnp.float32(1.0), fallen, jnp.bool_(False), {}

    def observation_space(self, params):
        """Twice the thresholds, so that a failing observation is inside; of a batch of params, the widest."""
        x, theta = (2.0 * float(np.max(limit)) for limit in (params.x_threshold, params.theta_threshold))
        return Box((-x, -math.inf, -theta, -math.inf), (x, math.inf, theta, math.inf), (4,))

    def action_space(self, params):
        return Discrete(2)

    def render(self, state, params):
        return draw(state, params).image()


def draw(state: CartPoleState, params: CartPoleParams) -> Canvas:
    """A picture of cart, pole and track, to scale but for the cart; the red posts are the ends of the track."""
    x, _, theta, _ = map(float, state)
    limit, length = float(params.x_threshold), 2.0 * float(params.length)
    half = max(1.15 * limit, 1.45 * length)                    # of the width; all of the pole must fit above the track
    canvas = Canvas(600, 300, x=(-half, half), y=(-0.25 * half, 0.75 * half))
    cart = lambda a, b: (x + 0.1 * half * a, 0.04 * half * b)
    canvas.line([(-half, 0.0), (half, 0.0)], LIGHT, 6)
    for post in (-limit, limit):
        canvas.line([(post, -0.05 * half), (post, 0.05 * half)], RED, 4)
    canvas.polygon([cart(-1, -1), cart(1, -1), cart(1, 1), cart(-1, 1)], BLUE)
    for wheel in (-0.6, 0.6):
        canvas.circle(cart(wheel, -1), 0.03 * half, DARK)
    canvas.line([(x, 0.0), (x + length * math.sin(theta), length * math.cos(theta))], BROWN, 10)
    canvas.circle((x, 0.0), 0.012 * half, GREY)
    return canvas
