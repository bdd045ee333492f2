"""Sequences of consecutive steps, with the recurrent state at their start.

Kapturowski et al. 2019, R2D2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl.blocks.replay import buffer
from jaxrl.blocks.replay.draws import Draw, uniform
from jaxrl.blocks.replay.ring import Reach, take
from jaxrl.blocks.replay.transitions import cut, implicit, stacked, stacked_final

if TYPE_CHECKING:
    from jaxtyping import Array, Int


class Sequences(NamedTuple):
    """A time-major batch of items, which may span the ends of episodes: see `rows.input.first`."""

    burn_in: Any             # rows [burn_in, B, ...] from `carry0` on; they update the carry
    rows: Any                # rows [length, B, ...], to learn from
    last_input: Any          # [B, ...] what followed the last row
    valid: jax.Array         # [length, B] False where a follower is not known: see buffer.Replay
    carry0: Any              # [B, ...] the stored recurrent state before the first row of all
    weight: jax.Array        # [B] importance, 0 where there was nothing to draw
    index: jax.Array         # [B] int32: the items' numbers, for `Replay.update`


def sequences(*, length: int, period: int, burn_in: int = 0, stack: int = 1,
              draw: Draw | None = None, rows_per_insert: int = 1) -> buffer.Replay:
    """Return a replay of `burn_in + length` consecutive rows, starting at every `period`-th row.

    See buffer.Replay; `gamma` is not used. The rows of an insert divide the period: the recurrent
    state that is kept is the one given with the insert that writes a start. Priorities are one per
    sequence. stack: as for `transitions`. Raises ValueError if a number is out of range.
    """
    if length < 1 or burn_in < 0 or stack < 1 or period < 1:
        raise ValueError("sequences need length, period and stack >= 1 and burn_in >= 0, not "
                         f"{length}, {period}, {stack} and {burn_in}")
    if period % rows_per_insert:
        raise ValueError(f"the rows of an insert, {rows_per_insert}, must divide the period of "
                         f"sequences, {period}")
    reading = SequenceReading(length, period, burn_in, stack)
    return buffer.make(reading, uniform() if draw is None else draw, rows_per_insert)


@dataclass(frozen=True)
class SequenceReading:
    """The reading of sequences. See buffer.Reading."""

    length: int
    period: int
    burn_in: int
    stack: int
    stores_carry: bool = True

    def reach(self, rows: Any) -> Reach:
        ahead = self.burn_in + self.length + implicit(rows)
        return Reach(behind=self.stack - 1, ahead=ahead, period=self.period)

    def startable(self, rows: Any) -> None:
        return None

    def read(self, rows: Any, row: Int[Array, " B"], env: Int[Array, " B"], gamma: ArrayLike
             ) -> Sequences:
        burn_in = self.burn_in
        total = burn_in + self.length
        steps = row[None] + jnp.arange(total, dtype=jnp.int32)[:, None]
        env_of_step = jnp.broadcast_to(env[None], steps.shape)
        found = take(rows._replace(input=None), steps, env_of_step)
        found = found._replace(input=stacked(rows.input, steps, env_of_step, self.stack))
        if implicit(rows):
            last_input = stacked(rows.input, row + total, env, self.stack)
            valid = ~cut(rows, steps[burn_in:], env_of_step[burn_in:])
        else:
            if self.stack > 1:
                final_input = stacked_final(rows, steps, env_of_step, self.stack)
                found = found._replace(final_input=final_input)
            last_input = jax.tree.map(lambda x: x[-1], found.final_input)
            valid = jnp.ones((self.length, *row.shape), bool)
        return Sequences(
            burn_in=jax.tree.map(lambda x: x[:burn_in], found),
            rows=jax.tree.map(lambda x: x[burn_in:], found),
            last_input=last_input, valid=valid, carry0=(), weight=None, index=None)
