"""Searches: which trials a sweep trains, and for how many steps.

A search asks for rounds of trials and is told their scores. `jaxrl sweep search=NAME` finds it in
the tables of the entry point `jaxrl.searches`; those of this file are in jaxrl/population/__init__.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from envs_jax.sizes import ceil_div
from jaxrl import registry
from jaxrl.config.axes import Axis, Options
from jaxrl.declare import Range
from jaxrl.errors import UserError


class Trial(NamedTuple):
    """One choice of values."""

    number: int
    values: dict[str, Any]       # key -> value, one for each axis


class Round(NamedTuple):
    """Trials to train until each of their seeds has done `steps` environment steps.

    Either all trials are new, or all were trained in one earlier round and continue from there.
    Only a round whose `steps` are the total of the sweep completes its trials.
    """

    name: str                    # begins the names of its folders; no two rounds have the same
    trials: list[Trial]
    steps: int
    pruned: Mapping[int, str] = {}       # number of a trial that is not continued -> reason


Scores = Mapping[int, float]     # number of a trial -> score; more is better, NaN: it diverged
Rounds = Generator[Round, Scores, None]


class Search(Protocol):
    """A scheduler of trials, made with (options, axes, total_steps, seed).

    `options` are the keys of `jaxrl sweep`, `axes` what differs between trials, and `total_steps`
    the environment steps of a whole trial. A search writes no files: to resume a sweep it is made
    again and told the stored scores. So its rounds may depend on its arguments and the scores only.
    """

    def stop(self) -> bool:
        """Return whether there are no more rounds; called before each `ask`."""

    def ask(self) -> Round:
        """Return the next round."""

    def tell(self, scores: Scores) -> None:
        """Receive the scores of all trials of the round that `ask` has returned."""


def make(options: Options, axes: Sequence[Axis], total_steps: int, seed: int) -> Search:
    """Return the search that `options.search` names."""
    return registry.search(options.search)(options, axes, total_steps, seed)


def rounds(options: Options, axes: Sequence[Axis], total_steps: int, seed: int) -> Rounds:
    """Yield the rounds of a sweep; the scores of each are sent."""
    search = make(options, axes, total_steps, seed)
    while not search.stop():
        search.tell((yield search.ask()))


def size(options: Options, axes: Sequence[Axis], total_steps: int) -> tuple[int, int]:
    """Return (trials, environment steps of all of them together, per seed).

    For a search of another package it is `options.trials` trials of `total_steps` each.
    """
    trials = options.trials
    if options.search == "grid":
        trials = len(grid(axes))
    if options.search != "asha":
        return trials, trials * total_steps
    steps = 0
    begin = 0
    for count, end in rungs(trials, total_steps, options.eta, options.grace):
        steps += count * (end - begin)
        begin = end
    return trials, steps


# ---------------------------------------------------------------- all trials at once


class Grid(Search):
    """A search that trains every combination of values, in one round."""

    def __init__(self, options: Options, axes: Sequence[Axis], total_steps: int, seed: int):
        self.rounds = [Round("", grid(axes), total_steps)]

    def stop(self) -> bool:
        return not self.rounds

    def ask(self) -> Round:
        return self.rounds[0]

    def tell(self, scores: Scores) -> None:
        self.rounds.pop()


class Random(Grid):
    """A search that trains random values, in one round."""

    def __init__(self, options: Options, axes: Sequence[Axis], total_steps: int, seed: int):
        self.rounds = [Round("", draw(axes, options.trials, seed), total_steps)]


def grid(axes: Sequence[Axis]) -> list[Trial]:
    """Return every combination of the values of `axes`; the last axis changes first."""
    keys = [axis.key for axis in axes]
    combinations = itertools.product(*(axis.choices or () for axis in axes))
    return [Trial(i, dict(zip(keys, values))) for i, values in enumerate(combinations)]


def draw(axes: Sequence[Axis], count: int, seed: int) -> list[Trial]:
    """Return random trials; trial i is the same for every `count`, for it has its own generator."""
    return [Trial(i, _drawn(axes, np.random.default_rng([seed, i]))) for i in range(count)]


def _drawn(axes: Sequence[Axis], rng: np.random.Generator) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for axis in axes:
        if axis.range is not None:
            values[axis.key] = _drawn_from(axis.range, rng)
        elif axis.choices is not None:
            values[axis.key] = axis.choices[rng.integers(len(axis.choices))]
    return values


def _drawn_from(range: Range, rng: np.random.Generator) -> float:
    low, high, log = range
    if log:
        x = math.exp(rng.uniform(math.log(low), math.log(high)))
    else:
        x = rng.uniform(low, high)
    return min(max(float(f"{x:.6g}"), low), high)       # digits that a person may copy


# ---------------------------------------------------------------- successive halving


class Halving(Search):
    """Successive halving. Li et al. 2018, arXiv:1810.05934, algorithm 1 (synchronous).

    The asynchronous form (algorithm 2) promotes trials without waiting, because its workers differ
    in speed. Here the trials of a rung are members of one program and end together. Of two equal
    scores the trial with the lower number is better.
    """

    def __init__(self, options: Options, axes: Sequence[Axis], total_steps: int, seed: int):
        self.trials = draw(axes, options.trials, seed)
        self.rungs = rungs(len(self.trials), total_steps, options.eta, options.grace)
        self.rung = 0
        self.pruned: dict[int, str] = {}

    def stop(self) -> bool:
        return self.rung == len(self.rungs) or not self.trials

    def ask(self) -> Round:
        _, steps = self.rungs[self.rung]
        return Round(f"rung{self.rung + 1}", self.trials, steps, self.pruned)

    def tell(self, scores: Scores) -> None:
        _, steps = self.rungs[self.rung]
        self.rung += 1
        if self.rung == len(self.rungs):
            return
        count, _ = self.rungs[self.rung]
        alive = [trial for trial in self.trials if not math.isnan(scores[trial.number])]
        ranked = sorted(alive, key=lambda trial: -scores[trial.number])
        kept = f"{count} {'go' if count > 1 else 'goes'} on"
        self.pruned = {
            trial.number: f"rank {rank} of {len(self.trials)} after {steps:,} steps, {kept}"
            for rank, trial in enumerate(ranked[count:], count + 1)}
        self.trials = sorted(ranked[:count])


def rungs(trials: int, total_steps: int, eta: int, grace: int | None) -> list[tuple[int, int]]:
    """Return [(trials, environment steps at its end)] of each rung (Li et al. 2018, sec. 3).

    One trial of `eta` is promoted, to `eta` times the steps. grace: steps of the first rung; None
    for as few as make three further rungs, or fewer rungs if there are not enough trials.
    """
    if grace is None:
        levels = 0
        while levels < 3 and eta ** (levels + 1) <= trials:
            levels += 1
        grace = ceil_div(total_steps, eta**levels)
    found = []
    steps = grace
    while steps < total_steps:
        found.append((trials, steps))
        trials = max(1, trials // eta)
        steps *= eta
    return [*found, (trials, total_steps)]


# ---------------------------------------------------------------- Optuna


class TPE(Search):
    """The tree-structured Parzen estimator (Bergstra et al. 2011) of Optuna.

    A round is the next `options.batch` trials.
    """

    def __init__(self, options: Options, axes: Sequence[Axis], total_steps: int, seed: int):
        self.optuna = import_optuna()
        sampler = self.optuna.samplers.TPESampler(seed=seed)
        self.study = self.optuna.create_study(direction="maximize", sampler=sampler)
        self.axes = axes
        self.space = {axis.key: _distribution(self.optuna.distributions, axis) for axis in axes}
        self.left = options.trials
        self.batch = options.batch
        self.total_steps = total_steps
        self.round = 0
        self.asked: list[Any] = []               # Optuna's trials of this round

    def stop(self) -> bool:
        return self.left == 0

    def ask(self) -> Round:
        self.round += 1
        self.asked = [self.study.ask(self.space) for _ in range(min(self.batch, self.left))]
        trials = [Trial(trial.number, _values(self.axes, trial.params)) for trial in self.asked]
        return Round(f"batch{self.round}", trials, self.total_steps)

    def tell(self, scores: Scores) -> None:
        for trial in self.asked:
            score = scores[trial.number]
            if math.isnan(score):
                self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)
            else:
                self.study.tell(trial, score)
        self.left -= len(self.asked)


def import_optuna() -> Any:
    """Return the package Optuna. Raises UserError if it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UserError(
            "search=optuna needs the package optuna.",
            'pip install "jaxrl[optuna]", or use search=random or search=asha') from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(distributions: Any, axis: Axis) -> Any:
    if axis.range is not None:
        low, high, log = axis.range
        return distributions.FloatDistribution(low, high, log=log)
    # by index, because categories of Optuna cannot be lists
    return distributions.CategoricalDistribution(tuple(range(len(axis.choices or ()))))


def _values(axes: Sequence[Axis], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a trial from Optuna's parameters."""
    values = {}
    for axis in axes:
        value = params[axis.key]
        values[axis.key] = value if axis.choices is None else axis.choices[value]
    return values
