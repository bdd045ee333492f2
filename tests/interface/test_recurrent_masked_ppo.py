"""Recurrent PPO under an action mask.

Memory through the carry, legality through Input.mask, no special case.
"""

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
from jaxrl.blocks.networks.actor_critic import NetworkConfig, actor_critic
from jaxrl.declare import hypers
from jaxrl.drivers.on_policy import OnPolicy

CONFIG = ppo.Config(
    num_envs=32,
    rollout_length=16,
    minibatches=4,
    learning_rate=5e-3,
    learning_rate_end=0.1,
    gamma=0.5,
    network=NetworkConfig(hidden=(16,), recurrent="gru", recurrent_size=16),
)


class MaskedState(NamedTuple):
    symbols: RepeatPreviousState
    illegal: jax.Array       # int32: the action that is not allowed now


class MaskedRepeat(RepeatPrevious):
    """Repeat-previous with one wrong action, drawn anew, illegal in each step.

    No memory is right 1 time in 3.
    """

    def reset(self, key, params):
        symbol_key, key = jax.random.split(key)
        obs, state = super().reset(symbol_key, params)
        return obs, self._forbid(key, state)

    def step(self, key, state, action, params):
        symbol_key, key = jax.random.split(key)
        obs, after, reward, *ends, info = super().step(symbol_key, state.symbols, action, params)
        return (
            obs,
            self._forbid(key, after),
            jnp.where(action == state.illegal, -1e6, reward),
            *ends,
            info,
        )

    def action_mask(self, state, params):
        return jnp.arange(self.symbols) != state.illegal

    def memoryless_return(self, steps):
        return self.optimal_return(steps) / (self.symbols - 1)

    def _forbid(self, key, state):
        wrong = state.symbols[0] + jax.random.randint(key, (), 1, self.symbols, jnp.int32)
        return MaskedState(state, wrong % self.symbols)


TASK = MaskedRepeat(delay=1)
LIMIT = 6


class Trained(NamedTuple):
    runner: OnPolicy
    states: list             # after 1 update and after 80
    metrics: list            # of these updates
    rollouts: list           # by these states, which start in the middle of an episode


@pytest.fixture(scope="module")
def trained():
    env = TimeLimit(TASK, LIMIT)
    runner = OnPolicy(
        ppo.make_agent(CONFIG, spec(env)),
        VectorEnv(env, CONFIG.num_envs),
        (),
        CONFIG.rollout_length,
    )
    advance = jax.jit(runner.advance)
    rollout = jax.jit(runner.rollout)
    fresh = jax.jit(runner.init)(jax.random.key(0), hypers(CONFIG), 80)
    young, first = advance(fresh, 1)
    old, last = advance(young, 79)
    batches = [rollout(state, jnp.zeros(()), jax.random.key(1))[2] for state in (young, old)]
    return Trained(runner, [young, old], [first, last], batches)


def test_learns_above_the_memoryless_ceiling(trained):
    first, last = trained.metrics
    assert first["return_mean"] < TASK.memoryless_return(LIMIT) + 0.5
    assert last["return_mean"] > 0.9 * TASK.optimal_return(LIMIT)


def test_no_illegal_action_is_ever_taken(trained):
    # one illegal action would cost a million
    assert min(m["return_mean"] for m in trained.metrics) > 0.0
    for batch in trained.rollouts:
        mask = np.asarray(batch.input.mask)
        assert (
            np.take_along_axis(mask, np.asarray(batch.action)[..., None], -1).all()
            and not mask.all(-1).any()
        )


def test_first_ratio_is_one_across_episode_ends(trained):
    env = trained.runner.env.env
    network = actor_critic(CONFIG.network, spec(env))
    both = jax.jit(network.both)
    learn = jax.jit(
        ppo.make_agent(dataclasses.replace(CONFIG, epochs=1, minibatches=1), spec(env)).learn
    )
    for state, batch in zip(trained.states, trained.rollouts):
        assert np.any(batch.carry0) and np.any(batch.input.first[1:])
        policy, _ = both(state.agent.params, batch.carry0, network.reads(batch.input))
        np.testing.assert_allclose(
            policy.log_prob(batch.action), batch.extras["log_prob"], atol=1e-5
        )
        _, metrics, _ = learn(state.agent, state.hyper, batch, jnp.zeros(()), jax.random.key(2))
        assert abs(metrics["approx_kl"]) < 1e-9 and metrics["clip_fraction"] == 0.0
