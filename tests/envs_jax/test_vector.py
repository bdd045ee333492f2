"""Tests of the vectorizer: its results in each step, and the distribution of its start states."""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare, ks_2samp, kstest

from envs_jax import make
from envs_jax.core import Environment
from envs_jax.spaces import Box, Discrete
from envs_jax.vector import VectorEnv
from envs_jax.wrappers import EpisodeStatistics, TimeLimit
from tests.envs_jax.cases import NAMES, random_actions


def play(vector, params, init_key, step_keys, actions):
    """Return (first Input, environment states before each step, TimeSteps) of a scan.

    step_keys [T] and actions [T, num_envs, ...]; the last two results are [T, ...].
    """
    state, first = vector.init(init_key, params)

    def step(state, x):
        after, out = vector.step(x[0], state, x[1])
        return after, (state.env, out)

    _, (states, out) = jax.lax.scan(step, state, (step_keys, actions))
    return first, states, out


def recorded(name, num_envs=6, steps=60, seed=0, settings=(), **options):
    """Return (vector, params, actions, first Input, states, TimeSteps) of random play, as NumPy."""
    env, params = make(name, **dict(settings)) if isinstance(name, str) else (name, ())
    vector = VectorEnv(env, num_envs, **options)
    actions = random_actions(env, params, (steps, num_envs), seed)
    keys = jax.random.split(jax.random.key(seed), steps + 1)
    run = jax.jit(lambda keys, actions: play(vector, params, keys[0], keys[1:], actions))
    first, states, out = jax.tree.map(np.asarray, run(keys, actions))
    return vector, params, np.asarray(actions), first, states, out


def ended(out):
    return (out.terminated | out.truncated).reshape(*out.terminated.shape[:2], -1).all(-1)


def starts(first, out):
    """Return the first observation of each episode, [episodes, ...]."""
    return np.concatenate([first.obs, out.input.obs[out.input.first]])


RECORDS = {
    "cartpole": {},
    "pendulum": {"settings": {"time_limit": 7}},
    "masked-bandit": {"settings": {"time_limit": 5}},
    "repeat-previous": {"settings": {"time_limit": 9}, "group_size": 3},
    "two-step": {},
    "probe-discount": {"settings": {"continuous": True}, "group_size": 2},
}


@pytest.fixture(scope="module", params=RECORDS)
def record(request):
    return recorded(request.param, **RECORDS[request.param])


def test_final_input_is_what_really_followed(record):
    """Compare with the environment, stepped from each recorded state without a key."""
    vector, params, actions, _, states, out = record
    if vector.num_groups > 1:
        states = jax.tree.map(
            lambda x: x.reshape(x.shape[0], vector.num_envs, *x.shape[3:]), states
        )

    def step(state, action):
        return vector.env.step(jax.random.key(0), state, action, params)

    obs, after, reward, terminated, truncated, _ = jax.jit(jax.vmap(jax.vmap(step)))(
        states, actions
    )
    if vector.env.name not in ("MaskedBandit", "RepeatPrevious"):
        np.testing.assert_allclose(out.final_input.obs, obs, rtol=1e-5, atol=1e-6)
        if vector.env.global_state is not None:
            per_env = jax.vmap(jax.vmap(lambda state: vector.env.global_state(state, params)))(
                after
            )
            np.testing.assert_array_equal(out.final_input.state, per_env)
    np.testing.assert_allclose(out.reward, reward, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(out.terminated, terminated)
    # for all agents together
    cut = truncated.reshape(*truncated.shape, *[1] * (out.reward.ndim - 2))
    np.testing.assert_array_equal(out.truncated, np.broadcast_to(cut, out.reward.shape))
    assert ended(out).any()


def test_first_and_previous(record):
    vector, _, actions, first, _, out = record
    done = ended(out)
    assert first.first.all() and not np.any(first.prev_action) and not np.any(first.prev_reward)
    np.testing.assert_array_equal(out.input.first, done)
    assert not out.final_input.first.any()
    np.testing.assert_array_equal(out.final_input.prev_action, actions)
    np.testing.assert_array_equal(out.final_input.prev_reward, out.reward)

    def zeroed(x):
        return np.where(done.reshape(done.shape + (1,) * (x.ndim - 2)), 0, x)

    np.testing.assert_array_equal(out.input.prev_action, zeroed(actions))
    np.testing.assert_array_equal(out.input.prev_reward, zeroed(out.reward))
    for inputs in (out.input, out.final_input):
        np.testing.assert_array_equal(
            inputs.slot, np.tile(np.arange(vector.num_envs), (len(done), 1))
        )


def test_input_differs_from_final_input_only_after_an_end(record):
    _, _, _, _, _, out = record
    done = ended(out)
    for one, other in ((out.input.obs, out.final_input.obs), (out.input.mask, out.final_input.mask),
                       (out.input.state, out.final_input.state)):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one[~done], other[~done])


