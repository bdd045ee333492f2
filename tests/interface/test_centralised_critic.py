"""Two agents who share one policy, and a critic that sees the global state.

The on-policy driver does not notice.

MAPPO's centralized critic (Yu et al. 2022, arXiv:2103.01955) under plain actor-critic steps, on the
two-step game.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from envs_jax.core import spec
from envs_jax.probe.two_step import RISKY, SAFE, START, TwoStepGame
from envs_jax.vector import VectorEnv
from jaxrl.blocks.losses.returns import gae
from jaxrl.blocks.networks.distributions import Categorical
from jaxrl.blocks.optim import adam
from jaxrl.drivers.on_policy import OnPolicy
from jaxrl.evaluate import make_evaluate
from jaxrl.types import Agent

UPDATES = 300
GAMMA = 0.99


class Hyper(NamedTuple):
    learning_rate: jax.Array
    gamma: jax.Array
    entropy_weight: jax.Array      # at the start; 0 at the end of the schedule


class State(NamedTuple):
    params: dict
    optimizer: optax.OptState


def make_agent(spec):
    actor_net = nn.Sequential([nn.Dense(16), nn.tanh, nn.Dense(spec.action.n)])
    critic_net = nn.Sequential([nn.Dense(16), nn.tanh, nn.Dense(1)])

    def policy(params, inputs):
        """Return the policy, which reads an agent's index, one-hot, beside its observation.

        [..., agents] actions from one set of parameters.
        """
        identity = jnp.broadcast_to(jnp.eye(spec.agents), (*inputs.obs.shape[:-1], spec.agents))
        return Categorical(
            actor_net.apply(params, jnp.concatenate([inputs.obs, identity], axis=-1))
        )

    def value(params, inputs):
        """V of the global state, for each agent alike: [..., agents]."""
        v = critic_net.apply(params, inputs.state)
        return jnp.broadcast_to(v, (*inputs.first.shape, spec.agents))

    def init(key, hyper):
        actor_key, critic_key = jax.random.split(key)
        params = {
            "actor": actor_net.init(actor_key, jnp.zeros(spec.observation.shape[0] + spec.agents)),
            "critic": critic_net.init(critic_key, jnp.zeros(spec.state.shape)),
        }
        return State(params, adam(hyper.learning_rate, max_grad_norm=1.0).init(params))

    def explore(actor, hyper, carry, inputs, progress, key):
        return policy(actor, inputs).sample(key), carry, ()

    def greedy(actor, carry, inputs, key):
        return policy(actor, inputs).mode(), carry

    def learn(state, hyper, batch, progress, key):
        now, following = (
            value(state.params["critic"], inputs) for inputs in (batch.input, batch.final_input)
        )
        ends = batch.terminated, batch.truncated
        advantage, target = gae(batch.reward, now, following, *ends, gamma=hyper.gamma, lam=0.9)

        def loss(params):
            pi = policy(params["actor"], batch.input)
            critic_loss = 0.5 * jnp.square(value(params["critic"], batch.input) - target).mean()
            entropy = pi.entropy().mean()
            actor_loss = -jnp.mean(pi.log_prob(batch.action) * advantage)
            return actor_loss + critic_loss - hyper.entropy_weight * (
                1.0 - progress
            ) * entropy, entropy

        (total, entropy), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
        update, optimizer = adam(hyper.learning_rate, max_grad_norm=1.0).update(
            gradient, state.optimizer
        )
        params = optax.apply_updates(state.params, update)
        return State(params, optimizer), {"loss": total, "entropy": entropy}, ()

    return Agent(
        init, lambda state: state.params["actor"], lambda batch: (), explore, greedy, learn
    )


@pytest.fixture(scope="module")
def trained():
    """(runner, state of three seeds, their metrics)."""
    env = TwoStepGame()
    runner = OnPolicy(make_agent(spec(env)), VectorEnv(env, 32), (), rollout_length=8)
    hyper = Hyper(jnp.float32(0.02), jnp.float32(GAMMA), jnp.float32(1.0))

    def run(key):
        return runner.advance(runner.init(key, hyper, UPDATES), UPDATES)

    return runner, *jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 3))


def test_dares_together(trained):
    runner, state, metrics = trained
    evaluate = jax.jit(
        jax.vmap(make_evaluate(runner.agent, runner.env.env, (), episodes=4), (0, None))
    )
    returns = evaluate(jax.vmap(runner.agent.actor)(state.agent), jax.random.key(1))
    np.testing.assert_array_equal(returns, np.full((3, 4), 8.0))
    assert np.all(metrics["return_mean"] > 4.0) and state.alive.all()


def test_the_critic_knows_the_global_state(trained):
    runner, state, _ = trained
    batch = jax.jit(jax.vmap(lambda s: runner.rollout(s, jnp.ones(()), jax.random.key(2))[2]))(
        state
    )
    assert batch.input.state.shape == (
        3,
        8,
        32,
        3,
    ) and batch.reward.shape == batch.action.shape == (3, 8, 32, 2)
    critic = nn.Sequential([nn.Dense(16), nn.tanh, nn.Dense(1)])
    values = jax.vmap(lambda params: critic.apply(params, jnp.eye(3))[:, 0])(
        state.agent.params["critic"]
    )
    np.testing.assert_allclose(values[:, [START, RISKY]], [[8 * GAMMA, 8.0]] * 3, atol=0.1)
    np.testing.assert_allclose(values[:, SAFE], 7.0, atol=0.5)      # seldom visited by now
