"""A ring of rows: the last `length` steps of N environments in lockstep.

A row is one step of all environments, a tree of arrays [N, ...]; the ring keeps them as [length, N,
...]. New rows replace the oldest ones, a block of consecutive rows at a time. The age of a row is
its number, counted from the oldest row that is held. This file also knows where in the ring an item
may start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Int


class Ring(NamedTuple):
    """The rows, and where the next one goes."""

    rows: Any               # leaves [length, N, ...]
    head: jax.Array         # int32: where the next row goes
    size: jax.Array         # int32: rows held, at most `length`


class Reach(NamedTuple):
    """The rows that an item needs, in Python integers: they determine where it may start."""

    behind: int             # rows before its first one
    ahead: int              # rows from its first one on
    period: int = 1         # items start at rows 0, period, 2 period, ...; it divides the length


def init(row: Any, length: int) -> Ring:
    """Return an empty ring for rows like `row`, arrays (or their shapes) [N, ...]."""
    rows = jax.tree.map(lambda x: jnp.zeros((length, *x.shape), x.dtype), row)
    return Ring(rows, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def shape(ring: Ring) -> tuple[int, int]:
    """Return (length, number of environments)."""
    return jax.tree.leaves(ring.rows)[0].shape[:2]


def insert(ring: Ring, rows: Any) -> Ring:
    """Return the ring after T more rows [T, N, ...].

    T is the same every time and divides the length, so a block never wraps. There is one contiguous
    write per leaf, in place where the ring is donated. Raises ValueError if the rows have another
    dtype or shape.
    """
    def write(held: jax.Array, new: jax.Array) -> jax.Array:
        expected = (held.dtype, held.shape[1:])
        given = (new.dtype, new.shape[1:])
        if expected != given:
            raise ValueError(f"the replay holds rows of {expected[0]}{list(expected[1])}, not of "
                             f"{given[0]}{list(given[1])}")
        return jax.lax.dynamic_update_slice_in_dim(held, new, ring.head, axis=0)

    held = jax.tree.map(write, ring.rows, rows)
    count = jax.tree.leaves(rows)[0].shape[0]
    length, _ = shape(ring)
    return Ring(held, (ring.head + count) % length, jnp.minimum(ring.size + count, length))


def take(rows: Any, row: Int[Array, "*shape"], env: Int[Array, "*shape"]) -> Any:
    """Return the steps at (row, env). Rows beyond an end of the ring continue at its other end."""
    def leaf(x: jax.Array) -> jax.Array:
        return x.at[row % x.shape[0], env].get(mode="promise_in_bounds")

    return jax.tree.map(leaf, rows)


def starts(ring: Ring, reach: Reach) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Return (the first row where an item may start, the number of such rows, one at each period).

    From a start on, all rows that an item needs are held, and no newer row is between them.
    """
    length, _ = shape(ring)
    oldest = (ring.head - ring.size) % length
    first = reach.behind + (-(oldest + reach.behind)) % reach.period
    count = (ring.size - reach.ahead - first) // reach.period + 1
    return (oldest + first) % length, jnp.maximum(count, 0)


def may_start(ring: Ring, reach: Reach, row: Int[Array, "*shape"], newer: int = 0
              ) -> Bool[Array, "*shape"]:
    """Return True where an item may start at `row`: its rows are held, and `newer` rows after them.
    """
    length, _ = shape(ring)
    age = (row - ring.head + ring.size) % length
    return (age >= reach.behind) & (age + reach.ahead + newer <= ring.size)


def place(ring: Ring, reach: Reach, number: Int[Array, "*shape"]
          ) -> tuple[Int[Array, "*shape"], Int[Array, "*shape"]]:
    """Return (row, environment) of items by their numbers.

    Items are numbered along the ring, and at each start by environment.
    """
    _, envs = shape(ring)
    return number // envs * reach.period, number % envs
