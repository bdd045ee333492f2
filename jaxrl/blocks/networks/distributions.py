"""Distributions over actions: NamedTuples of arrays with any number of leading batch axes.

Each has sample(key), mode(), log_prob(action) and, if there is a closed form, entropy(). Choices
are int32. `action_head` returns the number of outputs that an action space needs from a network,
and turns these outputs into a distribution.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from envs_jax import spaces

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

__all__ = ["ActionHead", "Categorical", "DiagonalNormal", "Distribution", "MultiCategorical",
           "Reshaped", "TanhNormal", "action_head", "finite_bounds", "masked_logits", "squash",
           "tanh_normal_head"]

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


class Distribution(Protocol):
    """The interface of an action distribution."""

    def sample(self, key: jax.Array) -> jax.Array:
        """Return a random action for each item of the batch."""

    def mode(self) -> jax.Array:
        """Return the action of the highest probability or density."""

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Return the logarithm of the probability or density of an action."""

    def entropy(self) -> jax.Array:
        """Return the entropy."""


class Categorical(NamedTuple):
    """One of n choices. logits [..., n] are unnormalized; actions [...] are int32."""

    logits: jax.Array

    def sample(self, key: PRNGKeyArray) -> Int[Array, "*batch"]:
        return jax.random.categorical(key, self.logits).astype(jnp.int32)

    def mode(self) -> Int[Array, "*batch"]:
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def log_prob(self, action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
        log_p = jax.nn.log_softmax(self.logits)
        choices = jnp.arange(self.logits.shape[-1], dtype=jnp.int32)
        chosen = jnp.expand_dims(action, -1) == jnp.broadcast_to(choices, log_p.shape)
        # not a gather: its gradient would be a scatter
        return jnp.sum(jnp.where(chosen, log_p, 0.0), axis=-1)

    def entropy(self) -> Float[Array, "*batch"]:
        log_p = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


class MultiCategorical(NamedTuple):
    """Independent choices.

    Actions [..., len(parts)] int32; log-probabilities and entropies add up.
    """

    parts: tuple[Categorical, ...]

    def sample(self, key: PRNGKeyArray) -> Int[Array, "*batch parts"]:
        keys = jax.random.split(key, len(self.parts))
        return jnp.stack([part.sample(k) for part, k in zip(self.parts, keys)], axis=-1)

    def mode(self) -> Int[Array, "*batch parts"]:
        return jnp.stack([part.mode() for part in self.parts], axis=-1)

    def log_prob(self, action: Int[Array, "*batch parts"]) -> Float[Array, "*batch"]:
        return sum(part.log_prob(action[..., i]) for i, part in enumerate(self.parts))

    def entropy(self) -> Float[Array, "*batch"]:
        return sum(part.entropy() for part in self.parts)


class DiagonalNormal(NamedTuple):
    """Independent normals over the last axis, over which log-probability and entropy sum.

    mean [..., d]; log_std [..., d], or [d] for the whole batch.
    """

    mean: jax.Array
    log_std: jax.Array

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*batch d"]:
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(_like(self.log_std, self.mean)) * noise

    def mode(self) -> Float[Array, "*batch d"]:
        return self.mean

    def log_prob(self, action: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        log_std = _like(self.log_std, self.mean)
        return jnp.sum(_normal_log_prob(action, self.mean, log_std), axis=-1)

    def entropy(self) -> Float[Array, "*batch"]:
        return jnp.sum(0.5 + _LOG_SQRT_2PI + _like(self.log_std, self.mean), axis=-1)


class TanhNormal(NamedTuple):
    """The distribution of center + half * tanh(u), where u is from a diagonal normal.

    Haarnoja et al. 2018, arXiv:1801.01290, appendix C. mean, log_std: as in DiagonalNormal. low,
    high: finite bounds, numbers or [d]. The entropy has no closed form.
    """

    mean: jax.Array
    log_std: jax.Array
    low: Any = -1.0
    high: Any = 1.0

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*batch d"]:
        return squash(DiagonalNormal(self.mean, self.log_std).sample(key), self.low, self.high)

    def sample_and_log_prob(self, key: PRNGKeyArray
                            ) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch"]]:
        """Return a sample and its log-probability, both differentiable.

        The result is exact also where tanh rounds to 1, because tanh is never inverted.
        """
        log_std = _like(self.log_std, self.mean)
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        u = self.mean + jnp.exp(log_std) * noise
        # not from u: the sum of a mean and tiny noise is rounded
        log_normal = _normal_log_prob(noise, 0.0, 0.0) - log_std
        return squash(u, self.low, self.high), jnp.sum(log_normal - self._log_slope(u), axis=-1)

    def mode(self) -> Float[Array, "*batch d"]:
        """Return the image of the normal's mode, which is also the median."""
        return squash(self.mean, self.low, self.high)

    def log_prob(self, action: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """Return the log-density of an action in the units of the environment.

        The inverse of tanh saturates within 1e-7 of the bounds.
        """
        center, half = _center_half(self.low, self.high, self.mean)
        limit = 1.0 - jnp.finfo(self.mean.dtype).eps
        squashed = jnp.clip((action - center) / half, -limit, limit)
        return self.log_prob_unsquashed(jnp.arctanh(squashed))

    def log_prob_unsquashed(self, u: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """Return the log-density of the action center + half * tanh(u)."""
        log_normal = _normal_log_prob(u, self.mean, _like(self.log_std, self.mean))
        return jnp.sum(log_normal - self._log_slope(u), axis=-1)

    def _log_slope(self, u: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        """Return the logarithm of the derivative of the action by u.

        log(1 - tanh^2 u) is in a form that cannot underflow: 2 (log 2 - u - softplus(-2u)).
        """
        _, half = _center_half(self.low, self.high, u)
        return 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u)) + jnp.log(half)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reshaped:
    """A distribution over vectors [..., d], whose actions are reshaped to [..., *shape]."""

    base: Any
    shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})      # prod(shape) = d

    def sample(self, key: PRNGKeyArray) -> jax.Array:
        return self._unflatten(self.base.sample(key))

    def mode(self) -> jax.Array:
        return self._unflatten(self.base.mode())

    def sample_and_log_prob(self, key: PRNGKeyArray) -> tuple[jax.Array, Float[Array, "*batch"]]:
        """Return a sample and its log-probability, if the base has this method."""
        action, log_prob = self.base.sample_and_log_prob(key)
        return self._unflatten(action), log_prob

    def log_prob(self, action: jax.Array) -> Float[Array, "*batch"]:
        batch = action.shape[:action.ndim - len(self.shape)]
        return self.base.log_prob(jnp.reshape(action, (*batch, -1)))

    def entropy(self) -> Float[Array, "*batch"]:
        return self.base.entropy()

    def _unflatten(self, action: jax.Array) -> jax.Array:
        return jnp.reshape(action, action.shape[:-1] + self.shape)


def masked_logits(logits: Float[Array, "*batch n"], mask: Bool[Array, "*batch n"]
                  ) -> Float[Array, "*batch n"]:
    """Return the logits with a large finite negative number for illegal choices (mask False).

    Their probability is then exactly 0, and so are their parts of the entropy and the gradient.
    With -inf these would be NaN.
    """
    illegal = max(-1e9, float(jnp.finfo(logits.dtype).min) / 2)
    return jnp.where(mask, logits, jnp.asarray(illegal, logits.dtype))


class ActionHead(NamedTuple):
    """The outputs that an action space needs from a policy network.

    distribution(outputs [..., size], log_std [log_std_size] or None, mask or None) -> Distribution.
    log_std: a parameter that does not depend on the state, in the units of the outputs.
    mask: [..., size] bool.
    """

    size: int
    log_std_size: int        # 0: there is none
    distribution: Callable[..., Any]


def action_head(space: spaces.Space) -> ActionHead:
    """Return the head for an action space.

    Actions keep the space's shape; those of a Box are not clipped.

    Box: a diagonal normal. Where an entry is bounded, the outputs and the standard deviation are in
    units of half its range around its center, so that one initialization suits all; elsewhere they
    are in the action's own units. Raises TypeError for other kinds of spaces.
    """
    match space:
        case spaces.Discrete(n):
            return ActionHead(size=n, log_std_size=0, distribution=_categorical)
        case spaces.MultiDiscrete(nvec):
            return ActionHead(size=int(sum(nvec)), log_std_size=0,
                              distribution=partial(_multi_categorical, nvec))
        case spaces.Box():
            size = math.prod(space.shape)
            return ActionHead(size=size, log_std_size=size, distribution=partial(_normal, space))
    raise TypeError(f"no action head for {space}: expected Discrete, MultiDiscrete or Box")


def _categorical(outputs: Float[Array, "*batch n"], log_std: None = None,
                 mask: Bool[Array, "*batch n"] | None = None) -> Categorical:
    return Categorical(_logits(outputs, mask))


def _multi_categorical(nvec: tuple[int, ...], outputs: Float[Array, "*batch n"],
                       log_std: None = None, mask: Bool[Array, "*batch n"] | None = None
                       ) -> MultiCategorical:
    cuts = [int(c) for c in np.cumsum(nvec)[:-1]]
    parts = jnp.split(_logits(outputs, mask), cuts, axis=-1)
    return MultiCategorical(tuple(map(Categorical, parts)))


def _normal(space: spaces.Box, outputs: Float[Array, "*batch d"],
            log_std: Float[Array, " d"] | None = None, mask: None = None
            ) -> DiagonalNormal | Reshaped:
    if log_std is None or mask is not None:
        raise ValueError("a Box action space needs a log_std, and has no legal-action mask")
    outputs = outputs.astype(jnp.float32)
    center, half = _scale(space)
    mean = _like(center, outputs) + _like(half, outputs) * outputs
    return _shaped(DiagonalNormal(mean, _like(log_std + np.log(half), mean)), space)


def tanh_normal_head(space: spaces.Box, log_std_range: tuple[float, float] = (-5.0, 2.0)
                     ) -> ActionHead:
    """Return the head of SAC for a bounded Box of d entries.

    Its outputs are [..., 2 d]: means before tanh, and log deviations, which another tanh brings
    into `log_std_range`. Actions keep the space's shape and are within it.
    """
    low, high = finite_bounds(space)
    low = low.reshape(-1)
    high = high.reshape(-1)
    least, most = log_std_range

    def tanh_normal(outputs: Float[Array, "*batch outputs"], log_std: None = None, mask: None = None
                    ) -> TanhNormal | Reshaped:
        if log_std is not None or mask is not None:
            raise ValueError("a tanh-normal's log_std is among its outputs, and it has no "
                             "legal-action mask")
        mean, log_std = jnp.split(outputs.astype(jnp.float32), 2, axis=-1)
        log_std = least + 0.5 * (most - least) * (jnp.tanh(log_std) + 1.0)
        # batch axes on all arrays
        vector = TanhNormal(mean, log_std, _like(low, mean), _like(high, mean))
        return _shaped(vector, space)

    return ActionHead(size=2 * low.size, log_std_size=0, distribution=tanh_normal)


def _shaped(vector: Any, space: spaces.Box) -> Any:
    """Return a distribution over vectors as one over actions of the space."""
    return vector if len(space.shape) == 1 else Reshaped(vector, space.shape)


def finite_bounds(space: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds (low, high) of a Box, float32 arrays of its shape.

    Raises TypeError for another space, ValueError if a bound is infinite or an entry has no range.
    """
    if not isinstance(space, spaces.Box):
        raise TypeError(f"continuous actions within bounds need a Box action space, not {space}")
    low, high = _bounds(space)
    if not space.bounded:
        raise ValueError(f"actions are squashed to their bounds, but {space} has infinite ones: "
                         "set finite bounds")
    if not np.all(low < high):
        raise ValueError(f"actions are squashed to their bounds, but {space} has entries that "
                         "leave no range")
    return low, high


def squash(u: Float[Array, "*batch d"], low: ArrayLike, high: ArrayLike
           ) -> Float[Array, "*batch d"]:
    """Return center + half * tanh(u), within the bounds exactly.

    low, high: finite, numbers or of u's last axes.
    """
    center, half = _center_half(low, high, u)
    # rounding may overshoot
    return jnp.clip(center + half * jnp.tanh(u), _like(low, u), _like(high, u))


def _bounds(box: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    low = np.broadcast_to(np.asarray(box.low, np.float32), box.shape)
    return low, np.broadcast_to(np.asarray(box.high, np.float32), box.shape)


def _center_half(low: ArrayLike, high: ArrayLike, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    low = _like(low, target)
    high = _like(high, target)
    return 0.5 * (low + high), 0.5 * (high - low)


def _logits(outputs: Float[Array, "*batch n"], mask: Bool[Array, "*batch n"] | None
            ) -> Float[Array, "*batch n"]:
    logits = outputs.astype(jnp.float32)   # bfloat16 networks: probabilities still need float32
    return logits if mask is None else masked_logits(logits, mask)


def _scale(box: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Return (center, half the range) of each entry, flat; (0, 1) where it is not bounded."""
    low, high = _bounds(box)
    low = low.reshape(-1)
    high = high.reshape(-1)
    bounded = np.isfinite(low) & np.isfinite(high) & (low < high)
    low = np.where(bounded, low, -1.0)
    high = np.where(bounded, high, 1.0)
    return (0.5 * (low + high)).astype(np.float32), (0.5 * (high - low)).astype(np.float32)


def _like(x: ArrayLike, target: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.asarray(x, target.dtype), target.shape)


def _normal_log_prob(x: jax.Array, mean: ArrayLike, log_std: ArrayLike) -> jax.Array:
    return -0.5 * jnp.square((x - mean) * jnp.exp(-log_std)) - log_std - _LOG_SQRT_2PI
