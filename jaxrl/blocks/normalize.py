"""Running moments of observations and of rewards, as pytrees that a training state carries."""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from envs_jax import spaces

__all__ = ["Moments", "RewardScale", "init", "merge", "normalize", "problems", "update"]


class Moments(NamedTuple):
    """Mean and variance of all that was seen, of one array or of a pytree of arrays.

    The mean is kept as the sum of two float32 numbers and the variance as an average, not a sum of squares: both are
    right for observations far from zero, and neither stops moving however long a run is.
    """

    count: jax.Array    # float32 scalar: the total weight
    mean: Any           # as the observation, float32
    residual: Any       # what `mean` lost to rounding
    variance: Any       # of the population


def init(example: Any) -> Moments:
    """Nothing seen yet. `example`: a space, an array without batch axes, or a pytree of either."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(getattr(leaf, "shape", ()), jnp.float32), example)
    return Moments(jnp.zeros((), jnp.float32), zeros, zeros, zeros)


def problems(space: Any) -> list[str]:
    """Why observations of `space` cannot be normalised, in words."""
    leaves = jax.tree.leaves(space, is_leaf=lambda s: isinstance(s, spaces.Space))
    if all(isinstance(s, spaces.Box) for s in leaves):
        return []
    return [f"algo.normalize_observation needs Box observations, the environment has {space}"]


def update(moments: Moments, batch: Any, weight: jax.Array | None = None) -> Moments:
    """`moments` after a batch, whose axes in front of the observation's own are all batch axes ([T, B, ...]).

    weight: the weight of each item, 0 or False to leave it out (NaN there is harmless); over the first batch axes.
    """
    return merge(moments, _of_batch(moments.mean, batch, weight))


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of both sets together (Chan et al. 1983, eq. 2.1): associative up to rounding."""
    count = a.count + b.count
    share = b.count / jnp.maximum(count, jnp.finfo(jnp.float32).tiny)

    def leaf(mean_a, low_a, var_a, mean_b, low_b, var_b):
        gap, low_gap = mean_b - mean_a, low_b - low_a
        mean, lost = _two_sum(mean_a, share * gap)
        mean, low = _two_sum(mean, lost + (low_a + share * low_gap))
        return mean, low, var_a + share * (var_b - var_a) + share * (1.0 - share) * jnp.square(gap + low_gap)

    leaves = jax.tree.map(leaf, a.mean, a.residual, a.variance, b.mean, b.residual, b.variance)
    return Moments(count, *jax.tree.transpose(jax.tree.structure(a.mean), jax.tree.structure((0, 0, 0)), leaves))


def normalize(moments: Moments, x: Any, *, clip=10.0, epsilon=1e-8) -> Any:
    """(x - mean) / sqrt(variance + epsilon), clipped to +-clip, float32; before any update only the clip acts."""
    def leaf(mean, low, variance, x):
        x, mean, low = jnp.asarray(x, jnp.float32), *(_expand(m, x) for m in (mean, low))
        scale = jax.lax.rsqrt(jnp.where(moments.count > 0, variance, 1.0) + epsilon)
        return jnp.clip(((x - mean) - low) * _expand(scale, x), -clip, clip)

    return jax.tree.map(leaf, moments.mean, moments.residual, moments.variance, x)


class RewardScale(NamedTuple):
    """Scales rewards by the running standard deviation of the discounted return (OpenAI Baselines' VecNormalize).

    The mean is not subtracted, so that the sign of a reward survives.
    """

    returns: Moments
    accumulator: jax.Array   # [B]: the discounted sum of each environment's rewards in its episode so far

    @classmethod
    def init(cls, batch: int | tuple[int, ...]) -> RewardScale:
        """batch: the number of environments, or their shape ((B, agents))."""
        return cls(init(jnp.zeros(())), jnp.zeros(batch, jnp.float32))

    def update(self, reward: jax.Array, done: jax.Array, gamma, weight: jax.Array | None = None) -> RewardScale:
        """After rewards [T, B]; `done` [T, B], terminated or truncated, starts the sum anew after its step."""
        reward = jnp.asarray(reward, jnp.float32)
        done = jnp.broadcast_to(_trailing(jnp.asarray(done, bool), reward.ndim), reward.shape)

        def forward(total, now):
            reward, done = now
            total = gamma * total + reward
            return jnp.where(done, 0.0, total), total

        accumulator, totals = jax.lax.scan(forward, self.accumulator, (reward, done))
        return RewardScale(update(self.returns, totals, weight), accumulator)

    def apply(self, reward: jax.Array, *, clip=10.0, epsilon=1e-8) -> jax.Array:
        """Rewards over the deviation seen so far, clipped to +-clip; before any update only the clip acts."""
        variance = jnp.where(self.returns.count > 0, self.returns.variance, 1.0)
        return jnp.clip(reward * jax.lax.rsqrt(variance + epsilon), -clip, clip)


def _of_batch(example: Any, batch: Any, weight: jax.Array | None) -> Moments:
    """Corrected two-pass moments: the second pass repairs what the first mean lost to rounding."""
    chex.assert_trees_all_equal_structs(example, batch)
    counts = []

    def leaf(example, x):
        x = jnp.asarray(x, jnp.float32)
        lead = x.ndim - example.ndim
        chex.assert_shape(x, (*x.shape[:lead], *example.shape))
        if weight is None:
            w, count = jnp.ones((), jnp.float32), jnp.asarray(x.size // max(example.size, 1), jnp.float32)
        else:
            w = jnp.broadcast_to(_trailing(jnp.asarray(weight, jnp.float32), lead), x.shape[:lead])
            count, w = jnp.sum(w), jnp.broadcast_to(_trailing(w, x.ndim), x.shape)
            x = jnp.where(w > 0, x, 0.0)
        counts.append(count)
        average = lambda y: jnp.sum(w * y, axis=tuple(range(lead))) / jnp.maximum(count, jnp.finfo(jnp.float32).tiny)
        mean = average(x)
        rest = x - jnp.broadcast_to(mean, x.shape)
        low = average(rest)
        return mean, low, jnp.maximum(average(jnp.square(rest)) - jnp.square(low), 0.0)

    leaves = jax.tree.map(leaf, example, batch)
    return Moments(counts[0], *jax.tree.transpose(jax.tree.structure(example), jax.tree.structure((0, 0, 0)), leaves))


def _two_sum(a, b) -> tuple[jax.Array, jax.Array]:
    """The rounded sum and its rounding error, exactly (Knuth)."""
    total = a + b
    b_used = total - a
    return total, (a - (total - b_used)) + (b - b_used)


def _trailing(x, ndim: int) -> jax.Array:
    """`x` with axes of length 1 at its end, `ndim` in all."""
    return jnp.reshape(x, x.shape + (1,) * (ndim - x.ndim))


def _expand(m, x) -> jax.Array:
    return jnp.broadcast_to(m, jnp.shape(x))
