"""Losses of policies as per-sample mathematics: no parameters, no keys, no mean over the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax.typing import ArrayLike

if TYPE_CHECKING:
    from jaxtyping import Array, Float

__all__ = ["approx_kl", "clip_fraction", "clipped_value", "explained_variance", "ppo_clip",
           "standardize"]


def ppo_clip(log_ratio: Float[Array, "*batch"], advantage: Float[Array, "*batch"], *,
             epsilon: ArrayLike) -> Float[Array, "*batch"]:
    """Return the clipped surrogate as a loss, negated.

    Schulman et al. 2017, arXiv:1707.06347, eq. 7.
    """
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - epsilon, 1.0 + epsilon)
    return -jnp.minimum(ratio * advantage, clipped * advantage)


def clipped_value(value: Float[Array, "*batch"], old_value: Float[Array, "*batch"],
                  target: Float[Array, "*batch"], *, epsilon: ArrayLike) -> Float[Array, "*batch"]:
    """Return half the larger squared error of the value and of the clipped value.

    The clipped value is kept within epsilon of the old one.
    """
    near = old_value + jnp.clip(value - old_value, -epsilon, epsilon)
    return 0.5 * jnp.maximum(jnp.square(value - target), jnp.square(near - target))


def approx_kl(log_ratio: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Return the estimate (r - 1) - log r of KL(old, new): unbiased, never negative, 0 for r = 1.
    """
    return jnp.expm1(log_ratio) - log_ratio


def clip_fraction(log_ratio: Float[Array, "*batch"], *, epsilon: ArrayLike
                  ) -> Float[Array, "*batch"]:
    """Return 1 where the ratio left [1 - epsilon, 1 + epsilon], else 0: its mean is a diagnostic.
    """
    return (jnp.abs(jnp.expm1(log_ratio)) > epsilon).astype(jnp.float32)


def explained_variance(value: Float[Array, "*batch"], target: Float[Array, "*batch"]
                       ) -> Float[Array, ""]:
    """Return 1 - Var(target - value) / Var(target) over all entries.

    1 is perfect, 0 no better than a constant. It is 0 where the target does not vary, so that the
    metric stays finite.
    """
    total = jnp.var(target)
    # float32 cannot tell less from a constant
    varies = total > 1e-12 * jnp.mean(jnp.square(target))
    return jnp.where(varies, 1.0 - jnp.var(target - value) / jnp.where(varies, total, 1.0), 0.0)


def standardize(x: Float[Array, "*batch"], *, epsilon: float = 1e-8) -> Float[Array, "*batch"]:
    """Return (x - mean) / (std + epsilon) over all entries: PPO's advantages in each minibatch."""
    return (x - jnp.mean(x)) / (jnp.std(x) + epsilon)
