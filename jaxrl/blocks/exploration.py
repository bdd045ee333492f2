"""Exploration with discrete actions and with bounded continuous ones.

Arrays have any leading batch axes. Noise is in units of half the action's range, so that one number
suits every entry of every environment; `perturb` applies it. Numbers (epsilon, sigma, ...) may be
traced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from envs_jax import spaces
from jaxrl.declare import hyper, static
from jaxrl.types import Input

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

__all__ = ["EpsilonConfig", "ar1_noise", "epsilon", "epsilon_greedy", "epsilon_ladder", "greedy",
           "only_discrete", "perturb", "uniform_action"]


def greedy(q: Float[Array, "*batch n"], mask: Bool[Array, "*batch n"] | None = None
           ) -> Int[Array, "*batch"]:
    """Return the legal action of the highest value, the first of several, as int32.

    mask: at least one True. The action is legal whatever the values.
    """
    if mask is not None:
        # a legal -inf is above an illegal one
        q = jnp.where(mask, jnp.maximum(q, jnp.finfo(q.dtype).min), -jnp.inf)
    return jnp.argmax(q, axis=-1).astype(jnp.int32)


def epsilon_greedy(key: PRNGKeyArray, q: Float[Array, "*batch n"], epsilon: ArrayLike,
                   mask: Bool[Array, "*batch n"] | None = None) -> Int[Array, "*batch"]:
    """Return the greedy action, or with probability epsilon a uniform legal one, as int32.

    epsilon: a number, or one for each slot [*batch]. mask: as in `greedy`.
    """
    batch = q.shape[:-1]
    coin, which = jax.random.uniform(key, (2, *batch))
    if mask is None:
        uniform = _below(q.shape[-1], which)
    else:       # the k-th of the legal ones, k uniform
        order = jnp.cumsum(mask, axis=-1, dtype=jnp.int32)
        k = _below(order[..., -1], which)
        uniform = jnp.argmax(order > jnp.expand_dims(k, -1), axis=-1).astype(jnp.int32)
    return jnp.where(coin < jnp.broadcast_to(epsilon, batch), uniform, greedy(q, mask))


def uniform_action(key: PRNGKeyArray, space: Any, batch: tuple[int, ...],
                   mask: Bool[Array, "*batch n"] | None = None) -> jax.Array:
    """Return uniform actions [*batch, ...] of `space`, legal by the mask if it is Discrete."""
    if isinstance(space, spaces.Discrete):
        return epsilon_greedy(key, jnp.zeros((*batch, space.n)), 1.0, mask)
    keys = jax.random.split(key, math.prod(batch))
    return jax.vmap(space.sample)(keys).reshape(*batch, *space.shape)


def epsilon_ladder(slot: Int[Array, "*shape"], count: int, base: ArrayLike = 0.4,
                   alpha: ArrayLike = 7.0) -> Float[Array, "*shape"]:
    """Return base^(1 + alpha i / (N - 1)) for slot i of N = count; a single slot has base.

    Horgan et al. 2018, arXiv:1803.00933, section 4.1. slot: 0 .. count-1 (`Input.slot`).
    """
    return jnp.power(base, 1.0 + alpha * (jnp.asarray(slot) / jnp.float32(max(count - 1, 1))))


@dataclass(frozen=True)
class EpsilonConfig:
    """Settings of algorithms that act epsilon-greedily; their other base has `num_envs`."""

    epsilon_start: float = hyper(
        1.0, low=0.0, high=1.0, help="probability of a random action at the start of the schedule")
    epsilon_end: float = hyper(
        0.05, low=0.0, high=1.0, help="probability of a random action once epsilon has decayed")
    epsilon_fraction: float = hyper(
        0.5, low=1e-6, high=1.0, help="fraction of the schedule over which epsilon decays")
    epsilon_ladder: bool = static(
        False, help="constant epsilon for each environment, decreasing from the first to the last, "
                    "instead of one that decays")
    ladder_base: float = hyper(
        0.4, low=0.0, high=1.0, help="epsilon of the first environment (epsilon_ladder)")
    ladder_alpha: float = hyper(
        7.0, low=0.0, high=100.0,
        help="exponent of the ladder: the last epsilon is ladder_base^(1 + ladder_alpha)")


def only_discrete(space: spaces.Space) -> list[str]:
    """Return the message of algorithms for discrete actions about another space, or none."""
    if isinstance(space, spaces.Discrete):
        return []
    return [f"{{algo}} needs a discrete action space, {{env}} has {space}. Try: {{others}}"]


def epsilon(config: EpsilonConfig, hyper: Any, inputs: Input, progress: ArrayLike) -> jax.Array:
    """Return the probability of a random action: a decaying scalar, or one per slot [B]."""
    if config.epsilon_ladder:
        return epsilon_ladder(inputs.slot, config.num_envs, hyper.ladder_base, hyper.ladder_alpha)
    decayed = jnp.clip(progress / hyper.epsilon_fraction, 0.0, 1.0)
    return hyper.epsilon_start + decayed * (hyper.epsilon_end - hyper.epsilon_start)


def perturb(action: Float[Array, "*shape"], noise: Float[Array, "*shape"], low: ArrayLike,
            high: ArrayLike) -> Float[Array, "*shape"]:
    """Return action + noise * (high - low) / 2, kept within the bounds.

    low, high: finite numbers, or one for each entry.
    """
    low = jnp.broadcast_to(jnp.asarray(low, action.dtype), action.shape)
    high = jnp.broadcast_to(jnp.asarray(high, action.dtype), action.shape)
    return jnp.clip(action + noise * (0.5 * (high - low)), low, high)


def ar1_noise(state: Float[Array, "*batch d"], key: PRNGKeyArray, first: Bool[Array, "*batch"], *,
              rho: ArrayLike, sigma: ArrayLike
              ) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch d"]]:
    """Return (state, noise) of the correlated noise sigma x', x' = rho x + sqrt(1 - rho^2) eps.

    The standard deviation of the noise is sigma at every step, whatever rho in [0, 1]: x is drawn
    anew, from the same distribution, where an episode starts (`first`). The state is x, of unit
    variance, so that sigma may follow a schedule; it is zeros before the first step.

    rho = 0 is white noise. DDPG's Ornstein-Uhlenbeck process (Lillicrap et al. 2016,
    arXiv:1509.02971, section 7: x' = x - theta x dt + sigma' sqrt(dt) eps) is the same with rho = 1
    - theta dt, once its variance has grown to sigma^2 = sigma'^2 / (2 theta - theta^2 dt): 0.85 and
    0.57 (0.38 for sigma' = 0.2) for theta = 0.15, dt = 1.
    """
    eps = jax.random.normal(key, state.shape, state.dtype)
    state = jnp.where(_trailing(first, state), eps, rho * state + jnp.sqrt(1.0 - rho * rho) * eps)
    return state, sigma * state


def _below(count: int | Int[Array, "*shape"], uniform: Float[Array, "*shape"]
           ) -> Int[Array, "*shape"]:
    """Return a whole number in 0 .. count-1 for a uniform one in [0, 1); 0 if count is 0."""
    return jnp.clip(jnp.floor(uniform * count).astype(jnp.int32), 0, jnp.maximum(count - 1, 0))


def _trailing(first: jax.Array, like: jax.Array) -> jax.Array:
    """Return `first` [...] broadcast over the further axes of `like`."""
    further = (1,) * (like.ndim - first.ndim)
    return jnp.broadcast_to(jnp.reshape(first, (*first.shape, *further)), like.shape)
