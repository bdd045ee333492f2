"""Draws of items from a replay: uniform, or by priority."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl.blocks.losses.value import importance_weights
from jaxrl.blocks.replay import ring as rings
from jaxrl.blocks.replay import tree
from jaxrl.blocks.replay.ring import Reach, Ring

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

# Draws per item where items cannot start everywhere. If they cannot at 1 place in 6, all fail for 1
# item in 10^12.
TRIES = 16

# Bounds of priorities. No item is ever dead, and the sum of any number of them is finite.
SMALLEST = 1e-25
LARGEST = 1e25


class Draw(Protocol):
    """A way to choose items by their numbers, as pure functions of its state.

    startable: (rows, row, env) -> bool, False where no item can start, or None.
    """

    def init(self, items: int) -> Any:
        """Return the state for a number of items."""

    def insert(self, state: Any, ring: Ring, reach: Reach, startable: Callable | None, count: int
               ) -> Any:
        """Return the state after `count` rows came; `ring` holds them already."""

    def pick(self, state: Any, ring: Ring, reach: Reach, startable: Callable | None, key: jax.Array,
             batch_size: int, beta: ArrayLike) -> tuple[jax.Array, jax.Array]:
        """Return (number int32 [B], weight float32 [B]) of the items drawn."""

    def update(self, state: Any, ring: Ring, reach: Reach, startable: Callable | None,
               number: jax.Array, priority: jax.Array, alpha: ArrayLike) -> Any:
        """Return the state with priorities [B] of the items with these numbers [B]."""


class Uniform:
    """Every item with the same chance, with replacement.

    All weights are 1, or 0 where there was nothing to draw.
    """

    def init(self, items: int) -> tuple:
        return ()

    def insert(self, state: tuple, ring: Ring, reach: Reach, startable: Callable | None, count: int
               ) -> tuple:
        return state

    def pick(self, state: tuple, ring: Ring, reach: Reach, startable: Callable | None,
             key: PRNGKeyArray, batch_size: int, beta: ArrayLike
             ) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
        length, envs = rings.shape(ring)
        first, count = rings.starts(ring, reach)
        tries = 1 if startable is None else TRIES
        items = jnp.maximum(count * envs, 1)
        drawn = jax.random.randint(key, (tries, batch_size), 0, items, jnp.int32)
        row = (first + drawn // envs * reach.period) % length
        env = drawn % envs
        good = jnp.broadcast_to(count > 0, drawn.shape)
        if startable is not None:
            good &= startable(ring.rows, row, env)
        numbers = row // reach.period * envs + env
        number = jnp.take_along_axis(numbers, jnp.argmax(good, axis=0)[None], axis=0)[0]
        return number, jnp.any(good, axis=0).astype(jnp.float32)

    def update(self, state: tuple, ring: Ring, reach: Reach, startable: Callable | None,
               number: Int[Array, " B"], priority: Float[Array, " B"], alpha: ArrayLike) -> tuple:
        return state


def uniform() -> Uniform:
    """Return the draw in which every item has the same chance."""
    return Uniform()


class Priorities(NamedTuple):
    """The state of a prioritized draw."""

    sums: jax.Array          # tree.py: p^alpha of every item, 0 where none can start at the moment
    highest: jax.Array       # the largest leaf so far


class Prioritized:
    """Proportional prioritization (Schaul et al. 2016, arXiv:1511.05952, section 3.3, algorithm 1).

    P(i) = p_i^alpha / sum, with one draw from each of B equal strata of the sum. Weights are (N
    P(i))^-beta over the largest of the batch, so that N cancels. New items get the largest leaf so
    far. Probabilities are exact to 2^-24 of the sum. Weights are 0 where there was nothing to draw.
    """

    def init(self, items: int) -> Priorities:
        return Priorities(tree.init(items), jnp.ones((), jnp.float32))

    def insert(self, state: Priorities, ring: Ring, reach: Reach, startable: Callable | None,
               count: int) -> Priorities:
        """Update all items whose rows were written: a few before the new rows and a few after."""
        length, envs = rings.shape(ring)
        items = length // reach.period
        width = touched(reach, count)
        first = (ring.head - count - reach.ahead + 1) // reach.period % items

        def segment(i: jax.Array, sums: jax.Array) -> jax.Array:
            # the second segment, if the items go around the end
            start = jnp.where(i == 0, jnp.minimum(first, items - width), 0)
            row = (start + jnp.arange(width, dtype=jnp.int32)) * reach.period
            old = tree.get_range(sums, start * envs, width * envs).reshape(width, envs)
            held = rings.may_start(ring, reach, row, 0)[:, None]
            held_before = rings.may_start(ring, reach, row, count)[:, None]
            new = jnp.where(held_before, old, state.highest)
            if startable is not None:
                env = jnp.arange(envs, dtype=jnp.int32)
                new *= startable(ring.rows, *jnp.broadcast_arrays(row[:, None], env[None]))
            return tree.set_range(sums, start * envs, jnp.where(held, new, 0.0).reshape(-1))

        return state._replace(sums=jax.lax.fori_loop(0, 2, segment, state.sums))

    def pick(self, state: Priorities, ring: Ring, reach: Reach, startable: Callable | None,
             key: PRNGKeyArray, batch_size: int, beta: ArrayLike
             ) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
        strata = jnp.arange(batch_size) + jax.random.uniform(key, (batch_size,))
        number, leaf = tree.find(state.sums, strata / batch_size * tree.total(state.sums))
        return number, importance_weights(leaf, beta)

    def update(self, state: Priorities, ring: Ring, reach: Reach, startable: Callable | None,
               number: Int[Array, " B"], priority: Float[Array, " B"], alpha: ArrayLike
               ) -> Priorities:
        priority = jnp.where(priority >= SMALLEST, priority, SMALLEST)          # which NaN is not
        row, env = rings.place(ring, reach, number)
        good = rings.may_start(ring, reach, row)       # may have changed since the item was drawn
        if startable is not None:
            good &= startable(ring.rows, row, env)
        leaf = jnp.where(good, jnp.minimum(priority, LARGEST) ** alpha, 0.0)
        sums = tree.set_max(state.sums, number, leaf)
        return Priorities(sums, jnp.maximum(state.highest, jnp.max(leaf)))


def prioritized() -> Prioritized:
    """Return the draw by priority."""
    return Prioritized()


def touched(reach: Reach, count: int) -> int:
    """Return how many consecutive starts may change when `count` rows are written."""
    rows = count + reach.ahead - 1 + reach.behind
    return rows if reach.period == 1 else (rows - 1) // reach.period + 2
