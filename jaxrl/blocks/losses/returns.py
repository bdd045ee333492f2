"""Returns and advantages over time-major [T, ...] arrays, with one convention for all.

next_value[t] is V of the observation that really followed step t, before any auto-reset. A
terminated step does not bootstrap. A truncated step bootstraps from next_value[t] and only stops
the trace, and so does the end of the segment. `gamma` and `lam` are scalars, or arrays of the
reward's shape, and may be traced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float

__all__ = ["discounted_returns", "gae", "lambda_returns", "n_step_returns"]


def gae(reward: Float[Array, " T *batch"], value: Float[Array, " T *batch"],
        next_value: Float[Array, " T *batch"], terminated: Bool[Array, " T *batch"],
        truncated: Bool[Array, " T *batch"], *, gamma: ArrayLike, lam: ArrayLike
        ) -> tuple[Float[Array, " T *batch"], Float[Array, " T *batch"]]:
    """Return (advantage, value target) by generalized advantage estimation.

    Schulman et al. 2016, eq. 16. The target is the lambda-return, advantage + value.
    """
    chex.assert_equal_shape([reward, value, next_value, terminated, truncated])
    # Termination stops the bootstrap; a time limit only stops the trace.
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value
    decay = gamma * lam * jnp.where(_ended(terminated, truncated), 0.0, 1.0)
    advantage = _accumulate(delta, decay)
    return advantage, advantage + value


def lambda_returns(reward: Float[Array, " T *batch"], next_value: Float[Array, " T *batch"],
                   terminated: Bool[Array, " T *batch"], truncated: Bool[Array, " T *batch"], *,
                   gamma: ArrayLike, lam: ArrayLike) -> Float[Array, " T *batch"]:
    """Return TD(lambda) targets, G_t = r_t + gamma ((1 - lam) V'_t + lam G_{t+1}).

    Sutton and Barto 2018, eq. 12.20. lam = 0 gives the one-step target, lam = 1 the whole return.
    """
    chex.assert_equal_shape([reward, next_value, terminated, truncated])
    ended = _ended(terminated, truncated).at[-1].set(True)
    bootstrap = jnp.where(terminated, 0.0, next_value)
    step = reward + gamma * jnp.where(ended, bootstrap, (1.0 - lam) * bootstrap)
    return _accumulate(step, gamma * lam * jnp.where(ended, 0.0, 1.0))


def discounted_returns(reward: Float[Array, " T *batch"], next_value: Float[Array, " T *batch"],
                       terminated: Bool[Array, " T *batch"], truncated: Bool[Array, " T *batch"], *,
                       gamma: ArrayLike) -> Float[Array, " T *batch"]:
    """Return the discounted return to the end of the episode: `lambda_returns` with lam = 1.

    Where the segment ends earlier, V of what followed takes the place of the rest.
    """
    return lambda_returns(reward, next_value, terminated, truncated, gamma=gamma, lam=1.0)


def n_step_returns(reward: Float[Array, " T *batch"], next_value: Float[Array, " T *batch"],
                   terminated: Bool[Array, " T *batch"], truncated: Bool[Array, " T *batch"], *,
                   gamma: ArrayLike, n: int) -> Float[Array, " T *batch"]:
    """Return n-step targets: m rewards and gamma^m V, m = min(n, number of steps left).

    Sutton and Barto 2018, eq. 7.1. The window ends early with its episode and with the segment. `n`
    is static. Raises ValueError if n < 1.
    """
    chex.assert_equal_shape([reward, next_value, terminated, truncated])
    if n < 1:
        raise ValueError(f"n_step_returns needs n >= 1, got {n}")
    reward = jnp.asarray(reward)
    ended = _ended(terminated, truncated).at[-1].set(True)
    bootstrap = jnp.where(terminated, 0.0, next_value)

    def lengthen(_: jax.Array, target: jax.Array) -> jax.Array:
        next_target = jnp.roll(target, -1, axis=0)       # the last row has ended: it reads none
        return reward + gamma * jnp.where(ended, bootstrap, next_target)

    return jax.lax.fori_loop(1, min(n, reward.shape[0]), lengthen, reward + gamma * bootstrap)


def _ended(terminated: Bool[Array, " T *batch"], truncated: Bool[Array, " T *batch"]
           ) -> Bool[Array, " T *batch"]:
    return jnp.logical_or(terminated, truncated)


def _accumulate(x: Float[Array, " T *batch"], decay: Float[Array, " T *batch"]
                ) -> Float[Array, " T *batch"]:
    """Return y_t = x_t + decay_t y_{t+1}, from the end, where y_T = 0."""
    def backward(y: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, decay = step
        y = x + decay * y
        return y, y

    return jax.lax.scan(backward, jnp.zeros_like(x[0]), (x, decay), reverse=True)[1]
