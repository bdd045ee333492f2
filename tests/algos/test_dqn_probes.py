"""DQN and its family: probes, and the promises of its driver."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from algos import dqn
from envs_jax.core import spec
from jaxrl.blocks.networks.q_networks import q_network
from jaxrl.declare import hypers
from jaxrl.drivers.build import build
from jaxrl.errors import UserError
from jaxrl.types import Input
from tests.algos.helpers import train
from tests.algos.test_dqn import SMALL, softmax
from tests.algos.test_probes import Blind, Fatal

# -------------------------------------------------------------------- probes

QUICK = {
    "num_envs": 8,
    "gradient_steps": 2,
    "warmup": 200,
    "replay_capacity": 4096,
    "learning_rate": 5e-3,
    "network": SMALL,
    "target_every": 50,
    "epsilon_end": 0.2,
}


def values(trained, observations, mask=None):
    """Q [n, A]."""
    config = trained.config
    network = q_network(
        config.network,
        spec(trained.env),
        size=1 if config.returns == "mean" else config.atoms,
        duel=config.dueling,
        noisy=config.noisy,
        implicit=config.returns == "implicit",
    )
    inputs = Input(jnp.asarray(observations)[None], jnp.zeros((1, len(observations)), bool), mask)
    z = np.asarray(network.outputs(trained.state.agent.params, (), inputs)[0].z[0])
    atoms = np.linspace(config.value_low, config.value_high, z.shape[-1])
    return (softmax(z) * atoms).sum(-1) if config.returns == "categorical" else z.mean(-1)


def trained(name, updates=1500, **settings):
    return train(dqn.DQN, name, updates, **{**QUICK, **settings})


@pytest.mark.parametrize("name", ["probe-observation", "probe-discount", "probe-both"])
def test_probe(name):
    learner = trained(name, gamma=0.5)
    probe = learner.env.unwrapped
    q = values(learner, probe.observations)
    np.testing.assert_allclose(q.max(axis=1), probe.values(0.5), atol=0.05)
    if probe.best_actions is not None:
        np.testing.assert_array_equal(q.argmax(axis=1), probe.best_actions)


@pytest.mark.parametrize("settings", [
    {}, *(pytest.param(settings, marks=pytest.mark.slow) for settings in (
        {"n_step": 3, "prioritized": True, "dueling": True},
        {"returns": "categorical", "atoms": 21, "value_low": 0.0, "value_high": 100.0},
        {"returns": "quantile", "atoms": 8}, {"returns": "implicit", "atoms": 4}))], ids=str)
def test_bootstraps_through_a_time_limit(settings):
    learner = trained(
        "probe-truncation",
        3000,
        gamma=0.98,
        learning_rate=0.02,
        learning_rate_end=0.05,
        target_every=20,
        **settings,
    )
    assert abs(values(learner, [[0.0]]).max() - 50.0) <= 2.5


def test_who_takes_a_time_limit_for_an_end_is_caught():
    learner = trained(
        "probe-truncation", 1500, wrap=Blind, gamma=0.98, learning_rate=0.02, target_every=20
    )
    assert values(learner, [[0.0]]).max() < 20.0


@pytest.mark.slow
def test_no_illegal_action_ever():
    """`train` asserts that the learner is alive; an illegal action would have paid NaN."""
    learner = trained("masked-bandit", wrap=Fatal, gamma=0.5)
    assert (
        learner.metrics["return_mean"] / learner.env.time_limit
        > 0.75 * learner.env.unwrapped.optimal_reward
    )


# -------------------------------------------------------------------- the driver


WORDS = [
    "algo=dqn",
    "env=cartpole",
    "preset=none",
    "algo.prioritized=true",
    "algo.n_step=3",
    "algo.warmup=160",
    "algo.replay_capacity=4000",
    "algo.network.hidden=[8]",
]


@pytest.fixture(scope="module")
def learner():
    config = jaxrl.compose(WORDS)
    runner = build(config).runner
    keys = jax.random.split(jax.random.key(0), 2)
    return SimpleNamespace(config=config, runner=runner, keys=keys, hyper=hypers(config.agent),
                           one=jax.jit(runner.advance))


def test_the_warm_up_only_stores(learner):
    state = jax.jit(learner.runner.init)(learner.keys[0], learner.hyper, 100)
    after, metrics = learner.one(state, 40)
    jax.tree.map(np.testing.assert_array_equal, after.agent, state.agent)
    assert after.replay.ring.size == 40 and np.isnan(metrics["loss"]) and after.alive
    actions = np.asarray(after.replay.ring.rows.action[:40])
    assert 0.3 < actions.mean() < 0.7
    learned, metrics = learner.one(after, 3)
    assert learned.agent.updates == 6 and np.isfinite(metrics["loss"])


@pytest.mark.slow
def test_a_vmapped_seed_is_the_single_one_up_to_rounding(learner):
    """10 updates after the warm-up."""
    def init(key):
        return learner.runner.init(key, learner.hyper, 100)

    both, _ = jax.jit(jax.vmap(lambda key: learner.runner.advance(init(key), 50)))(learner.keys)
    for i, key in enumerate(learner.keys):
        alone, _ = learner.one(jax.jit(init)(key), 50)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5),
                     both.agent.params, alone.agent.params)


@pytest.mark.slow
@pytest.mark.parametrize("members", [1, 2])
def test_the_replay_is_not_copied(learner, members, optimized):
    """Peak memory of a chunk of updates is that of the state.

    A copy of the priorities alone would add a tenth.
    """
    config = dataclasses.replace(learner.config.agent, replay_capacity=400_000)
    runner = build(dataclasses.replace(learner.config, agent=config)).runner
    state = jax.eval_shape(
        jax.vmap(lambda key: runner.init(key, learner.hyper, 100)), learner.keys[:members]
    )
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.replay))
    advance = jax.jit(jax.vmap(runner.advance, in_axes=(0, None)), donate_argnums=0)
    memory = advance.lower(state, jnp.int32(3)).compile().memory_analysis()
    assert size > 1e7 and memory.alias_size_in_bytes > size
    assert memory.argument_size_in_bytes + memory.temp_size_in_bytes < 1.05 * size


@pytest.mark.slow
def test_resume_is_exact_with_the_replay_in_the_checkpoint(tmp_path):
    words = {word.partition("=")[0]: word.partition("=")[2] for word in WORDS}
    settings = {
        "algo.prioritized": True,
        "algo.n_step": 3,
        "algo.warmup": 160,
        "algo.replay_capacity": 4000,
        "algo.network.hidden": [8],
        "preset": "none",
        "eval_episodes": 2,
        "num_seeds": 2,
    }
    whole = jaxrl.train(
        words["algo"],
        words["env"],
        out=str(tmp_path / "whole"),
        total_steps=800,
        schedule_steps=800,
        **settings,
    )
    half = jaxrl.train(
        words["algo"],
        words["env"],
        out=str(tmp_path / "half"),
        total_steps=400,
        schedule_steps=800,
        **settings,
    )
    half = jaxrl.resume(half.folder, total_steps=800)
    ends = [run.folder / "checkpoints" / "800" / "state.safetensors" for run in (whole, half)]
    assert ends[0].read_bytes() == ends[1].read_bytes()


@pytest.mark.parametrize(
    "words, text",
    [
        (
            ["env=pendulum"],
            r"dqn needs a discrete action space, pendulum has Box\(-2, 2, \(1,\)\). Try: sac, td3",
        ),
        (
            ["algo.batch_size=200", "algo.replay_capacity=100"],
            "algo.batch_size=200 is more than algo.replay_capacity=100",
        ),
        (["algo.warmup=3"], "algo.warmup=3 is too short to have anything to draw"),
        (["algo.network.recurrent=gru"], "dqn learns from single transitions"),
    ],
)
def test_bad_input(words, text):
    with pytest.raises(UserError, match=text):
        jaxrl.compose(["algo=dqn", "env=cartpole", *words])