def test_episode_return_and_length_are_the_loop(record):
    _, _, _, _, _, out = record
    total = np.zeros_like(out.reward[0])
    length = np.zeros(out.truncated.shape[1], int)
    for t, done in enumerate(ended(out)):
        total = total + out.reward[t]
        length = length + 1
        np.testing.assert_allclose(out.episode_return[t], total, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(out.episode_length[t], length)
        total[done] = 0
        length[done] = 0


def test_masks_belong_to_the_observation_they_come_with():
    _, _, actions, first, _, out = recorded("masked-bandit", num_envs=8, settings={"time_limit": 4})
    # what the policy saw before each step
    masks = np.concatenate([first.mask[None], out.input.mask])[:-1]
    legal = np.take_along_axis(masks, actions[..., None], -1)[..., 0]
    np.testing.assert_array_equal(out.reward == -1.0, ~legal)
    assert out.final_input.mask.any(-1).all() and 0.3 < masks[..., -1].mean() < 0.7


def test_agents_end_together():
    _, _, actions, first, _, out = recorded("two-step", num_envs=5, steps=8)
    assert first.obs.shape == (5, 2, 3)
    assert first.state.shape == (5, 3)
    assert first.prev_action.shape == (5, 2)
    assert out.reward.shape == out.terminated.shape == out.episode_return.shape == (8, 5, 2)
    np.testing.assert_array_equal(out.input.first.T, [[False, True] * 4] * 5)
    np.testing.assert_array_equal(out.final_input.state.argmax(-1)[::2], 1 + actions[::2, :, 0])
    assert np.all(out.input.state.argmax(-1)[1::2] == 0)
    assert np.all(out.final_input.state.argmax(-1)[1::2] != 0)


# -------------------------------------------------------------------- the pool of starts


POOLS = [{"pool_size": 8}, {"group_size": 4, "pool_size": 5}, {"reset": "always"}]


@functools.cache
def cartpole_starts(which):
    """Return the first observations of 1,608 episodes, with few spare starts."""
    _, _, _, first, _, out = recorded(
        "cartpole", 8, 400, seed=which, settings={"time_limit": 2}, **POOLS[which]
    )
    assert ended(out).sum() == 8 * 200
    return starts(first, out)


@pytest.mark.parametrize("which", range(len(POOLS)), ids=lambda i: str(POOLS[i]))
def test_no_start_is_used_twice(which):
    used = cartpole_starts(which)
    assert used.shape == (8 * 201, 4) and len(np.unique(used, axis=0)) == len(used)


@pytest.mark.parametrize("which", range(len(POOLS)), ids=lambda i: str(POOLS[i]))
def test_starts_are_those_of_resetting_always(which):
    for one, always in zip(cartpole_starts(which).T, cartpole_starts(len(POOLS) - 1).T):
        assert kstest(one, "uniform", (-0.05, 0.1)).pvalue > 1e-3
        assert ks_2samp(one, always).pvalue > 1e-3


class LotteryState(NamedTuple):
    left: jax.Array      # int32 steps until the end


@dataclass(frozen=True)
class Lottery(Environment):
    """Environment whose start state determines the length of the episode, 1 to 4 steps.

    A pool that favors some starts changes the distribution of lengths.
    """

    def reset(self, key, params):
        left = jax.random.randint(key, (), 1, 5, jnp.int32)
        return left.astype(jnp.float32)[None], LotteryState(left)

    def step(self, key, state, action, params):
        left = state.left - 1
        return (
            left.astype(jnp.float32)[None],
            LotteryState(left),
            jnp.float32(0),
            left == 0,
            jnp.bool_(False),
            {},
        )

    def observation_space(self, params):
        return Box(0.0, 4.0, (1,))

    def action_space(self, params):
        return Discrete(2)


@pytest.mark.parametrize(
    "options", [{"pool_size": 8}, {"pool_size": 13}, {"group_size": 2, "pool_size": 3}], ids=str
)
def test_the_pool_does_not_favor_starts(options):
    _, _, _, first, _, out = recorded(Lottery(), 8, 1500, seed=1, **options)
    # the first 350 episodes of each slot: short episodes are more frequent in a fixed time
    lengths = [
        np.concatenate([first.obs[i], out.input.obs[out.input.first[:, i], i, 0]])[:350]
        for i in range(8)
    ]
    counts = np.bincount(np.concatenate(lengths).astype(int), minlength=5)[1:]
    assert counts.sum() == 8 * 350 and chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("env, options", [
    pytest.param(make("cartpole")[0], {"pool_size": 5}, id="cartpole"),
    pytest.param(Lottery(), {"group_size": 2, "pool_size": 3}, id="lottery in groups",
                 marks=pytest.mark.slow),
])
def test_members_under_vmap_are_bitwise_the_single_runs(env, options, optimized):
    """Members refill their pools in different steps."""
    vector = VectorEnv(env, 4, **options)
    params = env.default_params
    keys = jax.random.split(jax.random.key(2), (3, 151))
    actions = random_actions(env, params, (3, 150, 4))

    def run(keys, actions):
        return play(vector, params, keys[0], keys[1:], actions)

    together = jax.tree.map(np.asarray, jax.jit(jax.vmap(run))(keys, actions))
    alone = jax.jit(run)
    for i in range(3):
        got = jax.tree.map(lambda x, i=i: x[i], together)
        jax.tree.map(np.testing.assert_array_equal, got, alone(keys[i], actions[i]))
    ends = together[2].input.first.sum((1, 2))
    assert ends.min() > 15 and len(set(ends)) > 1


@pytest.mark.parametrize("options", [{}, {"group_size": 2}], ids=str)
def test_refilling_stays_a_branch_under_vmap(options):
    """Random numbers are drawn only inside a loop.

    Under vmap a `lax.cond` becomes a select, and would draw a pool in every step.
    """
    env, params = make("pendulum")
    vector = VectorEnv(env, 4, **options)
    keys = jax.random.split(jax.random.key(0), 2)
    state, _ = jax.eval_shape(jax.vmap(vector.init, (0, None)), keys, params)
    program = jax.make_jaxpr(jax.vmap(vector.step))(
        keys, state, random_actions(env, params, (2, 4))
    )

    def draws(jaxpr, inside=False):
        """Yield, for each draw of random numbers, True if it is in the body of a loop."""
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "random_bits":
                yield inside
            for inner in jax.tree.leaves(
                list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "jaxpr")
            ):
                if hasattr(inner, "jaxpr"):
                    yield from draws(inner.jaxpr, inside or eqn.primitive.name == "while")

    assert set(draws(program.jaxpr)) == {True}


