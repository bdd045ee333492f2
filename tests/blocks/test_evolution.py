"""Ranks, noise and statistics of evolution against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.blocks import normalize
from jaxrl.blocks.evolution import (
    best_directions,
    block_size,
    centered_ranks,
    combine,
    directions,
    finite_fitness,
    merged,
)

FITNESS = np.array([[3.0, 1.0], [10.0, -2.0], [4.0, 5.0]], np.float32)


def test_centered_ranks_of_the_worked_example():
    np.testing.assert_allclose(
        centered_ranks(FITNESS), [[-0.1, -0.3], [0.5, -0.5], [0.1, 0.3]], atol=1e-6
    )


def test_equal_fitness_has_the_mean_rank(rng):
    x = rng.integers(-3, 3, (11, 2)).astype(np.float32)
    ordered = np.sort(x.reshape(-1))
    mean_place = np.array([np.flatnonzero(ordered == v).mean() for v in x.reshape(-1)]).reshape(
        x.shape
    )
    ranks = np.asarray(centered_ranks(x))
    np.testing.assert_allclose(ranks, mean_place / 21 - 0.5, atol=1e-6)
    assert abs(ranks.sum()) < 1e-5
    np.testing.assert_array_equal(
        centered_ranks(np.full((4, 2), 500.0, np.float32)), np.zeros((4, 2))
    )


@pytest.mark.parametrize("monotone", [lambda x: 3.0 * x - 7.0, np.exp, np.cbrt, lambda x: x**3],
                         ids=["affine", "exp", "root", "cube"])
def test_ranks_do_not_see_a_monotone_transform(monotone, rng):
    x = rng.normal(size=(7, 2)).astype(np.float32)
    np.testing.assert_array_equal(centered_ranks(monotone(x).astype(np.float32)), centered_ranks(x))


def test_what_is_not_finite_is_the_worst():
    seen = np.array([[1.0, np.nan], [np.inf, -3.0], [-np.inf, 2.0]], np.float32)
    np.testing.assert_array_equal(finite_fitness(seen), [[1.0, -3.0], [-3.0, -3.0], [-3.0, 2.0]])
    np.testing.assert_array_equal(
        finite_fitness(np.full((2, 2), np.nan, np.float32)), np.zeros((2, 2))
    )


def test_the_best_directions_have_the_best_candidate():
    for count, kept in (
        (1, [False, True, False]),
        (2, [False, True, True]),
        (3, [True, True, True]),
    ):
        np.testing.assert_array_equal(best_directions(FITNESS, count), kept)
    np.testing.assert_array_equal(
        best_directions(np.ones((3, 2), np.float32), 2), [True, True, False]
    )


def test_the_noise_of_a_pair_is_its_own():
    key = jax.random.key(3)
    whole = np.asarray(directions(key, jnp.arange(6), 1001))
    for pair in range(6):
        alone = jax.random.normal(jax.random.fold_in(key, pair), (1001,))
        np.testing.assert_array_equal(whole[pair], alone)
        np.testing.assert_array_equal(directions(key, jnp.array([5, pair]), 1001)[1], alone)
    assert abs(whole.mean()) < 0.05 and abs(whole.std() - 1.0) < 0.05
    assert np.abs(np.corrcoef(whole) - np.eye(6)).max() < 0.15


@pytest.mark.parametrize("chunk", [1, 3, 6])
def test_the_sum_of_directions(chunk, rng):
    key = jax.random.key(4)
    weights = rng.normal(size=6).astype(np.float32)
    want = weights.astype(np.float64) @ np.asarray(directions(key, jnp.arange(6), 35), np.float64)
    np.testing.assert_allclose(combine(key, weights, 35, chunk), want, rtol=1e-5, atol=1e-5)


def test_statistics_of_blocks_are_those_of_all_observations(rng):
    """Blocks of different length far from zero, one of them empty, after statistics of an earlier
    generation.
    """
    seen = [rng.normal(1e4, 3.0, (n, 3)).astype(np.float32) for n in (50, 7, 31, 1)]
    nothing = normalize.init(jnp.zeros(3))
    earlier, *blocks = [normalize.update(nothing, x) for x in seen]
    blocks.insert(1, nothing)
    total = merged(earlier, jax.tree.map(lambda *x: jnp.stack(x), *blocks))
    everything = np.concatenate(seen).astype(np.float64)
    assert total.count == len(everything)
    np.testing.assert_allclose(
        np.asarray(total.mean, np.float64) + total.residual, everything.mean(0), rtol=1e-7
    )
    np.testing.assert_allclose(total.variance, everything.var(0), rtol=1e-4)


def test_block_sizes():
    for population in range(2, 600, 2):
        size = block_size(population, 32)
        assert size % 2 == 0 and population % size == 0
        assert size <= 32 or population == size
        assert population // size >= 2 or population // 2 % 2 or population == 2
