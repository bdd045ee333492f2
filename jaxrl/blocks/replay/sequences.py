"""Sequences of consecutive steps, with the recurrent state at their start (Kapturowski et al. 2019, R2D2)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.blocks.replay import buffer
from jaxrl.blocks.replay.draws import Draw, uniform
from jaxrl.blocks.replay.ring import Reach, take
from jaxrl.blocks.replay.transitions import cut, implicit, stacked, stacked_final


class Sequences(NamedTuple):
    """Items of a batch, time-major. They may span the ends of episodes: `rows.input.first` tells where one starts."""

    burn_in: Any             # rows [burn_in, B, ...], from `carry0` on: to bring the recurrent state up to date
    rows: Any                # rows [length, B, ...], to learn from
    last_input: Any          # [B, ...] what followed the last row
    valid: jax.Array         # [length, B] False where what followed a row is not known: see buffer.Replay on truncation
    carry0: Any              # [B, ...] the stored recurrent state before the first row of all
    weight: jax.Array        # [B] importance, 0 where there was nothing to draw
    index: jax.Array         # [B] int32: what `update` calls them


def sequences(*, length: int, period: int, burn_in: int = 0, stack: int = 1, draw: Draw | None = None,
              rows_per_insert: int = 1) -> buffer.Replay:
    """Replay of `burn_in + length` consecutive rows, one sequence starting at every `period`-th row.

    See buffer.Replay; `gamma` is not read. Rows of an insert divide the period: the carry that is kept is the one given
    with the insert that writes a start. Priorities are one per sequence. stack: as for `transitions`.
    """
    if length < 1 or burn_in < 0 or stack < 1 or period < 1:
        raise ValueError(f"sequences need length, period and stack >= 1 and burn_in >= 0, not {length}, {period}, "
                         f"{stack} and {burn_in}")
    if period % rows_per_insert:
        raise ValueError(f"the rows of an insert, {rows_per_insert}, must divide the period of sequences, {period}")
    total = burn_in + length

    def reach(rows):
        return Reach(behind=stack - 1, ahead=total + implicit(rows), period=period)

    def read(rows, row, env, gamma):
        steps = row[None] + jnp.arange(total, dtype=jnp.int32)[:, None]
        env_of = jnp.broadcast_to(env[None], steps.shape)
        found = take(rows._replace(input=None), steps, env_of)._replace(input=stacked(rows.input, steps, env_of, stack))
        if implicit(rows):
            last_input = stacked(rows.input, row + total, env, stack)
            valid = ~cut(rows, steps[burn_in:], env_of[burn_in:])
        else:
            if stack > 1:
                found = found._replace(final_input=stacked_final(rows, steps, env_of, stack))
            last_input = jax.tree.map(lambda x: x[-1], found.final_input)
            valid = jnp.ones((length, *row.shape), bool)
        first, rest = (jax.tree.map(lambda x, part=part: x[part], found)
                       for part in (slice(burn_in), slice(burn_in, total)))
        return Sequences(first, rest, last_input, valid, carry0=(), weight=None, index=None)

    reading = buffer.Reading(reach, lambda rows: None, read, stores_carry=True)
    return buffer.make(reading, uniform() if draw is None else draw, rows_per_insert)
