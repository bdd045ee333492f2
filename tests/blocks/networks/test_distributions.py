"""distributions.py.

Scipy and counting as oracles, worked numbers, finite gradients, every kind of action space.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.blocks.networks.distributions import (
    Categorical,
    DiagonalNormal,
    MultiCategorical,
    TanhNormal,
    masked_logits,
)
from tests import reference

key = jax.random.key(0)


def close(got, want, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


# ---- categorical

@jax.jit
def look(policy, action):
    """All that a distribution says, in one program: distributions are pytrees."""
    return policy.sample(key), policy.mode(), policy.log_prob(action), policy.entropy()


def test_categorical_is_the_definition(rng):
    logits = (3 * rng.normal(size=(5, 4, 6))).astype(np.float32)
    for a in range(6):
        sample, mode, log_prob, entropies = look(Categorical(logits), np.full((5, 4), a, np.int32))
        for i in np.ndindex(5, 4):
            p, entropy = reference.categorical(logits[i].astype(float), np.ones(6, bool))
            close(np.exp(log_prob[i]), p[a])
            close(entropies[i], entropy)
            assert mode[i] == p.argmax()
    assert mode.dtype == sample.dtype == jnp.int32


def test_categorical_samples_its_probabilities():
    p = np.array([0.5, 0.2, 0.0, 0.3])
    logits = masked_logits(
        jnp.log(jnp.array([0.5, 0.2, 1.0, 0.3])), jnp.array([True, True, False, True])
    )
    draws = np.asarray(Categorical(jnp.broadcast_to(logits, (100_000, 4))).sample(key))
    counts = np.bincount(draws, minlength=4)
    assert counts[2] == 0
    assert scipy.stats.chisquare(counts[p > 0], 100_000 * p[p > 0]).pvalue > 1e-3


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1e4))
def test_masked_choices_do_not_exist(seed, spread):
    """Probabilities, entropy and gradient are those of the legal choices alone.

    And the rest gets exactly 0.
    """
    rng = np.random.default_rng(seed)
    logits = (spread * rng.normal(size=5)).astype(np.float32)
    legal = rng.random(5) < 0.4
    legal[rng.integers(5)] = True
    p, entropy = reference.categorical(logits.astype(float), legal)
    got_p, got_entropy, sample, slope_p, slope_entropy = masked_program(logits, legal)
    close(got_p, p, rtol=1e-3)
    close(got_entropy, entropy, rtol=1e-3)
    assert np.all(got_p[~legal] == 0.0) and legal[sample]
    assert np.all(np.isfinite(slope_p)) and np.all(np.isfinite(slope_entropy))
    assert np.all(slope_p[:, ~legal] == 0.0) and np.all(slope_entropy[~legal] == 0.0)


@jax.jit
def masked_program(logits, legal):
    def policy(logits):
        return Categorical(masked_logits(logits, legal))

    def log_probs(logits):
        return jax.vmap(lambda action: policy(logits).log_prob(action))(jnp.arange(5))

    def entropy(logits):
        return policy(logits).entropy()

    return (jnp.exp(log_probs(logits)), entropy(logits), policy(logits).sample(key),
            jax.jacobian(log_probs)(logits), jax.grad(entropy)(logits))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_one_legal_choice(dtype):
    """Log-probability 0, entropy 0, gradients 0, nothing but that choice.

    Finite also for an illegal one.
    """
    logits = jnp.array([[3.0, -2.0, 50.0]], dtype)
    mask = jnp.array([[False, True, False]])

    def policy(logits):
        return Categorical(masked_logits(logits, mask))

    log_prob = jax.jit(
        jax.value_and_grad(lambda logits, action: policy(logits).log_prob(action).sum())
    )
    for action in range(3):
        value, slope = log_prob(logits, jnp.array([action]))
        assert np.isfinite(value) and np.all(np.isfinite(np.asarray(slope, np.float32)))
        assert action != 1 or (value == 0.0 and not np.any(slope))
    value, slope = jax.jit(jax.value_and_grad(lambda logits: policy(logits).entropy().sum()))(
        logits
    )
    assert value == 0.0 and not np.any(slope)
    assert policy(logits).mode() == 1
    samples = jax.jit(lambda keys: jax.vmap(policy(logits).sample)(keys))(
        jax.random.split(key, 1000)
    )
    assert np.all(np.asarray(samples) == 1)


def test_debug_nans_finds_none_with_a_mask():
    with jax.debug_nans(True):
        mask = jnp.array([[True, False], [False, True]])

        def loss(x):
            return (
                Categorical(masked_logits(x, mask)).entropy()
                + Categorical(masked_logits(x, mask)).log_prob(jnp.array([0, 0]))
            ).sum()

        jax.grad(loss)(jnp.zeros((2, 2)))


def test_multi_categorical_adds_up(rng):
    parts = tuple(Categorical(rng.normal(size=(4, n)).astype(np.float32)) for n in (2, 3, 5))
    total = 0.0
    for a in np.ndindex(2, 3, 5):
        sample, mode, log_prob, entropy = look(
            MultiCategorical(parts), np.tile(np.int32(a), (4, 1))
        )
        each = [look(p, np.full(4, x, np.int32)) for p, x in zip(parts, a)]
        close(log_prob, sum(e[2] for e in each))
        total = total + np.exp(log_prob)
    assert sample.shape == (4, 3) and sample.dtype == jnp.int32
    close(entropy, sum(e[3] for e in each))
    np.testing.assert_array_equal(mode, np.stack([e[1] for e in each], -1))
    close(total, np.ones(4))


# ---- normal

@pytest.mark.parametrize("shared", [True, False])
def test_diagonal_normal_is_scipys(rng, shared):
    mean, x = rng.normal(size=(2, 6, 3)).astype(np.float32)
    log_std = rng.normal(size=(3,) if shared else (6, 3)).astype(np.float32)
    policy = DiagonalNormal(jnp.asarray(mean), jnp.asarray(log_std))
    oracle = scipy.stats.norm(
        mean.astype(float), np.exp(np.broadcast_to(log_std, mean.shape).astype(float))
    )
    close(policy.log_prob(jnp.asarray(x)), oracle.logpdf(x).sum(-1), rtol=1e-4)
    close(policy.entropy(), oracle.entropy().sum(-1))
    np.testing.assert_array_equal(policy.mode(), mean)


def test_normal_samples():
    policy = DiagonalNormal(
        jnp.broadcast_to(jnp.array([1.0, -2.0]), (50_000, 2)), jnp.log(jnp.array([0.5, 3.0]))
    )
    draws = np.asarray(policy.sample(key))
    for i, (mean, std) in enumerate([(1.0, 0.5), (-2.0, 3.0)]):
        assert scipy.stats.kstest(draws[:, i], scipy.stats.norm(mean, std).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.03


# ---- tanh-normal

def test_tanh_normal_worked_numbers():
    policy = TanhNormal(jnp.array([0.3]), jnp.array([-0.5]))
    close(policy.log_prob_unsquashed(jnp.array([0.8])), -0.1772166)
    close(policy.log_prob(jnp.array([0.6640368])), -0.1772166)
    close(policy._replace(low=-2.0, high=2.0).log_prob(jnp.array([2 * 0.6640368])), -0.8703638)


def test_tanh_normal_is_scipy_and_the_change_of_variables(rng):
    low, high = np.array([-1.0, 0.0, -5.0], np.float32), np.array([1.0, 4.0, -2.0], np.float32)
    mean, log_std, u = (0.7 * rng.normal(size=(3, 6, 3))).astype(np.float32)
    policy = TanhNormal(jnp.asarray(mean), jnp.asarray(log_std), low, high)
    action = (low + high) / 2 + (high - low) / 2 * np.tanh(u.astype(float))
    slope = (high - low) / 2 * (1 - np.tanh(u.astype(float)) ** 2)
    want = (
        scipy.stats.norm(mean.astype(float), np.exp(log_std.astype(float))).logpdf(u)
        - np.log(slope)
    ).sum(-1)
    close(policy.log_prob_unsquashed(jnp.asarray(u)), want, rtol=1e-4, atol=1e-4)
    close(look_tanh(policy, action.astype(np.float32)), want, rtol=1e-3, atol=1e-3)


def test_tanh_normal_is_the_change_of_variables_with_a_numeric_slope(rng):
    low, high = np.array([-1.0, 0.0, -5.0], np.float32), np.array([1.0, 4.0, -2.0], np.float32)
    mean, log_std, u = (0.7 * rng.normal(size=(3, 6, 3))).astype(np.float32)
    got = TanhNormal(jnp.asarray(mean), jnp.asarray(log_std), low, high).log_prob_unsquashed(
        jnp.asarray(u)
    )
    for i in range(6):
        want = reference.tanh_normal_log_prob(
            *(x[i].astype(float) for x in (u, mean, log_std)), low, high
        )
        close(got[i], want, rtol=1e-4, atol=1e-4)


def test_tanh_normal_integrates_to_one_over_the_box():
    density = jax.jit(
        lambda a: jnp.exp(TanhNormal(jnp.array([0.4]), jnp.array([-0.3]), 1.0, 4.0).log_prob(a))
    )
    grid = np.linspace(1.0, 4.0, 4001)[1:-1].astype(np.float32)
    close(scipy.integrate.trapezoid(jax.vmap(density)(grid[:, None]), grid), 1.0, rtol=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.floats(-20, 20), st.floats(-5, 2), st.integers(0, 2**31 - 1))
def test_tanh_normal_samples_stay_inside_and_finite(mean, log_std, seed):
    action, log_prob, slope = tanh_program(
        jnp.full((3,), mean), jnp.full((3,), log_std), jax.random.key(seed)
    )
    assert np.all((action >= -0.1) & (action <= 0.3))
    assert np.isfinite(log_prob) and np.all(np.isfinite(slope[0])) and np.all(np.isfinite(slope[1]))


@jax.jit
def tanh_program(mean, log_std, key):
    low, high = jnp.float32(-0.1), jnp.float32(0.3)     # center + half rounds above high

    def both(mean, log_std):
        return TanhNormal(mean, log_std, low, high).sample_and_log_prob(key)

    action, log_prob = both(mean, log_std)
    return action, log_prob, jax.grad(lambda m, s: both(m, s)[1], argnums=(0, 1))(mean, log_std)


@pytest.mark.parametrize("u", [-20.0, 20.0])
def test_tanh_normal_far_out(u):
    """There 1 - tanh^2 underflows to 0 in float32; its logarithm is 2 log 2 - 2 |u|."""
    policy = TanhNormal(jnp.array([u]), jnp.array([0.0]))
    log_prob = jax.jit(lambda x: policy.log_prob_unsquashed(x).sum())
    close(log_prob(jnp.array([u])), -0.5 * np.log(2 * np.pi) - (2 * np.log(2) - 40.0))
    close(jax.jit(jax.grad(log_prob))(jnp.array([u])), 2.0 * np.sign(u))
    bound = jnp.array([np.sign(u)])
    value, slope = jax.jit(jax.value_and_grad(lambda a: policy.log_prob(a).sum()))(bound)
    assert np.isfinite(value) and np.all(np.isfinite(slope))
    assert policy.mode() == np.sign(u)


look_tanh = jax.jit(TanhNormal.log_prob)


def test_tanh_sample_and_log_prob_agree():
    policy = TanhNormal(
        jnp.zeros((1000, 2)), jnp.zeros(2), jnp.array([-2.0, 0.0]), jnp.array([2.0, 1.0])
    )
    action, log_prob = policy.sample_and_log_prob(key)
    np.testing.assert_array_equal(action, policy.sample(key))
    close(look_tanh(policy, action), log_prob, rtol=1e-3, atol=2e-3)


def test_tanh_sample_is_a_path_from_its_noise(rng):
    """action = center + half tanh(mean + std eps) and its log-probability, with their derivatives
    along that path.
    """
    low, high = np.float32([-2.0, 0.0]), np.float32([2.0, 1.0])
    mean, log_std = (0.5 * rng.normal(size=(2, 2))).astype(np.float32)

    def both(mean, log_std):
        return TanhNormal(mean, log_std, low, high).sample_and_log_prob(key)

    (action, log_prob), (action_slope, log_slope) = jax.jit(
        lambda *x: (both(*x), jax.jacobian(both, argnums=(0, 1))(*x)))(mean, log_std)
    eps = np.asarray(DiagonalNormal(jnp.zeros(2), jnp.zeros(2)).sample(key), float)

    def path(mean, log_std):
        u = mean + np.exp(log_std) * eps
        action = low + (high - low).astype(float) * (np.tanh(u) + 1) / 2
        return np.append(
            action, reference.tanh_normal_log_prob(u, mean, log_std, low, high, step=1e-4)
        )

    close(
        np.append(action, log_prob),
        path(mean.astype(float), log_std.astype(float)),
        rtol=1e-4,
        atol=1e-5,
    )
    for i, step in enumerate(1e-3 * np.eye(2)):
        by_mean = (
            path(mean + step, log_std.astype(float)) - path(mean - step, log_std.astype(float))
        ) / 2e-3
        by_log_std = (
            path(mean.astype(float), log_std + step) - path(mean.astype(float), log_std - step)
        ) / 2e-3
        close(np.append(action_slope[0][:, i], log_slope[0][i]), by_mean, rtol=1e-3, atol=1e-3)
        close(np.append(action_slope[1][:, i], log_slope[1][i]), by_log_std, rtol=1e-3, atol=1e-3)


def test_tanh_sample_of_a_narrow_normal_far_from_zero():
    """u is rounded to 2e-6 there, a 2,000th of the deviation.

    The density is that of the noise, not of the rounding.
    """
    policy = TanhNormal(jnp.full((1000, 1), 20.0), jnp.full((1,), -6.0))
    _, log_prob = policy.sample_and_log_prob(key)
    eps = np.asarray(DiagonalNormal(jnp.zeros((1000, 1)), jnp.zeros(1)).sample(key), float)[:, 0]
    u = 20.0 + np.exp(-6.0) * eps
    close(log_prob, scipy.stats.norm.logpdf(eps) + 6.0 - (2 * np.log(2) - 2 * u), rtol=2e-6)
