"""Behavior cloning: an Agent whose Batch was made long ago.

No environment, no driver, transitions as [1, B].

Of the logged arms [.6, .3, .1] that pay [0, 1, 2], cloning finds these very probabilities and earns
0.5.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from envs_jax.core import EnvSpec
from envs_jax.spaces import Box, Discrete
from jaxrl.blocks.minibatch import sgd
from jaxrl.blocks.networks.actor_critic import NetworkConfig, actor_critic
from jaxrl.blocks.optim import adam
from jaxrl.blocks.schedules import linear
from jaxrl.types import Agent, Input, Trajectory

SPEC = EnvSpec(observation=Box(-1.0, 1.0, (1,)), action=Discrete(3))
BEHAVIOR = np.array([0.6, 0.3, 0.1])
PAY = np.array([0.0, 1.0, 2.0])
UPDATES = 20


class Hyper(NamedTuple):
    learning_rate: jax.Array


class State(NamedTuple):
    params: dict
    optimizer: optax.OptState


def behavior_cloning(spec, epochs, minibatches):
    network = actor_critic(NetworkConfig(hidden=(16,)), spec)

    def optimizer(hyper, progress=0.0):
        return adam(linear(hyper.learning_rate, 0.01, progress), max_grad_norm=1.0)

    def init(key, hyper):
        params = network.init(key)["actor"]
        return State(params, optimizer(hyper).init(params))

    def act(actor, inputs):
        policy, _ = network.policy(
            actor, (), jax.tree.map(lambda x: x[None], network.reads(inputs))
        )
        return jax.tree.map(lambda x: x[0], policy)

    def explore(actor, hyper, carry, inputs, progress, key):
        return act(actor, inputs).sample(key), carry, ()

    def greedy(actor, carry, inputs, key):
        return act(actor, inputs).mode(), carry

    def learn(state, hyper, batch, progress, key):
        def loss(params, inputs, action):
            return -network.policy(params, (), inputs)[0].log_prob(action).mean()

        def step(state, carry, data):
            value, gradient = jax.value_and_grad(loss)(state.params, *data)
            update, opt = optimizer(hyper, progress).update(gradient, state.optimizer)
            return State(optax.apply_updates(state.params, update), opt), {"loss": value}

        data = (network.reads(batch.input), batch.action)
        state, metrics = sgd(
            step, state, (), data, key, epochs=epochs, minibatches=minibatches, sequences=False
        )
        return state, metrics, ()

    return Agent(init, lambda state: state.params, lambda batch: (), explore, greedy, learn)


@pytest.fixture(scope="module")
def cloned():
    """(agent, actor, losses) after UPDATES passes over 1,000 logged pulls at observation 1 and as
    many, of the arms in reverse, at observation -1.
    """
    arms = np.repeat(np.arange(3), (1000 * BEHAVIOR).astype(int))
    action = np.int32(np.concatenate([arms, 2 - arms]))[None]
    obs = np.float32(np.repeat([1.0, -1.0], 1000))[None, :, None]
    reward = np.float32(PAY[action])
    ended = np.ones(action.shape, bool)
    batch = Trajectory(
        Input(obs, ended), action, (), reward, ended, ~ended, final_input=None, carry0=()
    )

    agent = behavior_cloning(SPEC, epochs=2, minibatches=10)
    hyper = Hyper(jnp.float32(0.02))
    learn = jax.jit(agent.learn)
    losses = []
    state = jax.jit(agent.init)(jax.random.key(0), hyper)
    for update in range(UPDATES):
        state, metrics, feedback = learn(
            state, hyper, batch, jnp.float32(update / UPDATES), jax.random.key(update)
        )
        assert feedback == ()
        losses.append(float(metrics["loss"]))
    return agent, agent.actor(state), losses


def test_clones_the_behavior(cloned):
    agent, actor, _ = cloned
    n = 20_000
    for obs, behavior, best in ((1.0, BEHAVIOR, 0), (-1.0, BEHAVIOR[::-1], 2)):
        inputs = Input(jnp.full((n, 1), obs), jnp.ones(n, bool))
        action, _, _ = agent.explore(actor, None, (), inputs, 1.0, jax.random.key(1))
        share = np.bincount(action, minlength=3) / n
        np.testing.assert_allclose(share, behavior, atol=0.02)
        np.testing.assert_allclose(share @ PAY, behavior @ PAY, atol=0.04)
        assert np.all(agent.greedy(actor, (), inputs, jax.random.key(2))[0] == best)


def test_the_loss_falls_to_the_entropy_of_the_behavior(cloned):
    *_, losses = cloned
    np.testing.assert_allclose(losses[-1], -np.sum(BEHAVIOR * np.log(BEHAVIOR)), atol=0.005)
