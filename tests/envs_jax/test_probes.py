"""Tests of the values that the probes declare, by playing."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax import make
from envs_jax.probe.two_step import TwoStepGame
from envs_jax.probe.values import ProbeState
from tests.envs_jax.cases import CONTINUOUS, case_id, rollout

KEY = jax.random.key(0)
GAMMA = 0.9

PROBES = [(name, {"continuous": c}) for name in CONTINUOUS for c in (False, True)] + [
    ("probe-multidiscrete", {}), ("probe-multidiscrete", {"nvec": (3, 2, 4)}),
]
probes = pytest.mark.parametrize("case", PROBES, ids=case_id)


def bare(case):
    env, params = make(case[0], **case[1])
    return env.unwrapped, params


def best_policy(env):
    """Return the policy that looks up the declared best action; any action if none is declared."""
    if env.best_actions is None:
        return lambda obs, state: jnp.zeros((1,)) if env.continuous else jnp.int32(0)
    known = jnp.asarray(env.observations)
    answers = jnp.asarray(env.best_actions)
    return lambda obs, state: answers[jnp.argmin(jnp.abs(known - obs[None]).sum(1))]


def discounted_returns(obs, reward, terminated, gamma):
    """Return {observation: discounted returns that followed it} from [episodes, T]."""
    found = {}
    for o, r, dead in zip(obs, reward, terminated):
        end = np.argmax(dead) + 1 if dead.any() else len(r)
        for t in range(end):
            found.setdefault(tuple(o[t].tolist()), []).append(
                np.sum(gamma ** np.arange(end - t) * r[t:end])
            )
    return found


@probes
def test_values_are_what_the_best_policy_earns(case):
    env, params = bare(case)
    obs, _, reward, terminated, *_ = rollout(
        env, params, env.max_steps or 300, best_policy(env), batch=256
    )
    # endless: the first step of one episode, with a long future
    if env.max_steps is None:
        obs = obs[:1]
        reward = reward[:1]
        terminated = terminated[:1]
        found = {
            key: value[0]
            for key, value in discounted_returns(obs, reward, terminated, GAMMA).items()
        }
    else:
        found = discounted_returns(obs, reward, terminated, GAMMA)
    assert set(found) == set(map(tuple, env.observations.tolist()))
    for o, value in zip(env.observations.tolist(), env.values(GAMMA)):
        np.testing.assert_allclose(found[tuple(o)], value, rtol=1e-5)


@probes
def test_the_best_action_is_the_only_one(case):
    env, params = bare(case)
    if case[1].get("continuous"):
        actions = np.linspace(-1, 1, 201, dtype=np.float32)[:, None]
    else:
        actions = np.array(
            list(itertools.product(*map(range, getattr(env, "nvec", (2,))))), np.int32
        )
        actions = actions if hasattr(env, "nvec") else actions[:, 0]

    def earn(key, action):
        obs, state = env.reset(key, params)
        return obs, env.step(key, state, action, params)[2]

    every = jax.jit(jax.vmap(jax.vmap(earn, (None, 0)), (0, None)))
    # [starts, actions, ...]
    obs, reward = map(np.asarray, every(jax.random.split(KEY, 32), actions))
    if env.best_actions is None:
        assert np.ptp(reward, axis=1).max() == 0
        return
    which = np.abs(obs[:, :1] - env.observations).sum(-1).argmin(-1)  # [starts]
    is_best = (
        np.abs(actions - env.best_actions[which][:, None]).reshape(*reward.shape, -1).max(-1) < 1e-6
    )
    assert np.all(is_best.sum(1) == 1)
    assert np.all(reward[is_best] == 1.0)
    assert np.all(reward[~is_best] < 1.0)


def test_values_in_numbers():
    def facts(name, gamma):
        return bare((name, {}))[0].values(gamma)

    np.testing.assert_array_equal(facts("probe-constant", 0.5), [1])
    np.testing.assert_array_equal(facts("probe-observation", 0.5), [-1, 1])
    np.testing.assert_array_equal(facts("probe-discount", 0.5), [0.5, 1])
    np.testing.assert_allclose(facts("probe-truncation", 0.98), [50])


@pytest.mark.parametrize("continuous, worth", [(False, 0.0), (True, 0.75)])
def test_blind_play_of_the_probe_with_both(continuous, worth):
    env, _ = bare(("probe-both", {"continuous": continuous}))
    actions = jnp.linspace(-1, 1, 41)[:, None] if continuous else jnp.arange(2)

    def reward(obs, action):
        return env.step(KEY, ProbeState(obs), action, ())[2]

    table = jax.jit(jax.vmap(jax.vmap(reward, (0, None)), (None, 0)))(
        jnp.asarray(env.observations), actions
    )
    np.testing.assert_allclose(table.mean(1).max(), worth, atol=1e-6)


@pytest.mark.parametrize("name", ["probe-observation", "probe-both"])
def test_both_starts_are_as_likely(name):
    env, params = bare((name, {}))
    obs = np.asarray(jax.vmap(lambda key: env.reset(key, params)[0])(jax.random.split(KEY, 1000)))
    assert abs(obs.mean()) < 0.1 and set(np.unique(obs)) == {-1.0, 1.0}


def test_truncation_probe_is_cut_after_eight():
    env, params = make("probe-truncation")
    _, _, reward, terminated, truncated, _ = rollout(env, params, 8)
    assert reward.sum() == 8 and not terminated.any()
    np.testing.assert_array_equal(truncated[0], np.arange(8) == 7)
    # as the docstring warns
    np.testing.assert_allclose(np.sum(0.98 ** np.arange(8)), 7.46, atol=5e-3)


def test_multidiscrete_random_play():
    env, params = make("probe-multidiscrete")
    reward = rollout(env, params, 1, batch=4000)[2]
    np.testing.assert_allclose(reward.mean(), 5 / 12, atol=0.02)
    assert set(np.unique(reward)) == {0.0, 0.5, 1.0}


@pytest.mark.parametrize("arms", [2, 4])
def test_masked_bandit_values(arms):
    env, params = make("masked-bandit", arms=arms)
    facts = env.unwrapped
    steps = env.max_steps

    def highest_legal(obs, state):
        return arms - 1 - jnp.argmax(env.action_mask(state, params)[::-1])

    obs, _, reward, _, truncated, info = rollout(env, params, steps, highest_legal, batch=512)
    np.testing.assert_allclose(reward.mean(), facts.optimal_reward, atol=0.02)
    assert np.all(info["illegal"] == 0) and np.all(obs == 0) and np.all(truncated[:, -1])

    # one arm forever
    blind = np.broadcast_to(np.arange(arms, dtype=np.int32)[:, None, None], (arms, 256, steps))
    _, _, reward, _, _, info = rollout(
        env, params, steps, actions=blind.reshape(-1, steps), batch=arms * 256
    )
    np.testing.assert_array_equal(info["illegal"] == 1, reward == -1.0)
    illegal = info["illegal"].reshape(arms, -1).mean(1)
    np.testing.assert_allclose(illegal, [0.0] * (arms - 1) + [0.5], atol=0.05)
    np.testing.assert_allclose(
        reward.reshape(arms, -1).mean(1).max(), facts.blind_reward, atol=0.05
    )


def test_masked_bandit_in_numbers():
    env, _ = bare(("masked-bandit", {}))
    assert env.optimal_reward == pytest.approx(5 / 6) and env.blind_reward == pytest.approx(2 / 3)


def test_two_step_game_by_brute_force():
    env, params = make("two-step")
    # [plan, step, agent]
    plans = np.array(list(itertools.product(range(2), repeat=4)), np.int32).reshape(16, 2, 2)
    obs, _, reward, terminated, truncated, _ = rollout(env, params, 2, actions=plans, batch=16)
    for (a, _), (c, d), o, r in zip(plans[:, 0], plans[:, 1], obs, reward):
        want = 7 if a == 0 else [[0, 1], [1, 8]][c][d]
        np.testing.assert_array_equal(r, [[0, 0], [want, want]])
        np.testing.assert_array_equal(o.argmax(-1), [[0, 0], [1 + a, 1 + a]])
    assert np.all(terminated == [[False, False], [True, True]]) and not truncated.any()
    best = [0.99 * reward[plans[:, 0, 0] == a].max() for a in range(2)]
    np.testing.assert_allclose(best, [6.93, 7.92], rtol=1e-6)


def test_agents_whose_values_add_up_choose_seven():
    """The additive fit of the risky payoffs under uniform data, as in VDN, promises less than 7."""
    rows = np.array([(1 - i, i, 1 - j, j) for i in range(2) for j in range(2)], float)
    fit, *_ = np.linalg.lstsq(rows, TwoStepGame.payoff.ravel(), rcond=None)
    np.testing.assert_allclose((rows @ fit).reshape(2, 2), [[-1.5, 2.5], [2.5, 6.5]], atol=1e-6)
