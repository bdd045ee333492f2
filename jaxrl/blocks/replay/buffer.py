"""Replay as a value: pure functions of a state, put together from how items are read and how they are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.blocks.replay import ring as rings
from jaxrl.blocks.replay.draws import Draw, touched
from jaxrl.blocks.replay.ring import Ring


class State(NamedTuple):
    ring: Ring
    carry: Any               # recurrent states at the starts of sequences, [starts, N, ...]; () if there are none
    memory: Any              # of the draw: priorities, or ()


class Replay(NamedTuple):
    """Replay bound to what is static, for N environments in lockstep. All sizes come from the state's shapes.

    A row is a tree that has the fields of `jaxrl.types.Trajectory`, one step of all environments: `input`, `reward`,
    `terminated`, `truncated`, and `final_input`: what really followed each step, before any reset. Without it (None)
    what followed is the input of the next row, so that no frame is held twice. A step that truncates has no such
    follower: no window starts there, and one that reaches it ends before it, with that row's own input to bootstrap
    from, which is exact and loses one transition per time limit.

    init      (row [N, ...], capacity, carry [N, ...] = ()) -> State       capacity: environment steps, rounded down
    insert    (State, rows [T, N, ...], carry [N, ...] = ()) -> State      carry: before the first of them; transitions
                                                                           do not keep it
    available (State) -> int32                                             items that may be drawn, 0 at first
    sample    (State, key, batch_size, gamma=, beta=) -> batch             sequences need no gamma, uniform no beta
    update    (State, index [B], priority [B], alpha) -> State             uniform: nothing happens
    """

    init: Callable
    insert: Callable
    available: Callable
    sample: Callable
    update: Callable


class Reading(NamedTuple):
    """How an item is read.

    reach     (rows) -> Reach
    startable (rows) -> None, or a function (rows, row, env) -> bool
    read      (rows, row [B], env [B], gamma) -> batch, with fields `weight` and `index` to be filled in, and `carry0`
              if `stores_carry`
    """

    reach: Callable
    startable: Callable
    read: Callable
    stores_carry: bool = False


def make(reading: Reading, draw: Draw, rows_per_insert: int) -> Replay:
    """-> the functions of a Replay."""
    if rows_per_insert < 1:
        raise ValueError(f"a replay needs at least 1 row per insert, not {rows_per_insert}")

    def init(row, capacity, carry=()):
        reach, envs = reading.reach(row), jax.tree.leaves(row)[0].shape[0]
        unit = max(rows_per_insert, reach.period)
        length = capacity // envs // unit * unit
        least = -(-max(touched(reach, rows_per_insert) * reach.period, unit) // unit) * unit
        if length < least:
            raise ValueError(f"a replay of {capacity:,} steps of {envs:,} environments is too short for its items: it "
                             f"needs {least * envs:,} or more")
        carry = carry if reading.stores_carry else ()
        carry = jax.tree.map(lambda x: jnp.zeros((length // reach.period, *x.shape), x.dtype), carry)
        return State(rings.init(row, length), carry, draw.init(length // reach.period * envs))

    def insert(state, rows, carry=()):
        count = jax.tree.leaves(rows)[0].shape[0]
        if count != rows_per_insert:
            raise ValueError(f"this replay takes {rows_per_insert} rows at a time, not {count}")
        reach = reading.reach(state.ring.rows)
        slot, begins = state.ring.head // reach.period, state.ring.head % reach.period == 0

        def keep(held, new):
            old = jax.lax.dynamic_index_in_dim(held, slot, keepdims=False)
            return jax.lax.dynamic_update_index_in_dim(held, jnp.where(begins, new, old), slot, axis=0)

        ring = rings.insert(state.ring, rows)
        memory = draw.insert(state.memory, ring, reach, reading.startable(ring.rows), count)
        return State(ring, jax.tree.map(keep, state.carry, carry if reading.stores_carry else ()), memory)

    def available(state):
        _, count = rings.starts(state.ring, reading.reach(state.ring.rows))
        return count * rings.shape(state.ring)[1]

    def sample(state, key, batch_size, *, gamma=1.0, beta=1.0):
        ring, reach = state.ring, reading.reach(state.ring.rows)
        index, weight = draw.pick(state.memory, ring, reach, reading.startable(ring.rows), key, batch_size, beta)
        row, env = rings.place(ring, reach, index)
        batch = reading.read(ring.rows, row, env, gamma)._replace(weight=weight, index=index)
        if reading.stores_carry:
            batch = batch._replace(carry0=rings.take(state.carry, row // reach.period, env))
        return batch

    def update(state, index, priority, *, alpha=1.0):
        ring, reach = state.ring, reading.reach(state.ring.rows)
        startable = reading.startable(ring.rows)
        return state._replace(memory=draw.update(state.memory, ring, reach, startable, index, priority, alpha))

    return Replay(init, insert, available, sample, update)
