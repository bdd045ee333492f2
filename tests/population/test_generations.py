"""Strategies driven from the host: the same bits with any evaluator, and after an interruption."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import jaxrl
from jaxrl import config as configs
from jaxrl.drivers.build import build
from jaxrl.population.generations import Generations, digest, no_sums
from jaxrl.population.members import on_host
from jaxrl.run.learners import TRAIN, make_members, member_keys, spread
from jaxrl.run.loop import resume, train
from jaxrl.storage import checkpoint
from tests.helpers import assert_same, rows

WORDS = {"algo": "es", "env": "pendulum", "preset": "none", "env.time_limit": 15,
         "algo.population": 12, "algo.block_size": 4, "algo.network.hidden": [4],
         "algo.normalize_observation": True, "eval_episodes": 3}
GENERATION = 12 * 15                               # steps as they are planned


def tiny(generations=6, /, **settings):
    return configs.from_values({**WORDS, "total_steps": generations * GENERATION, **settings})


@pytest.fixture(scope="module")
def learner():
    return build(tiny())


@pytest.fixture(scope="module")
def on(learner):
    """Generations on the first 1 or 2 devices, compiled once."""
    return {devices: Generations(learner.runner, 3, jax.devices()[:devices]) for devices in (1, 2)}


def begun(generations):
    config = tiny(num_seeds=generations.count)
    return generations.init(member_keys(0, generations.count, TRAIN), spread(config), 6)


class Backwards:
    """Plays blocks in another order, all on one device, and gives arrays of NumPy."""

    def __init__(self, generations, device):
        self.runner = generations.runner
        self.device = device
        self.programs = generations.generation

    def map(self, population):
        results = []
        for state in jax.device_put(population, self.device):
            def play(block, state=state):
                return on_host(self.programs.evaluate(state, np.int32(block)))

            results.append([play(block) for block in reversed(range(self.runner.blocks))][::-1])
        return results


class Replicas(Backwards):
    """Like a worker elsewhere: it has the states once, then receives results and tells them."""

    held = None
    results = None

    def map(self, population):
        if self.held is None:
            self.held = jax.device_put(population, self.device)
            self.digests = []
        else:
            self.held = [self.programs.tell(state, no_sums(self.runner, state), results)[0]
                         for state, results in zip(self.held, self.results)]
        self.digests.append((digest(population), digest(self.held)))
        self.results = super().map(self.held)
        return self.results


@pytest.mark.slow
def test_any_devices_and_any_evaluator_give_the_same_bits(on):
    found = []
    for devices, evaluator in ((1, None), (2, None), (2, Backwards), (2, Replicas)):
        generations = on[devices].resized(3)
        generations.evaluator = evaluator and evaluator(generations, jax.devices()[1])
        state, first = generations.advance(begun(generations), 2)
        state, second = generations.advance(state, 3)
        host = generations.to_host(state)
        found.append((digest(host), digest([first, second])))
        if evaluator is Replicas:
            seen = generations.evaluator.digests
            assert len(seen) == 5 and all(here == there for here, there in seen)
    assert len(set(found)) == 1
    assert host.agent.generation.tolist() == [5] * 3
    params = [jax.tree.map(lambda x, i=i: x[i], host.agent.params) for i in range(3)]
    assert len(set(map(digest, params))) == 3
    assert digest(host.agent) != digest(host.agent._replace(generation=host.agent.generation + 1))


def test_a_strategy_s_bits_do_not_depend_on_its_neighbours(on):
    one, three = ((m, m.advance(begun(m), 2)[0]) for m in (on[2].resized(1), on[2]))
    one, three = (members.to_host(state) for members, state in (one, three))
    assert digest(one.agent) == digest(jax.tree.map(lambda x: x[:1], three.agent))


def test_the_host_s_generations_are_those_of_the_runner(learner, on):
    """One program for a whole run rounds otherwise, no more."""
    generations = on[2].resized(1)
    state = begun(generations)
    alone = jax.jit(learner.runner.advance)(jax.tree.map(lambda x: x[0], state[0]), 2)
    after, metrics = generations.advance(state, 2)
    there = jax.tree.leaves(generations.to_host(after).agent.params)
    for a, b in zip(there, jax.tree.leaves(alone[0].agent.params)):
        np.testing.assert_allclose(a[0], b, rtol=1e-4, atol=1e-5)
    for name, value in alone[1].items():
        np.testing.assert_allclose(metrics[name], [value], rtol=1e-4, err_msg=name)
    assert metrics["steps_real"] == 2 * GENERATION and metrics["episodes"] == 24


@pytest.mark.slow
def test_two_halves_are_the_whole_and_rows_say_what_was_done(tmp_path):
    every = {"log_every": GENERATION, "eval_every": 3 * GENERATION,
             "checkpoint_every": 3 * GENERATION, "num_seeds": 2}
    whole = train(tiny(6, **every, out=str(tmp_path / "whole")))
    half = train(tiny(3, **every, schedule_steps=6 * GENERATION, out=str(tmp_path / "half")))
    resume(half, [f"total_steps={6 * GENERATION}"])
    assert_same(half, whole)
    assert rows(half) == rows(whole)
    last = rows(whole)[-1]
    assert last["step"] == 6 * GENERATION
    assert last["steps_real"] == [GENERATION] * 2 and last["diverged"] == [0.0] * 2
    names = {"fitness_mean", "fitness_max", "fitness_std", "update_norm", "param_norm"}
    assert names <= last.keys()
    run = jaxrl.load(whole)
    assert run.evaluate(5).shape == (2, 5) and run.summary["env_steps_all"] == 12 * GENERATION
    arrays, _ = checkpoint.load(whole)
    assert not any(name.split("/")[0] in ("env", "carry", "replay") for name in arrays)


@pytest.mark.slow
def test_a_run_from_another_s_parameters_and_on_a_curriculum(tmp_path):
    first = train(tiny(2, out=str(tmp_path / "first")))
    later = train(tiny(1, init_from=str(first), out=str(tmp_path / "later"),
                       **{"env.curriculum.g": [8.0, 10.0]}))
    arrays, _ = checkpoint.load(later)
    assert arrays["agent/generation"].tolist() == [3]


def test_a_strategy_that_diverges_ends_alone(learner, on):
    """One of two is given parameters that are not finite: it stays as it is, the other goes on."""
    generations = on[2].resized(2)
    state = begun(generations)
    host = generations.to_host(state)
    spoil = lambda x: np.concatenate([np.full_like(x[:1], np.nan), x[1:]])
    spoilt = jax.tree.map(spoil, host.agent.params)
    state = generations.from_host(host._replace(agent=host.agent._replace(params=spoilt)))
    after, metrics = generations.advance(state, 2)
    after = generations.to_host(after)
    assert metrics["nonfinite"].tolist() == [1, 0] and after.alive.tolist() == [False, True]
    assert after.progress.update.tolist() == [0, 2]
    checked = learner.runner.watched(metrics)
    assert checked[metrics["nonfinite"][0] - 1] == "return of every candidate"


def test_a_compiled_population_compiles_no_more(learner):
    members = make_members(tiny(num_seeds=3), learner, episodes=3)
    keys = member_keys(0, 3, TRAIN)
    state = members.init(keys, spread(tiny(num_seeds=3)), 6)
    members.compile(state, keys)
    known = set(members._programs)
    state, _ = members.advance(state, 2)
    assert members.evaluate(state, keys).shape == (3, 3) and set(members._programs) == known
