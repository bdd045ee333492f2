"""Tests of the exact MDPs against Gymnasium, gymnax, SciPy and their own exact values."""

import itertools

import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_discrete_are
from scipy.stats import chi2

from envs_jax import make
from envs_jax.exact import solve
from envs_jax.exact.cliffwalk import CliffWalk
from envs_jax.exact.deepsea import DeepSea, DeepSeaState
from envs_jax.exact.frozenlake import FrozenLake
from envs_jax.exact.lqr import LQR, TU_RECHT, LQRParams, LQRState
from envs_jax.exact.random_mdp import RandomMDP
from envs_jax.exact.tabular import TabularState
from envs_jax.render import BLUE
from tests.envs_jax.cases import assert_agents_are_shown, rollout

# ---------------------------------------------------------------- tables


def test_tables_are_gymnasiums():
    """Each outcome has the same probability, next state, reward and end."""
    pairs = [
        (
            FrozenLake(map=name, slippery=slippery),
            "FrozenLake-v1",
            {"map_name": name, "is_slippery": slippery},
        )
        for name in ("4x4", "8x8")
        for slippery in (True, False)
    ]
    pairs += [(FrozenLake(map=["SFH", "FFG"], success_rate=0.8), "FrozenLake-v1",
               {"desc": ["SFH", "FFG"], "success_rate": 0.8})]
    pairs += [(CliffWalk(slippery=slippery), "CliffWalking-v1", {"is_slippery": slippery})
              for slippery in (False, True)]
    for env, name, settings in pairs:
        other = gymnasium.make(name, **settings).unwrapped
        ours = env.outcomes
        assert (env.observation_space(()).n, env.action_space(()).n) == (
            other.observation_space.n, other.action_space.n)
        np.testing.assert_array_equal(ours.start, other.initial_state_distrib)
        for s, a in itertools.product(other.P, range(4)):
            probability, successor, reward, over = map(np.array, zip(*other.P[s][a]))
            # Gymnasium's states after the end
            if len(probability) == 1 and ours.probability.shape[-1] > 1:
                assert ours.terminal[s] and np.all(ours.successor[s, a] == successor)
                continue
            np.testing.assert_allclose(ours.probability[s, a], probability, rtol=1e-15)
            np.testing.assert_array_equal(ours.successor[s, a], successor)
            np.testing.assert_array_equal(ours.reward[s, a], reward)
            np.testing.assert_array_equal(ours.terminal[ours.successor[s, a]], over)


def test_limits():
    limits = {
        name: gymnasium.spec(name).max_episode_steps
        for name in ("FrozenLake-v1", "FrozenLake8x8-v1")
    }
    assert [make("frozenlake", map=name)[0].max_steps for name in ("4x4", "8x8")] == list(
        limits.values()
    )
    assert gymnasium.spec("CliffWalking-v1").max_episode_steps is None
    assert make("cliffwalk")[0].max_steps == 200


def test_frozenlake_in_numbers():
    lake = FrozenLake()
    greedy = solve.action_values(lake.transitions, lake.rewards, lake.optimal_values(0.99), 0.99,
                                 lake.terminal).argmax(-1)
    assert lake.expected_return(100) == pytest.approx(0.744190, abs=1e-6)
    assert lake.expected_return(100, greedy) == pytest.approx(0.740165, abs=1e-6)
    assert lake.expected_return(100, np.full((16, 4), 0.25)) == pytest.approx(0.013940, abs=1e-6)
    assert lake.optimal_values(0.99)[0] == pytest.approx(0.542026, abs=1e-6)
    # without a limit
    assert lake.optimal_values(1.0)[0] == pytest.approx(14 / 17, abs=1e-9)
    # from Gymnasium's documentation
    assert FrozenLake(map="8x8").expected_return(200) == pytest.approx(0.91, abs=5e-3)
    assert FrozenLake(slippery=False).optimal_values(0.99)[0] == pytest.approx(0.99**5)

    env, params = make("frozenlake")
    policy = jnp.asarray(greedy, jnp.int32)
    _, _, reward, terminated, _, _ = rollout(
        env, params, 100, lambda obs, state: policy[obs], batch=2000
    )
    won = (reward * (np.cumsum(terminated, 1) - terminated == 0)).sum(1)
    assert abs(won.mean() - 0.740165) < 4 * np.sqrt(0.74 * 0.26 / 2000)


