"""Replay: experience of N environments in lockstep, kept in a ring and drawn again, as pure functions of a pytree.

    replay = transitions(n=3, draw=prioritised(), rows_per_insert=4)         # or sequences(length=40, period=40, ...)
    state = replay.init(row, capacity)                                       # row: one step of N environments [N, ...]
    state = replay.insert(state, rows)                                       # [4, N, ...]; donate the state
    batch = replay.sample(state, key, 128, gamma=gamma, beta=beta)           # alpha, beta and gamma may be traced
    state = replay.update(state, batch.index, priority, alpha=alpha)
"""

from jaxrl.blocks.replay.buffer import Replay, State
from jaxrl.blocks.replay.draws import prioritised, uniform
from jaxrl.blocks.replay.sequences import Sequences, sequences
from jaxrl.blocks.replay.sizes import check_fits, nbytes
from jaxrl.blocks.replay.transitions import Transitions, transitions

__all__ = ["Replay", "Sequences", "State", "Transitions", "check_fits", "nbytes", "prioritised", "sequences",
           "transitions", "uniform"]
