"""Spaces: what an observation or an action may be. Immutable values with `sample` and `contains`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Discrete:
    """One of `n` actions, 0 .. n-1, as an int32 scalar."""

    n: int
    shape: ClassVar[tuple[int, ...]] = ()
    dtype: ClassVar[Any] = jnp.int32

    def sample(self, key: jax.Array) -> jax.Array:
        """A uniform element."""
        return jax.random.randint(key, (), 0, self.n, self.dtype)

    def contains(self, x: Any) -> bool:
        """Whether `x` is an element."""
        x = np.asarray(x)
        return x.shape == () and np.issubdtype(x.dtype, np.integer) and bool(0 <= x < self.n)

    def __str__(self) -> str:
        return f"Discrete({self.n})"


@dataclass(frozen=True)
class MultiDiscrete:
    """Several independent choices at once: an int32 vector, entry i in 0 .. nvec[i]-1."""

    nvec: tuple[int, ...]
    dtype: ClassVar[Any] = jnp.int32

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an element."""
        return (len(self.nvec),)

    def sample(self, key: jax.Array) -> jax.Array:
        """A uniform element."""
        return jax.random.randint(key, self.shape, 0, jnp.asarray(self.nvec), self.dtype)

    def contains(self, x: Any) -> bool:
        """Whether `x` is an element."""
        x = np.asarray(x)
        return x.shape == self.shape and np.issubdtype(x.dtype, np.integer) and bool(np.all((x >= 0) & (x < self.nvec)))

    def __str__(self) -> str:
        return f"MultiDiscrete({list(self.nvec)})"


@dataclass(frozen=True)
class Box:
    """An array of `shape` with entries in [low, high]; a bound is a number, or one per entry (nested tuples)."""

    low: Any
    high: Any
    shape: tuple[int, ...]
    dtype: Any = jnp.float32

    def sample(self, key: jax.Array) -> jax.Array:
        """Uniform where the box is bounded; standard normal, folded at a single finite bound, where it is not."""
        low, high = (np.broadcast_to(np.asarray(b, np.float32), self.shape) for b in (self.low, self.high))
        from_below, from_above = np.isfinite(low), np.isfinite(high)
        bounded = from_below & from_above
        start, stop = np.where(from_below, low, 0.0), np.where(from_above, high, 0.0)
        uniform_key, normal_key = jax.random.split(key)
        whole = np.issubdtype(self.dtype, np.integer)           # then the upper bound is an element, too
        uniform = start + jax.random.uniform(uniform_key, self.shape) * np.where(bounded, stop - start + whole, 0.0)
        normal = jax.random.normal(normal_key, self.shape)
        normal = jnp.where(from_below, start + jnp.abs(normal), jnp.where(from_above, stop - jnp.abs(normal), normal))
        drawn = jnp.clip(jnp.where(bounded, jnp.floor(uniform) if whole else uniform, normal), low, high)
        return drawn.astype(self.dtype)

    def contains(self, x: Any) -> bool:
        """Whether `x` is an element."""
        x = np.asarray(x)
        if x.shape != self.shape or not np.can_cast(x.dtype, self.dtype, "same_kind"):
            return False
        low, high = (np.asarray(b).astype(x.dtype if np.isfinite(b).all() else np.float32)
                     for b in (self.low, self.high))
        return bool(np.all((x >= low) & (x <= high)))

    @property
    def bounded(self) -> bool:
        """Whether every bound is finite."""
        return bool(np.all(np.isfinite(self.low)) and np.all(np.isfinite(self.high)))

    def __str__(self) -> str:
        short = lambda b: f"{b:.4g}" if np.ndim(b) == 0 else f"[{', '.join(map(short, b))}]"
        return f"Box({short(self.low)}, {short(self.high)}, {self.shape})"


Space = Discrete | MultiDiscrete | Box


def zeros(space: Any, batch: tuple[int, ...] = ()) -> Any:
    """A batch of zeros of a space, or of a pytree of spaces."""
    return jax.tree.map(lambda s: jnp.zeros(batch + s.shape, s.dtype), space, is_leaf=lambda s: isinstance(s, Space))


def contains(space: Any, x: Any) -> bool:
    """Whether `x` is an element of `space`, leaf by leaf where the space is a pytree (dict observations)."""
    leaves, structure = jax.tree.flatten(space, is_leaf=lambda s: isinstance(s, Space))
    values, have = jax.tree.flatten(x)
    return structure == have and all(s.contains(v) for s, v in zip(leaves, values))


def as_bound(array: np.ndarray) -> Any:
    """The bound of a Box: a number where all entries are equal, else nested tuples, which can be hashed."""
    array = np.asarray(array)
    return array.flat[0].item() if array.size and np.all(array == array.flat[0]) else _tuples(array.tolist())


def _tuples(nested: Any) -> Any:
    return tuple(map(_tuples, nested)) if isinstance(nested, list) else nested
