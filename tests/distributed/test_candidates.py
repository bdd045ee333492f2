"""Candidates played by workers: the same bits with any number of workers, and if some are lost."""

from __future__ import annotations

import os
import re
import signal
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxrl import config as configs
from jaxrl.distributed.actors import RayPool
from jaxrl.distributed.cluster import Share, connect
from jaxrl.distributed.pool import InlinePool
from jaxrl.drivers.build import build
from jaxrl.errors import RunError
from jaxrl.population.generations import Generations, digest
from jaxrl.population.members import on_host
from jaxrl.population.remote_candidates import CandidateHost, RemoteEvaluator
from jaxrl.run.learners import TRAIN, member_keys, spread

GENERATIONS = 5
CONFIG = configs.from_values({
    "algo": "es", "env": "pendulum", "preset": "none", "env.time_limit": 15,
    "algo.population": 12, "num_seeds": 2,
    "algo.block_size": 4, "algo.network.hidden": [4], "algo.normalize_observation": True,
    "total_steps": GENERATIONS * 12 * 15})


@pytest.fixture(scope="module")
def runner():
    return build(CONFIG).runner


def live(runner, evaluator=None, harm=lambda generation: None):
    """Return (fingerprints, metrics) after some generations of two strategies."""
    members = Generations(runner, 2, jax.local_devices()[:1], evaluator=evaluator)
    population = members.init(member_keys(0, 2, TRAIN), spread(CONFIG), GENERATIONS)
    for generation in range(GENERATIONS):
        harm(generation)
        population, metrics = members.advance(population, 1)
    return [digest(state) for state in population], on_host(metrics)


@pytest.fixture(scope="module")
def expected(runner):
    return live(runner)


def same(found, expected):
    assert found[0] == expected[0]
    jax.tree.map(np.testing.assert_array_equal, found[1], expected[1])


@pytest.mark.slow
def test_a_worker_of_this_process_does_the_same(runner, expected):
    """It keeps up with the results alone: the state is sent once, and then no parameter."""
    evaluator = RemoteEvaluator(runner, InlinePool(CandidateHost, (configs.to_plain(CONFIG),)))
    same(live(runner, evaluator), expected)
    assert evaluator.loads == 1
    sent = sum(x.size for x in jax.tree.leaves(evaluator._results[0]))
    # fitness and steps; moments of 3 numbers for each of 3 blocks
    assert sent == 2 * 12 + 3 * (1 + 3 * 3)


@pytest.mark.slow
@pytest.mark.fault
def test_any_workers_and_lost_ones_change_no_bit(runner, expected):
    """With one worker, and with two, each of which is killed once before a generation."""
    def lived(cluster, workers, harm):
        evaluators = []
        with RayPool(cluster, CandidateHost, (configs.to_plain(CONFIG),), workers=workers,
                     share=Share(cpus=1),
                     restore=lambda worker: evaluators[0].restore(worker)) as pool:
            evaluators.append(RemoteEvaluator(runner, pool))
            return live(runner, evaluators[0], lambda generation: harm(generation, pool))

    def kill(generation, pool):
        if generation in (2, 4):
            pid = int(re.search(r"process (\d+)", pool._all[generation // 4].host)[1])
            os.kill(pid, signal.SIGKILL)

    with connect(2, store=100 << 20) as cluster:
        same(lived(cluster, 1, lambda generation, pool: None), expected)
        same(lived(cluster, 2, kill), expected)


def test_a_block_that_raises_is_named():
    """The error names strategy, block, host and exception, and ends the run."""
    class Broken:
        def load(self, states):
            return [digest(state) for state in states]

        def evaluate(self, item):
            if item == (1, 2):
                raise ValueError("no such joint")
            return item

    runner = SimpleNamespace(blocks=3)
    text = r"block 2 of strategy 1 failed on .*: ValueError: no such joint"
    with pytest.raises(RunError, match=text):
        RemoteEvaluator(runner, InlinePool(Broken)).map([np.zeros(2), np.ones(2)])