def test_frozenlake_refuses_what_is_no_map():
    for lake in (
        {"map": "5x5"},
        {"map": ("SF", "G")},
        {"map": ("FG",)},
        {"map": ("SX",)},
        {"success_rate": 1.5},
    ):
        with pytest.raises(ValueError):
            FrozenLake(**lake)


def test_cliffwalk_in_numbers():
    cliff = CliffWalk()
    assert cliff.optimal_values(1.0)[36] == pytest.approx(-13)
    up = 0
    right = 1
    down = 2
    paths = {
        -13: [up, *[right] * 11, down],
        -17: [*[up] * 3, *[right] * 11, *[down] * 3],
        -112: [right] * 13,
    }
    env, params = make("cliffwalk")
    for worth, path in paths.items():
        _, _, reward, terminated, _, _ = rollout(env, params, len(path), actions=jnp.int32([path]))
        # one step into the cliff ends nothing, and leads back
        if worth == -112:
            assert not terminated.any() and reward.sum() == -1300
        else:
            assert reward.sum() == worth
            assert np.flatnonzero(terminated[0]).tolist() == [len(path) - 1]


@pytest.mark.parametrize("env", [FrozenLake(), RandomMDP(states=5, actions=2, branching=4, seed=3)])
def test_what_follows_is_as_frequent_as_it_is_likely(env, draws=1000):
    S, A, _ = env.transitions.shape
    s, a = (x.ravel() for x in np.mgrid[:S, :A])
    keys = jax.random.split(jax.random.key(0), (S * A, draws))

    def one(key, s, a):
        return env.step(key, TabularState(s), a, ())

    many = jax.jit(jax.vmap(jax.vmap(one, (0, None, None))))
    place, state, reward, over, *_ = many(keys, jnp.int32(s), jnp.int32(a))
    np.testing.assert_array_equal(place, state.place)
    np.testing.assert_array_equal(over, env.terminal[place])
    np.testing.assert_allclose(reward.mean(1), env.rewards[s, a], atol=5 * 0.5 / np.sqrt(draws))
    seen = np.stack([np.bincount(row, minlength=S) for row in np.asarray(place)])
    expected = draws * env.transitions[s, a]
    assert np.all(seen[expected == 0] == 0)
    usual = expected > 5                                # where the statistic is a chi-square
    statistic = np.sum((seen - expected)[usual] ** 2 / expected[usual])
    degrees = usual.sum() - len(expected)
    assert 1e-3 < chi2.sf(statistic, degrees) < 1 - 1e-3


def test_random_mdp_is_what_garnet_says():
    env = RandomMDP(states=7, actions=4, branching=3, seed=1)
    assert np.all((env.transitions > 0).sum(-1) == 3)                       # distinct successors
    np.testing.assert_allclose(env.transitions.sum(-1), 1.0, rtol=1e-12)
    many = RandomMDP(states=200, actions=5, branching=2, seed=0)
    assert abs(many.rewards.mean()) < 4 / np.sqrt(1000)
    assert abs(many.rewards.std() - 1) < 4 / np.sqrt(2000)
    # of a uniform cut
    np.testing.assert_allclose(many.outcomes.probability.mean((0, 1)), 0.5, atol=0.05)
    assert np.any(RandomMDP(seed=1).transitions != RandomMDP().transitions)
    np.testing.assert_array_equal(RandomMDP(seed=1).transitions, RandomMDP(seed=1).transitions)
    assert RandomMDP(seed=1) == RandomMDP(seed=1) != RandomMDP(seed=2)
    with pytest.raises(ValueError, match="branching"):
        RandomMDP(states=2, branching=3)


