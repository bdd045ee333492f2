"""policy.py: case by case, worked numbers, gradients and properties."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.blocks.losses import policy as losses
from tests import reference

finite = st.floats(-3, 3, width=32)


def test_ppo_clip_is_figure_1(rng):
    log_ratio, advantage = rng.normal(size=(2, 50)).astype(np.float32)
    want = [
        reference.ppo_clip(np.exp(r), a, 0.2) for r, a in zip(log_ratio.astype(float), advantage)
    ]
    np.testing.assert_allclose(losses.ppo_clip(log_ratio, advantage, epsilon=0.2), want, rtol=1e-5)
    got = losses.ppo_clip(
        jnp.log(jnp.array([1.5, 1.5, 0.5, 0.5, 1.1])), jnp.array([1.0, -1, 1, -1, 2]), epsilon=0.2
    )
    np.testing.assert_allclose(got, [-1.2, 1.5, -0.5, 0.8, -2.2], rtol=1e-5)


def test_ppo_clip_gradient_stops_only_where_the_step_already_helped():
    slope = jax.vmap(jax.grad(lambda r, a: losses.ppo_clip(r, a, epsilon=0.2)))
    got = slope(jnp.log(jnp.array([1.5, 1.5, 0.5, 0.5, 1.0])), jnp.array([1.0, -1, 1, -1, 3]))
    np.testing.assert_allclose(got, [0.0, 1.5, -0.5, 0.0, -3.0], rtol=1e-5)


def test_clipped_value(rng):
    value, old, target = rng.normal(size=(3, 50)).astype(np.float32)
    want = [reference.clipped_value(*x, 0.2) for x in zip(value, old, target)]
    np.testing.assert_allclose(
        losses.clipped_value(value, old, target, epsilon=0.2), want, rtol=1e-5, atol=1e-7
    )
    one = losses.clipped_value(jnp.array([1.0]), jnp.array([0.0]), jnp.array([2.0]), epsilon=0.2)
    np.testing.assert_allclose(one, 1.62, rtol=1e-6)            # max(1, 1.8^2) / 2


@settings(max_examples=50, deadline=None)
@given(finite, finite, finite)
def test_pessimism(log_ratio, a, b):
    """Both clipped losses are never below the plain ones, and equal them where nothing moved."""
    log_ratio = jnp.float32(log_ratio)
    a = jnp.float32(a)
    b = jnp.float32(b)
    assert losses.ppo_clip(log_ratio, a, epsilon=0.2) >= -jnp.exp(log_ratio) * a
    assert losses.ppo_clip(0.0 * log_ratio, a, epsilon=0.2) == -a
    assert losses.clipped_value(a, b, log_ratio, epsilon=0.2) >= 0.5 * jnp.square(a - log_ratio)
    assert losses.clipped_value(a, a, b, epsilon=0.2) == 0.5 * jnp.square(a - b)
    assert losses.approx_kl(log_ratio) >= 0


def test_approx_kl_estimates_the_kl_and_is_exactly_zero_at_once(rng):
    assert losses.approx_kl(jnp.float32(0.0)) == 0.0
    np.testing.assert_allclose(losses.approx_kl(jnp.log(2.0)), 1.0 - np.log(2.0), rtol=1e-6)
    # no cancellation
    np.testing.assert_allclose(losses.approx_kl(jnp.float32(1e-3)), 5.001667e-7, rtol=1e-2)
    old = np.array([0.2, 0.3, 0.5])
    new = np.array([0.3, 0.3, 0.4])
    action = rng.choice(3, size=200_000, p=old)
    got = losses.approx_kl(np.log(new / old)[action].astype(np.float32)).mean()
    np.testing.assert_allclose(got, (old * np.log(old / new)).sum(), atol=1e-3)


def test_diagnostics(rng):
    moved = losses.clip_fraction(jnp.log(jnp.array([1.0, 1.3, 0.7, 1.1])), epsilon=0.2)
    np.testing.assert_array_equal(moved, [0, 1, 1, 0])
    target = rng.normal(size=(5, 7)).astype(np.float32)
    noise = rng.normal(size=(5, 7)).astype(np.float32)
    assert losses.explained_variance(target, target) == 1.0
    np.testing.assert_allclose(losses.explained_variance(target + 3, target), 1.0, atol=1e-5)
    np.testing.assert_allclose(losses.explained_variance(0 * target, target), 0.0, atol=1e-6)
    want = 1 - noise.var() / target.var()
    np.testing.assert_allclose(losses.explained_variance(target + noise, target), want, rtol=1e-4)
    for constant in (0.0, 0.1, -1e6):                      # finite where nothing is to be explained
        assert losses.explained_variance(target, np.full_like(target, constant)) == 0.0


def test_standardize(rng):
    x = (5 + 3 * rng.normal(size=(8, 3))).astype(np.float32)
    np.testing.assert_allclose(losses.standardize(x), (x - x.mean()) / x.std(), atol=1e-5)
    np.testing.assert_array_equal(losses.standardize(jnp.zeros(4)), np.zeros(4))
