"""Recurrent PPO under an action mask: memory through the carry, legality through Input.mask, no special case."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algos import ppo
from envs_jax.core import spec
from envs_jax.memory.repeat import RepeatPrevious, RepeatPreviousState
from envs_jax.vector import VectorEnv
from envs_jax.wrappers import TimeLimit
from jaxrl.blocks.networks import NetworkConfig, actor_critic
from jaxrl.declare import hypers
from jaxrl.drivers.on_policy import OnPolicy

LIMIT = 6
CONFIG = ppo.Config(num_envs=32, rollout_length=16, minibatches=4, learning_rate=5e-3, learning_rate_end=0.1, gamma=0.5,
                    network=NetworkConfig(hidden=(16,), recurrent="gru", recurrent_size=16))


class MaskedState(NamedTuple):
    symbols: RepeatPreviousState
    illegal: jax.Array       # int32: the action that is not allowed now


class MaskedRepeat(RepeatPrevious):
    """Repeat-previous with one wrong action, drawn anew, illegal in each step: no memory is right 1 time in 3."""

    def reset(self, key, params):
        symbol_key, key = jax.random.split(key)
        obs, state = super().reset(symbol_key, params)
        return obs, self._forbid(key, state)

    def step(self, key, state, action, params):
        symbol_key, key = jax.random.split(key)
        obs, after, reward, *ends, info = super().step(symbol_key, state.symbols, action, params)
        return obs, self._forbid(key, after), jnp.where(action == state.illegal, -100.0, reward), *ends, info

    def action_mask(self, state, params):
        return jnp.arange(self.symbols) != state.illegal

    def memoryless_return(self, steps):
        return self.optimal_return(steps) / (self.symbols - 1)

    def _forbid(self, key, state):
        wrong = state.symbols[0] + jax.random.randint(key, (), 1, self.symbols, jnp.int32)
        return MaskedState(state, wrong % self.symbols)


@pytest.fixture(scope="module")
def trained():
    """(environment, runner, state before, state after, metrics of 20 chunks) of some training."""
    task = MaskedRepeat(delay=1)
    env = TimeLimit(task, LIMIT)
    runner = OnPolicy(ppo.make_agent(CONFIG, spec(env)), VectorEnv(env, CONFIG.num_envs), (), CONFIG.rollout_length)
    advance = jax.jit(runner.advance)
    state = runner.init(jax.random.key(0), hypers(CONFIG), 200)
    metrics = []
    for _ in range(10):
        after, m = advance(state if not metrics else after, jnp.int32(20))
        metrics.append(m)
    return task, runner, state, after, metrics


def rollout(runner, state):
    return jax.jit(runner.rollout)(state, jnp.zeros(()), jax.random.key(1))[2]


def test_learns_above_the_memoryless_ceiling(trained):
    task, _, _, state, metrics = trained
    assert state.alive
    assert metrics[0]["return_mean"] < task.memoryless_return(LIMIT) + 0.5
    assert metrics[-1]["return_mean"] > 0.9 * task.optimal_return(LIMIT)


def test_no_illegal_action_is_ever_taken(trained):
    _, runner, before, after, metrics = trained
    assert min(m["return_mean"] for m in metrics) > 0.0        # one illegal action would cost 100
    for state in (before, after):
        batch = rollout(runner, state)
        mask = np.asarray(batch.input.mask)
        assert np.take_along_axis(mask, np.asarray(batch.action)[..., None], -1).all() and not mask.all(-1).any()


def test_first_ratio_is_one_across_episode_ends(trained):
    _, runner, before, after, _ = trained
    network = actor_critic(CONFIG.network, spec(runner.env.env))
    single = dataclasses.replace(CONFIG, epochs=1, minibatches=1)
    learn = jax.jit(ppo.make_agent(single, spec(runner.env.env)).learn)
    for state in (before, after):
        batch = rollout(runner, state)
        assert np.asarray(batch.input.first[1:]).any() and not np.asarray(batch.input.first[0]).all()
        policy, _ = jax.jit(network.both)(state.agent.params, batch.carry0, network.reads(batch.input))
        deviation = np.abs(policy.log_prob(batch.action) - batch.extras["log_prob"]).max()
        print("deviation", deviation)
        assert deviation < 1e-5
        _, metrics, _ = learn(state.agent, state.hyper, batch, jnp.zeros(()), jax.random.key(2))
        assert abs(metrics["approx_kl"]) < 1e-9 and metrics["clip_fraction"] == 0.0
