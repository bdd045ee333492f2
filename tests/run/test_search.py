"""Searches: the trials of a sweep, their rounds, and the questions that are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxrl.config.axes import Axis, Options, question
from jaxrl.config.overrides import parse_sweep
from jaxrl.declare import Range
from jaxrl.errors import UserError
from jaxrl.population import trials as search
from jaxrl.run import sweep

# ---------------------------------------------------------------- which trials


def test_a_grid_is_every_combination():
    axes = [Axis("a", True, choices=(1, 2)), Axis("b", True, choices=("x", "y", "z"))]
    assert [(t.number, t.values) for t in search.grid(axes)] == [
        (i, {"a": a, "b": b}) for i, (a, b) in enumerate((a, b) for a in (1, 2) for b in "xyz")]
    assert search.size(Options(), axes, 10) == (6, 60)


def test_random_trials_do_not_depend_on_their_number():
    axes = [Axis("r", True, range=Range(1e-5, 1e-1, True)), Axis("u", True, range=Range(2.0, 4.0)),
            Axis("c", False, choices=(4, 8))]
    many = search.draw(axes, 2000, 1)
    few = search.draw(axes, 7, 1)
    assert many[:7] == few and search.draw(axes, 7, 2) != few
    r, u, c = (np.array([t.values[key] for t in many]) for key in "ruc")
    assert ((r >= 1e-5) & (r <= 1e-1) & (u >= 2) & (u <= 4)).all() and set(c) == {4, 8}
    # uniform in log
    assert abs(np.log10(r).mean() + 3) < 0.1
    assert abs(np.log10(r).std() - 4 / math.sqrt(12)) < 0.05
    assert abs(u.mean() - 3) < 0.05 and abs((c == 4).mean() - 0.5) < 0.05


@pytest.mark.parametrize("count, total, eta, grace, want", [
    (64, 6400, 4, None, [(64, 100), (16, 400), (4, 1600), (1, 6400)]),
    # two levels are all that 16 trials can pay for
    (16, 1000, 4, None, [(16, 63), (4, 252), (1, 1000)]),
    (3, 1000, 4, None, [(3, 1000)]),
    (8, 1000, 2, 300, [(8, 300), (4, 600), (2, 1000)]),
    (5, 100, 3, 100, [(5, 100)])])
def test_rungs(count, total, eta, grace, want):
    assert search.rungs(count, total, eta, grace) == want
    options = Options(search="asha", trials=count, eta=eta, grace=grace)
    spent = sum(n * (end - before) for (n, end), (_, before) in zip(want, [(0, 0), *want]))
    assert search.size(options, [], total) == (count, spent)


def test_halving_keeps_the_best_and_never_what_diverged(rng):
    trials = search.grid([Axis("a", True, choices=tuple(range(16)))])
    halving = search.halving(trials, search.rungs(16, 160, 4, None))
    scores = rng.permutation(16).astype(float)
    seen = []
    round = next(halving)
    scores[[2, 5]] = np.nan
    try:
        while True:
            seen.append(round)
            round = halving.send({t.number: scores[t.number] for t in round.trials})
    except StopIteration:
        pass
    order = sorted((n for n in range(16) if n not in (2, 5)), key=lambda n: -scores[n])
    trained = [sorted(t.number for t in one.trials) for one in seen]
    assert trained == [list(range(16)), sorted(order[:4]), order[:1]]
    assert set(seen[1].pruned) == set(order[4:])
    assert seen[1].pruned[order[4]] == "rank 5 of 16 after 10 steps, 4 go on"
    assert seen[2].pruned[order[1]] == "rank 2 of 4 after 40 steps, 1 goes on"


def test_where_all_diverge_halving_ends():
    halving = search.halving(search.draw([], 16, 0), search.rungs(16, 160, 4, None))
    first = next(halving)
    with pytest.raises(StopIteration):
        halving.send(dict.fromkeys((t.number for t in first.trials), math.nan))


def test_tpe_finds_the_best_and_is_repeatable():
    axes = [Axis("x", True, range=Range(1e-4, 1.0, True)),
            Axis("h", False, choices=((8,), (16, 16)))]

    def play(count, batch):
        rounds = search.tpe(axes, count, batch, 10, seed=3)
        found = {}
        round = next(rounds)
        scores = None
        while round is not None:
            scores = {t.number: -abs(math.log10(t.values["x"]) + 2) - (t.values["h"] == (8,))
                      for t in round.trials}
            scores[1] = math.nan if 1 in scores else 0.0              # a trial that diverged
            found |= {t.number: t.values for t in round.trials}
            round = sweep._next(rounds, scores)
        return found

    found = play(60, 5)
    assert found == play(60, 5) and sorted(found) == list(range(60))
    late = [found[n] for n in range(40, 60)]
    assert np.mean([v["h"] == (16, 16) for v in late]) > 0.7
    # 1.0 is what chance gives
    assert np.mean([abs(math.log10(v["x"]) + 2) for v in late]) < 0.6


# ---------------------------------------------------------------- what is asked


def test_ranges_follow_the_declaration():
    words = ["algo=ppo", "env=cartpole", "search=random", "algo.learning_rate=range(1e-5,1e-2)",
             "algo.gamma=range(0.9,0.99)", "algo.clip=tag(log,interval(0.1,0.4))",
             "algo.num_envs=4,8", "algo.network.hidden=[8],[16,16]"]
    axes = question(*parse_sweep(words)).axes
    assert axes == (Axis("algo.learning_rate", True, range=Range(1e-5, 1e-2, True)),
                    axes[1]._replace(range=axes[1].range._replace(low=0.9, high=0.99)),
                    Axis("algo.clip", True, range=Range(0.1, 0.4, True)),
                    Axis("algo.num_envs", False, choices=(4, 8)),
                    Axis("algo.network.hidden", False, choices=((8,), (16, 16))))
    everything = question(*parse_sweep(["algo=ppo", "env=cartpole", "search=random",
                                        "algo.gamma=0.9"])).axes
    assert {"algo.learning_rate"} < {axis.key for axis in everything}
    assert all(axis.range for axis in everything)
    assert "algo.gamma" not in {axis.key for axis in everything}


@pytest.mark.parametrize("words, text", [
    (["algo.learning_rte=1e-3,1e-2"],
     'unknown key "algo.learning_rte" for ppo. Did you mean: algo.learning_rate'),
    (["algo.gamma=0.9,1.3"], "algo.gamma=1.3 is out of range: 0 <= gamma <= 1"),
    (["algo.learning_rate=fast,slow"], 'algo.learning_rate="slow" is not a number'),
    (["search=random", "algo.gamma=range(0.9,0.9)"],
     "algo.gamma=range(0.9,0.9) is empty: the first end is to be"),
    (["search=random", "algo.gamma=range(0.99,0.9)"], "algo.gamma=range(0.99,0.9) is empty"),
    (["search=random", "algo.gamma=range(0.9,1.9)"], "algo.gamma=1.9 is out of range"),
    (["search=random", "algo.num_envs=range(4,8)"],
     "algo.num_envs=range(4,8): algo.num_envs shapes the compiled "
     "program, a sweep takes a few values of it: algo.num_envs=A,B"),
    (["algo.gamma=range(0.9,0.99)"],
     "algo.gamma has a range, a grid takes values: algo.gamma=A,B,C, or search=random"),
    (["algo.gamma=0.9,0.9"], "algo.gamma=0.9,0.9 names 0.9 twice"),
    ([], "nothing to sweep: no setting has several values. Such as: algo.learning_rate="),
    (["seed=1,2"],
     "seed=1,2: seed is the same for all trials of a sweep. Every trial has num_seeds= seeds"),
    (["total_steps=1e4,1e5"],
     "total_steps=1e4,1e5: total_steps is the same for all trials of a sweep"),
    (["search=grd", "algo.gamma=0.9,0.8"],
     'search="grd" is not one of: grid, random, asha, optuna. Did you mean: '),
    (["trials=0", "algo.gamma=0.9,0.8"], "trials=0 is out of range: 1 <= trials"),
    (["trials=1,2", "algo.gamma=0.9,0.8"], "trials=1,2 names several values, it takes one"),
    (["search=asha", "grace=1e9"], "grace=1,000,000,000 is more than total_steps="),
    (["algo.gamma=0.9,0.8", "stop_return=3"],
     "stop_return=3 has no effect in a sweep: all trials have the same"),
    (["algo.gamma=0.9,0.8", "init_from=x"],
     "init_from=x has no effect in a sweep: all trials start afresh"),
    (["algo.gamma=glob(*)"], "algo.gamma=glob(*) "),
    (["algo.num_envs=4,8", "algo.rollout_length=8", "algo.minibatches=64"],
     "does not divide into 64 minibatches"),
    (["algo=ppo,pp0", "algo.gamma=0.9,0.8"], 'unknown algo "pp0". Did you mean: ppo?'),
])
def test_bad_input(words, text):
    with pytest.raises(UserError) as caught:
        question(*parse_sweep(["algo=ppo", "env=cartpole", *words]))
    assert text in str(caught.value)


def test_several_mistakes_are_reported_at_once():
    with pytest.raises(UserError) as caught:
        question(*parse_sweep(["algo=ppo", "env=cartpole", "algo.gamma=0.9,1.3", "algo.lambd=1,2",
                               "seed=1,2", "eta=1", "total_steps=x"]))
    assert len(caught.value.problems) == 5
