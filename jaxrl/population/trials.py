"""Which trials a sweep makes, and how long each is trained: grid, random, successive halving, Optuna's TPE.

A search is a generator: it yields rounds and is sent the scores of each. It keeps nothing else, so that a sweep is
resumed by running it again on the scores that are stored.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl.config.axes import Axis, Options
from jaxrl.errors import UserError


class Trial(NamedTuple):
    """`values`: key -> value, one for each axis."""

    number: int
    values: dict[str, Any]


class Round(NamedTuple):
    """Trials to train up to `steps` environment steps per seed. Those of a later rung go on from the round before.

    pruned: trial -> why it does not go on.
    """

    name: str
    trials: list[Trial]
    steps: int
    pruned: Mapping[int, str] = {}


Scores = Mapping[int, float]                  # trial -> score, more is better, nan: diverged
Search = Generator[Round, Scores, None]


def rounds(options: Options, axes: Sequence[Axis], total_steps: int, seed: int) -> Search:
    """The rounds of a sweep."""
    if options.search == "optuna":
        return tpe(axes, options.trials, options.batch, total_steps, seed)
    trials = grid(axes) if options.search == "grid" else draw(axes, options.trials, seed)
    if options.search == "asha":
        return halving(trials, rungs(len(trials), total_steps, options.eta, options.grace))
    return iter_once(Round("", trials, total_steps))


def iter_once(round: Round) -> Search:
    """All trials at once."""
    yield round


def size(options: Options, axes: Sequence[Axis], total_steps: int) -> tuple[int, int]:
    """(trials, environment steps of all of them together, per seed)."""
    trials = math.prod(len(axis.choices) for axis in axes) if options.search == "grid" else options.trials
    if options.search != "asha":
        return trials, trials * total_steps
    steps, done = 0, 0
    for count, end in rungs(trials, total_steps, options.eta, options.grace):
        steps, done = steps + count * (end - done), end
    return trials, steps


# ---------------------------------------------------------------- trials


def grid(axes: Sequence[Axis]) -> list[Trial]:
    """Every combination; the last axis changes first."""
    combinations = itertools.product(*(axis.choices for axis in axes))
    return [Trial(i, dict(zip((axis.key for axis in axes), values))) for i, values in enumerate(combinations)]


def draw(axes: Sequence[Axis], count: int, seed: int) -> list[Trial]:
    """Random trials. Each has a generator of its own: it is the same however many there are."""
    return [Trial(i, _drawn(axes, np.random.default_rng([seed, i]))) for i in range(count)]


def _drawn(axes: Sequence[Axis], rng: np.random.Generator) -> dict[str, Any]:
    values = {}
    for axis in axes:
        if axis.choices is not None:
            values[axis.key] = axis.choices[rng.integers(len(axis.choices))]
            continue
        low, high, log = axis.range
        x = math.exp(rng.uniform(math.log(low), math.log(high))) if log else rng.uniform(low, high)
        values[axis.key] = min(max(float(f"{x:.6g}"), low), high)       # digits that a person may copy
    return values


# ---------------------------------------------------------------- successive halving


def rungs(trials: int, total_steps: int, eta: int, grace: int | None) -> list[tuple[int, int]]:
    """[(trials, environment steps at its end)]: one of eta goes on, to eta times the steps (Li et al. 2018, sec. 3)."""
    if grace is None:
        levels = 0
        while levels < 3 and eta ** (levels + 1) <= trials:
            levels += 1
        grace = -(-total_steps // eta**levels)
    found, steps = [], grace
    while steps < total_steps:
        found.append((trials, steps))
        trials, steps = max(1, trials // eta), steps * eta
    return [*found, (trials, total_steps)]


def halving(trials: list[Trial], rungs: list[tuple[int, int]]) -> Search:
    """Successive halving over `rungs`. Li et al. 2018, arXiv:1810.05934, algorithm 1 (synchronous).

    The asynchronous form (their algorithm 2) promotes without waiting because workers are of unequal speed; here a
    rung's trials are members of one program and end together. Ties go to the trial of lower number.
    """
    going, pruned = trials, {}
    for rung, (_, steps) in enumerate(rungs):
        scores = yield Round(f"rung{rung + 1}", going, steps, pruned)
        if rung + 1 == len(rungs):
            return
        room = rungs[rung + 1][0]
        order = sorted((t for t in going if not math.isnan(scores[t.number])), key=lambda t: -scores[t.number])
        pruned = {t.number: f"rank {rank} of {len(going)} after {steps:,} steps, {room} {'go' if room > 1 else 'goes'} "
                            "on" for rank, t in enumerate(order[room:], room + 1)}
        going = sorted(order[:room])
        if not going:
            return


# ---------------------------------------------------------------- Optuna


def tpe(axes: Sequence[Axis], count: int, batch: int, total_steps: int, seed: int) -> Search:
    """Tree-structured Parzen estimator (Bergstra et al. 2011) of Optuna, `batch` trials asked at once."""
    optuna = import_optuna()
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    space = {axis.key: _distribution(optuna.distributions, axis) for axis in axes}
    for first in range(0, count, batch):
        asked = [study.ask(space) for _ in range(min(batch, count - first))]
        trials = [Trial(one.number, _of_optuna(axes, one.params)) for one in asked]
        scores = yield Round(f"batch{first // batch + 1}", trials, total_steps)
        for one in asked:
            failed = math.isnan(scores[one.number])
            study.tell(one, *([] if failed else [scores[one.number]]),
                       **({"state": optuna.trial.TrialState.FAIL} if failed else {}))


def import_optuna() -> Any:
    """The package, or one line that says how to get it."""
    try:
        import optuna
    except ImportError:
        raise UserError("search=optuna needs the package optuna.", 'pip install "jaxrl[optuna]", or use search=random '
                        "or search=asha") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(distributions: Any, axis: Axis) -> Any:
    if axis.choices is not None:                        # their places: Optuna's categories cannot be lists
        return distributions.CategoricalDistribution(tuple(range(len(axis.choices))))
    return distributions.FloatDistribution(axis.range.low, axis.range.high, log=axis.range.log)


def _of_optuna(axes: Iterable[Axis], params: Mapping[str, Any]) -> dict[str, Any]:
    return {axis.key: params[axis.key] if axis.choices is None else axis.choices[params[axis.key]] for axis in axes}
