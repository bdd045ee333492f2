"""The linear-quadratic regulator: steer a linear system to the origin; the best control is known exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.exact.solve import finite_riccati, quadratic_cost, riccati
from envs_jax.render import BLUE, GREEN, LIGHT, Canvas
from envs_jax.spaces import Box

TU_RECHT = {       # Dean et al. 2017, and Mania et al. 2018 (ARS): LQR(**TU_RECHT) drifts off slowly by itself
    "A": ((1.01, 0.01, 0.0), (0.01, 1.01, 0.01), (0.0, 0.01, 1.01)),
    "B": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "Q": ((1e-3, 0.0, 0.0), (0.0, 1e-3, 0.0), (0.0, 0.0, 1e-3)),
    "R": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
}


class LQRParams(NamedTuple):
    noise: float = 0.0         # standard deviation of what is added to each number of the state in a step


class LQRState(NamedTuple):
    x: jax.Array               # [n] float32


@dataclass(frozen=True)
class LQR(Environment):
    """Observation [n]: the state x of x' = A x + B u + noise, from N(0, I). Action [m]: u, any numbers.

    Reward: -(x'Q x + u'R u), of the state in which u was chosen: an episode pays for the start, not for the last state.
    By default a mass is pushed along a line: x = (position, velocity), 0.1 s a step. There u = -K x with
    K = [2.5853, 3.5747] is best if it goes on for ever, and costs 18.7886 on average, of which 50 steps see 18.7877,
    0.0007 more than the best control that knows the time; no control costs 504.25 in 50 steps.
    A [n, n], B [n, m], Q [n, n], R [m, m] are rows of numbers; TU_RECHT is another system.
    """

    A: Any = ((1.0, 0.1), (0.0, 1.0))
    B: Any = ((0.0,), (0.1,))
    Q: Any = ((1.0, 0.0), (0.0, 1.0))
    R: Any = ((0.1,),)

    matrices: ClassVar[tuple[str, ...]] = ("A", "B", "Q", "R")
    default_params = LQRParams()
    time_limit = 50

    def __post_init__(self):
        for name in self.matrices:
            object.__setattr__(self, name, tuple(tuple(map(float, row)) for row in getattr(self, name)))
        A, B, Q, R = shapes = [np.shape(matrix) for matrix in self.system]
        n, m = A[0], B[-1]
        if shapes != [(n, n), (n, m), (n, n), (m, m)]:
            raise ValueError(f"LQR needs A [n, n], B [n, m], Q [n, n], R [m, m]; not {A}, {B}, {Q}, {R}")

    @property
    def system(self) -> tuple[np.ndarray, ...]:
        """A, B, Q, R as float32 arrays."""
        return tuple(np.array(getattr(self, name), np.float32) for name in self.matrices)

    @property
    def gain(self) -> np.ndarray:
        """K [m, n]: u = -K x is the best control of an episode without a limit, with any noise."""
        return riccati(self.A, self.B, self.Q, self.R)[1]

    def optimal_return(self, steps: int, params: LQRParams = default_params) -> float:
        """Of an episode of `steps`, on average, by the best control, which knows the time."""
        return _mean_return(finite_riccati(self.A, self.B, self.Q, self.R, steps)[0], params.noise)

    def linear_return(self, gain: Any, steps: int, params: LQRParams = default_params) -> float:
        """Of an episode of `steps`, on average, with u = -gain x."""
        return _mean_return(quadratic_cost(self.A, self.B, self.Q, self.R, gain, steps), params.noise)

    def reset(self, key, params):
        x = jax.random.normal(key, (len(self.A),), jnp.float32)
        return x, LQRState(x)

    def step(self, key, state, action, params):
        A, B, Q, R = map(jnp.asarray, self.system)
        x, u = state.x, action
        reward = -(x * _times(Q, x)).sum() - (u * _times(R, u)).sum()
        x = _times(A, x) + _times(B, u) + params.noise * jax.random.normal(key, x.shape, jnp.float32)
        return x, LQRState(x), reward, jnp.bool_(False), jnp.bool_(False), {}

    def observation_space(self, params):
        return Box(-math.inf, math.inf, (len(self.A),))

    def action_space(self, params):
        return Box(-math.inf, math.inf, (len(self.R),))

    def render(self, state, params):
        """The first two numbers of the state, across and up, up to 4, or at the edge; the origin is green."""
        x = np.pad(np.asarray(state.x), (0, 1))[:2].clip(-3.8, 3.8)
        canvas = Canvas(400, 400, x=(-4, 4), y=(-4, 4))
        for at in range(-3, 4):
            for line in ([(at, -4), (at, 4)], [(-4, at), (4, at)]):
                canvas.line(line, LIGHT, 3 if at == 0 else 1)
        canvas.circle((0.0, 0.0), 0.12, GREEN)
        canvas.line([(0.0, 0.0), x], BLUE, 2)
        canvas.circle(x, 0.18, BLUE)
        return canvas.image()


def _mean_return(cost_to_go: np.ndarray, noise: float) -> float:
    """With x from N(0, I) at first, and noise N(0, noise^2 I) added with every number of steps but all still to go."""
    traces = np.trace(cost_to_go, axis1=1, axis2=2)
    return -float(traces[-1] + noise**2 * traces[:-1].sum())


def _times(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """The product; not by @, which an accelerator may do in less than float32."""
    return jnp.sum(matrix * vector[None], axis=-1)
