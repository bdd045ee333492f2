"""The on-policy driver: chunks of updates, the meaning of metrics, members, and NaN."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algos import ppo
from envs_jax.classic.cartpole import CartPole
from envs_jax.core import spec
from envs_jax.vector import VectorEnv
from envs_jax.wrappers import TimeLimit, Wrapper
from jaxrl.blocks.networks.actor_critic import NetworkConfig
from jaxrl.declare import hypers
from jaxrl.drivers.on_policy import OnPolicy
from jaxrl.population.members import Members

CONFIG = ppo.Config(num_envs=8, rollout_length=16, epochs=2, minibatches=2,
                    network=NetworkConfig(hidden=(8,)))
SCHEDULE = 50


class Poison(NamedTuple):
    """Params of an environment, and what is added to its rewards and observations: 0, or NaN."""

    env: Any
    reward: float = 0.0
    observation: float = 0.0


class Poisoned(Wrapper):
    @property
    def default_params(self):
        return Poison(self.env.default_params)

    def reset(self, key, params):
        return self.env.reset(key, params.env)

    def step(self, key, state, action, params):
        obs, state, reward, *rest = self.env.step(key, state, action, params.env)
        return obs + params.observation, state, reward + params.reward, *rest

    def observation_space(self, params):
        return self.env.observation_space(params.env)


def make_runner():
    env = TimeLimit(Poisoned(CartPole()), 24)
    vector = VectorEnv(env, CONFIG.num_envs)
    agent = ppo.make_agent(CONFIG, spec(env))
    return OnPolicy(agent, vector, env.default_params, CONFIG.rollout_length)


@pytest.fixture(scope="module")
def single():
    """One learner: the runner, its fresh state, compiled advance and rollout."""
    runner = make_runner()
    state = jax.jit(runner.init)(jax.random.key(3), hypers(CONFIG), SCHEDULE)
    return SimpleNamespace(runner=runner, state=state, advance=jax.jit(runner.advance),
                           rollout=jax.jit(runner.rollout))


@pytest.fixture(scope="module")
def members():
    """Two learners as one block; the first is the learner of `single`."""
    return Members(make_runner(), 2, jax.devices()[:1], size=2)


def population(members):
    keys = jnp.stack([jax.random.key(3), jax.random.key(4)])
    return members.init(keys, jax.tree.map(lambda x: jnp.stack([x, x]), hypers(CONFIG)), SCHEDULE)


def same(a, b):
    def equal(x, y):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
            y = jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)

    jax.tree.map(equal, a, b)


def member(state, i):
    return jax.tree.map(lambda x: x[i], state)


# -------------------------------------------------------------------- a chunk of updates


def test_a_chunk_is_its_updates(single):
    once, metrics = single.advance(single.state, 4)
    half, first = single.advance(single.state, 2)
    twice, second = single.advance(half, 2)
    same(once, twice)
    assert metrics["episodes"] == first["episodes"] + second["episodes"] > 0
    np.testing.assert_allclose(metrics["loss"], (first["loss"] + second["loss"]) / 2, rtol=1e-5)


def test_hyperparameters_and_chunk_lengths_share_one_program(single):
    results = []
    for setting in ({}, {"learning_rate": 1e-2}, {"gamma": 0.5}, {"clip": 0.01},
                    {"entropy_weight": 1.0}):
        hyper = single.state.hyper._replace(**{name: jnp.float32(x) for name, x in setting.items()})
        results.append(single.advance(single.state._replace(hyper=hyper), 1 + len(results))[1])
    assert single.advance._cache_size() == 1
    assert len({float(metrics["loss"]) for metrics in results}) == len(results)


def test_state_keeps_its_shapes_and_types(single):
    after = jax.eval_shape(single.runner.advance, single.state, 1)[0]
    assert after == jax.eval_shape(lambda state: state, single.state)
    assert not any(x.weak_type for x in jax.tree.leaves(after))


def test_metrics_are_those_of_the_rollouts(single):
    """Episodes, returns and lengths of three updates, counted again by a loop over the rewards.

    The other metrics are means.
    """
    state = single.state
    batches = []
    each = []
    for _ in range(3):
        _, rollout_key, _ = jax.random.split(state.key, 3)      # as `advance` does
        batches.append(single.rollout(state, state.progress.update / SCHEDULE, rollout_key)[2])
        state, metrics = single.advance(state, 1)
        each.append(metrics)
    reward, terminated, truncated = (np.concatenate([getattr(b, name) for b in batches])
                                     for name in ("reward", "terminated", "truncated"))
    returns = []
    lengths = []
    total = np.zeros(CONFIG.num_envs)
    length = np.zeros(CONFIG.num_envs, int)
    for t, b in np.ndindex(reward.shape):
        total[b] += reward[t, b]
        length[b] += 1
        if terminated[t, b] or truncated[t, b]:
            returns.append(total[b])
            lengths.append(length[b])
            total[b] = 0.0
            length[b] = 0
    assert terminated.any() and truncated.any()

    _, metrics = single.advance(single.state, 3)
    assert metrics["episodes"] == len(returns) and metrics["nonfinite"] == 0
    np.testing.assert_allclose(metrics["return_mean"], np.mean(returns), rtol=1e-5)
    np.testing.assert_allclose(metrics["length_mean"], np.mean(lengths), rtol=1e-5)
    for name in set(metrics) - {"episodes", "return_mean", "length_mean"}:
        want = np.mean([m[name] for m in each])
        np.testing.assert_allclose(metrics[name], want, rtol=1e-4, atol=1e-6, err_msg=name)


def test_metrics_keep_their_names(single):
    """One update's metrics are what `learn` returned, under the same names."""
    _, rollout_key, learn_key = jax.random.split(single.state.key, 3)
    batch = single.rollout(single.state, 0.0, rollout_key)[2]
    learn = jax.jit(single.runner.agent.learn)
    _, want, _ = learn(single.state.agent, single.state.hyper, batch, jnp.float32(0.0), learn_key)
    _, metrics = single.advance(single.state, 1)
    for name, value in want.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_no_episode_no_mean(single):
    _, metrics = single.advance(single.state, 0)
    assert metrics["episodes"] == 0
    assert np.isnan(metrics["return_mean"]) and np.isnan(metrics["length_mean"])


