"""CartPole and Pendulum against the installed Gymnasium, from states sampled far beyond what roll-outs reach."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax import make
from envs_jax.classic.cartpole import CartPole, CartPoleState
from envs_jax.classic.pendulum import Pendulum, PendulumState

N = 2000


def ours(env, params, state, action):
    key = jax.random.key(0)
    return jax.jit(jax.vmap(lambda s, a: env.step(key, s, a, params)))(state, action)


def reference(name, states, actions, **changes):
    """(observation, reward, terminated, next state) of Gymnasium, one fresh step from each state."""
    env = gymnasium.make(name).unwrapped
    for key, value in changes.items():
        setattr(env, key, value)
    rows = []
    for state, action in zip(states.astype(np.float64), actions):
        env.reset(seed=0)
        env.state = np.array(state)
        obs, reward, terminated, truncated, _ = env.step(action)
        assert not truncated
        rows.append((obs, reward, terminated, np.array(env.state)))
    return map(np.array, zip(*rows))


@pytest.mark.parametrize("changes", [{}, {"length": 1.0, "force_mag": 5.0, "gravity": 12.0}])
def test_cartpole_is_gymnasiums(rng, changes):
    scale = np.array([2.5, 5.0, 0.22, 5.0])
    states = rng.uniform(-scale, scale, (N, 4)).astype(np.float32)
    states[: N // 4] *= 4.0                                        # far outside the track, and past horizontal
    actions = rng.integers(2, size=N)
    derived = {"polemass_length": 0.1 * changes["length"]} if changes else {}
    obs, reward, terminated, after = reference("CartPole-v1", states, actions, **changes, **derived)
    params = CartPole.default_params._replace(**changes)
    got = ours(CartPole(), params, CartPoleState(*states.T), jnp.asarray(actions, jnp.int32))
    np.testing.assert_allclose(got[0], obs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.stack(got[1], 1), after, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(got[2], reward)
    np.testing.assert_array_equal(got[3], terminated)
    assert 0.1 < terminated.mean() < 0.9 and not np.any(got[4])


@pytest.mark.parametrize("changes", [{}, {"g": 12.0, "m": 1.3, "l": 0.8, "dt": 0.04}])
def test_pendulum_is_gymnasiums(rng, changes):
    states = rng.uniform((-10.0, -8.0), (10.0, 8.0), (N, 2)).astype(np.float32)
    actions = rng.uniform(-3.0, 3.0, (N, 1)).astype(np.float32)   # beyond the bounds: both clip
    obs, reward, terminated, after = reference("Pendulum-v1", states, actions, **changes)
    params = Pendulum.default_params._replace(**changes)
    got = ours(Pendulum(), params, PendulumState(*states.T), jnp.asarray(actions))
    np.testing.assert_allclose(got[0], obs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.stack(got[1], 1), after, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got[2], reward, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(got[3], terminated)
    assert np.any(np.abs(after[:, 1]) == 8.0)                     # the speed limit was met


@pytest.mark.parametrize("name, twin", [("cartpole", "CartPole-v1"), ("pendulum", "Pendulum-v1")])
def test_spaces_and_limit_are_gymnasiums(name, twin):
    env, params = make(name)
    other = gymnasium.make(twin)
    space, want = env.observation_space(params), other.observation_space
    np.testing.assert_allclose(space.low, want.low, rtol=1e-6)
    np.testing.assert_allclose(space.high, want.high, rtol=1e-6)
    assert space.shape == want.shape and env.max_steps == other.spec.max_episode_steps
    if name == "cartpole":
        assert env.action_space(params).n == other.action_space.n
    else:
        assert (env.action_space(params).low, env.action_space(params).high) == (-2.0, 2.0)


@pytest.mark.parametrize("env, low, high", [
    (CartPole(), [-0.05] * 4, [0.05] * 4),
    (Pendulum(), [-np.pi, -1.0], [np.pi, 1.0]),
])
def test_starts_are_uniform(env, low, high):
    from scipy.stats import kstest

    keys = jax.random.split(jax.random.key(0), 1000)
    starts = np.stack(jax.vmap(lambda key: env.reset(key, env.default_params)[1])(keys), 1)
    for column, a, b in zip(starts.T, low, high):
        assert kstest(column, "uniform", (a, b - a)).pvalue > 1e-3


def test_cartpole_bounds_follow_the_params():
    env = CartPole()
    wide = env.default_params._replace(x_threshold=np.array([1.0, 5.0]))     # of two members, the wider
    assert env.observation_space(wide).high[0] == 10.0
