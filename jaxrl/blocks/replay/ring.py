"""A ring of rows: the last `length` steps of N environments in lockstep, and the places in it where an item may start.

A row is one step of all environments, a tree of arrays [N, ...]; the ring keeps them as [length, N, ...]. Rows are
written where the oldest were, a block of consecutive ones at a time. The age order of a row is its number counted from
the oldest row that is held.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Ring(NamedTuple):
    rows: Any               # leaves [length, N, ...]
    head: jax.Array         # int32: where the next row goes
    size: jax.Array         # int32: rows held, at most `length`


class Reach(NamedTuple):
    """Which rows an item needs, in Python integers: where it may start follows from them."""

    behind: int             # rows before its first one
    ahead: int              # rows from its first one on
    period: int = 1         # items start at rows 0, period, 2 period, ... of the ring, which it divides


def init(row: Any, length: int) -> Ring:
    """An empty ring for rows like `row`, arrays (or their shapes) [N, ...]."""
    rows = jax.tree.map(lambda x: jnp.zeros((length, *x.shape), x.dtype), row)
    return Ring(rows, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def shape(ring: Ring) -> tuple[int, int]:
    """(length, number of environments)."""
    return jax.tree.leaves(ring.rows)[0].shape[:2]


def insert(ring: Ring, rows: Any) -> Ring:
    """After T more rows [T, N, ...]. T is the same every time and divides the length, so a block never wraps.

    One contiguous write per leaf, in place where the ring is donated.
    """
    def write(held, new):
        ours, given = ((x.dtype, x.shape[1:]) for x in (held, new))
        if ours != given:
            raise ValueError(f"the replay holds rows of {ours[0]}{list(ours[1])}, not of {given[0]}{list(given[1])}")
        return jax.lax.dynamic_update_slice_in_dim(held, new, ring.head, axis=0)

    held, count = jax.tree.map(write, ring.rows, rows), jax.tree.leaves(rows)[0].shape[0]
    length, _ = shape(ring)
    return Ring(held, (ring.head + count) % length, jnp.minimum(ring.size + count, length))


def take(rows: Any, row: jax.Array, env: jax.Array) -> Any:
    """The steps at (row, env), integers of one shape; rows beyond an end of the ring are counted on from the other."""
    def leaf(x):
        return x.at[row % x.shape[0], env].get(mode="promise_in_bounds")

    return jax.tree.map(leaf, rows)


def starts(ring: Ring, reach: Reach) -> tuple[jax.Array, jax.Array]:
    """(the first row where an item may start, how many such rows there are): the others follow at each period.

    From there on everything an item needs is held, and no newer row lies in between.
    """
    length, _ = shape(ring)
    oldest = (ring.head - ring.size) % length
    first = reach.behind + (-(oldest + reach.behind)) % reach.period
    count = (ring.size - reach.ahead - first) // reach.period + 1
    return (oldest + first) % length, jnp.maximum(count, 0)


def may_start(ring: Ring, reach: Reach, row: jax.Array, newer: int = 0) -> jax.Array:
    """Whether all that an item starting at `row` needs is held: it, and `newer` rows or more after its last one."""
    length, _ = shape(ring)
    age = (row - ring.head + ring.size) % length
    return (age >= reach.behind) & (age + reach.ahead + newer <= ring.size)


def place(ring: Ring, reach: Reach, position: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(row, environment) of an item's number: starts are counted along the ring, one after another by environment."""
    _, envs = shape(ring)
    return position // envs * reach.period, position % envs
