"""CartPole: keep a pole upright on a cart that is pushed left or right.

Barto, Sutton and Anderson 1983. Equal to Gymnasium's CartPole-v1: Euler integration, and a reward
of 1 in every step, including the last. Units: meters, radians, seconds, kilograms, newtons.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.render import BLUE, BROWN, DARK, GRAY, LIGHT, RED, Canvas
from envs_jax.spaces import Box, Discrete

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key

    from envs_jax.core import StepResult


class CartPoleParams(NamedTuple):
    """Parameters of the dynamics."""

    gravity: float = 9.8
    masscart: float = 1.0
    masspole: float = 0.1
    length: float = 0.5                                 # half of the length of the pole
    force_mag: float = 10.0
    tau: float = 0.02                                   # seconds between steps
    theta_threshold: float = 12 * 2 * math.pi / 360     # angle at which the pole has fallen
    x_threshold: float = 2.4                            # distance to the ends of the track


class CartPoleState(NamedTuple):
    """Four float32 scalars, in the order of the observation."""

    x: jax.Array
    x_dot: jax.Array
    theta: jax.Array
    theta_dot: jax.Array


@dataclass(frozen=True)
class CartPole(Environment):
    """Pole balancing on a cart: observation [4] (positions, velocities), actions left, right.

    The observation is x, x_dot, theta, theta_dot. Starts are U(-0.05, 0.05) in each.
    """

    default_params = CartPoleParams()
    time_limit = 500

    def reset(self, key: Key[Array, ""], params: CartPoleParams,
              ) -> tuple[Float[Array, "4"], CartPoleState]:
        start = jax.random.uniform(key, (4,), jnp.float32, minval=-0.05, maxval=0.05)
        return start, CartPoleState(*start)

    def step(self, key: Key[Array, ""], state: CartPoleState, action: Int[Array, ""],
             params: CartPoleParams) -> StepResult:
        x, x_dot, theta, theta_dot = state
        total_mass = params.masscart + params.masspole
        polemass_length = params.masspole * params.length
        force = jnp.where(action == 1, params.force_mag, -params.force_mag)
        cos = jnp.cos(theta)
        sin = jnp.sin(theta)

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
        off_track = jnp.abs(state.x) > params.x_threshold
        fallen = off_track | (jnp.abs(state.theta) > params.theta_threshold)
        return jnp.stack(state), state, jnp.float32(1.0), fallen, jnp.bool_(False), {}

    def observation_space(self, params: CartPoleParams) -> Box:
        """Return twice the thresholds, so that the last observation of an episode is inside.

        If the parameters are those of several members, return the widest space.
        """
        x = 2.0 * float(np.max(params.x_threshold))
        theta = 2.0 * float(np.max(params.theta_threshold))
        return Box((-x, -math.inf, -theta, -math.inf), (x, math.inf, theta, math.inf), (4,))

    def action_space(self, params: CartPoleParams) -> Discrete:
        return Discrete(2)

    def render(self, state: CartPoleState, params: CartPoleParams) -> np.ndarray:
        return draw(state, params).image()


def draw(state: CartPoleState, params: CartPoleParams) -> Canvas:
    """Draw cart, pole and track to scale, except for the cart; red posts mark the track's ends."""
    x, _, theta, _ = map(float, state)
    limit = float(params.x_threshold)
    length = 2.0 * float(params.length)
    half = max(1.15 * limit, 1.45 * length)       # half of the width; the whole pole is visible
    canvas = Canvas(600, 300, x=(-half, half), y=(-0.25 * half, 0.75 * half))

    def on_cart(a: float, b: float) -> tuple[float, float]:
        return (x + 0.1 * half * a, 0.04 * half * b)

    canvas.line([(-half, 0.0), (half, 0.0)], LIGHT, 6)
    for post in (-limit, limit):
        canvas.line([(post, -0.05 * half), (post, 0.05 * half)], RED, 4)
    canvas.polygon([on_cart(-1, -1), on_cart(1, -1), on_cart(1, 1), on_cart(-1, 1)], BLUE)
    for wheel in (-0.6, 0.6):
        canvas.circle(on_cart(wheel, -1), 0.03 * half, DARK)
    tip = (x + length * math.sin(theta), length * math.cos(theta))
    canvas.line([(x, 0.0), tip], BROWN, 10)
    canvas.circle((x, 0.0), 0.012 * half, GRAY)
    return canvas
