"""Strategies of evosax: that each is told what its candidates were worth.

And that the driver's promises hold.
"""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jaxrl
from algos.evosax import EVOSAX, STRATEGIES, Config
from envs_jax import make
from envs_jax.core import spec
from jaxrl import config as configs
from jaxrl.declare import hypers
from jaxrl.distributed.pool import InlinePool
from jaxrl.drivers.build import build
from jaxrl.errors import UserError
from jaxrl.population.generations import Generations, digest
from jaxrl.population.remote_candidates import CandidateHost, RemoteEvaluator
from jaxrl.run.learners import TRAIN, member_keys, spread


def distance(params, target):
    return jax.vmap(lambda one: jnp.linalg.norm(ravel_pytree(one)[0] - target))(params)


@pytest.mark.parametrize(
    "name",
    [
        name if name == "CMA_ES" else pytest.param(name, marks=pytest.mark.slow)
        for name in STRATEGIES
    ],
)
def test_a_strategy_goes_where_fitness_is_high(name):
    """Fitness is minus the distance to a point of the parameters' space.

    The center comes near it, from far away.
    """
    config = Config(strategy=name, population=32, sigma=0.5)
    strategy = EVOSAX.make_agent(config, spec(*make("lqr")))
    hyper = hypers(config)
    state = strategy.init(jax.random.key(0), hyper)
    theta = ravel_pytree(strategy.actor(state).params)[0]
    target = theta + 1.0
    ids = jnp.arange(32, dtype=jnp.int32)

    def generation(_, state):
        fitness = -distance(strategy.ask(state, hyper, ids).params, target)
        return strategy.tell(state, hyper, ids, fitness, ())[0]

    after = jax.jit(lambda state: jax.lax.fori_loop(0, 80, generation, state))(state)
    center = ravel_pytree(strategy.actor(after).params)[0]
    assert float(jnp.linalg.norm(center - target)) < 0.35 * float(jnp.linalg.norm(theta - target))
    assert after.generation == 80 and jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(
        lambda x: x.dtype, state
    )


@pytest.mark.slow
def test_a_block_plays_its_own_candidates_and_all_see_the_same_ones():
    """Blocks of four of twelve, here and on a worker.

    The candidates do not depend on the cut, nor do the bits on who plays them.
    """
    config = configs.from_values(
        {
            "algo": "evosax",
            "env": "pendulum",
            "preset": "none",
            "env.time_limit": 15,
            "algo.population": 12,
            "algo.block_size": 4,
            "algo.normalize_observation": True,
            "num_seeds": 2,
            "total_steps": 3 * 12 * 15,
        }
    )
    runner = build(config).runner
    hyper = hypers(config.agent)
    strategy = runner.strategy
    state = strategy.init(jax.random.key(1), hyper)
    whole = strategy.ask(state, hyper, jnp.arange(12)).params
    part = strategy.ask(state, hyper, jnp.arange(4, 8)).params
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[4:8], b), whole, part)

    found = []
    for evaluator in (
        None,
        RemoteEvaluator(runner, InlinePool(CandidateHost, (configs.to_plain(config),))),
    ):
        members = Generations(runner, 2, jax.local_devices()[:1], evaluator=evaluator)
        population = members.init(member_keys(0, 2, TRAIN), spread(config), 3)
        population, metrics = members.advance(population, 3)
        found.append(list(map(digest, population)))
        assert np.isfinite(metrics["fitness_mean"]).all() and (metrics["update_norm"] > 0).all()
        assert evaluator is None or evaluator.loads == 1
    assert found[0] == found[1]


def test_without_the_package(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "evosax" else find(name, *a)
    )
    with pytest.raises(UserError, match=r"evosax is not installed: pip install 'jaxrl\[evosax\]'"):
        jaxrl.compose(["algo=evosax", "env=cartpole"])


def test_a_strategy_that_there_is_not():
    with pytest.raises(UserError, match=r"algo\.strategy"):
        jaxrl.compose(["algo=evosax", "env=cartpole", "algo.strategy=CMAES"])
