"""Distributions over actions: NamedTuples of arrays with any number of leading batch axes.

Each has sample(key), mode(), log_prob(action) and, where it has a closed form, entropy(). Choices are int32.
`action_head` says what an action space asks of a network and turns the network's outputs into a distribution.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax import spaces

__all__ = ["ActionHead", "Categorical", "DiagonalNormal", "Distribution", "MultiCategorical", "Reshaped", "TanhNormal",
           "action_head", "finite_bounds", "masked_logits", "squash", "tanh_normal_head"]

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


class Distribution(Protocol):
    """What an algorithm may ask of an action distribution."""

    def sample(self, key: jax.Array) -> jax.Array: ...
    def mode(self) -> jax.Array: ...
    def log_prob(self, action: jax.Array) -> jax.Array: ...
    def entropy(self) -> jax.Array: ...


class Categorical(NamedTuple):
    """One of n choices. logits [..., n], unnormalised; actions [...] int32."""

    logits: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.categorical(key, self.logits).astype(jnp.int32)

    def mode(self) -> jax.Array:
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def log_prob(self, action: jax.Array) -> jax.Array:
        log_p = jax.nn.log_softmax(self.logits)
        n = self.logits.shape[-1]
        chosen = jnp.expand_dims(action, -1) == jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), log_p.shape)
        return jnp.sum(jnp.where(chosen, log_p, 0.0), axis=-1)   # not a gather: its gradient would be a scatter

    def entropy(self) -> jax.Array:
        log_p = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


class MultiCategorical(NamedTuple):
    """Independent choices. Actions [..., len(parts)] int32; log-probabilities and entropies add up."""

    parts: tuple[Categorical, ...]

    def sample(self, key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, len(self.parts))
        return jnp.stack([part.sample(k) for part, k in zip(self.parts, keys)], axis=-1)

    def mode(self) -> jax.Array:
        return jnp.stack([part.mode() for part in self.parts], axis=-1)

    def log_prob(self, action: jax.Array) -> jax.Array:
        return sum(part.log_prob(action[..., i]) for i, part in enumerate(self.parts))

    def entropy(self) -> jax.Array:
        return sum(part.entropy() for part in self.parts)


class DiagonalNormal(NamedTuple):
    """Independent normals over the last axis, which log-probability and entropy sum over.

    mean [..., d]; log_std [..., d], or [d] for all alike.
    """

    mean: jax.Array
    log_std: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(_like(self.log_std, self.mean)) * noise

    def mode(self) -> jax.Array:
        return self.mean

    def log_prob(self, action: jax.Array) -> jax.Array:
        return jnp.sum(_normal_log_prob(action, self.mean, _like(self.log_std, self.mean)), axis=-1)

    def entropy(self) -> jax.Array:
        return jnp.sum(0.5 + _LOG_SQRT_2PI + _like(self.log_std, self.mean), axis=-1)


class TanhNormal(NamedTuple):
    """centre + half * tanh(u), u from a diagonal normal (Haarnoja et al. 2018, arXiv:1801.01290, appendix C).

    mean, log_std as in DiagonalNormal; low, high: finite bounds, numbers or [d]. Its entropy has no closed form.
    """

    mean: jax.Array
    log_std: jax.Array
    low: Any = -1.0
    high: Any = 1.0

    def sample(self, key: jax.Array) -> jax.Array:
        return squash(DiagonalNormal(self.mean, self.log_std).sample(key), self.low, self.high)

    def sample_and_log_prob(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Exact also where tanh rounds to 1, since it never inverts it; differentiable through the sample."""
        log_std = _like(self.log_std, self.mean)
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        u = self.mean + jnp.exp(log_std) * noise
        log_normal = _normal_log_prob(noise, 0.0, 0.0) - log_std      # not from u, which is rounded: mean + tiny noise
        return squash(u, self.low, self.high), jnp.sum(log_normal - self._log_slope(u), axis=-1)

    def mode(self) -> jax.Array:
        """The image of the normal's mode (and the median), which is what a deterministic policy plays."""
        return squash(self.mean, self.low, self.high)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Of an action in the units of the environment. Within 1e-7 of the bounds the inverse of tanh saturates."""
        centre, half = _centre_half(self.low, self.high, self.mean)
        limit = 1.0 - jnp.finfo(self.mean.dtype).eps
        return self.log_prob_unsquashed(jnp.arctanh(jnp.clip((action - centre) / half, -limit, limit)))

    def log_prob_unsquashed(self, u: jax.Array) -> jax.Array:
        """The density of the action centre + half * tanh(u), given u."""
        log_normal = _normal_log_prob(u, self.mean, _like(self.log_std, self.mean))
        return jnp.sum(log_normal - self._log_slope(u), axis=-1)

    def _log_slope(self, u: jax.Array) -> jax.Array:
        """Of the action by u. log(1 - tanh^2 u) is in a form that cannot underflow: 2 (log 2 - u - softplus(-2u))."""
        _, half = _centre_half(self.low, self.high, u)
        return 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u)) + jnp.log(half)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reshaped:
    """A distribution over vectors [..., d] whose actions have `shape` in place of the last axis, prod(shape) = d."""

    base: Any
    shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    def sample(self, key: jax.Array) -> jax.Array:
        return self._unflatten(self.base.sample(key))

    def mode(self) -> jax.Array:
        return self._unflatten(self.base.mode())

    def sample_and_log_prob(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Where the base has it."""
        action, log_prob = self.base.sample_and_log_prob(key)
        return self._unflatten(action), log_prob

    def log_prob(self, action: jax.Array) -> jax.Array:
        batch = action.shape[:action.ndim - len(self.shape)]
        return self.base.log_prob(jnp.reshape(action, (*batch, -1)))

    def entropy(self) -> jax.Array:
        return self.base.entropy()

    def _unflatten(self, action: jax.Array) -> jax.Array:
        return jnp.reshape(action, action.shape[:-1] + self.shape)


