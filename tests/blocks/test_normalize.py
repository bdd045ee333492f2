"""normalize.py: Welford and OpenAI Baselines as oracles, Gymnasium as a second one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs_jax import spaces
from jaxrl.blocks import normalize
from jaxrl.blocks.normalize import RewardScale
from tests import reference

update = jax.jit(normalize.update)
merge = jax.jit(normalize.merge)
scalar = normalize.init(jnp.zeros(()))


def mean(moments):
    return np.asarray(moments.mean, np.float64) + np.asarray(moments.residual, np.float64)


def test_worked_numbers():
    for moments in (
        update(update(scalar, jnp.array([1.0, 2, 3, 4])), jnp.array([10.0, 12])),
        merge(update(scalar, jnp.array([1.0, 2, 3, 4])), update(scalar, jnp.array([10.0, 12]))),
    ):
        assert moments.count == 6
        np.testing.assert_allclose(mean(moments), 5.333333, rtol=1e-6)
        np.testing.assert_allclose(moments.variance, 17.222222, rtol=1e-6)


def test_is_welford(rng):
    # six batches of [T, B] vectors
    x = (3 + 2 * rng.normal(size=(6, 4, 5, 2))).astype(np.float32)
    moments = normalize.init(spaces.Box(-1.0, 1.0, (2,)))
    for batch in x:
        moments = update(moments, batch)
    want = reference.welford(x.reshape(-1, 2))
    assert moments.count == 120
    np.testing.assert_allclose(mean(moments), want[0], rtol=1e-5)
    np.testing.assert_allclose(moments.variance, want[1], rtol=1e-5)
    np.testing.assert_allclose(
        normalize.normalize(moments, x[0]), (x[0] - want[0]) / np.sqrt(want[1]), atol=1e-5
    )


@pytest.mark.parametrize("offset, std", [(1e6, 1.0), (-1e6, 1.0), (1e4, 1e-1), (1e8, 100.0)])
@pytest.mark.parametrize("batch", [1, 7, 512])
def test_far_from_zero(rng, offset, std, batch):
    x = (offset + std * rng.normal(size=(512, 7))).astype(np.float32)  # as float32 sees it
    moments, _ = jax.lax.scan(
        lambda m, b: (normalize.update(m, b), ()), scalar, x.reshape(-1, batch)
    )
    true = x.astype(np.float64)
    np.testing.assert_allclose(moments.variance, true.var(), rtol=0.002)
    np.testing.assert_allclose(mean(moments), true.mean(), atol=0.01 * std)
    y = np.asarray(normalize.normalize(moments, x), np.float64)
    assert abs(y.mean()) < 0.01 and abs(y.std() - 1) < 0.01


def test_never_stops_moving():
    """After 2^24 batches a sum in float32 stands still; an average forgets slowly instead."""
    old = normalize.Moments(
        jnp.float32(2.0**34), jnp.float32(0.0), jnp.float32(0.0), jnp.float32(1.0)
    )
    x = jnp.array([10.0, -10.0] * 50)
    moments, _ = jax.lax.scan(lambda m, _: (normalize.update(m, x), ()), old, length=1000)
    np.testing.assert_allclose(moments.variance, 1.0 + 99 * 1e5 / 2**34, rtol=2e-4)
    assert np.isfinite(moments.variance)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(0, 9), min_size=3, max_size=3))
def test_merge_is_associative_commutative_and_the_whole(seed, sizes):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=27).astype(np.float32) * 10 + 5
    # 0 to 9 items of each third, possibly none
    weights = [np.arange(9) < n for n in sizes]
    a, b, c = (update(scalar, x[9 * i: 9 * i + 9], w) for i, w in enumerate(weights))
    whole = update(scalar, x, np.concatenate(weights))
    for other in (merge(merge(a, b), c), merge(a, merge(b, c)), merge(c, merge(b, a)),
                  merge(merge(scalar, a), merge(b, c))):
        assert other.count == whole.count == sum(sizes)
        np.testing.assert_allclose(mean(other), mean(whole), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(other.variance, whole.variance, rtol=1e-4, atol=1e-4)


def test_weights(rng):
    x = rng.normal(size=(4, 3, 2)).astype(np.float32)
    valid = rng.random((4, 3)) < 0.5
    # what is left out may be anything
    x[~valid] = np.nan
    moments = update(normalize.init(jnp.zeros(2)), x, valid)
    want = reference.welford(x[valid])
    assert moments.count == valid.sum()
    np.testing.assert_allclose(mean(moments), want[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(moments.variance, want[1], rtol=1e-4)
    unchanged = update(moments, x, np.zeros((4, 3), bool))
    jax.tree.map(np.testing.assert_array_equal, unchanged, moments)
    # [T, B] over [T, B, agents]
    agents = update(normalize.init(jnp.zeros(())), np.ones((4, 3, 2), np.float32), valid)
    assert agents.count == 2 * valid.sum()


def test_pytrees_dtypes_and_identity_at_first():
    space = {
        "image": spaces.Box(0, 255, (2, 2), jnp.uint8),
        "pair": (spaces.Discrete(5), spaces.Box(-1.0, 1.0, (3,))),
    }
    moments = normalize.init(space)
    x = {
        "image": jnp.full((4, 6, 2, 2), 7, jnp.uint8),
        "pair": (jnp.ones((4, 6), jnp.int32), jnp.full((4, 6, 3), 2.0)),
    }
    same = normalize.normalize(moments, x)
    jax.tree.map(lambda y, x: np.testing.assert_allclose(y, x, rtol=1e-6), same, x)
    assert (
        normalize.normalize(moments, {**x, "pair": (x["pair"][0], x["pair"][1] + 90)})["pair"][
            1
        ].max()
        == 10.0
    )
    after = update(moments, x)
    assert jax.tree.structure(after) == jax.tree.structure(moments)
    for old, new in zip(jax.tree.leaves(moments), jax.tree.leaves(after)):
        assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, new.weak_type)
    assert after.count == 24 and after.mean["image"].shape == (2, 2)
    # no variance: 0, not NaN
    constant = normalize.normalize(after, x)
    assert all(np.all(leaf == 0.0) for leaf in jax.tree.leaves(constant))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(constant))
    with pytest.raises(AssertionError):
        normalize.update(normalize.init(jnp.zeros(3)), jnp.zeros((5, 4)))


def test_vmapped_is_sequential(rng):
    x = (1e3 + rng.normal(size=(3, 4, 5, 2))).astype(np.float32)
    fresh = jax.vmap(lambda _: normalize.init(jnp.zeros(2)))(jnp.arange(3))
    together = jax.jit(jax.vmap(normalize.update))(fresh, x)
    for i in range(3):
        alone = update(normalize.init(jnp.zeros(2)), x[i])
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-6),
            together,
            alone,
        )


# ---- rewards

def chunks(reward, done, sizes):
    start = 0
    for size in sizes:
        yield reward[start: start + size], done[start: start + size]
        start += size


def test_reward_scale_is_baselines(rng):
    reward = (2 + rng.normal(size=(60, 4))).astype(np.float32)
    done = rng.random((60, 4)) < 0.1
    scale = RewardScale.init(4)
    # episodes go on across rollouts
    for r, d in chunks(reward, done, [13, 7, 40]):
        scale = jax.jit(RewardScale.update)(scale, r, d, 0.95)
    sums, left = reference.discounted_sums(reward.astype(float), done, 0.95)
    np.testing.assert_allclose(scale.accumulator, left, rtol=1e-5)
    np.testing.assert_allclose(scale.returns.variance, sums.var(), rtol=1e-4)
    want = np.clip(reward / np.sqrt(sums.var() + 1e-8), -10, 10)
    np.testing.assert_allclose(scale.apply(reward), want, rtol=1e-4)
    assert scale.apply(jnp.float32(1e9)) == 10.0
    # nothing known: unchanged
    assert RewardScale.init(4).apply(jnp.float32(0.5)) == 0.5


def test_reward_scale_is_gymnasiums_within_an_episode(rng):
    """Across ends it differs on purpose.

    Gymnasium drops the sum before the last reward, Baselines after it.
    """
    gymnasium = pytest.importorskip("gymnasium")

    class Rewards(gymnasium.vector.VectorEnv):
        num_envs = 4
        single_observation_space = observation_space = gymnasium.spaces.Discrete(1)
        single_action_space = action_space = gymnasium.spaces.Discrete(1)

        def __init__(self, rewards):
            self.rewards = iter(rewards)

        def reset(self, *, seed=None, options=None):
            return np.zeros(4, int), {}

        def step(self, action):
            no = np.zeros(4, bool)
            return np.zeros(4, int), next(self.rewards), no, no.copy(), {}

    reward = (2 + rng.normal(size=(200, 4))).astype(np.float32)
    wrapped = gymnasium.wrappers.vector.NormalizeReward(Rewards(reward), gamma=0.9)
    wrapped.reset()
    outputs = [wrapped.step(np.zeros(4, int))[1] for _ in reward]
    scale = RewardScale.init(4).update(reward, np.zeros((200, 4), bool), 0.9)
    np.testing.assert_allclose(scale.returns.variance, wrapped.return_rms.var, rtol=1e-3)
    np.testing.assert_allclose(scale.apply(reward[-1]), outputs[-1], rtol=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 100))
def test_scaled_rewards_do_not_depend_on_the_unit(seed, unit):
    rng = np.random.default_rng(seed)
    reward = rng.normal(size=(20, 3)).astype(np.float32)
    done = rng.random((20, 3)) < 0.2
    scaled = [unit_program(reward * u, done) for u in (1.0, np.float32(unit))]
    np.testing.assert_allclose(scaled[0], scaled[1], rtol=1e-3, atol=1e-5)


@jax.jit
def unit_program(reward, done):
    return RewardScale.init(3).update(reward, done, 0.9).apply(reward)


def test_reward_scale_per_agent_traced_gamma_and_vmap(rng):
    reward = rng.normal(size=(2, 9, 3, 2)).astype(np.float32)
    done = rng.random((2, 9, 3)) < 0.3
    fresh = jax.vmap(lambda _: RewardScale.init((3, 2)))(jnp.arange(2))
    together = jax.jit(jax.vmap(RewardScale.update))(fresh, reward, done, jnp.array([0.9, 0.5]))
    for i, gamma in enumerate((0.9, 0.5)):
        sums, _ = reference.discounted_sums(reward[i].astype(float), done[i], gamma)
        np.testing.assert_allclose(together.returns.variance[i], sums.var(), rtol=1e-4)
    assert jax.tree.structure(together) == jax.tree.structure(fresh)
