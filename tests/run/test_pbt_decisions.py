"""Decisions of population-based training, and the toy of the paper."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.declare import Range
from jaxrl.population.members import Members
from jaxrl.population.pbt import Options, decide, initial
from jaxrl.types import Progress, TrainState

RANGES = {"rate": Range(1e-5, 1e-2, True), "gamma": Range(0.9, 0.99)}


def values(count, seed=0):
    return initial(RANGES, count, seed)


# -------------------------------------------------------------------- decisions


def test_first_values_are_in_their_ranges_and_log_uniform():
    drawn = values(4000)
    for name, (low, high, _) in RANGES.items():
        assert drawn[name].dtype == np.float32
        assert drawn[name].min() >= low
        assert drawn[name].max() <= high * (1 + 1e-6)
    assert abs(np.median(np.log10(drawn["rate"])) + 3.5) < 0.1
    assert abs(np.median(drawn["gamma"]) - 0.945) < 0.005


@pytest.mark.parametrize("count, quantile", [(8, 0.25), (10, 0.25), (5, 0.5), (3, 0.2)])
def test_truncation(count, quantile):
    """The worst members copy the best, within the ranges; the others stay as they were."""
    rng = np.random.default_rng(1)
    options = Options(quantile=quantile)
    before = values(count)
    few = min(math.ceil(quantile * count), count // 2)
    copies = 0
    for round in range(1, 40):
        fitness = rng.normal(size=count)
        ranks = np.argsort(-fitness)
        source, after = decide(options, RANGES, 7, round, fitness, before)
        for i in range(count):
            if i in ranks[count - few:]:
                assert source[i] in ranks[:few]
                copies += 1
            else:
                assert source[i] == i
            for name, (low, high, _) in RANGES.items():
                old = before[name][source[i]]
                new = after[name][i]
                assert np.float32(low) <= new <= np.float32(high)
                if source[i] == i:
                    assert new == old
    assert copies == 39 * few


def test_perturbed_or_drawn_anew():
    options = Options(quantile=0.5, resample=0.25)
    before = {"rate": np.full(2, 1e-3, np.float32)}
    found = np.array([decide(options, {"rate": RANGES["rate"]}, 3, r, np.array([1.0, 0.0]),
                             before).values["rate"][1]
                      for r in range(1, 2001)])
    up = np.isclose(found, 1.2e-3, rtol=1e-5)
    down = np.isclose(found, 0.8e-3, rtol=1e-5)
    assert abs(up.mean() - 0.375) < 0.04 and abs(down.mean() - 0.375) < 0.04
    rest = np.log10(found[~up & ~down])
    assert abs(np.median(rest) + 3.5) < 0.2 and rest.min() < -4.7 and rest.max() > -2.3


def test_tournament():
    rng = np.random.default_rng(0)
    options = Options(exploit="tournament")
    moved = []
    for round in range(1, 300):
        fitness = rng.permutation(6).astype(float)
        source, _ = decide(options, RANGES, 0, round, fitness, values(6))
        assert (fitness[source] >= fitness).all()
        moved.append(source != np.arange(6))
    # the rival is better in 15 of 36 pairs, itself included
    assert abs(np.mean(moved) - 15 / 36) < 0.05


@pytest.mark.parametrize("exploit", ["truncation", "tournament"])
def test_a_member_that_diverged_is_never_a_source_and_always_replaced(exploit):
    for round in range(1, 50):
        fitness = np.array([np.nan, 1.0, np.inf, 2.0, np.nan, np.nan])
        source, _ = decide(Options(exploit=exploit), RANGES, 0, round, fitness, values(6))
        assert set(source) <= {1, 3}
    nobody, after = decide(Options(exploit=exploit), RANGES, 0, 1, np.full(6, np.nan), values(6))
    np.testing.assert_array_equal(nobody, np.arange(6))
    np.testing.assert_array_equal(after["rate"], values(6)["rate"])


def test_without_exploit_nothing_changes():
    source, after = decide(Options(exploit="none"), RANGES, 0, 1, np.arange(6.0), values(6))
    np.testing.assert_array_equal(source, np.arange(6))
    np.testing.assert_array_equal(after["gamma"], values(6)["gamma"])


def test_a_member_s_draws_are_its_own():
    """The draws of member 1 do not depend on the number of members."""
    few = initial(RANGES, 2, 5)
    many = initial(RANGES, 7, 5)
    for name in RANGES:
        np.testing.assert_array_equal(few[name], many[name][:2])
    rng = np.random.default_rng(0)
    for round in range(1, 20):
        fitness = np.concatenate([[1.0, 0.0], np.full(5, 0.5)])
        own = decide(Options(quantile=0.1), RANGES, 3, round, fitness, many)
        noise = rng.permutation(7).astype(np.float32)
        other = decide(Options(quantile=0.1), RANGES, 3, round, fitness,
                       {name: np.where(np.arange(7) < 2, x, noise) for name, x in many.items()})
        assert own.values["rate"][1] == other.values["rate"][1]


# -------------------------------------------------------------------- the toy of the paper


class Toy:
    """Figure 2 of Jaderberg et al. 2017.

    The learner ascends 1.2 - (h0 t0^2 + h1 t1^2), and its fitness is 1.2 - t0^2 - t1^2.
    """

    steps_per_update = 1
    num_envs = 1
    groups = 1

    def init(self, key, hyper, schedule):
        progress = Progress(jnp.zeros((), jnp.int32), jnp.asarray(schedule, jnp.int32))
        return TrainState(jnp.full(2, 0.9), hyper, (), (), (), key, progress, jnp.ones((), bool))

    def advance(self, state, updates):
        h = jnp.stack([state.hyper["h0"], state.hyper["h1"]])
        theta = jax.lax.fori_loop(0, updates, lambda i, theta: theta - 0.01 * 2.0 * h * theta,
                                  state.agent)
        return state._replace(agent=theta), {"q": 1.2 - jnp.sum(theta**2)}


@pytest.mark.parametrize("exploit, low, high", [("truncation", 1.15, 1.2), ("none", 0.38, 0.40)])
def test_the_toy_of_the_paper(exploit, low, high):
    """Each of two members improves one of two parameters: only together they reach the optimum."""
    found = []
    for seed in range(5):
        ranges = {"h0": Range(0.0, 1.0), "h1": Range(0.0, 1.0)}
        members = Members(Toy(), 2, jax.local_devices()[:1])
        hyper = {"h0": np.float32([1, 0]), "h1": np.float32([0, 1])}
        population = members.init(jax.random.split(jax.random.key(seed), 2), hyper, 1)
        for round in range(1, 101):
            population, metrics = members.advance(population, 4)
            # drawn anew: the toy adds noise to a number that may be 0, where a factor does nothing
            source, hyper = decide(Options(2, exploit=exploit, quantile=0.5, resample=1.0), ranges,
                                   seed, round, metrics["q"], hyper)
            if exploit != "none":
                population = members.copy(population, source, hyper)
        found.append(metrics["q"].max())
    assert low <= np.mean(found) <= high
