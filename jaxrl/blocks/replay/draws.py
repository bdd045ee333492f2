"""Which items are drawn from a replay: all alike, or by priority."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.blocks.losses.value import importance_weights
from jaxrl.blocks.replay import ring as rings
from jaxrl.blocks.replay import tree
from jaxrl.blocks.replay.ring import Reach

TRIES = 16               # draws per item where some starts are none: all fail for 1 in 10^12 at 1 bad start in 6
SMALLEST, LARGEST = 1e-25, 1e25        # priorities stay between: never dead, and a sum of any number of them is finite


class Draw(NamedTuple):
    """A way to choose items by their numbers, as pure functions. `startable(rows, row, env)`, or None, tells starts.

    init   (number of items) -> what it remembers
    insert (memory, Ring after, Reach, startable, T) -> memory        after T rows came
    pick   (memory, Ring, Reach, startable, key, batch_size, beta) -> (number int32 [B], weight float32 [B])
    update (memory, Ring, Reach, startable, number [B], priority [B], alpha) -> memory
    """

    init: Callable
    insert: Callable
    pick: Callable
    update: Callable


def uniform() -> Draw:
    """Every item alike, with replacement; all weights 1, but 0 where there was nothing to draw."""

    def pick(memory, ring, reach, startable, key, batch_size, beta):
        length, envs = rings.shape(ring)
        first, count = rings.starts(ring, reach)
        tries = 1 if startable is None else TRIES
        drawn = jax.random.randint(key, (tries, batch_size), 0, jnp.maximum(count * envs, 1), jnp.int32)
        row, env = (first + drawn // envs * reach.period) % length, drawn % envs
        good = jnp.broadcast_to(count > 0, drawn.shape)
        if startable is not None:
            good &= startable(ring.rows, row, env)
        number = jnp.take_along_axis(row // reach.period * envs + env, jnp.argmax(good, axis=0)[None], axis=0)[0]
        return number, jnp.any(good, axis=0).astype(jnp.float32)

    return Draw(lambda items: (), lambda memory, *_: memory, pick, lambda memory, *_: memory)


class Priorities(NamedTuple):
    sums: jax.Array          # tree.py: p^alpha of every item, 0 where none can start at the moment
    highest: jax.Array       # the greatest leaf that ever was


def prioritised() -> Draw:
    """Proportional prioritisation (Schaul et al. 2016, arXiv:1511.05952, section 3.3 and algorithm 1).

    P(i) = p_i^alpha / sum, one draw from each of B equal strata of the sum. Weights (N P(i))^-beta over the greatest
    of the batch, so that N cancels. Newcomers get the highest leaf that ever was. Chances are exact to 2^-24 of the
    sum; 0 where there was nothing to draw.
    """

    def init(items):
        return Priorities(tree.init(items), jnp.ones((), jnp.float32))

    def insert(memory, ring, reach, startable, count):
        """Walk over all items whose rows were written or overwritten: a few before the new rows and a few after."""
        length, envs = rings.shape(ring)
        items = length // reach.period
        width = touched(reach, count)
        first = (ring.head - count - reach.ahead + 1) // reach.period % items

        def segment(i, sums):
            start = jnp.where(i == 0, jnp.minimum(first, items - width), 0)     # the second if it goes round the end
            row = (start + jnp.arange(width, dtype=jnp.int32)) * reach.period
            old = tree.get_range(sums, start * envs, width * envs).reshape(width, envs)
            held, before = (rings.may_start(ring, reach, row, newer)[:, None] for newer in (0, count))
            new = jnp.where(before, old, memory.highest)
            if startable is not None:
                env = jnp.arange(envs, dtype=jnp.int32)
                new *= startable(ring.rows, *jnp.broadcast_arrays(row[:, None], env[None]))
            return tree.set_range(sums, start * envs, jnp.where(held, new, 0.0).reshape(-1))

        return memory._replace(sums=jax.lax.fori_loop(0, 2, segment, memory.sums))

    def pick(memory, ring, reach, startable, key, batch_size, beta):
        strata = jnp.arange(batch_size) + jax.random.uniform(key, (batch_size,))
        number, leaf = tree.find(memory.sums, strata / batch_size * tree.total(memory.sums))
        return number, importance_weights(leaf, beta)

    def update(memory, ring, reach, startable, number, priority, alpha):
        priority = jnp.where(priority >= SMALLEST, priority, SMALLEST)          # which NaN is not
        row, env = rings.place(ring, reach, number)
        good = rings.may_start(ring, reach, row)                 # may have changed since the item was drawn
        if startable is not None:
            good &= startable(ring.rows, row, env)
        leaf = jnp.where(good, jnp.minimum(priority, LARGEST) ** alpha, 0.0)
        return Priorities(tree.set_max(memory.sums, number, leaf), jnp.maximum(memory.highest, jnp.max(leaf)))

    return Draw(init, insert, pick, update)


def touched(reach: Reach, count: int) -> int:
    """Of how many consecutive starts the standing may change when `count` rows are written."""
    rows = count + reach.ahead - 1 + reach.behind
    return rows if reach.period == 1 else (rows - 1) // reach.period + 2