def masked_logits(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Logits with illegal choices (mask False) at a large finite negative number.

    Their probability is then exactly 0 and so is their part of entropy and gradient; with -inf it would be NaN.
    """
    illegal = max(-1e9, float(jnp.finfo(logits.dtype).min) / 2)
    return jnp.where(mask, logits, jnp.asarray(illegal, logits.dtype))


class ActionHead(NamedTuple):
    """What an action space asks of a policy network.

    distribution(outputs [..., size], log_std [log_std_size] or None, mask or None) -> Distribution. log_std is a
    parameter that does not depend on the state, in the units of the outputs; mask is [..., size] bool.
    """

    size: int
    log_std_size: int        # 0: there is none
    distribution: Callable[..., Distribution]


def action_head(space: spaces.Space) -> ActionHead:
    """The head for an action space. Actions keep the space's shape; those of a Box are not clipped to it.

    Box: a diagonal normal. Where an entry is bounded, the outputs and the standard deviation are in units of half its
    range around its centre, so that one initialisation suits all; elsewhere they are in the action's own units.
    """
    match space:
        case spaces.Discrete(n):
            def categorical(outputs, log_std=None, mask=None):
                return Categorical(_logits(outputs, mask))

            return ActionHead(n, 0, categorical)
        case spaces.MultiDiscrete(nvec):
            cuts = [int(c) for c in np.cumsum(nvec)[:-1]]

            def multi_categorical(outputs, log_std=None, mask=None):
                return MultiCategorical(tuple(map(Categorical, jnp.split(_logits(outputs, mask), cuts, axis=-1))))

            return ActionHead(int(sum(nvec)), 0, multi_categorical)
        case spaces.Box():
            size = math.prod(space.shape)
            centre, half = _centre_and_half(space)

            def normal(outputs, log_std=None, mask=None):
                if log_std is None or mask is not None:
                    raise ValueError("a Box action space needs a log_std, and has no legal-action mask")
                outputs = outputs.astype(jnp.float32)
                mean = _like(centre, outputs) + _like(half, outputs) * outputs
                vector = DiagonalNormal(mean, _like(log_std + np.log(half), mean))
                return vector if len(space.shape) == 1 else Reshaped(vector, space.shape)

            return ActionHead(size, size, normal)
    raise TypeError(f"no action head for {space}: expected Discrete, MultiDiscrete or Box")


def tanh_normal_head(space: spaces.Box, log_std_range: tuple[float, float] = (-5.0, 2.0)) -> ActionHead:
    """The head of SAC for a bounded Box of d entries: outputs [..., 2 d], means before tanh and log deviations.

    The latter are brought into `log_std_range` by another tanh. Actions keep the space's shape and are within it.
    """
    low, high = (bound.reshape(-1) for bound in finite_bounds(space))
    least, most = log_std_range

    def tanh_normal(outputs, log_std=None, mask=None):
        if log_std is not None or mask is not None:
            raise ValueError("a tanh-normal's log_std is among its outputs, and it has no legal-action mask")
        mean, log_std = jnp.split(outputs.astype(jnp.float32), 2, axis=-1)
        log_std = least + 0.5 * (most - least) * (jnp.tanh(log_std) + 1.0)
        vector = TanhNormal(mean, log_std, _like(low, mean), _like(high, mean))     # batch axes on all of its arrays
        return vector if len(space.shape) == 1 else Reshaped(vector, space.shape)

    return ActionHead(2 * low.size, 0, tanh_normal)


def finite_bounds(space: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """The bounds of a Box, float32 arrays of its shape, for what squashes or clips actions to them."""
    if not isinstance(space, spaces.Box):
        raise TypeError(f"continuous actions within bounds need a Box action space, not {space}")
    low, high = (np.broadcast_to(np.asarray(b, np.float32), space.shape) for b in (space.low, space.high))
    if not space.bounded:
        raise ValueError(f"actions are squashed to their bounds, but {space} has infinite ones: set finite bounds")
    if not np.all(low < high):
        raise ValueError(f"actions are squashed to their bounds, but {space} has entries that leave no range")
    return low, high


def squash(u, low, high) -> jax.Array:
    """centre + half * tanh(u), within the bounds exactly. low, high: finite, numbers or of u's last axes."""
    centre, half = _centre_half(low, high, u)
    return jnp.clip(centre + half * jnp.tanh(u), _like(low, u), _like(high, u))   # rounding may overshoot


def _centre_half(low, high, target) -> tuple[jax.Array, jax.Array]:
    low, high = _like(low, target), _like(high, target)
    return 0.5 * (low + high), 0.5 * (high - low)


def _logits(outputs, mask) -> jax.Array:
    logits = outputs.astype(jnp.float32)   # bfloat16 networks: probabilities still need float32
    return logits if mask is None else masked_logits(logits, mask)


def _centre_and_half(box: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    low, high = (np.broadcast_to(np.asarray(b, np.float32), box.shape).reshape(-1) for b in (box.low, box.high))
    bounded = np.isfinite(low) & np.isfinite(high) & (low < high)
    low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    return (0.5 * (low + high)).astype(np.float32), (0.5 * (high - low)).astype(np.float32)


def _like(x, target) -> jax.Array:
    return jnp.broadcast_to(jnp.asarray(x, target.dtype), target.shape)


def _normal_log_prob(x, mean, log_std) -> jax.Array:
    return -0.5 * jnp.square((x - mean) * jnp.exp(-log_std)) - log_std - _LOG_SQRT_2PI
