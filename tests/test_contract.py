"""Contracts of every algorithm and every preset.

It loops over the tables, so that nothing can be left out.
"""

import dataclasses
import importlib
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from envs_jax import spaces
from envs_jax.vector import VectorEnv
from jaxrl.config import schemas
from jaxrl.declare import declarations, hypers
from jaxrl.drivers.build import build
from jaxrl.registry import algorithms, environments
from jaxrl.types import Strategy

SMALL = {"num_envs": 4, "rollout_length": 8, "epochs": 2, "minibatches": 2, "network.hidden": "[8]",
         "replay_capacity": 128, "batch_size": 8, "warmup": 64, "gradient_steps": 1,
         "burn_in": 2, "sequence_length": 6, "population": 8, "block_size": 4}
CONTINUOUS = ("ddpg", "td3")        # algorithms of Box actions only
# names for other defaults of a neighbor: run with the slow tests
VARIANTS = ("c51", "qrdqn", "iqn", "td3")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.slow] if name in VARIANTS else [])
        for name in sorted(algorithms())
    ],
)
def learner(request):
    """One small learner of an algorithm on a probe environment, its programs compiled once."""
    algo = request.param
    place = [
        f"algo={algo}",
        "env=probe-both",
        f"env.params.continuous={str(algo in CONTINUOUS).lower()}",
    ]
    known = {d.name for d in declarations(jaxrl.compose(place).algorithm().config)}
    words = [f"algo.{name}={value}" for name, value in SMALL.items() if name in known]
    config = jaxrl.compose([*place, *words])
    built = build(config)
    init = jax.jit(jax.vmap(built.runner.init, in_axes=(0, 0, None)))
    two = jax.tree.map(lambda x: jnp.stack([x, x]), hypers(config.agent))
    return SimpleNamespace(
        algo=algo,
        config=config,
        learner=built,
        strategy=isinstance(built.agent, Strategy),
        hyper=two,
        keys=jax.random.split(jax.random.key(0), 2),
        init=init,
        advance=jax.jit(jax.vmap(built.runner.advance, in_axes=(0, None))),
    )


def start(c, keys=None, hyper=None):
    return c.init(c.keys if keys is None else keys, c.hyper if hyper is None else hyper, 10)


def same(a, b):
    def data(x):
        return np.asarray(
            jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        )

    jax.tree.map(lambda x, y: np.testing.assert_array_equal(data(x), data(y)), a, b)


def test_an_update_keeps_the_state_s_tree_shapes_and_types(learner):
    state = jax.eval_shape(lambda: start(learner))
    after = jax.eval_shape(learner.advance, state, jnp.int32(1))[0]
    assert after == state
    assert not any(x.weak_type for x in jax.tree.leaves(after))


def test_the_same_key_gives_the_same_bits_and_another_does_not(learner):
    once, again = (learner.advance(start(learner), jnp.int32(3)) for _ in range(2))
    same(once, again)
    seeds = jax.tree.leaves(once[0].agent.params)
    assert any(np.any(x[0] != x[1]) for x in seeds)


def test_every_hyperparameter_is_data(learner):
    """Two members that differ in one number: one program, and the other member does not notice."""
    base, _ = learner.advance(start(learner), jnp.int32(2))
    for name in learner.hyper._fields:
        low, high = next(
            (d.low, d.high) for d in declarations(type(learner.config.agent)) if d.name == name
        )
        value = getattr(learner.hyper, name)
        other = jnp.clip(value[1] * 0.5 + 0.01, low, high)
        hyper = learner.hyper._replace(**{name: value.at[1].set(other)})
        changed, _ = learner.advance(start(learner, hyper=hyper), jnp.int32(2))
        same(jax.tree.map(lambda x: x[0], changed.agent), jax.tree.map(lambda x: x[0], base.agent))
    assert learner.advance._cache_size() == 1


def test_metrics_are_named_once_and_finite(learner):
    state, first = learner.advance(start(learner), jnp.int32(1))
    _, second = learner.advance(state, jnp.int32(2))
    own = "update_norm" if learner.strategy else "loss"
    assert set(first) == set(second) >= {own, "episodes", "return_mean", "length_mean", "nonfinite"}
    assert all(x.shape == (2,) for x in first.values()) and all(
        np.isfinite(x).all() for x in second.values()
    )
    names = learner.learner.runner.watched(
        {n: 0 for n in first if n not in ("episodes", "return_mean", "length_mean", "nonfinite")}
    )
    assert own in names and (learner.strategy or names[:2] == ["observation", "reward"])


def test_actions_are_of_the_space(learner):
    c = learner
    agent = learner.learner.agent
    state = jax.tree.map(lambda x: x[0], start(c))
    vector = VectorEnv(c.learner.env, 4)
    inputs = vector.input(vector.init(jax.random.key(2), c.learner.params)[0])
    actor = jax.jit(agent.actor)(state.agent)
    explored, _, _ = jax.jit(agent.explore)(
        actor, state.hyper, agent.carry(4), inputs, 0.0, jax.random.key(1)
    )
    greedy, _ = jax.jit(agent.greedy)(actor, agent.carry(4), inputs, jax.random.key(1))
    for actions in (explored, greedy):
        assert all(spaces.contains(c.learner.spec.action, np.asarray(a)) for a in actions)


def test_every_setting_is_declared_with_help_and_range(learner):
    for d in declarations(type(learner.config.agent)):
        assert d.help and d.kind in ("static", "hyper"), d
        if d.kind == "hyper":
            assert d.low <= d.default <= d.high, d
            assert d.search is None or d.low <= d.search.low < d.search.high <= d.high, d


def test_the_file_says_which_paper(learner):
    module = importlib.import_module(algorithms()[learner.algo].partition(":")[0])
    assert re.search(r"\b(19|20)\d\d\b", module.__doc__.splitlines()[0])


@pytest.mark.parametrize("preset", sorted(schemas.presets()))
def test_presets_compose_and_are_checked(preset):
    algo, _, env = preset.partition("_")
    env = next(name for name in environments() if schemas.preset_name(algo, name) == preset)
    config = jaxrl.compose([f"algo={algo}", f"env={env}"])
    assert config.settings.preset == preset
    default = jaxrl.compose([f"algo={algo}", f"env={env}", "preset=none"])
    assert dataclasses.asdict(config.agent) != dataclasses.asdict(default.agent)
