"""Replay as a value: pure functions of a state, composed of a reading of items and a draw of items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from envs_jax.sizes import ceil_div
from jaxrl.blocks.replay import ring as rings
from jaxrl.blocks.replay.draws import Draw, touched
from jaxrl.blocks.replay.ring import Reach, Ring

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray


class State(NamedTuple):
    """The state of a replay."""

    ring: Ring
    carry: Any               # recurrent states at the starts of sequences, [starts, N, ...], or ()
    memory: Any              # of the draw: priorities, or ()


class Reading(Protocol):
    """The form of the items of a replay.

    `rows` are those of the ring; (row, env) [B] is an item's start.
    """

    @property
    def stores_carry(self) -> bool:
        """True if items need the recurrent state at their start."""

    def reach(self, rows: Any) -> Reach:
        """Return the rows that an item needs."""

    def startable(self, rows: Any) -> Callable | None:
        """Return (rows, row, env) -> bool, False where no item can start; None if one can anywhere.
        """

    def read(self, rows: Any, row: jax.Array, env: jax.Array, gamma: Any) -> Any:
        """Return the batch, without `weight`, `index` and, if `stores_carry`, `carry0`."""


@dataclass(frozen=True, eq=False)
class Replay:
    """Replay bound to what is static, for N environments in lockstep.

    All sizes come from the shapes of the state. A row is a tree that has the fields of
    `jaxrl.types.Trajectory`, one step of all environments: `input`, `reward`, `terminated`,
    `truncated`, and `final_input`, the input that really followed each step, before any reset.

    Without `final_input` (None) the input of the next row is what followed, so that no frame is
    held twice. A step that truncates has no such follower: no window starts there, and one that
    reaches it ends before it, with that row's own input to bootstrap from. This is exact and loses
    one transition per time limit.
    """

    reading: Reading
    draw: Draw
    rows_per_insert: int

    def init(self, row: Any, capacity: int, carry: Any = ()) -> State:
        """Return an empty replay for rows like `row` [N, ...] and recurrent states like `carry`.

        capacity: environment steps, rounded down. Raises ValueError if it is too short for an item.
        """
        reach = self.reading.reach(row)
        envs = jax.tree.leaves(row)[0].shape[0]
        unit = max(self.rows_per_insert, reach.period)
        length = capacity // envs // unit * unit
        rows_touched = touched(reach, self.rows_per_insert) * reach.period
        least = ceil_div(max(rows_touched, unit), unit) * unit
        if length < least:
            raise ValueError(f"a replay of {capacity:,} steps of {envs:,} environments is too "
                             f"short for its items: it needs {least * envs:,} or more")
        starts = length // reach.period
        carry = jax.tree.map(lambda x: jnp.zeros((starts, *x.shape), x.dtype), self._stored(carry))
        return State(rings.init(row, length), carry, self.draw.init(starts * envs))

    def insert(self, state: State, rows: Any, carry: Any = ()) -> State:
        """Return the state after rows [T, N, ...].

        carry: the recurrent state [N, ...] before the first of them; transitions do not keep it.
        Raises ValueError if T is not `rows_per_insert`.
        """
        count = jax.tree.leaves(rows)[0].shape[0]
        if count != self.rows_per_insert:
            raise ValueError(f"this replay takes {self.rows_per_insert} rows at a time, not "
                             f"{count}")
        reach = self.reading.reach(state.ring.rows)
        slot = state.ring.head // reach.period
        begins = state.ring.head % reach.period == 0

        def keep(held: jax.Array, new: jax.Array) -> jax.Array:
            old = jax.lax.dynamic_index_in_dim(held, slot, keepdims=False)
            new = jnp.where(begins, new, old)
            return jax.lax.dynamic_update_index_in_dim(held, new, slot, axis=0)

        ring = rings.insert(state.ring, rows)
        startable = self.reading.startable(ring.rows)
        draw_state = self.draw.insert(state.memory, ring, reach, startable, count)
        return State(ring, jax.tree.map(keep, state.carry, self._stored(carry)), draw_state)

    def available(self, state: State) -> Int[Array, ""]:
        """Return the number of items that may be drawn, 0 at first."""
        _, count = rings.starts(state.ring, self.reading.reach(state.ring.rows))
        return count * rings.shape(state.ring)[1]

    def sample(self, state: State, key: PRNGKeyArray, batch_size: int, *, gamma: ArrayLike = 1.0,
               beta: ArrayLike = 1.0) -> Any:
        """Return a batch of items.

        Sequences do not use `gamma`, a uniform draw does not use `beta`.
        """
        ring = state.ring
        reach = self.reading.reach(ring.rows)
        startable = self.reading.startable(ring.rows)
        index, weight = self.draw.pick(state.memory, ring, reach, startable, key, batch_size, beta)
        row, env = rings.place(ring, reach, index)
        batch = self.reading.read(ring.rows, row, env, gamma)._replace(weight=weight, index=index)
        if self.reading.stores_carry:
            batch = batch._replace(carry0=rings.take(state.carry, row // reach.period, env))
        return batch

    def update(self, state: State, index: Int[Array, " B"], priority: Float[Array, " B"], *,
               alpha: ArrayLike = 1.0) -> State:
        """Return the state with new priorities of items; it is unchanged for a uniform draw."""
        ring = state.ring
        reach = self.reading.reach(ring.rows)
        startable = self.reading.startable(ring.rows)
        draw_state = self.draw.update(state.memory, ring, reach, startable, index, priority, alpha)
        return state._replace(memory=draw_state)

    def _stored(self, carry: Any) -> Any:
        return carry if self.reading.stores_carry else ()


def make(reading: Reading, draw: Draw, rows_per_insert: int) -> Replay:
    """Return the replay of a reading and a draw. Raises ValueError if rows_per_insert < 1."""
    if rows_per_insert < 1:
        raise ValueError(f"a replay needs at least 1 row per insert, not {rows_per_insert}")
    return Replay(reading, draw, rows_per_insert)
