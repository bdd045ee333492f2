"""Contract tests of every environment of the table, in its usual wrappers and without them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_jax
from envs_jax import spaces
from tests.envs_jax.cases import CASES, case_id, random_actions, rollout

BATCH = 2
STEPS = 40


class Case(NamedTuple):
    env: Any
    params: Any
    episodes: tuple      # (obs, action, reward, terminated, truncated, info) [BATCH, T, ...]


@pytest.fixture(scope="module", params=CASES, ids=case_id)
def case(request):
    env, params = envs_jax.make(request.param[0], **request.param[1])
    return Case(env, params, rollout(env, params, min(env.max_steps or STEPS, STEPS), batch=BATCH))


def outputs(env, params):
    """Return the abstract values of reset and step, for parameters that are numbers or arrays."""
    start = jax.eval_shape(env.reset, jax.random.key(0), params)
    action = random_actions(env, params, ())
    return start, jax.eval_shape(env.step, jax.random.key(0), start[1], action, params)


def numbers(x):
    """Return `x`, or the data of a key."""
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def avals(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def test_step_keeps_the_avals_of_reset(case):
    arrays = jax.tree.map(np.float32, case.params)
    for env in (case.env, case.env.unwrapped):
        for params in (case.params, arrays):
            (obs, state), (next_obs, next_state, *rest) = outputs(env, params)
            assert jax.tree.structure(state) == jax.tree.structure(next_state)
            assert avals((obs, state)) == avals((next_obs, next_state))
            assert not any(x.weak_type for x in jax.tree.leaves((obs, state, rest)))


def test_reward_flags_and_info(case):
    per_agent = () if case.env.agents is None else (case.env.agents,)
    for env in (case.env, case.env.unwrapped):
        _, (_, _, reward, terminated, truncated, info) = outputs(env, case.params)
        assert (reward.shape, reward.dtype) == (per_agent, jnp.float32)
        assert (terminated.shape, terminated.dtype) == (per_agent, jnp.bool_)
        assert (truncated.shape, truncated.dtype) == ((), jnp.bool_)
        assert isinstance(info, dict)


def test_space_contains_observations_until_the_end(case):
    obs, _, _, terminated, *_ = case.episodes
    space = case.env.observation_space(case.params)
    ended = terminated.reshape(*terminated.shape[:2], -1).all(-1)
    seen = np.argwhere(np.cumsum(ended, 1) - ended == 0)         # undefined after the end
    for b, t in seen:
        for i in range(case.env.agents or 1):
            at = (b, t) if case.env.agents is None else (b, t, i)
            one = jax.tree.map(lambda x, at=at: x[at], obs)
            assert spaces.contains(space, one)
            assert jax.tree.map(lambda x: x.dtype, one) == jax.tree.map(lambda s: s.dtype, space)


def test_same_key_same_bits_and_single_equals_batch(case):
    """One environment, and a batch with separate parameters, agree to 1e-5."""
    env, params, _ = case
    keys = jax.random.split(jax.random.key(3), 3)
    actions = random_actions(env, params, (3,))

    def episode(key, action, params):
        obs, state = env.reset(key, params)
        return jax.tree.map(numbers, (obs, env.step(key, state, action, params)))

    alone = jax.jit(episode)
    want, again = (
        [alone(key, action, params) for key, action in zip(keys, actions)] for _ in range(2)
    )
    jax.tree.map(np.testing.assert_array_equal, want, again)
    want = jax.tree.map(lambda *leaves: np.stack(leaves), *want)
    many = jax.tree.map(lambda x: np.stack([x] * 3).astype(np.float32), params)
    got = jax.jit(jax.vmap(episode))(keys, actions, many)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)


def test_only_a_time_limit_truncates(case):
    _, _, _, terminated, truncated, _ = case.episodes
    terminated = terminated.reshape(*truncated.shape, -1).all(-1)
    at_limit = np.arange(1, truncated.shape[1] + 1) >= (case.env.max_steps or np.inf)
    np.testing.assert_array_equal(truncated, at_limit & ~terminated)


def test_an_episode_ends_by_max_steps(case):
    _, _, _, terminated, truncated, _ = case.episodes
    over = terminated.reshape(*truncated.shape, -1).all(-1) | truncated
    if case.env.max_steps is not None and case.env.max_steps <= STEPS:
        assert over.any(1).all()


def test_mask_and_global_state(case):
    env, params, _ = case

    @jax.jit
    @jax.vmap
    def seen(key, action):
        _, start = env.reset(key, params)
        states = start, env.step(key, start, action, params)[1]

        def look(f):
            return f and [f(state, params) for state in states]

        return look(env.action_mask), look(env.global_state)

    space = env.state_space(params)
    if env.action_mask is None and env.global_state is None:
        assert space is None
        return
    masks, globals_ = seen(
        jax.random.split(jax.random.key(5), 16), random_actions(env, params, (16,))
    )
    for mask in masks or ():
        agents = () if env.agents is None else (env.agents,)
        assert mask.dtype == bool and mask.shape == (16, *agents, env.action_space(params).n)
        assert mask.any(-1).all()
    assert (globals_ is None) == (space is None)
    for state in globals_ or ():
        assert state.dtype == space.dtype and all(space.contains(s) for s in state)


def test_an_environment_is_a_value(case):
    """An environment is a valid static argument: hashable, and equal to one made alike."""
    again = type(case.env)(case.env.env)
    assert again == case.env and hash(again) == hash(case.env)
