"""Running moments of observations and of rewards, as pytrees that a training state carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from envs_jax import spaces

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float

__all__ = ["Moments", "RewardScale", "init", "merge", "normalize", "problems", "update"]


class Moments(NamedTuple):
    """Mean and variance of all items so far, of one array or of a pytree of arrays.

    The mean is kept as the sum of two float32 numbers and the variance as an average, not a sum of
    squares. So both are accurate for observations far from zero, and keep moving in long runs.
    """

    count: jax.Array    # float32 scalar: the total weight
    mean: Any           # as the observation, float32
    residual: Any       # rounding error of `mean`
    variance: Any       # of the population


def init(example: Any) -> Moments:
    """Return moments of no items.

    example: a space, an array without batch axes, or a pytree of either.
    """
    def zeros(leaf: Any) -> jax.Array:
        return jnp.zeros(getattr(leaf, "shape", ()), jnp.float32)

    start = jax.tree.map(zeros, example)
    return Moments(jnp.zeros((), jnp.float32), mean=start, residual=start, variance=start)


def problems(space: Any) -> list[str]:
    """Return a message if observations of `space` cannot be normalized."""
    leaves = jax.tree.leaves(space, is_leaf=lambda s: isinstance(s, spaces.Space))
    if all(isinstance(s, spaces.Box) for s in leaves):
        return []
    return [f"algo.normalize_observation needs Box observations, the environment has {space}"]


def update(moments: Moments, batch: Any, weight: jax.Array | None = None) -> Moments:
    """Return `moments` after a batch [T, B, ...].

    All axes before the observation's own are batch axes. weight: the weight of each item over the
    first batch axes. An item of weight 0 (or False) is left out, and may be NaN.
    """
    return merge(moments, _of_batch(moments.mean, batch, weight))


def merge(a: Moments, b: Moments) -> Moments:
    """Return the moments of both sets together (Chan et al. 1983, eq. 2.1).

    The operation is associative up to rounding.
    """
    count = a.count + b.count
    share = b.count / jnp.maximum(count, jnp.finfo(jnp.float32).tiny)

    def leaf(mean_a: jax.Array, low_a: jax.Array, var_a: jax.Array,
             mean_b: jax.Array, low_b: jax.Array, var_b: jax.Array
             ) -> tuple[jax.Array, jax.Array, jax.Array]:
        gap = mean_b - mean_a
        low_gap = low_b - low_a
        mean, lost = _two_sum(mean_a, share * gap)
        mean, low = _two_sum(mean, lost + (low_a + share * low_gap))
        between = share * (1.0 - share) * jnp.square(gap + low_gap)
        return mean, low, var_a + share * (var_b - var_a) + between

    leaves = jax.tree.map(leaf, a.mean, a.residual, a.variance, b.mean, b.residual, b.variance)
    return _moments(count, a.mean, leaves)


def normalize(moments: Moments, x: Any, *, clip: float = 10.0, epsilon: float = 1e-8) -> Any:
    """Return (x - mean) / sqrt(variance + epsilon), clipped to +-clip, as float32.

    Before any update only the clip acts.
    """
    def leaf(mean: jax.Array, low: jax.Array, variance: jax.Array, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x, jnp.float32)
        mean = jnp.broadcast_to(mean, x.shape)
        low = jnp.broadcast_to(low, x.shape)
        scale = jax.lax.rsqrt(jnp.where(moments.count > 0, variance, 1.0) + epsilon)
        return jnp.clip(((x - mean) - low) * jnp.broadcast_to(scale, x.shape), -clip, clip)

    return jax.tree.map(leaf, moments.mean, moments.residual, moments.variance, x)


class RewardScale(NamedTuple):
    """Running standard deviation of the discounted return, to scale rewards by.

    Source: VecNormalize of OpenAI Baselines. The mean is not subtracted, so that rewards keep their
    sign.
    """

    returns: Moments
    accumulator: jax.Array   # [B]: discounted sum of rewards in each environment's episode so far

    @classmethod
    def init(cls, batch: int | tuple[int, ...]) -> RewardScale:
        """Return the scale before any reward.

        batch: the number of environments, or their shape ((B, agents)).
        """
        return cls(init(jnp.zeros(())), jnp.zeros(batch, jnp.float32))

    def update(self, reward: Float[Array, " T *batch"], done: Bool[Array, "T B"], gamma: ArrayLike,
               weight: jax.Array | None = None) -> RewardScale:
        """Return the scale after rewards [T, B, ...].

        The discounted sum restarts after each step that is `done`: terminated or truncated.
        """
        reward = jnp.asarray(reward, jnp.float32)
        done = jnp.broadcast_to(_trailing(jnp.asarray(done, bool), reward.ndim), reward.shape)

        def forward(total: jax.Array, step: tuple[jax.Array, jax.Array]
                    ) -> tuple[jax.Array, jax.Array]:
            reward, done = step
            total = gamma * total + reward
            return jnp.where(done, 0.0, total), total

        accumulator, totals = jax.lax.scan(forward, self.accumulator, (reward, done))
        return RewardScale(update(self.returns, totals, weight), accumulator)

    def apply(self, reward: Float[Array, "*shape"], *, clip: float = 10.0, epsilon: float = 1e-8
              ) -> Float[Array, "*shape"]:
        """Return rewards over the running deviation, clipped to +-clip.

        Before any update only the clip acts.
        """
        variance = jnp.where(self.returns.count > 0, self.returns.variance, 1.0)
        return jnp.clip(reward * jax.lax.rsqrt(variance + epsilon), -clip, clip)


def _of_batch(example: Any, batch: Any, weight: jax.Array | None) -> Moments:
    """Return two-pass moments: the second pass corrects the rounding error of the first mean."""
    chex.assert_trees_all_equal_structs(example, batch)
    counts = []

    def leaf(example: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        x = jnp.asarray(x, jnp.float32)
        lead = x.ndim - example.ndim
        chex.assert_shape(x, (*x.shape[:lead], *example.shape))
        if weight is None:
            w = jnp.ones((), jnp.float32)
            count = jnp.asarray(x.size // max(example.size, 1), jnp.float32)
        else:
            w = _trailing(jnp.asarray(weight, jnp.float32), lead)
            w = jnp.broadcast_to(w, x.shape[:lead])
            count = jnp.sum(w)
            w = jnp.broadcast_to(_trailing(w, x.ndim), x.shape)
            x = jnp.where(w > 0, x, 0.0)
        counts.append(count)

        def average(y: jax.Array) -> jax.Array:
            total = jnp.sum(w * y, axis=tuple(range(lead)))
            return total / jnp.maximum(count, jnp.finfo(jnp.float32).tiny)

        mean = average(x)
        rest = x - jnp.broadcast_to(mean, x.shape)
        low = average(rest)
        return mean, low, jnp.maximum(average(jnp.square(rest)) - jnp.square(low), 0.0)

    leaves = jax.tree.map(leaf, example, batch)
    return _moments(counts[0], example, leaves)


def _moments(count: jax.Array, example: Any, leaves: Any) -> Moments:
    """Return Moments from a tree like `example` whose leaves are (mean, residual, variance)."""
    three = jax.tree.structure((0, 0, 0))
    mean, residual, variance = jax.tree.transpose(jax.tree.structure(example), three, leaves)
    return Moments(count, mean, residual, variance)


def _two_sum(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the rounded sum and its rounding error, exactly (Knuth)."""
    total = a + b
    b_used = total - a
    return total, (a - (total - b_used)) + (b - b_used)


def _trailing(x: jax.Array, ndim: int) -> jax.Array:
    """Return `x` with axes of length 1 appended, `ndim` axes in all."""
    return jnp.reshape(x, x.shape + (1,) * (ndim - x.ndim))
