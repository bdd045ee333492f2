"""Population-based training (Jaderberg et al. 2017, arXiv:1711.09846): who copies whom, and the values that follow.

Pure functions of NumPy arrays. What a member draws follows from the seed, the number of the round and its own number: a
decision is the same wherever and however often it is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxrl.declare import Range, declarations, static

EXPLOIT = ("truncation", "tournament", "none")
FACTORS = (1.2, 0.8)             # of a perturbation
Values = dict[str, np.ndarray]   # name -> float32 [members]


@dataclass(frozen=True)
class Options:
    """The keys of PBT beside those of a run."""

    population: int = static(16, low=2, high=10**5, help="members, which are the seeds of the run")
    interval: int | None = static(None, low=1, help="environment steps between rounds; null: total_steps / 20")
    exploit: str = static("truncation", choices=EXPLOIT, help="truncation: the worst copy from the best; tournament: "
                          "from a random member, if that is better; none: nobody copies, to compare with")
    quantile: float = static(0.25, low=0.0, high=0.5, help="truncation: part of the population that copies, rounded up")
    resample: float = static(0.25, low=0.0, high=1.0, help="chance that a copied hyperparameter is drawn anew from its "
                             "range; else it is multiplied by 1.2 or 0.8")


OPTIONS = {d.name: d for d in declarations(Options)}


class Decision(NamedTuple):
    source: np.ndarray           # int [members]: whose agent each goes on with, itself if nobody else's
    values: Values               # hyperparameters it goes on with


def initial(ranges: Mapping[str, Range], members: int, seed: int) -> Values:
    """Hyperparameters of the first members, drawn from their ranges."""
    drawn = _uniforms(seed, 0, members, len(ranges))
    return {name: _drawn(range, u) for (name, range), u in zip(ranges.items(), drawn)}


def decide(options: Options, ranges: Mapping[str, Range], seed: int, round: int, fitness: np.ndarray,
           values: Values) -> Decision:
    """After round 1, 2, ...: fitness [members], more is better, not finite of a member that diverged.

    A member that diverged copies from one of the best, and nobody copies from it.
    """
    able = np.isfinite(fitness)
    fitness, count = np.where(able, fitness, -np.inf), len(fitness)
    choice, opponent, *explore = _uniforms(seed, round, count, 2 + 3 * len(ranges))
    order = np.argsort(-fitness, kind="stable")                     # the best first, of equals the first
    source = np.arange(count)
    if options.exploit != "none" and able.any():
        few = min(math.ceil(options.quantile * count), count // 2)
        best = order[: max(1, min(few, able.sum()))]
        from_best, rival = best[(choice * len(best)).astype(int)], (opponent * count).astype(int)
        if options.exploit == "truncation":
            worst = order[count - few:]
            source[worst] = from_best[worst]
        else:
            better = fitness[rival] > fitness
            source[better] = rival[better]
        source[~able] = from_best[~able]
    copied, after = source != np.arange(count), {}
    for i, (name, range) in enumerate(ranges.items()):
        inherited, (anew, which, u) = values[name][source], explore[3 * i: 3 * i + 3]
        moved = np.clip(inherited * np.where(which < 0.5, *FACTORS), range.low, range.high)
        explored = np.where(anew < options.resample, _drawn(range, u), moved)
        after[name] = np.where(copied, explored, inherited).astype(np.float32)
    return Decision(source, after)


def _uniforms(seed: int, round: int, members: int, count: int) -> np.ndarray:
    """Numbers in [0, 1), [count, members]: each member's from a generator of its own."""
    return np.stack([np.random.default_rng([seed, round, member]).random(count) for member in range(members)], axis=1)


def _drawn(range: Range, u: np.ndarray) -> np.ndarray:
    """Values at the parts u of a range."""
    if range.log:
        drawn = np.exp(np.log(range.low) + u * (np.log(range.high) - np.log(range.low)))
    else:
        drawn = range.low + u * (range.high - range.low)
    return np.clip(drawn, range.low, range.high).astype(np.float32)