def test_random_mdp_pays_what_its_values_say():
    env, params = make("random-mdp")
    facts = env.unwrapped
    gamma = 0.9
    values = facts.optimal_values(gamma)
    best = solve.action_values(facts.transitions, facts.rewards, values, gamma).argmax(-1)
    policy = jnp.asarray(best, jnp.int32)
    obs, _, reward, terminated, truncated, _ = rollout(
        env, params, 32, lambda obs, state: policy[obs], batch=4000
    )
    returns = (reward * gamma ** np.arange(32)).sum(1)
    want = facts.expected_return(32, best, gamma)
    assert abs(returns.mean() - want) < 4 * returns.std() / np.sqrt(4000)
    assert not terminated.any() and truncated[:, -1].all()
    np.testing.assert_allclose(np.bincount(obs[:, 0], minlength=6) / 4000, facts.start, atol=0.03)
    np.testing.assert_allclose(facts.policy_values(best, gamma), values, rtol=1e-10)
    # as the docstring warns
    assert np.mean(gamma ** np.arange(1, 33)) == pytest.approx(0.27, abs=5e-3)


# ---------------------------------------------------------------- DeepSea


@pytest.mark.parametrize("deterministic", [True, False])
def test_deepsea_is_gymnaxs(deterministic, size=5):
    """All cells and actions, with the same map and the same random numbers."""
    from gymnax.environments.bsuite.deep_sea import EnvState

    env = DeepSea(size, deterministic)
    other = gymnax.make("DeepSea-bsuite", size=size)[0]
    gymnax_params = other.default_params.replace(deterministic=deterministic)
    row, column, action = (jnp.asarray(x.ravel(), jnp.int32) for x in np.mgrid[:size, :size, :2])
    keys = jax.random.split(jax.random.key(0), len(row))
    ours = jax.jit(
        jax.vmap(lambda key, *s: env.step(key, DeepSeaState(*s[:2]), s[2], env.default_params))
    )
    obs, state, reward, terminated, truncated, _ = ours(keys, row, column, action)

    def reference(key, row, column, action):
        state = EnvState(
            row=row,
            column=column,
            bad_episode=False,
            total_bad_episodes=0,
            denoised_return=0,
            optimal_return=0.0,
            action_mapping=jnp.asarray(env.right),
            time=row,
        )
        return other.step_env(key, state, action, gymnax_params)

    their_obs, their_state, their_reward, their_terminated, _ = jax.jit(jax.vmap(reference))(
        keys, row, column, action
    )
    np.testing.assert_array_equal(obs, their_obs)
    np.testing.assert_array_equal(state, [their_state.row, their_state.column])
    np.testing.assert_allclose(reward, their_reward, atol=1e-7)
    np.testing.assert_array_equal(terminated, their_terminated)
    assert not truncated.any() and len(np.unique(env.right)) == 2


def sea_table(size, holds, move_cost):
    """Return (transitions, rewards) of DeepSea, with states (row, column) and an end state."""
    P = np.zeros((size * size + 1, 2, size * size + 1))
    r = np.zeros((size * size + 1, 2))
    for row, column in itertools.product(range(size), repeat=2):
        def to(c, row=row):
            return (row + 1) * size + min(max(c, 0), size - 1) if row + 1 < size else size * size

        s = row * size + column
        P[s, 0, to(column - 1)] += 1.0
        P[s, 1, to(column + 1)] += holds
        P[s, 1, to(column)] += 1.0 - holds
        r[s, 1] = (column == size - 1) - move_cost / size
    P[-1, :, -1] = 1.0
    return P, r


@pytest.mark.parametrize("size", [1, 2, 8])
def test_deepsea_optimum_by_dynamic_programming(size):
    for deterministic, cost in itertools.product((True, False), (0.01, 0.3)):
        env = DeepSea(size, deterministic)
        table = sea_table(size, 1.0 if deterministic else 1 - 1 / size, cost)
        best = solve.finite_horizon(*table, size)[size, 0]
        assert env.optimal_return(env.default_params._replace(move_cost=cost)) == pytest.approx(
            best, rel=1e-10
        )
    assert DeepSea(size).optimal_return() == pytest.approx(0.99)
    if size == 8:
        bsuites = (1 - 1 / size) ** (size - 1) - 0.01
        assert 0 < DeepSea(size, deterministic=False).optimal_return() - bsuites < 0.01


