"""Population-based training: which members copy others, and their new hyperparameters.

Jaderberg et al. 2017, arXiv:1711.09846. Pure functions of NumPy arrays. The random numbers of a
member depend on the seed, the number of the round and the number of the member alone, so that a
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

    population: int = static(16, low=2, high=10**5, help="number of members, the seeds of the run")
    interval: int | None = static(
        None, low=1, help="environment steps between rounds; null: total_steps / 20")
    exploit: str = static(
        "truncation", choices=EXPLOIT,
        help="truncation: the worst members copy the best; tournament: each member copies a random "
             "one that is better; none: no member copies, for comparison")
    quantile: float = static(
        0.25, low=0.0, high=0.5,
        help="fraction of the population that copies under truncation, rounded up")
    resample: float = static(
        0.25, low=0.0, high=1.0,
        help="probability of drawing a copied hyperparameter from its range; others are "
             "multiplied by 1.2 or 0.8")


OPTIONS = {d.name: d for d in declarations(Options)}


class Decision(NamedTuple):
    """The outcome of a round."""

    source: np.ndarray           # int [members], the member whose agent each continues with
    values: Values               # new hyperparameters


def initial(ranges: Mapping[str, Range], members: int, seed: int) -> Values:
    """Return the first hyperparameters of the members, drawn from their ranges."""
    drawn = _uniforms(seed, 0, members, len(ranges))
    return {name: _drawn(range, u) for (name, range), u in zip(ranges.items(), drawn)}


def decide(options: Options, ranges: Mapping[str, Range], seed: int, round: int,
           fitness: np.ndarray, values: Values) -> Decision:
    """Return the decision after round 1, 2, ...

    fitness: [members], more is better, not finite if the member diverged. Such a member copies one
    of the best, and no member copies it.
    """
    count = len(fitness)
    choice, opponent, *explore = _uniforms(seed, round, count, 2 + 3 * len(ranges))
    source = _sources(options, fitness, choice, opponent)
    copied = source != np.arange(count)
    new = {}
    for i, (name, range) in enumerate(ranges.items()):
        inherited = values[name][source]
        anew, which, u = explore[3 * i: 3 * i + 3]
        moved = np.clip(inherited * np.where(which < 0.5, *FACTORS), range.low, range.high)
        explored = np.where(anew < options.resample, _drawn(range, u), moved)
        new[name] = np.where(copied, explored, inherited).astype(np.float32)
    return Decision(source, new)


def _sources(options: Options, fitness: np.ndarray, choice: np.ndarray,
             opponent: np.ndarray) -> np.ndarray:
    """Return the member that each copies, itself for none; choice, opponent: uniform numbers."""
    count = len(fitness)
    source = np.arange(count)
    able = np.isfinite(fitness)
    if options.exploit == "none" or not able.any():
        return source
    fitness = np.where(able, fitness, -np.inf)
    order = np.argsort(-fitness, kind="stable")          # the best first; of equals the first
    few = min(math.ceil(options.quantile * count), count // 2)
    best = order[: max(1, min(few, able.sum()))]
    from_best = best[(choice * len(best)).astype(int)]
    if options.exploit == "truncation":
        worst = order[count - few:]
        source[worst] = from_best[worst]
    else:
        rival = (opponent * count).astype(int)
        better = fitness[rival] > fitness
        source[better] = rival[better]
    source[~able] = from_best[~able]
    return source


def _uniforms(seed: int, round: int, members: int, count: int) -> np.ndarray:
    """Return numbers in [0, 1), [count, members]; each member has a generator of its own."""
    drawn = [np.random.default_rng([seed, round, member]).random(count)
             for member in range(members)]
    return np.stack(drawn, axis=1)


def _drawn(range: Range, u: np.ndarray) -> np.ndarray:
    """Return the values at the fractions u of a range."""
    if range.log:
        drawn = np.exp(np.log(range.low) + u * (np.log(range.high) - np.log(range.low)))
    else:
        drawn = range.low + u * (range.high - range.low)
    return np.clip(drawn, range.low, range.high).astype(np.float32)
