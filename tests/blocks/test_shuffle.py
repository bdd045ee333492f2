"""shuffle.py: a permutation, uniform, reproducible."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.blocks.shuffle import permutation

jitted = jax.jit(permutation, static_argnames="n")
many = jax.jit(lambda keys, n: jax.vmap(lambda key: permutation(key, n))(keys), static_argnums=1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from([0, 1, 2, 7, 64, 513]))
def test_every_index_once(seed, n):
    order = jitted(jax.random.key(seed), n)
    assert order.dtype == jnp.int32 and order.shape == (n,)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


@pytest.mark.parametrize("n", [2**13, 2**13 + 1, 2**16, 2**16 + 1])
def test_large(n):
    order = np.asarray(jitted(jax.random.key(0), n))
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < 5 / np.sqrt(n)
    assert (order[:-1] < order[1:]).mean() == pytest.approx(
        0.5, abs=3 / np.sqrt(12 * n) + n / 2**22 * (n <= 2**13)
    )


def test_ties_favor_nobody():
    """At 8,192 items one in 64 shares its random bits.

    Kept in order, 0.13 % too many neighbors would ascend.
    """
    orders = np.asarray(many(jax.random.split(jax.random.key(4), 256), 2**13))
    # three standard errors
    assert (orders[:, :-1] < orders[:, 1:]).mean() == pytest.approx(0.5, abs=0.0006)


def test_all_orders_of_four_are_equally_likely():
    keys = jax.random.split(jax.random.key(1), 24_000)
    orders = np.asarray(many(keys, 4))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_every_position_is_uniform():
    n = 20
    draws = 20_000
    orders = np.asarray(many(jax.random.split(jax.random.key(2), draws), n))
    counts = np.stack([np.bincount(orders[:, i], minlength=n) for i in range(n)])
    statistic = ((counts - draws / n) ** 2 / (draws / n)).sum()
    assert scipy.stats.chi2.sf(statistic, (n - 1) ** 2) > 1e-3


def test_same_key_same_order_also_under_jit_and_vmap():
    keys = jax.random.split(jax.random.key(3), 4)
    together = jax.jit(jax.vmap(lambda key: permutation(key, 100)))(keys)
    for key, order in zip(keys, together):
        np.testing.assert_array_equal(jitted(key, 100), order)
    assert not np.array_equal(together[0], together[1])
