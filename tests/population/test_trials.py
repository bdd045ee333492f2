"""Searches: which trials they make, for how many steps, and what they make of the scores."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxrl import registry
from jaxrl.config.axes import Axis, Options
from jaxrl.declare import Range
from jaxrl.errors import UserError
from jaxrl.population import SEARCHES, trials
from jaxrl.population.trials import Round, Scores, Search


def play(search: Search, score) -> list[Round]:
    """Return the rounds of a search; score: trial -> score."""
    seen = []
    while not search.stop():
        seen.append(search.ask())
        search.tell({trial.number: score(trial) for trial in seen[-1].trials})
    return seen


def test_a_grid_is_every_combination():
    axes = [Axis("a", True, choices=(1, 2)), Axis("b", True, choices=("x", "y", "z"))]
    assert [(t.number, t.values) for t in trials.grid(axes)] == [
        (i, {"a": a, "b": b}) for i, (a, b) in enumerate((a, b) for a in (1, 2) for b in "xyz")]
    assert trials.size(Options(), axes, 10) == (6, 60)


def test_random_trials_do_not_depend_on_their_number():
    axes = [Axis("r", True, range=Range(1e-5, 1e-1, True)), Axis("u", True, range=Range(2.0, 4.0)),
            Axis("c", False, choices=(4, 8))]
    many = trials.draw(axes, 2000, 1)
    few = trials.draw(axes, 7, 1)
    assert many[:7] == few and trials.draw(axes, 7, 2) != few
    r, u, c = (np.array([t.values[key] for t in many]) for key in "ruc")
    assert ((r >= 1e-5) & (r <= 1e-1) & (u >= 2) & (u <= 4)).all() and set(c) == {4, 8}
    logarithm = np.log10(r)                                            # uniform
    assert abs(logarithm.mean() + 3) < 0.1 and abs(logarithm.std() - 4 / math.sqrt(12)) < 0.05
    assert abs(u.mean() - 3) < 0.05 and abs((c == 4).mean() - 0.5) < 0.05


@pytest.mark.parametrize("count, total, eta, grace, want", [
    (64, 6400, 4, None, [(64, 100), (16, 400), (4, 1600), (1, 6400)]),
    (16, 1000, 4, None, [(16, 63), (4, 252), (1, 1000)]),    # 16 trials suffice for two levels only
    (3, 1000, 4, None, [(3, 1000)]),
    (8, 1000, 2, 300, [(8, 300), (4, 600), (2, 1000)]),
    (5, 100, 3, 100, [(5, 100)])])
def test_rungs(count, total, eta, grace, want):
    assert trials.rungs(count, total, eta, grace) == want
    options = Options(search="asha", trials=count, eta=eta, grace=grace)
    spent = sum(n * (end - before) for (n, end), (_, before) in zip(want, [(0, 0), *want]))
    assert trials.size(options, [], total) == (count, spent)


@pytest.fixture
def halving() -> Search:
    return trials.make(Options(search="asha", trials=16, eta=4), [], 160, seed=0)


def test_halving_keeps_the_best_and_never_a_trial_that_diverged(halving, rng):
    scores = rng.permutation(16).astype(float)
    scores[[2, 5]] = np.nan
    seen = play(halving, lambda trial: scores[trial.number])
    order = sorted((n for n in range(16) if n not in (2, 5)), key=lambda n: -scores[n])
    numbers = [sorted(trial.number for trial in round.trials) for round in seen]
    assert numbers == [list(range(16)), sorted(order[:4]), order[:1]]
    assert [(round.name, round.steps) for round in seen] == [
        ("rung1", 10), ("rung2", 40), ("rung3", 160)]
    assert set(seen[1].pruned) == set(order[4:])
    assert seen[1].pruned[order[4]] == "rank 5 of 16 after 10 steps, 4 go on"
    assert seen[2].pruned[order[1]] == "rank 2 of 4 after 40 steps, 1 goes on"


def test_halving_ends_if_all_trials_diverge(halving):
    assert len(play(halving, lambda trial: math.nan)) == 1


def test_tpe_finds_the_top_and_is_the_same_again():
    axes = [Axis("x", True, range=Range(1e-4, 1.0, True)),
            Axis("h", False, choices=((8,), (16, 16)))]
    options = Options(search="optuna", trials=60, batch=5)

    def score(trial):
        if trial.number == 1:                                          # a trial that diverged
            return math.nan
        return -abs(math.log10(trial.values["x"]) + 2) - (trial.values["h"] == (8,))

    def found():
        seen = play(trials.make(options, axes, 10, seed=3), score)
        return {trial.number: trial.values for round in seen for trial in round.trials}

    values = found()
    assert values == found() and sorted(values) == list(range(60))
    late = [values[n] for n in range(40, 60)]
    assert np.mean([v["h"] == (16, 16) for v in late]) > 0.7
    assert np.mean([abs(math.log10(v["x"]) + 2) for v in late]) < 0.6       # 1.0 is by chance


@pytest.mark.parametrize("name", [name for name in SEARCHES if name != "optuna"])
def test_a_search_that_is_made_again_asks_the_same(name):
    """A sweep is resumed that way."""
    axes = [Axis("a", True, choices=(1, 2, 3, 4))]
    options = Options(search=name, trials=4, eta=2)
    first, again = (play(trials.make(options, axes, 80, seed=1), lambda trial: trial.number)
                    for _ in range(2))
    assert first == again and first[-1].steps == 80


def test_rounds_sends_scores_to_the_search(halving):
    options = Options(search="asha", trials=16, eta=4)
    rounds = trials.rounds(options, [], 160, seed=0)
    scores: Scores | None = None
    seen = []
    for _ in range(3):
        seen.append(rounds.send(scores))
        scores = {trial.number: -trial.number for trial in seen[-1].trials}
    assert seen == play(halving, lambda trial: -trial.number)
    with pytest.raises(StopIteration):
        rounds.send(scores)


def test_an_unknown_search_is_named():
    assert set(SEARCHES) <= set(registry.searches())
    with pytest.raises(UserError, match=r'unknown search "grd"\. Did you mean: grid'):
        registry.search("grd")
