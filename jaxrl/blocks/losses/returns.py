"""Returns and advantages over time-major [T, ...] arrays, one convention for all.

next_value[t] is V of the observation that really followed step t, before any auto-reset. A terminated step bootstraps
from nothing; a truncated step bootstraps from next_value[t] and only stops the trace; so does the end of the segment.
`gamma` and `lam` are scalars, or arrays of the reward's shape, and may be traced.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

__all__ = ["discounted_returns", "gae", "lambda_returns", "n_step_returns"]


def gae(reward, value, next_value, terminated, truncated, *, gamma, lam) -> tuple[jax.Array, jax.Array]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16) over time-major [T, ...] arrays.

    Returns (advantage, value target), both of the reward's shape; the target is the lambda-return advantage + value.
    """
    chex.assert_equal_shape([reward, value, next_value, terminated, truncated])
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value   # a death stops the bootstrap ...
    decay = gamma * lam * jnp.where(_ended(terminated, truncated), 0.0, 1.0)  # ... a time-out only stops the trace
    advantage = _accumulate(delta, decay)
    return advantage, advantage + value


def lambda_returns(reward, next_value, terminated, truncated, *, gamma, lam) -> jax.Array:
    """TD(lambda) targets (Sutton and Barto 2018, eq. 12.20): G_t = r_t + gamma ((1 - lam) V'_t + lam G_{t+1}).

    lam = 0 gives the one-step target, lam = 1 the whole return. Of the reward's shape.
    """
    chex.assert_equal_shape([reward, next_value, terminated, truncated])
    ended = _ended(terminated, truncated).at[-1].set(True)
    bootstrap = jnp.where(terminated, 0.0, next_value)
    step = reward + gamma * jnp.where(ended, bootstrap, (1.0 - lam) * bootstrap)
    return _accumulate(step, gamma * lam * jnp.where(ended, 0.0, 1.0))


def discounted_returns(reward, next_value, terminated, truncated, *, gamma) -> jax.Array:
    """The return to the end of the episode, or of the segment and V from there: `lambda_returns` with lam = 1."""
    return lambda_returns(reward, next_value, terminated, truncated, gamma=gamma, lam=1.0)


def n_step_returns(reward, next_value, terminated, truncated, *, gamma, n: int) -> jax.Array:
    """n-step targets (Sutton and Barto 2018, eq. 7.1): m rewards and gamma^m V, m = min(n, steps that are left).

    The window ends early with its episode and with the segment. `n` is static. Of the reward's shape.
    """
    chex.assert_equal_shape([reward, next_value, terminated, truncated])
    if n < 1:
        raise ValueError(f"n_step_returns needs n >= 1, got {n}")
    reward = jnp.asarray(reward)
    ended = _ended(terminated, truncated).at[-1].set(True)
    bootstrap = jnp.where(terminated, 0.0, next_value)

    def lengthen(_, target):
        return reward + gamma * jnp.where(ended, bootstrap, jnp.roll(target, -1, axis=0))   # row -1 has ended

    return jax.lax.fori_loop(1, min(n, reward.shape[0]), lengthen, reward + gamma * bootstrap)


def _ended(terminated, truncated) -> jax.Array:
    return jnp.logical_or(terminated, truncated)


def _accumulate(x, decay) -> jax.Array:
    """y_t = x_t + decay_t y_{t+1}, from the end, y_T = 0."""
    def backward(y, now):
        x, decay = now
        y = x + decay * y
        return y, y

    return jax.lax.scan(backward, jnp.zeros_like(x[0]), (x, decay), reverse=True)[1]
