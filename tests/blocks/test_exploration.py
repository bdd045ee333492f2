"""exploration.py: counts of what is chosen, the papers' formulas.

And noise with the statistics that it promises.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from envs_jax import spaces
from jaxrl.blocks import exploration


def close(got, want, **kw):
    return np.testing.assert_allclose(got, want, **{"rtol": 1e-5, "atol": 1e-6} | kw)


key = jax.random.key(0)

choose = jax.jit(exploration.epsilon_greedy)
greedy = jax.jit(exploration.greedy)
ladder = jax.jit(exploration.epsilon_ladder, static_argnums=1)


# ---- discrete actions


def test_epsilon_greedy_chooses_with_its_probabilities():
    """Greedy 1 - eps + eps / legal, another legal one eps / legal, each slot by its own epsilon and
    mask.
    """
    n = 40_000
    masks = np.array([[1, 1, 1, 1, 1], [0, 1, 0, 1, 1], [0, 0, 0, 1, 0]], bool)
    q = np.tile(np.float32([9, 1, 9, 2, 0]), (3, n, 1))
    epsilon = np.broadcast_to(np.float32([[0.3], [1.0], [0.5]]), (3, n))
    actions = np.asarray(choose(key, q, epsilon, np.broadcast_to(masks[:, None], q.shape)))
    for row, best, legal, eps in zip(actions, (0, 3, 3), masks, (0.3, 1.0, 0.5)):
        p = eps * legal / legal.sum() + (1 - eps) * np.eye(5)[best]
        counts = np.bincount(row, minlength=5)
        assert np.all(counts[p == 0] == 0)
        if legal.sum() > 1:
            assert scipy.stats.chisquare(counts[p > 0], n * p[p > 0]).pvalue > 1e-3


def test_epsilon_greedy_without_a_mask():
    q = np.tile(np.float32([0, 3, 1]), (40_000, 1))
    actions = np.asarray(choose(key, q, 0.3))
    assert actions.dtype == np.int32
    assert (
        scipy.stats.chisquare(np.bincount(actions), 40_000 * np.array([0.1, 0.8, 0.1])).pvalue
        > 1e-3
    )
    np.testing.assert_array_equal(choose(key, q, 0.0), 1)
    assert scipy.stats.chisquare(np.bincount(choose(key, q, 1.0))).pvalue > 1e-3


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(0, 1), st.sampled_from([1.0, 1e30, np.inf, np.nan]))
def test_never_an_illegal_action(seed, epsilon, scale):
    """Also where values diverged: to -infinity, or to NaN."""
    rng = np.random.default_rng(seed)
    with np.errstate(invalid="ignore"):
        q = (scale * rng.normal(size=(16, 6))).astype(np.float32)
    q[0] = -np.inf
    mask = rng.random((16, 6)) < 0.3
    mask[np.arange(16), rng.integers(6, size=16)] = True
    for actions in (greedy(q, mask), choose(jax.random.key(seed), q, epsilon, mask)):
        assert mask[np.arange(16), np.asarray(actions)].all()
    if scale == 1.0:
        want = [
            max(np.flatnonzero(legal), key=lambda a, row=row: row[a])
            for row, legal in zip(q[1:], mask[1:])
        ]
        np.testing.assert_array_equal(greedy(q, mask)[1:], want)


def test_epsilon_ladder():
    close(ladder(jnp.arange(8), 8), [0.4 ** (1 + 7 * i / 7) for i in range(8)])
    close(ladder(jnp.arange(4), 4, 0.5, 3.0), [0.5, 0.25, 0.125, 0.0625])
    # one actor: no division by 0
    close(ladder(jnp.arange(1), 1), [0.4])
    # any slots, of any shape
    close(ladder(jnp.array([[3, 0]]), 4, 0.5, 3.0), [[0.0625, 0.5]])


# ---- continuous actions

low, high = np.float32([-2.0, 0.0, 5.0]), np.float32([2.0, 0.5, 5.5])


def test_uniform_actions_of_a_box():
    """Independent and uniform between the bounds of each entry, whatever the shape of the batch."""
    space = spaces.Box(tuple(low.tolist()), tuple(high.tolist()), (3,))
    action = np.asarray(exploration.uniform_action(key, space, (40, 100)))
    assert action.shape == (40, 100, 3) and all(space.contains(a) for a in action[0])
    share = ((action - low) / (high - low)).reshape(-1, 3)
    for i in range(3):
        assert scipy.stats.kstest(share[:, i], "uniform").pvalue > 1e-3
    assert np.all(np.abs(np.corrcoef(share.T) - np.eye(3)) < 0.05)


def test_perturb_is_a_clip(rng):
    action = rng.uniform(size=(5, 3)).astype(np.float32) * (high - low) + low
    noise = rng.normal(size=(5, 3))
    got = exploration.perturb(jnp.asarray(action), jnp.asarray(noise, jnp.float32), low, high)
    for i in np.ndindex(5, 3):
        want = action[i] + noise[i] * (high[i[1]] - low[i[1]]) / 2
        close(got[i], min(max(want, low[i[1]]), high[i[1]]))
    close(exploration.perturb(jnp.array([0.5]), jnp.array([0.25]), -1.0, 1.0), [0.75])


@jax.jit
def ar1_path(key, first, rho, sigma):
    """first [T, B] -> noise [T, B, 2]."""
    def step(state, now):
        return exploration.ar1_noise(state, now[0], now[1], rho=rho, sigma=sigma)

    return jax.lax.scan(
        step, jnp.zeros((*first.shape[1:], 2)), (jax.random.split(key, len(first)), first)
    )[1]


@pytest.mark.parametrize("rho", [0.0, 0.95])
def test_ar1_noise_is_as_wide_and_as_correlated_as_promised(rho):
    """Standard deviation sigma at every step from the first, correlation rho^k at lag k, none
    across episodes.
    """
    first = np.zeros((6, 20_000), bool)
    first[0] = first[3] = True
    noise = np.asarray(ar1_path(key, first, rho, 0.3)).reshape(6, -1)
    close(noise.std(1), 0.3, rtol=0.03)
    close(noise.mean(1), 0.0, atol=0.01)
    correlation = np.corrcoef(noise)
    for t, s in np.ndindex(6, 6):
        close(correlation[t, s], rho ** abs(t - s) if t // 3 == s // 3 else 0.0, atol=0.02)


def test_ar1_noise_is_the_recursion(rng):
    state = rng.normal(size=(3, 2, 2)).astype(np.float32)
    first = np.array([False, True, False])
    eps = np.asarray(jax.random.normal(key, state.shape))
    got, noise = exploration.ar1_noise(jnp.asarray(state), key, first, rho=0.9, sigma=0.2)
    for b in range(3):
        close(got[b], eps[b] if first[b] else 0.9 * state[b] + np.sqrt(1 - 0.81) * eps[b])
    close(noise, 0.2 * got)


def test_members_may_differ(rng):
    """Under vmap, with strict promotion of ranks."""
    q = rng.normal(size=(4, 3)).astype(np.float32)
    first = np.array([True, False, False, True])
    action = jnp.asarray(rng.uniform(size=(4, 3)), jnp.float32)

    def all_of_them(x):
        return (
            exploration.epsilon_greedy(key, q, x, q < 2),
            exploration.epsilon_ladder(jnp.arange(4), 4, x, x),
            exploration.ar1_noise(action, key, first, rho=x, sigma=x),
        )

    both = jax.jit(jax.vmap(all_of_them))(jnp.array([0.2, 0.9]))
    for i, x in enumerate((0.2, 0.9)):
        jax.tree.map(lambda a, b, i=i: close(a[i], b), both, all_of_them(x))