def test_deepsea_played():
    env, params = make("deepsea", size=6)
    right = jnp.asarray(env.unwrapped.right)

    def dive(obs, state):
        return right[jnp.argmax(obs.sum(1)), jnp.argmax(obs.sum(0))]

    obs, _, reward, terminated, truncated, _ = rollout(env, params, 6, dive)
    assert reward.sum() == pytest.approx(0.99) and terminated[0, -1] and not truncated.any()
    np.testing.assert_array_equal(obs[0], np.eye(6)[:, None] * np.eye(6)[:, :, None])

    hits = rollout(env, params, 6, batch=20_000)[2].sum(1) > 0.9
    assert abs(hits.mean() - 2.0**-6) < 4 * np.sqrt(2.0**-6 / 20_000)


def test_deepsea_in_the_wind():
    env, params = make("deepsea", size=4, deterministic=False)
    facts = env.unwrapped
    right = jnp.asarray(facts.right)

    # right on the diagonal, left once a move has failed
    def dive(obs, state):
        row = jnp.argmax(obs.sum(1))
        column = jnp.argmax(obs.sum(0))
        return jnp.where(row == column, right[row, column], 1 - right[row, column])

    returns = rollout(env, params, 4, dive, batch=20_000)[2].sum(1)
    assert abs(returns.mean() - facts.optimal_return()) < 4 * returns.std() / np.sqrt(20_000)


def test_deepsea_action_maps():
    assert np.all(DeepSea(randomize_actions=False).right == 1)
    assert np.any(DeepSea(seed=1).right != DeepSea().right)
    assert abs(DeepSea(100).right.mean() - 0.5) < 0.02


# ---------------------------------------------------------------- LQR


def test_lqr_in_numbers():
    lqr = LQR()
    P, K = solve.riccati(lqr.A, lqr.B, lqr.Q, lqr.R)
    np.testing.assert_allclose(K, [[2.5853, 3.5747]], atol=5e-5)
    assert np.trace(P) == pytest.approx(18.7886, abs=5e-5)
    # the limit saves the cost of what follows
    assert lqr.optimal_return(50) == pytest.approx(-18.7886, abs=2e-3)
    assert lqr.optimal_return(400) == pytest.approx(-18.7886, abs=5e-5)
    assert lqr.linear_return(K, 50) == pytest.approx(-18.7877, abs=5e-5)
    assert lqr.optimal_return(50) - lqr.linear_return(K, 50) == pytest.approx(0.0007, abs=5e-5)
    assert lqr.linear_return(np.zeros((1, 2)), 50) == pytest.approx(-504.25, abs=1e-6)
    other = LQR(**TU_RECHT)
    assert np.trace(solve.riccati(other.A, other.B, other.Q, other.R)[0]) == pytest.approx(
        0.137287, abs=1e-6
    )


def test_riccati_is_scipys(rng):
    for n, m in ((1, 1), (2, 1), (3, 2)):
        A = rng.normal(size=(n, n))
        B = rng.normal(size=(n, m))
        Q = np.eye(n) * rng.uniform(0.1, 1)
        R = np.eye(m) * rng.uniform(0.1, 1)
        P, K = solve.riccati(A, B, Q, R)
        np.testing.assert_allclose(P, solve_discrete_are(A, B, Q, R), rtol=1e-8)
        np.testing.assert_allclose(solve.quadratic_cost(A, B, Q, R, K, 2000)[-1], P, rtol=1e-8)


