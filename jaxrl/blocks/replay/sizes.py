"""The memory use of a replay, known before any of it is allocated."""

from __future__ import annotations

import math
from typing import Any

import jax

from jaxrl.blocks.replay.buffer import Replay


def nbytes(replay: Replay, row: Any, capacity: int, carry: Any = ()) -> int:
    """Return the bytes of the state `replay.init(row, capacity, carry)`, priorities included."""
    state = jax.eval_shape(lambda row, carry: replay.init(row, capacity, carry), row, carry)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def check_fits(replay: Replay, row: Any, capacity: int, free: int, carry: Any = (), *,
               setting: str = "algo.replay_capacity") -> int:
    """Return the bytes of a replay.

    Raises ValueError, with a capacity that fits, if they exceed `free`.
    row: of N environments, arrays or shapes, as for `init`. setting: the key that the user would
    change.
    """
    needed = nbytes(replay, row, capacity, carry)
    if needed <= free:
        return needed
    envs = jax.tree.leaves(row)[0].shape[0]
    obs = getattr(row.input, "obs", row.input)
    frame = sum(math.prod(x.shape[1:]) * x.dtype.itemsize for x in jax.tree.leaves(obs))
    text = (f"replay of {capacity:,} x {frame:,}-byte observations needs {_gib(needed)}, "
            f"{_gib(free)} are free. ")
    fits = _round_down(capacity * max(free, 0) // needed)
    try:
        while nbytes(replay, row, fits, carry) > free:
            fits = _round_down(fits * 19 // 20)
    except ValueError:                                           # too short for a single item
        raise ValueError(f"{text}Not even the shortest for {envs:,} environments fits") from None
    raise ValueError(f"{text}Try: {setting}={fits}")


def _round_down(n: int) -> int:
    """Return `n` rounded down to two digits: 347,211 becomes 340,000."""
    unit = 10 ** max(len(str(n)) - 2, 0)
    return n // unit * unit


def _gib(count: int) -> str:
    if count >= 2**30 / 10:
        return f"{count / 2**30:.1f} GiB"
    return f"{count / 2**20:.1f} MiB"
