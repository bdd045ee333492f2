"""Ways to act other than greedily: for values of discrete actions, and noise for bounded continuous ones.

Arrays have any leading batch axes [...]. Noise is in units of half the action's range, so that one number suits every
entry of every environment; `perturb` applies it. Numbers (epsilon, sigma, ...) may be traced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from envs_jax import spaces
from jaxrl.declare import hyper, static
from jaxrl.types import Input

__all__ = ["EpsilonConfig", "ar1_noise", "epsilon", "epsilon_greedy", "epsilon_ladder", "greedy", "only_discrete",
           "perturb", "uniform_action"]


def greedy(q, mask=None) -> jax.Array:
    """The legal action of the highest value, the first of several: q [..., n] -> int32 [...].

    mask [..., n] bool, at least one True. Never an illegal action, whatever the values.
    """
    if mask is not None:
        q = jnp.where(mask, jnp.maximum(q, jnp.finfo(q.dtype).min), -jnp.inf)   # a legal -inf is above an illegal one
    return jnp.argmax(q, axis=-1).astype(jnp.int32)


def epsilon_greedy(key, q, epsilon, mask=None) -> jax.Array:
    """Greedy, but with probability epsilon uniform over the legal actions: q [..., n] -> int32 [...].

    epsilon is a number, or one for each slot ([...]); mask as in `greedy`.
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


def uniform_action(key, space, batch: tuple[int, ...], mask=None) -> jax.Array:
    """Actions [*batch, ...] of `space`, all alike; of a Discrete space the legal ones by mask [*batch, n]."""
    if isinstance(space, spaces.Discrete):
        return epsilon_greedy(key, jnp.zeros((*batch, space.n)), 1.0, mask)
    keys = jax.random.split(key, math.prod(batch))
    return jax.vmap(space.sample)(keys).reshape(*batch, *space.shape)


def epsilon_ladder(slot, count: int, base=0.4, alpha=7.0) -> jax.Array:
    """base^(1 + alpha i / (N - 1)) for slot i of N = count (Horgan et al. 2018, arXiv:1803.00933, section 4.1).

    slot: integers of any shape, 0 .. count-1 (`Input.slot`). One slot alone has base.
    """
    return jnp.power(base, 1.0 + alpha * (jnp.asarray(slot) / jnp.float32(max(count - 1, 1))))


@dataclass(frozen=True)
class EpsilonConfig:
    """Settings of algorithms that act epsilon-greedily; their other base has `num_envs`."""

    epsilon_start: float = hyper(1.0, low=0.0, high=1.0, help="chance of a random action at the start")
    epsilon_end: float = hyper(0.05, low=0.0, high=1.0, help="and when it has run down")
    epsilon_fraction: float = hyper(0.5, low=1e-6, high=1.0, help="part of the schedule over which it runs down")
    epsilon_ladder: bool = static(False, help="instead each environment has an epsilon of its own, from the first's "
                                              "down, that stays")
    ladder_base: float = hyper(0.4, low=0.0, high=1.0, help="epsilon of the first environment (epsilon_ladder)")
    ladder_alpha: float = hyper(7.0, low=0.0, high=100.0, help="the last one's is the base to the power of 1 + this")


def only_discrete(space: spaces.Space) -> list[str]:
    """What those algorithms say, in words, of another space of actions."""
    if isinstance(space, spaces.Discrete):
        return []
    return [f"{{algo}} needs a discrete action space, {{env}} has {space}. Try: {{others}}"]


def epsilon(config: EpsilonConfig, hyper: Any, inputs: Input, progress: jax.Array) -> jax.Array:
    """The chance of a random action: a scalar on its way down, or one per slot [B]."""
    if config.epsilon_ladder:
        return epsilon_ladder(inputs.slot, config.num_envs, hyper.ladder_base, hyper.ladder_alpha)
    down = jnp.clip(progress / hyper.epsilon_fraction, 0.0, 1.0)
    return hyper.epsilon_start + down * (hyper.epsilon_end - hyper.epsilon_start)


def perturb(action, noise, low, high) -> jax.Array:
    """action + noise * (high - low) / 2, kept within the bounds. low, high: finite numbers, or one for each entry."""
    low, high = (jnp.broadcast_to(jnp.asarray(b, action.dtype), action.shape) for b in (low, high))
    return jnp.clip(action + noise * (0.5 * (high - low)), low, high)


def ar1_noise(state, key, first, *, rho, sigma) -> tuple[jax.Array, jax.Array]:
    """Noise that remembers: x' = rho x + sqrt(1 - rho^2) eps, noise sigma x', both [..., *shape of an action].

    Its standard deviation is sigma at every step, whatever rho in [0, 1]: it is drawn anew where an episode starts
    (`first`, [...] bool), from the same distribution. State: x, of unit variance, so that sigma may follow a schedule;
    zeros before the first step. Returns (state, noise).

    rho = 0 is white noise. DDPG's Ornstein-Uhlenbeck process (Lillicrap et al. 2016, arXiv:1509.02971, section 7:
    x' = x - theta x dt + sigma' sqrt(dt) eps) is the same with rho = 1 - theta dt, once its variance has grown to
    sigma^2 = sigma'^2 / (2 theta - theta^2 dt): 0.85 and 0.57 (0.38 for sigma' = 0.2) for theta = 0.15, dt = 1.
    """
    eps = jax.random.normal(key, state.shape, state.dtype)
    state = jnp.where(_trailing(first, state), eps, rho * state + jnp.sqrt(1.0 - rho * rho) * eps)
    return state, sigma * state


def _below(count, uniform) -> jax.Array:
    """A whole number in 0 .. count-1 from a uniform one in [0, 1); 0 if count is 0."""
    return jnp.clip(jnp.floor(uniform * count).astype(jnp.int32), 0, jnp.maximum(count - 1, 0))


def _trailing(first, like) -> jax.Array:
    """[...] over the further axes of `like`."""
    return jnp.broadcast_to(jnp.reshape(first, (*first.shape, *(1,) * (like.ndim - first.ndim))), like.shape)
