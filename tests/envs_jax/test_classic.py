"""Tests of classic control against Gymnasium, from states far beyond those of rollouts."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax import make
from envs_jax.classic.acrobot import Acrobot, AcrobotState
from envs_jax.classic.cartpole import CartPole, CartPoleState
from envs_jax.classic.mountaincar import MountainCar, MountainCarContinuous, MountainCarState
from envs_jax.classic.pendulum import Pendulum, PendulumState
from envs_jax.spaces import Discrete
from tests.envs_jax.cases import rollout

N = 2000


def ours(env, params, state, action):
    key = jax.random.key(0)
    return jax.jit(jax.vmap(lambda s, a: env.step(key, s, a, params)))(state, action)


def reference(name, states, actions, **changes):
    """Return (observation, reward, terminated, next state) of one step from each state."""
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
    # far outside the track, and past horizontal
    states[: N // 4] *= 4.0
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
    actions = rng.uniform(-3.0, 3.0, (N, 1)).astype(np.float32)   # beyond the bounds; both clip
    obs, reward, terminated, after = reference("Pendulum-v1", states, actions, **changes)
    params = Pendulum.default_params._replace(**changes)
    got = ours(Pendulum(), params, PendulumState(*states.T), jnp.asarray(actions))
    np.testing.assert_allclose(got[0], obs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.stack(got[1], 1), after, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got[2], reward, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(got[3], terminated)
    assert np.any(np.abs(after[:, 1]) == 8.0)                     # the speed limit was met


ACROBOT = {
    "link_length_1": 1.2,
    "link_mass_1": 0.8,
    "link_mass_2": 1.1,
    "link_com_pos_1": 0.6,
    "link_com_pos_2": 0.4,
    "link_moi": 0.9,
    "dt": 0.1,
}


def circle(difference):
    """Return the difference of angles in [-pi, pi]."""
    return (difference + np.pi) % (2 * np.pi) - np.pi


@pytest.mark.parametrize("changes", [{}, ACROBOT], ids=["default", "changed"])
def test_acrobot_is_gymnasiums(rng, changes):
    """The equations agree to 1e-9 in double precision.

    In single precision, one step of a fast arm amplifies rounding: to 1e-4 from speeds that the
    arm reaches, and to 1e-3 up to the speed limits.
    """
    scale = np.array([np.pi, np.pi, 4 * np.pi, 9 * np.pi])
    states = rng.uniform(-scale, scale, (N, 4))
    slow = np.arange(N) < N // 2
    states[slow, 2:] *= (0.5, 0.4)
    states = states.astype(np.float32)
    actions = rng.integers(3, size=N)
    obs, reward, terminated, after = reference(
        "Acrobot-v1",
        states,
        actions,
        **{key if key == "dt" else key.upper(): value for key, value in changes.items()},
    )
    params = Acrobot.default_params._replace(**changes)

    with jax.enable_x64(True):
        exact = jax.tree.map(
            np.asarray,
            ours(
                Acrobot(),
                params,
                AcrobotState(*states.T.astype(np.float64)),
                jnp.asarray(actions, jnp.int32),
            ),
        )
    got = jax.tree.map(
        np.asarray,
        ours(Acrobot(), params, AcrobotState(*states.T), jnp.asarray(actions, jnp.int32)),
    )
    assert exact[0].dtype == np.float64 and got[0].dtype == np.float32
    # Gymnasium's observations are in single precision
    for (seen, state, pay, dead, *_), rows, close in [
            (exact, slow | True, {"rtol": 1e-6, "atol": 1e-6}),
            (got, slow, {"rtol": 1e-4, "atol": 1e-4}), (got, ~slow, {"rtol": 1e-3, "atol": 1e-3})]:
        state = np.stack(state, 1)
        np.testing.assert_allclose(seen[rows], obs[rows], **close)
        np.testing.assert_allclose(circle(state - after)[rows, :2], 0.0, atol=close["atol"])
        np.testing.assert_allclose(state[rows, 2:], after[rows, 2:], **close)
        np.testing.assert_array_equal(dead[rows], terminated[rows])
        np.testing.assert_array_equal(pay[rows], reward[rows])
    np.testing.assert_allclose(circle(np.stack(exact[1], 1) - after), 0.0, atol=1e-9)
    assert np.abs(np.stack(got[1][:2])).max() <= np.float32(np.pi)
    assert 0.05 < terminated.mean() < 0.95 and not np.any(got[4])
    limits = np.abs(after[:, 2:]) == scale[2:]
    assert limits.any(0).all() and not limits.all()                 # the speed limits were met


CAR = {"goal_position": 0.3, "goal_velocity": 0.01}


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("changes", [{}, CAR], ids=["default", "changed"])
def test_mountain_car_is_gymnasiums(rng, continuous, changes):
    states = rng.uniform((-1.2, -0.07), (0.6, 0.07), (N, 2)).astype(np.float32)
    states[: N // 8, 0] = rng.uniform(-1.2, -1.15, N // 8)          # at the wall on the left
    states[: N // 8, 1] = -np.abs(states[: N // 8, 1])
    states[N // 8: N // 4, 0] = rng.uniform(0.4, 0.6, N // 8)       # around the goal, and past it
    if continuous:
        env = MountainCarContinuous()
        name = "MountainCarContinuous-v0"
        # beyond the bounds, where the push is clipped
        actions = rng.uniform(-1.5, 1.5, (N, 1)).astype(np.float32)
    else:
        env = MountainCar()
        name = "MountainCar-v0"
        actions = rng.integers(3, size=N)
    obs, reward, terminated, after = reference(name, states, actions, **changes)
    got = ours(env, env.default_params._replace(**changes), MountainCarState(*states.T),
               jnp.asarray(actions, jnp.float32 if continuous else jnp.int32))
    np.testing.assert_allclose(got[0], obs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.stack(got[1], 1), after, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[2], reward, rtol=1e-6)
    np.testing.assert_array_equal(got[3], terminated)
    stopped = (obs == np.float32([-1.2, 0.0])).all(1)
    assert stopped.mean() > 0.05 and 0.02 < terminated.mean() < 0.5 and not np.any(got[4])
    past = states[:, 0] >= env.default_params.goal_position
    # moving back over the goal
    assert np.any(past & terminated) and np.any(past & ~terminated)
    assert np.any(np.abs(obs[:, 1]) == np.float32(0.07))             # the speed limit was met


def test_the_car_that_gymnax_lets_pass_the_wall():
    """One step in which gymnax 1.0.1 keeps the velocity, while Gymnasium stops the car."""
    env = MountainCarContinuous()
    state = MountainCarState(jnp.float32(-1.1864), jnp.float32(-0.0443))
    obs, _, reward, terminated, *_ = env.step(
        jax.random.key(0), state, jnp.float32([-1.0]), env.default_params
    )
    np.testing.assert_allclose(obs, [-1.2, 0.0])
    assert obs[1] == 0.0 and reward == np.float32(-0.1) and not terminated


def test_bang_bang_climbs_the_hill():
    """Pushing in the direction of motion; the mean return was computed from the equations alone."""
    env, params = make("mountaincar", gravity=0.003)

    def swing(obs, state):
        return jnp.where(obs[1] >= 0.0, jnp.int32(2), 0)

    _, _, reward, terminated, *_ = rollout(env, params, 200, swing, batch=512)
    length = np.where(terminated.any(1), terminated.argmax(1) + 1, 200)
    assert terminated.any(1).mean() > 0.9 and np.all(reward == -1.0)
    np.testing.assert_allclose(-length.mean(), -130.4, atol=4)


@pytest.mark.parametrize("name, twin", [
    ("cartpole", "CartPole-v1"), ("pendulum", "Pendulum-v1"), ("acrobot", "Acrobot-v1"),
    ("mountaincar", "MountainCar-v0"), ("mountaincar-continuous", "MountainCarContinuous-v0")])
def test_spaces_and_limit_are_gymnasiums(name, twin):
    env, params = make(name)
    other = gymnasium.make(twin)
    space = env.observation_space(params)
    want = other.observation_space
    np.testing.assert_allclose(space.low, want.low, rtol=1e-6)
    np.testing.assert_allclose(space.high, want.high, rtol=1e-6)
    assert space.shape == want.shape and env.max_steps == other.spec.max_episode_steps
    action = env.action_space(params)
    want = other.action_space
    if isinstance(action, Discrete):
        assert action.n == want.n
    else:
        np.testing.assert_array_equal((action.low, action.high), (want.low[0], want.high[0]))
        assert action.shape == want.shape


@pytest.mark.parametrize("env, low, high", [
    (CartPole(), [-0.05] * 4, [0.05] * 4),
    (Pendulum(), [-np.pi, -1.0], [np.pi, 1.0]),
    (Acrobot(), [-0.1] * 4, [0.1] * 4),
    (MountainCar(), [-0.6], [-0.4]),
    (MountainCarContinuous(), [-0.6], [-0.4]),
])
def test_starts_are_uniform(env, low, high):
    from scipy.stats import kstest

    keys = jax.random.split(jax.random.key(0), 1000)
    starts = np.stack(jax.jit(jax.vmap(lambda key: env.reset(key, env.default_params)[1]))(keys), 1)
    for column, a, b in zip(starts.T, low, high):
        assert kstest(column, "uniform", (a, b - a)).pvalue > 1e-3
    assert np.all(starts[:, len(low):] == 0.0)                      # a car starts at rest


def test_cartpole_bounds_follow_the_params():
    env = CartPole()
    # of two members, the wider
    wide = env.default_params._replace(x_threshold=np.array([1.0, 5.0]))
    assert env.observation_space(wide).high[0] == 10.0