def test_finite_riccati_is_least_squares(rng, T=3):
    """All controls of an episode together solve one quadratic problem."""
    A = np.array([[1.1, 0.3], [0.0, 0.9]])
    B = np.array([[0.2], [1.0]])
    Q = np.array([[2.0, 0.5], [0.5, 1.0]])
    R = np.array([[0.7]])
    x0 = rng.normal(size=2)
    # x_t = states[t] x0 + controls[t] u
    states = [np.eye(2)]
    controls = [np.zeros((2, T))]
    for t in range(T - 1):
        states.append(A @ states[-1])
        controls.append(A @ controls[-1] + B @ np.eye(T)[t][None])
    H = sum(c.T @ Q @ c for c in controls) + R[0, 0] * np.eye(T)
    f = sum(c.T @ Q @ s @ x0 for c, s in zip(controls, states))
    u = -np.linalg.solve(H, f)
    cost = (
        sum((s @ x0 + c @ u) @ Q @ (s @ x0 + c @ u) for s, c in zip(states, controls))
        + R[0, 0] * u @ u
    )
    P, K = solve.finite_riccati(A, B, Q, R, T)
    assert x0 @ P[T] @ x0 == pytest.approx(cost, rel=1e-10)
    np.testing.assert_allclose(-K[T] @ x0, u[:1], rtol=1e-8)
    np.testing.assert_array_equal(P[0], np.zeros((2, 2)))


def test_lqr_step_is_the_system(rng):
    env = LQR(**TU_RECHT)
    x, u = rng.normal(size=(2, 50, 3)).astype(np.float32)
    step = jax.jit(
        jax.vmap(lambda x, u: env.step(jax.random.key(0), LQRState(x), u, env.default_params))
    )
    obs, state, reward, *_ = step(x, u)
    np.testing.assert_allclose(
        obs, x @ np.array(env.A).T + u @ np.array(env.B).T, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(state.x, obs)
    np.testing.assert_allclose(reward, -1e-3 * (x**2).sum(1) - (u**2).sum(1), rtol=1e-5)


def test_lqr_played():
    """The mean cost of the best gain, with noise, equals that of the recursion."""
    env, params = make("lqr", noise=0.3)
    facts = env.unwrapped
    gain = env.unwrapped.gain
    control = jnp.asarray(-gain, jnp.float32)

    def policy(obs, state):
        return jnp.sum(control * obs[None], axis=-1)

    obs, _, reward, terminated, truncated, _ = rollout(env, params, 50, policy, batch=4000)
    returns = reward.sum(1)
    want = facts.linear_return(gain, 50, LQRParams(noise=0.3))
    assert abs(returns.mean() - want) < 4 * returns.std() / np.sqrt(4000)
    assert want < facts.optimal_return(50, params) < facts.optimal_return(50)
    np.testing.assert_allclose(np.cov(obs[:, 0].T), np.eye(2), atol=0.1)
    assert not terminated.any() and truncated[:, -1].all()


def test_lqr_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="B"):
        LQR(B=((1.0,),))


# ---------------------------------------------------------------- pictures


def test_pictures_show_where_we_are():
    def at(place):
        return TabularState(jnp.int32(place))

    # after the last step
    boards = [
        (FrozenLake(), at(9), (2, 1), (4, 4)),
        (FrozenLake(map=("SFG", "HHH")), at(2), (0, 2), (2, 3)),
        (CliffWalk(), at(36), (3, 0), (4, 12)),
        (RandomMDP(states=9), at(8), (1, 8), (2, 9)),
        (DeepSea(6), DeepSeaState(jnp.int32(4), jnp.int32(2)), (4, 2), (7, 6)),
        (DeepSea(6), DeepSeaState(jnp.int32(6), jnp.int32(5)), (6, 5), (7, 6)),
    ]
    assert_agents_are_shown(boards)


def test_lqr_picture_has_the_point_in_its_place():
    one = LQR(A=[[1]], B=[[1]], Q=[[1]], R=[[1]])
    for env, x, (across, up) in [
        (LQR(), [2.0, -1.0], (2, -1)),
        (LQR(**TU_RECHT), [-3.0, 1.0, 0.5], (-3, 1)),
        (one, [2.0], (2, 0)),
        (LQR(), [0.0, 1e9], (0, 3.8)),
    ]:
        picture = env.render(LQRState(jnp.asarray(x)), env.default_params)
        assert picture.shape == (400, 400, 3) and picture.dtype == np.uint8
        assert tuple(picture[round(200 - 50 * up), round(200 + 50 * across)]) == BLUE