# -------------------------------------------------------------------- members


def test_a_member_of_a_block_is_the_single_learner_up_to_rounding(single, members):
    alone, _ = single.advance(single.state, 10)
    blocks, _ = members.advance(population(members), 10)
    among = member(blocks[0], 0)
    close = lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5)
    jax.tree.map(close, alone.agent.params, among.agent.params)


@pytest.mark.parametrize("where", ["reward", "observation"])
def test_a_member_that_meets_nan_keeps_what_it_was_and_harms_nobody(members, where):
    def poisoned(amount):
        blocks, _ = members.advance(population(members), 2)
        before = jax.tree.map(jnp.copy, blocks[0])      # the next call donates the block
        params = blocks[0].env.params._replace(**{where: jnp.float32([0.0, amount])})
        block = blocks[0]._replace(env=blocks[0].env._replace(params=params))
        blocks, metrics = members.advance([block], 3)
        return before, blocks[0], metrics

    _, healthy, _ = poisoned(0.0)
    before, ill, metrics = poisoned(np.nan)
    assert healthy.alive.all()
    np.testing.assert_array_equal(ill.alive, [True, False])
    np.testing.assert_array_equal(ill.progress.update, [5, 2])
    same(member(ill.agent, 1), member(before.agent, 1))
    same(member(ill, 0), member(healthy, 0))
    assert metrics["nonfinite"][0] == 0
    assert members.runner.watched(metrics)[metrics["nonfinite"][1] - 1] == where
