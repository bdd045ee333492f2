"""Replay: experience of N environments in lockstep, kept in a ring and drawn again.

Everything is a pure function of a pytree:

    replay = transitions(n=3, draw=prioritized(), rows_per_insert=4)  # or sequences(length=40, ...)
    state = replay.init(row, capacity)              # row: one step of N environments [N, ...]
    state = replay.insert(state, rows)              # [4, N, ...]; donate the state
    batch = replay.sample(state, key, 128, gamma=gamma, beta=beta)
    state = replay.update(state, batch.index, priority, alpha=alpha)

alpha, beta and gamma may be traced.
"""

from jaxrl.blocks.replay.buffer import Replay, State
from jaxrl.blocks.replay.draws import prioritized, uniform
from jaxrl.blocks.replay.sequences import Sequences, sequences
from jaxrl.blocks.replay.sizes import check_fits, nbytes
from jaxrl.blocks.replay.transitions import Transitions, transitions

__all__ = ["Replay", "Sequences", "State", "Transitions", "check_fits", "nbytes", "prioritized",
           "sequences", "transitions", "uniform"]
