"""Losses as per-sample maths: no parameters, no keys, no hidden mean over the batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = ["approx_kl", "clip_fraction", "clipped_value", "explained_variance", "ppo_clip", "standardize"]


def ppo_clip(log_ratio, advantage, *, epsilon) -> jax.Array:
    """The clipped surrogate as a loss (Schulman et al. 2017, arXiv:1707.06347, eq. 7, negated)."""
    ratio = jnp.exp(log_ratio)
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - epsilon, 1.0 + epsilon) * advantage)


def clipped_value(value, old_value, target, *, epsilon) -> jax.Array:
    """Half the larger of the squared errors of the value and of the value kept within epsilon of the old one."""
    near = old_value + jnp.clip(value - old_value, -epsilon, epsilon)
    return 0.5 * jnp.maximum(jnp.square(value - target), jnp.square(near - target))


def approx_kl(log_ratio) -> jax.Array:
    """Per-sample estimate (r - 1) - log r of KL(old, new): unbiased, never negative, exactly 0 for r = 1."""
    return jnp.expm1(log_ratio) - log_ratio


def clip_fraction(log_ratio, *, epsilon) -> jax.Array:
    """1 where the ratio left [1 - epsilon, 1 + epsilon], else 0; its mean is the usual diagnostic."""
    return (jnp.abs(jnp.expm1(log_ratio)) > epsilon).astype(jnp.float32)


def explained_variance(value, target) -> jax.Array:
    """1 - Var(target - value) / Var(target) over all entries: 1 is perfect, 0 no better than a constant.

    0 where the target does not vary, so that the metric stays finite.
    """
    total = jnp.var(target)
    varies = total > 1e-12 * jnp.mean(jnp.square(target))   # float32 cannot tell less from a constant
    return jnp.where(varies, 1.0 - jnp.var(target - value) / jnp.where(varies, total, 1.0), 0.0)


def standardize(x, *, epsilon=1e-8) -> jax.Array:
    """(x - mean) / (std + epsilon) over all entries: PPO's advantages, minibatch by minibatch."""
    return (x - jnp.mean(x)) / (jnp.std(x) + epsilon)
