"""Shapes and dtypes of the building blocks, stated in jaxtyping and checked by beartype as the functions are called."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from beartype import beartype
from jaxtyping import Array, Bool, Float, Int, jaxtyped

import envs_jax
from envs_jax import spaces
from envs_jax.core import spec
from envs_jax.vector import VectorEnv
from jaxrl.blocks.losses import policy as losses
from jaxrl.blocks.losses import returns
from jaxrl.blocks.networks.actor_critic import NetworkConfig, actor_critic, example
from jaxrl.blocks.networks.distributions import action_head
from jaxrl.blocks.shuffle import permutation

T, B = 5, 3
shaped = jaxtyped(typechecker=beartype)


@shaped
def a_gae(reward: Float[Array, "T B"], ended: Bool[Array, "T B"]) -> tuple[Float[Array, "T B"], Float[Array, "T B"]]:
    return returns.gae(reward, reward, reward, ended, ended, gamma=0.9, lam=0.9)


@shaped
def a_return(function, reward: Float[Array, "T B"], ended: Bool[Array, "T B"], **numbers) -> Float[Array, "T B"]:
    return function(reward, reward, ended, ended, **numbers)


@shaped
def a_loss(function, x: Float[Array, "N"], *more: Float[Array, "N"], **numbers) -> Float[Array, "N"]:
    return function(x, *more, **numbers)


@shaped
def an_order(key, n: int) -> Int[Array, "n"]:
    return permutation(key, n)


def test_returns_and_losses():
    reward, ended, x = jnp.ones((T, B)), jnp.zeros((T, B), bool), jnp.ones(7)
    a_gae(reward, ended)
    a_return(returns.lambda_returns, reward, ended, gamma=0.9, lam=0.9)
    a_return(returns.n_step_returns, reward, ended, gamma=0.9, n=2)
    a_return(returns.discounted_returns, reward, ended, gamma=0.9)
    a_loss(losses.ppo_clip, x, x, epsilon=0.2)
    a_loss(losses.clipped_value, x, x, x, epsilon=0.2)
    a_loss(losses.approx_kl, x)
    a_loss(losses.clip_fraction, x, epsilon=0.2)
    a_loss(losses.standardize, x)
    assert an_order(jax.random.key(0), 7).shape == (7,)


def test_a_wrong_shape_is_noticed():
    with pytest.raises(Exception, match="Type-check"):
        a_return(lambda r, *_: r[0], jnp.ones((T, B)), jnp.zeros((T, B), bool))


SPACES = {
    "discrete": (spaces.Discrete(4), Int[Array, "T B"]),
    "multidiscrete": (spaces.MultiDiscrete((2, 3)), Int[Array, "T B 2"]),
    "box": (spaces.Box(-2.0, 2.0, (2,)), Float[Array, "T B 2"]),
    "box of matrices": (spaces.Box(-2.0, 2.0, (2, 3)), Float[Array, "T B 2 3"]),
}


@pytest.mark.parametrize("space", SPACES)
def test_distributions(space):
    space, action_type = SPACES[space]
    head = action_head(space)

    @shaped
    def sample(outputs: Float[Array, "T B _"], key) -> tuple[
            action_type, action_type, Float[Array, "T B"], Float[Array, "T B"]]:
        dist = head.distribution(outputs, jnp.zeros(head.log_std_size) if head.log_std_size else None)
        action = dist.sample(key)
        return action, dist.mode(), dist.log_prob(action), dist.entropy()

    sample(jnp.zeros((T, B, head.size)), jax.random.key(0))


@pytest.mark.parametrize("recurrent", ["none", "gru", "lstm"])
@pytest.mark.parametrize("env", ["cartpole", "pendulum", "masked-bandit", "probe-multidiscrete"])
def test_networks(env, recurrent):
    about = spec(*envs_jax.make(env))
    network = actor_critic(NetworkConfig(hidden=(8,), recurrent=recurrent, recurrent_size=4, previous=True), about)
    inputs = example(about, (T, B))

    @shaped
    def outputs(key) -> tuple[Float[Array, "T B"], Float[Array, "T B"], Float[Array, "T B"], Float[Array, "T B"]]:
        params, carry = network.init(key), network.carry(B)
        policy, value = network.both(params, carry, inputs)
        return policy.entropy(), value, *network.values(params, carry, inputs, inputs)

    jax.eval_shape(outputs, jax.random.key(0))


class Flags(NamedTuple):
    terminated: Bool[Array, "N"]
    truncated: Bool[Array, "N"]
    first: Bool[Array, "N"]


@pytest.mark.parametrize("groups", [1, 3])
def test_vector_steps(groups, N=6):
    env, params = envs_jax.make("cartpole")
    vector = VectorEnv(env, N, group_size=N // groups)

    @shaped
    def step(key, action: Int[Array, "N"]) -> tuple[Float[Array, "N 4"], Float[Array, "N"], Flags, Int[Array, "N"]]:
        state, _ = vector.init(key, params)
        _, out = vector.step(key, state, action)
        return out.input.obs, out.reward, Flags(out.terminated, out.truncated, out.input.first), out.episode_length

    jax.eval_shape(step, jax.random.key(0), jnp.zeros(N, jnp.int32))
