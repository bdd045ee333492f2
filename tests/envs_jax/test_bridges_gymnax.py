"""Tests of the bridge to gymnax: registration, and gymnax's own step."""

import functools

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces as gymnax_spaces
from gymnax.wrappers import LogWrapper

import envs_jax
from envs_jax.spaces import Box, Discrete

NAME = "ours-v0"
N = 3
STEPS = 40


@pytest.fixture
def registered():
    """Remove the test's entries from gymnax's global table afterward."""
    yield lambda name, factory: gymnax.register(name, factory)
    for name in set(gymnax.registration._registry) - set(gymnax.registration._BUILTIN_ENV_IDS):
        del gymnax.registration._registry[name]
        gymnax.registered_envs.remove(name)


def rollout(env, params, wrap=lambda env: env):
    """Return outputs [N, STEPS, ...] of gymnax's auto-resetting step under jit and vmap."""
    env = wrap(env)
    keys, actions = inputs(env, params)

    def step(carry, x):
        obs, state, *outcome = env.step(x[0], carry, x[1], params)
        return state, (obs, *outcome)

    def one(keys, actions):
        obs, state = env.reset(keys[0], params)
        return obs, jax.lax.scan(step, state, (keys[1:], actions))[1]

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(keys, actions))


def inputs(env, params):
    actions = np.random.default_rng(1).integers(env.action_space(params).n, size=(N, STEPS))
    return jax.random.split(jax.random.key(0), (N, STEPS + 1)), jnp.asarray(actions, jnp.int32)


@pytest.mark.parametrize(
    "name, settings",
    [
        ("cartpole", {"theta_threshold": 0.1}),
        ("probe-truncation", {}),
        ("repeat-previous", {"time_limit": 7}),
    ],
)
def test_a_rollout_of_gymnax_is_ours(registered, name, settings):
    registered(NAME, lambda **kw: envs_jax.to_gymnax(name, **kw))
    bridged, bridged_params = gymnax.make(NAME, **settings)
    first, (obs, reward, terminated, truncated, info) = rollout(bridged, bridged_params)
    env, params = envs_jax.make(name, **settings)
    assert bridged_params == params
    keys, actions = inputs(bridged, params)
    step = jax.jit(env.step)
    fresh = jax.jit(env.reset)
    # as gymnax's step splits them
    pairs = jax.vmap(jax.random.split)(keys[:, 1:].reshape(-1)).reshape(N, STEPS, 2)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    ends = 0
    for i in range(N):
        start, state = fresh(keys[i, 0], params)
        close(first[i], start)
        for t in range(STEPS):
            want, state, r, dead, late, told = step(pairs[i, t, 0], state, actions[i, t], params)
            close(info["final_observation"][i, t], want)
            assert (reward[i, t], terminated[i, t], truncated[i, t]) == (r, dead, late)
            assert info["episode_length"][i, t] == told["episode_length"]
            if dead | late:
                ends += 1
                want, state = fresh(pairs[i, t, 1], params)
            close(obs[i, t], want)
    assert ends > N
    assert truncated.any() == (name != "cartpole")
    assert terminated.any() == (name == "cartpole")


def test_gymnax_s_log_wrapper_counts_as_we_do():
    env = envs_jax.to_gymnax("repeat-previous", time_limit=7)
    _, (_, _, _, _, info) = rollout(env, env.default_params, LogWrapper)
    ended = info["returned_episode"]
    assert (ended.sum(1) == STEPS // 7).all()
    np.testing.assert_array_equal(
        info["returned_episode_returns"][ended], info["episode_return"][ended]
    )
    assert (info["returned_episode_lengths"][ended] == 7).all()


@pytest.mark.parametrize("name", ["cartpole", "pendulum", "masked-bandit"])
def test_spaces_and_names(name):
    env, params = envs_jax.make(name)
    bridged = envs_jax.to_gymnax(env)
    assert bridged.name == env.name and bridged.default_params == params
    for ours, other in ((env.observation_space(params), bridged.observation_space(params)),
                        (env.action_space(params), bridged.action_space(params))):
        assert other.shape == ours.shape and other.dtype == ours.dtype
        if isinstance(ours, Box):
            np.testing.assert_array_equal(np.float32(other.low), np.float32(ours.low))
            np.testing.assert_array_equal(np.float32(other.high), np.float32(ours.high))
        else:
            assert isinstance(ours, Discrete)
            assert isinstance(other, gymnax_spaces.Discrete)
            assert other.n == ours.n
    assert bridged.num_actions == (env.action_space(params).n if name != "pendulum" else 1)


def test_what_gymnax_cannot_say_is_refused():
    with pytest.raises(ValueError, match="has 2 agents; environments of gymnax have one"):
        envs_jax.to_gymnax("two-step")
    with pytest.raises(ValueError, match="gymnax has no space for MultiDiscrete"):
        envs_jax.to_gymnax("probe-multidiscrete")


def test_there_and_back(registered):
    """A gymnax environment through adapter and bridge equals the original."""
    env = envs_jax.to_gymnax("gymnax/CartPole-v1")
    there, there_params = gymnax.make("CartPole-v1")
    first, (obs, reward, *_) = rollout(env, env.default_params)
    want_first, (want, want_reward, *_) = rollout(there, there_params)
    np.testing.assert_allclose(first, want_first, rtol=1e-6)
    np.testing.assert_allclose(obs, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(reward, want_reward)
