"""Spaces of observations and actions: immutable values with `sample` and `contains`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Array, Int, Key


@dataclass(frozen=True)
class Discrete:
    """One of `n` choices, 0 .. n-1, as an int32 scalar."""

    n: int
    shape: ClassVar[tuple[int, ...]] = ()
    dtype: ClassVar[Any] = jnp.int32

    def sample(self, key: Key[Array, ""]) -> Int[Array, ""]:
        """Draw a uniform element."""
        return jax.random.randint(key, (), 0, self.n, self.dtype)

    def contains(self, x: Any) -> bool:
        """Return True if `x` is an element."""
        x = np.asarray(x)
        is_whole = np.issubdtype(x.dtype, np.integer)
        return x.shape == () and is_whole and bool(0 <= x < self.n)

    def __str__(self) -> str:
        return f"Discrete({self.n})"


@dataclass(frozen=True)
class MultiDiscrete:
    """Several independent choices: an int32 vector with entry i in 0 .. nvec[i]-1."""

    nvec: tuple[int, ...]
    dtype: ClassVar[Any] = jnp.int32

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an element."""
        return (len(self.nvec),)

    def sample(self, key: Key[Array, ""]) -> Int[Array, " choices"]:
        """Draw a uniform element."""
        return jax.random.randint(key, self.shape, 0, jnp.asarray(self.nvec), self.dtype)

    def contains(self, x: Any) -> bool:
        """Return True if `x` is an element."""
        x = np.asarray(x)
        if x.shape != self.shape or not np.issubdtype(x.dtype, np.integer):
            return False
        return bool(np.all((x >= 0) & (x < self.nvec)))

    def __str__(self) -> str:
        return f"MultiDiscrete({list(self.nvec)})"


@dataclass(frozen=True)
class Box:
    """An array of `shape` with entries in [low, high].

    A bound is one number for all entries, or nested tuples with one number for each entry.
    """

    low: Any
    high: Any
    shape: tuple[int, ...]
    dtype: Any = jnp.float32

    def sample(self, key: Key[Array, ""]) -> Array:
        """Draw an element of `shape`.

        Entries with two finite bounds are uniform. Entries without a finite bound are standard
        normal; a single finite bound folds the normal distribution.
        """
        low = np.broadcast_to(np.asarray(self.low, np.float32), self.shape)
        high = np.broadcast_to(np.asarray(self.high, np.float32), self.shape)
        has_low = np.isfinite(low)
        has_high = np.isfinite(high)
        bounded = has_low & has_high
        start = np.where(has_low, low, 0.0)
        stop = np.where(has_high, high, 0.0)
        uniform_key, normal_key = jax.random.split(key)
        whole = np.issubdtype(self.dtype, np.integer)      # the upper bound is an element, too
        width = np.where(bounded, stop - start + whole, 0.0)
        uniform = start + jax.random.uniform(uniform_key, self.shape) * width
        normal = jax.random.normal(normal_key, self.shape)
        normal = jnp.where(has_low, start + jnp.abs(normal),
                           jnp.where(has_high, stop - jnp.abs(normal), normal))
        if whole:
            uniform = jnp.floor(uniform)
        return jnp.clip(jnp.where(bounded, uniform, normal), low, high).astype(self.dtype)

    def contains(self, x: Any) -> bool:
        """Return True if `x` is an element."""
        x = np.asarray(x)
        if x.shape != self.shape or not np.can_cast(x.dtype, self.dtype, "same_kind"):
            return False
        low = _comparable(self.low, x.dtype)
        high = _comparable(self.high, x.dtype)
        return bool(np.all((x >= low) & (x <= high)))

    @property
    def bounded(self) -> bool:
        """True if every bound is finite."""
        return bool(np.all(np.isfinite(self.low)) and np.all(np.isfinite(self.high)))

    def __str__(self) -> str:
        return f"Box({_short(self.low)}, {_short(self.high)}, {self.shape})"


Space = Discrete | MultiDiscrete | Box


def zeros(space: Any, batch: tuple[int, ...] = ()) -> Any:
    """Return a batch of zeros of a space, or of a pytree of spaces; leaves [*batch, *shape]."""
    return jax.tree.map(lambda s: jnp.zeros(batch + s.shape, s.dtype), space, is_leaf=_is_space)


def contains(space: Any, x: Any) -> bool:
    """Return True if `x` is an element of `space`, which may be a pytree of spaces."""
    leaves, structure = jax.tree.flatten(space, is_leaf=_is_space)
    values, value_structure = jax.tree.flatten(x)
    if structure != value_structure:
        return False
    return all(leaf.contains(value) for leaf, value in zip(leaves, values))


def as_bound(array: np.ndarray) -> Any:
    """Return the hashable bound of a Box: one number if all entries are equal, or nested tuples."""
    array = np.asarray(array)
    if array.size and np.all(array == array.flat[0]):
        return array.flat[0].item()
    return _tuples(array.tolist())


def _is_space(x: Any) -> bool:
    return isinstance(x, Space)


def _comparable(bound: Any, dtype: Any) -> np.ndarray:
    """Return a bound in `dtype`, rounded as elements are; in float32 if it is infinite."""
    bound = np.asarray(bound)
    return bound.astype(dtype if np.isfinite(bound).all() else np.float32)


def _short(bound: Any) -> str:
    """Return the text of a bound: four digits for each number."""
    if np.ndim(bound) == 0:
        return f"{bound:.4g}"
    return f"[{', '.join(map(_short, bound))}]"


def _tuples(nested: Any) -> Any:
    return tuple(map(_tuples, nested)) if isinstance(nested, list) else nested
