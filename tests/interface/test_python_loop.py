"""A policy in a plain Python loop, in a thread.

NumPy parameters in, NumPy trajectories out, as in a remote actor.

All that a worker needs of an algorithm is `explore` and `carry`; `learn` does not ask where a
Trajectory was made.
"""

import threading
from queue import Queue

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algos import ppo
from envs_jax.core import EnvSpec
from envs_jax.spaces import Box, Discrete
from jaxrl.blocks.networks.actor_critic import NetworkConfig, actor_critic
from jaxrl.declare import hypers
from jaxrl.types import Input, Trajectory


def look(obs, first, action, reward):
    """The Input of a batch of one."""
    return Input(np.float32(obs)[None], np.array([first]), prev_action=np.int32([action]),
                 prev_reward=np.float32([reward]))


def play(make_env, explore, carry, steps, jobs, done):
    """Until the job None.

    `steps` steps of an environment with Gymnasium's interface for each (version, what acts).
    """
    env = make_env()
    key = jax.random.key(0)
    step = 0
    start = carry
    inputs = look(env.reset(seed=0)[0], True, 0, 0.0)
    while (job := jobs.get()) is not None:
        version, (actor, hyper, progress) = job
        rows = []
        start = carry
        for _ in range(steps):
            action, carry, extras = explore(
                actor, hyper, carry, inputs, progress, jax.random.fold_in(key, step)
            )
            obs, reward, terminated, truncated, _ = env.step(int(action[0]))
            final = look(obs, False, int(action[0]), reward)
            rows.append(
                Trajectory(
                    inputs,
                    action,
                    extras,
                    np.float32([reward]),
                    np.array([terminated]),
                    np.array([truncated]),
                    final,
                    carry0=(),
                )
            )
            inputs = look(env.reset()[0], True, 0, 0.0) if terminated or truncated else final
            step += 1
        batch = jax.tree.map(lambda *x: np.stack([np.asarray(leaf) for leaf in x]), *rows)
        done.put(
            batch._replace(
                carry0=jax.device_get(start), version=np.full((steps, 1), version, np.int32)
            )
        )


class Loop:
    """A learner here, one worker there, two queues between them; between updates the worker waits.
    """

    def __init__(self, config, spec, make_env):
        self.agent = ppo.make_agent(config, spec)
        self.hyper = hypers(config)
        self.learn = jax.jit(self.agent.learn)
        self.state = jax.jit(self.agent.init)(jax.random.key(1), self.hyper)
        self.network = actor_critic(config.network, spec)
        self.version = 0
        self.jobs = Queue()
        self.done = Queue()
        acting = (jax.jit(self.agent.explore), self.agent.carry(1), config.rollout_length)
        threading.Thread(
            target=play, args=(make_env, *acting, self.jobs, self.done), daemon=True
        ).start()

    def collect(self, progress=0.0):
        self.jobs.put(
            (
                self.version,
                jax.device_get((self.agent.actor(self.state), self.hyper, np.float32(progress))),
            )
        )
        return self.done.get(timeout=60)

    def update(self, batch, progress=0.0):
        key = jax.random.key(self.version)
        self.state, metrics, _ = self.learn(
            self.state, self.hyper, batch, np.float32(progress), key
        )
        self.version += 1
        return metrics


class TwoSteps:
    """The probe DelayedReward in plain Python.

    Observations 0 then 1, rewards 0 then 1, so V = (gamma, 1).
    """

    def reset(self, seed=None):
        self.time = 0
        return np.zeros(1), {}

    def step(self, action):
        self.time += 1
        return np.ones(1), float(self.time - 1), self.time == 2, False, {}


@pytest.mark.parametrize("recurrent", ["none", pytest.param("gru", marks=pytest.mark.slow)])
def test_gymnasium_cartpole(recurrent):
    gymnasium = pytest.importorskip("gymnasium")
    network = NetworkConfig(hidden=(16,), recurrent=recurrent, recurrent_size=8)
    config = ppo.Config(num_envs=1, rollout_length=32, epochs=2, minibatches=1, network=network)
    spec = EnvSpec(observation=Box(-np.inf, np.inf, (4,)), action=Discrete(2))
    loop = Loop(config, spec, lambda: gymnasium.make("CartPole-v1", max_episode_steps=15))
    both = jax.jit(loop.network.both)
    for version in range(3):
        batch = loop.collect()
        before = loop.state
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(batch)) and np.all(
            batch.version == version
        )
        ended = (batch.terminated | batch.truncated)[:-1]
        np.testing.assert_array_equal(batch.input.first[1:], ended)
        same = ~ended[:, 0]
        np.testing.assert_array_equal(batch.final_input.obs[:-1][same], batch.input.obs[1:][same])
        assert batch.truncated.any() and np.any(
            batch.final_input.obs[:-1][~same] != batch.input.obs[1:][~same]
        )

        policy, _ = both(before.params, batch.carry0, loop.network.reads(batch.input))
        np.testing.assert_allclose(
            policy.log_prob(batch.action), batch.extras["log_prob"], atol=1e-5
        )
        metrics = loop.update(batch)
        assert all(np.isfinite(x) for x in metrics.values())
        assert all(
            np.any(a != b)
            for a, b in zip(
                jax.tree.leaves(before.params["actor"]), jax.tree.leaves(loop.state.params["actor"])
            )
            if a.ndim > 1
        )


def test_finds_the_value_of_a_python_environment():
    config = ppo.Config(
        num_envs=1,
        rollout_length=16,
        minibatches=1,
        learning_rate=0.02,
        learning_rate_end=0.1,
        gamma=0.5,
        network=NetworkConfig(hidden=(16,)),
    )
    loop = Loop(config, EnvSpec(observation=Box(0.0, 1.0, (1,)), action=Discrete(2)), TwoSteps)
    for update in range(60):
        loop.update(loop.collect(update / 60), update / 60)
    inputs = Input(jnp.float32([[[0.0]], [[1.0]]]), jnp.zeros((2, 1), bool))
    _, values = loop.network.both(loop.state.params, (), inputs)
    np.testing.assert_allclose(values[:, 0], [0.5, 1.0], atol=0.03)
