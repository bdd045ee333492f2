"""The linear-quadratic regulator: steer a linear system to the origin with known best control."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.exact.solve import finite_riccati, quadratic_cost, riccati
from envs_jax.render import BLUE, GREEN, LIGHT, Canvas
from envs_jax.spaces import Box

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key

    from envs_jax.core import StepResult

# LQR(**TU_RECHT): a slightly unstable system. Dean et al. 2017; Mania et al. 2018 (ARS)
TU_RECHT = {
    "A": ((1.01, 0.01, 0.0), (0.01, 1.01, 0.01), (0.0, 0.01, 1.01)),
    "B": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "Q": ((1e-3, 0.0, 0.0), (0.0, 1e-3, 0.0), (0.0, 0.0, 1e-3)),
    "R": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
}


class LQRParams(NamedTuple):
    """Parameters of the dynamics."""

    noise: float = 0.0         # standard deviation of the noise in each number of the next state


class LQRState(NamedTuple):
    """State of the linear system."""

    x: jax.Array               # [n] float32


@dataclass(frozen=True)
class LQR(Environment):
    """Linear-quadratic regulator: observation [n] (state x), action [m] (unbounded control u).

    The system is x' = A x + B u + noise, with x from N(0, I) at the start. The reward is
    -(x'Q x + u'R u), with the state x before the step: it includes the first state of an episode
    and not the last. A [n, n], B [n, m], Q [n, n], R [m, m] are rows of numbers; TU_RECHT is
    another system.

    The default is a mass on a line, x = (position, velocity), with 0.1 s per step. Its best control
    without a time limit is u = -K x with K = [2.5853, 3.5747], with a mean cost of 18.7886, and
    18.7877 in the first 50 steps. This is 0.0007 more than the best control that knows the
    remaining time. Without control, 50 steps cost 504.25.
    """

    A: Any = ((1.0, 0.1), (0.0, 1.0))
    B: Any = ((0.0,), (0.1,))
    Q: Any = ((1.0, 0.0), (0.0, 1.0))
    R: Any = ((0.1,),)

    matrices: ClassVar[tuple[str, ...]] = ("A", "B", "Q", "R")
    default_params = LQRParams()
    time_limit = 50

    def __post_init__(self) -> None:
        for name in self.matrices:
            rows = tuple(tuple(map(float, row)) for row in getattr(self, name))
            object.__setattr__(self, name, rows)
        shapes = [np.shape(matrix) for matrix in self.system]
        A, B, Q, R = shapes
        n = A[0]
        m = B[-1]
        if shapes != [(n, n), (n, m), (n, n), (m, m)]:
            raise ValueError("LQR needs A [n, n], B [n, m], Q [n, n], R [m, m]; "
                             f"not {A}, {B}, {Q}, {R}")

    @property
    def system(self) -> tuple[np.ndarray, ...]:
        """A, B, Q, R as float32 arrays."""
        return tuple(np.array(getattr(self, name), np.float32) for name in self.matrices)

    @property
    def gain(self) -> Float[np.ndarray, "m n"]:
        """The gain K of the best control u = -K x without a time limit, for any noise."""
        return riccati(self.A, self.B, self.Q, self.R)[1]

    def optimal_return(self, steps: int, params: LQRParams = default_params) -> float:
        """Return the best mean return of an episode of `steps`; the control knows the time."""
        cost, _ = finite_riccati(self.A, self.B, self.Q, self.R, steps)
        return _mean_return(cost, params.noise)

    def linear_return(self, gain: Any, steps: int, params: LQRParams = default_params) -> float:
        """Return the mean return of an episode of `steps` with u = -gain x."""
        cost = quadratic_cost(self.A, self.B, self.Q, self.R, gain, steps)
        return _mean_return(cost, params.noise)

    def reset(self, key: Key[Array, ""], params: LQRParams,
              ) -> tuple[Float[Array, " n"], LQRState]:
        x = jax.random.normal(key, (len(self.A),), jnp.float32)
        return x, LQRState(x)

    def step(self, key: Key[Array, ""], state: LQRState, action: Float[Array, " m"],
             params: LQRParams) -> StepResult:
        A, B, Q, R = map(jnp.asarray, self.system)
        x = state.x
        u = action
        reward = -(x * _times(Q, x)).sum() - (u * _times(R, u)).sum()
        drift = _times(A, x) + _times(B, u)
        x = drift + params.noise * jax.random.normal(key, x.shape, jnp.float32)
        return x, LQRState(x), reward, jnp.bool_(False), jnp.bool_(False), {}

    def observation_space(self, params: LQRParams) -> Box:
        return Box(-math.inf, math.inf, (len(self.A),))

    def action_space(self, params: LQRParams) -> Box:
        return Box(-math.inf, math.inf, (len(self.R),))

    def render(self, state: LQRState, params: LQRParams) -> np.ndarray:
        """Draw the first two numbers of the state as a point, clipped to the picture.

        The origin is green.
        """
        x = np.pad(np.asarray(state.x), (0, 1))[:2].clip(-3.8, 3.8)
        canvas = Canvas(400, 400, x=(-4, 4), y=(-4, 4))
        for at in range(-3, 4):
            for line in ([(at, -4), (at, 4)], [(-4, at), (4, at)]):
                canvas.line(line, LIGHT, 3 if at == 0 else 1)
        canvas.circle((0.0, 0.0), 0.12, GREEN)
        canvas.line([(0.0, 0.0), x], BLUE, 2)
        canvas.circle(x, 0.18, BLUE)
        return canvas.image()


def _mean_return(cost_to_go: Float[np.ndarray, "steps_and_1 n n"], noise: float) -> float:
    """Return the mean return for x from N(0, I) at the start and noise from N(0, noise^2 I).

    Noise is added with 0 .. steps - 1 steps left.
    """
    traces = np.trace(cost_to_go, axis1=1, axis2=2)
    return -float(traces[-1] + noise**2 * traces[:-1].sum())


def _times(matrix: Float[Array, "m n"], vector: Float[Array, " n"]) -> Float[Array, " m"]:
    """Return the product in full float32; accelerators may compute `@` in a lower precision."""
    return jnp.sum(matrix * vector[None], axis=-1)
