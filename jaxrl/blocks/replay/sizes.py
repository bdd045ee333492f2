"""What a replay takes of memory, known before any of it is allocated."""

from __future__ import annotations

import math
from typing import Any

import jax

from jaxrl.blocks.replay.buffer import Replay


def nbytes(replay: Replay, row: Any, capacity: int, carry: Any = ()) -> int:
    """The bytes of the state that `replay.init(row, capacity, carry)` would make, priorities included."""
    state = jax.eval_shape(lambda row, carry: replay.init(row, capacity, carry), row, carry)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def check_fits(replay: Replay, row: Any, capacity: int, free: int, carry: Any = (), *,
               setting: str = "algo.replay_capacity") -> int:
    """The bytes it takes, or a ValueError that says what would fit if those are more than `free`.

    row: of N environments, arrays or shapes, as for `init`. setting: what the user would change.
    """
    needed = nbytes(replay, row, capacity, carry)
    if needed <= free:
        return needed
    envs = jax.tree.leaves(row)[0].shape[0]
    obs = getattr(row.input, "obs", row.input)
    frame = sum(math.prod(x.shape[1:]) * x.dtype.itemsize for x in jax.tree.leaves(obs))
    text = f"replay of {capacity:,} x {frame:,}-byte observations needs {_gib(needed)}, {_gib(free)} are free. "
    fits = _round_down(capacity * max(free, 0) // needed)
    try:
        while nbytes(replay, row, fits, carry) > free:
            fits = _round_down(fits * 19 // 20)
    except ValueError:                                           # too short for a single item
        raise ValueError(f"{text}Not even the shortest for {envs:,} environments fits") from None
    raise ValueError(f"{text}Try: {setting}={fits}")


def _round_down(n: int) -> int:
    """To two digits: 347,211 is 340,000."""
    unit = 10 ** max(len(str(n)) - 2, 0)
    return n // unit * unit


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:.1f} MiB"
