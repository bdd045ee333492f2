"""Greedy evaluation: the first whole episodes of each environment; and statistics of returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from algos import ppo
from envs_jax import build, spec
from envs_jax.core import Environment
from envs_jax.probe.two_step import TwoStepGame
from envs_jax.probe.values import EndlessReward
from envs_jax.sizes import ceil_div
from envs_jax.spaces import Box, Discrete
from envs_jax.vector import VectorEnv
from jaxrl import evaluate as module
from jaxrl.blocks import normalize
from jaxrl.blocks.networks.actor_critic import NetworkConfig
from jaxrl.declare import hypers
from jaxrl.evaluate import bootstrap_ci, iqm, make_evaluate
from jaxrl.types import Agent


class LotteryState(NamedTuple):
    t: jax.Array
    length: jax.Array
    prize: jax.Array


@dataclass(frozen=True)
class Lottery(Environment):
    """Episodes of 1 to 9 steps; long ones pay more a step, so the first to end pay too little."""

    max_steps = 9

    def reset(self, key, params):
        length = jax.random.randint(key, (), 1, 10)
        state = LotteryState(jnp.int32(0), length, length + jax.random.uniform(key))
        return state.prize[None], state

    def step(self, key, state, action, params):
        t = state.t + 1
        reward = state.prize * jnp.where(action == 1, 1.0, -1.0) + 0.01 * jax.random.uniform(key)
        state = state._replace(t=t)
        return state.prize[None], state, reward, t == state.length, jnp.bool_(False), {}

    def observation_space(self, params):
        return Box(0.0, 10.0, (1,))

    def action_space(self, params):
        return Discrete(2)


def greedy(actor, memory, inputs, key):
    """Action 1 where the scaled observation exceeds 4."""
    return (inputs.obs[:, 0] * actor["scale"] > 4.0).astype(jnp.int32), memory


AGENT = Agent(init=None, actor=None, carry=lambda batch: (), explore=None, greedy=greedy,
              learn=None)
ACTOR = {"scale": np.float32(1.0)}


def slow(env, params, episodes, envs, k, key):
    """The same by a loop over steps and environments, with the same keys."""
    vector = VectorEnv(env, envs)
    start_key, run_key = jax.random.split(key)
    world, inputs = vector.init(start_key, params)
    step = jax.jit(vector.step)
    totals = np.zeros(envs)
    found = [[] for _ in range(envs)]
    for t in range(1000):
        if all(len(x) >= k for x in found):
            break
        _, env_key = jax.random.split(jax.random.fold_in(run_key, t))
        action = (np.asarray(inputs.obs)[:, 0] > 4.0).astype(np.int32)
        world, after = step(env_key, world, action)
        inputs = after.input
        for i in range(envs):
            totals[i] += float(after.reward[i])
            if after.terminated[i] or after.truncated[i]:
                found[i].append(totals[i])
                totals[i] = 0.0
    return np.asarray([x[:k] for x in found]).reshape(-1)[:episodes]


@pytest.mark.parametrize("episodes, most", [(7, 3), (12, 256)])
def test_the_first_episodes_of_each_environment(monkeypatch, episodes, most):
    monkeypatch.setattr(module, "MAX_ENVS", most)
    env, params = build(Lottery, time_limit=7)
    got = jax.jit(make_evaluate(AGENT, env, params, episodes))(ACTOR, jax.random.key(3))
    k = ceil_div(episodes, most)
    want = slow(env, params, episodes, ceil_div(episodes, k), k, jax.random.key(3))
    assert got.shape == (episodes,)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_short_episodes_are_not_favoured():
    """The mean of 2,000 episodes is that of the lottery: sum over lengths n of n (n + 1/2) / 9."""
    env, params = build(Lottery)
    evaluate = jax.jit(make_evaluate(AGENT, env, params, 2000))
    got = evaluate({"scale": np.float32(100.0)}, jax.random.key(0))
    want = np.mean([n * (n + 0.5) for n in range(1, 10)])
    assert abs(got.mean() - want) < 4 * got.std() / np.sqrt(2000)


def test_returns_are_the_environments_own():
    """They do not depend on wrappers that change the rewards of a learner."""
    def returns(wrappers):
        env, params = build(Lottery, time_limit=7, wrappers=wrappers)
        return jax.jit(make_evaluate(AGENT, env, params, 12))(ACTOR, jax.random.key(3))

    wrappers = {"scale_reward": 0.25, "clip_reward": [0, 1]}
    np.testing.assert_array_equal(returns({}), returns(wrappers))


def test_an_environment_that_never_ends(monkeypatch):
    """Every episode is cut, so that none of several one after another is missing."""
    monkeypatch.setattr(module, "UNLIMITED", 50)
    monkeypatch.setattr(module, "MAX_ENVS", 4)
    env, params = build(EndlessReward, time_limit=None)

    def greedy(actor, carry, inputs, key):
        return jnp.zeros(len(inputs.obs), jnp.int32), carry

    agent = AGENT._replace(greedy=greedy)
    got = jax.jit(make_evaluate(agent, env, params, 10))(ACTOR, jax.random.key(0))
    assert got.tolist() == [50.0] * 10


def test_agents_share_their_mean():
    env, params = build(TwoStepGame)

    def greedy(actor, carry, inputs, key):
        return jnp.ones(inputs.obs.shape[:2], jnp.int32), carry

    agent = AGENT._replace(greedy=greedy)
    got = jax.jit(make_evaluate(agent, env, params, 5))(ACTOR, jax.random.key(0))
    assert got.tolist() == [8.0] * 5


def test_memory_of_a_policy_is_carried():
    """A policy that counts its steps in its carry plays 1 in the first five only."""
    env, params = build(EndlessReward)
    env_spec = spec(env, params)
    assert env_spec.max_steps == 8

    @dataclass(frozen=True)
    class Paid(EndlessReward):
        def step(self, key, state, action, params):
            obs, state, _, *rest = super().step(key, state, action, params)
            return obs, state, action.astype(jnp.float32), *rest

    env, params = build(Paid)

    def greedy(actor, carry, inputs, key):
        return (carry < 5).astype(jnp.int32), carry + 1

    agent = AGENT._replace(carry=lambda n: jnp.zeros(n, jnp.int32), greedy=greedy)
    assert make_evaluate(agent, env, params, 3)(ACTOR, jax.random.key(0)).tolist() == [5.0] * 3


def test_the_normaliser_is_frozen_and_the_agents_own():
    """Evaluation uses the statistics that the actor holds as they are; it returns no actor."""
    config = ppo.Config(num_envs=4, rollout_length=4, minibatches=1, normalize_observation=True,
                        network=NetworkConfig(hidden=(8,)))
    env, params = build(Lottery)
    agent = ppo.make_agent(config, spec(env, params))
    state = agent.init(jax.random.key(1), hypers(config))
    moments = normalize.update(state.observation, 100.0 + jnp.arange(8.0)[:, None])
    run = jax.jit(make_evaluate(agent, env, params, 6))
    key = jax.random.key(5)
    plain, shifted = (run(agent.actor(state._replace(observation=x)), key)
                      for x in (state.observation, moments))
    assert plain.tolist() == run(agent.actor(state), key).tolist() and len(set(plain.tolist())) == 6

    def far_below(actor, carry, inputs, key):           # clipped at -10, as all shifted ones are
        obs = jnp.zeros_like(inputs.obs) - 1e6
        return agent.greedy(actor, carry, inputs._replace(obs=obs), key)

    constant = jax.jit(make_evaluate(agent._replace(greedy=far_below), env, params, 6))
    want = constant(agent.actor(state._replace(observation=moments)), key)
    assert shifted.tolist() == want.tolist()


# ---------------------------------------------------------------- statistics


def test_iqm_is_scipys(rng):
    assert iqm([10, 200, 450, 480, 490, 500, 500, 500]) == 480
    for n in range(1, 25):
        x = rng.normal(size=n)
        np.testing.assert_allclose(iqm(x), stats.trim_mean(x, 0.25), rtol=1e-12)
    assert iqm([1.0, 5.0]) == 3.0 and iqm([[4.0], [4.0]]) == 4.0
    # NaN is not the largest number
    assert np.isnan(iqm([])) and np.isnan(iqm([1.0] * 7 + [np.nan]))


def test_bootstrap_interval(rng):
    x = rng.normal(3.0, 1.0, (10, 40))
    low, high = bootstrap_ci(x)
    assert low < iqm(x.mean(axis=1)) < high and bootstrap_ci(x) == (low, high)
    assert bootstrap_ci(x[:, :1]) != (low, high)
    narrow = bootstrap_ci(x, level=0.5)
    wide = bootstrap_ci(x, level=0.99)
    assert wide[0] <= low < narrow[0] < narrow[1] < high <= wide[1]
    one = bootstrap_ci(x[:1])                          # of one seed: the mean over its episodes
    assert one[0] < x[0].mean() < one[1]
    low, high = bootstrap_ci(np.eye(1, 20) * 5)        # mostly zeros: of the mean, not of the IQM
    assert low <= 0.25 <= high and high > 0
    assert bootstrap_ci(np.full((5, 3), 7.0)) == (7.0, 7.0) and bootstrap_ci([[2.0]]) == (2.0, 2.0)
    assert all(np.isnan(bootstrap_ci([1.0, np.nan, 2.0])))


@pytest.mark.slow
def test_bootstrap_interval_covers(rng):
    """About 95 % of the intervals of 300 samples of 20 seeds hold the true value.

    Bootstrap intervals hold it a little less often.
    """
    intervals = [bootstrap_ci(rng.normal(size=20)) for _ in range(300)]
    hits = [low <= 0.0 <= high for low, high in intervals]
    assert 0.87 <= np.mean(hits) <= 0.99