def test_a_group_is_a_vector_environment_of_its_own():
    env, params = make("cartpole", time_limit=6)
    both = VectorEnv(env, 6, group_size=3, pool_size=4)
    one = VectorEnv(env, 3, pool_size=4)
    actions = random_actions(env, params, (30, 6))
    keys = jax.random.split(jax.random.key(4), 31)
    first, _, out = jax.jit(lambda k, a: play(both, params, k[0], k[1:], a))(keys, actions)
    alone = jax.jit(lambda k, a: play(one, params, k[0], k[1:], a))
    by_group = jax.vmap(lambda key: jax.random.split(key, 2))(keys)
    np.testing.assert_array_equal(out.input.slot[-1], np.arange(6))

    def same(got, want):      # two programs, so up to rounding
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
                     got._replace(slot=None), want._replace(slot=None))

    for group in range(2):
        part = slice(3 * group, 3 * group + 3)
        want_first, _, want = alone(by_group[:, group], actions[:, part])
        same(jax.tree.map(lambda x, part=part: x[part], first), want_first)
        got = jax.tree.map(lambda x, part=part: x[:, part], out)
        same(got.input, want.input)
        same(got.final_input, want.final_input)
        np.testing.assert_array_equal(got.episode_return, want.episode_return)


def test_input_of_a_state_is_the_last_one_reported():
    vector = VectorEnv(Lottery(), 4, group_size=2)

    @jax.jit
    def both(key):
        state, first = vector.init(key, ())
        after, out = vector.step(key, state, jnp.zeros(4, jnp.int32))
        return (vector.input(state), vector.input(after)), (first, out.input)

    jax.tree.map(np.testing.assert_array_equal, *both(jax.random.key(0)))


# -------------------------------------------------------------------- contract


@pytest.mark.parametrize("options", [{}, {"group_size": 2}], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_state_keeps_its_avals(name, options):
    """Needed by scans over steps, and by checkpoints."""
    env, params = make(name)
    vector = VectorEnv(env, 4, **options)
    key = jax.random.key(0)

    def avals(tree):
        return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)

    state, inputs = jax.eval_shape(vector.init, key, params)
    after, out = jax.eval_shape(vector.step, key, state, random_actions(env, params, (4,)))
    assert avals(state) == avals(after)
    assert avals(inputs) == avals(out.input) == avals(out.final_input)
    assert not any(x.weak_type for x in jax.tree.leaves((state, out)))
    assert all(x.shape[0] == 4 for x in jax.tree.leaves(out))
    assert out.reward.dtype == jnp.float32
    assert out.terminated.dtype == out.truncated.dtype == jnp.bool_


def test_an_environment_without_statistics_gets_them():
    assert VectorEnv(Lottery(), 2).env == EpisodeStatistics(Lottery())
    assert VectorEnv(TimeLimit(EpisodeStatistics(Lottery()), 3), 2).env == TimeLimit(
        EpisodeStatistics(Lottery()), 3
    )


@pytest.mark.parametrize(
    "options, words", [({"group_size": 3}, "multiple"), ({"pool_size": 3}, "smaller")], ids=str
)
def test_sizes_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        VectorEnv(Lottery(), 4, **options)
