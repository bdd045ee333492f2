"""returns.py: the papers' loops, worked numbers, and properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.blocks.losses.returns import discounted_returns, gae, lambda_returns, n_step_returns
from tests import reference


def close(got, want, **kw):
    return np.testing.assert_allclose(got, want, **{"rtol": 1e-5, "atol": 1e-5} | kw)


def segment(rng, T=7, B=3, ends=0.25):
    reward, value, next_value = rng.normal(size=(3, T, B)).astype(np.float32)
    terminated, truncated = rng.random((2, T, B)) < ends
    return reward, value, next_value, terminated, truncated


def column(*xs):
    return tuple(np.asarray(x, np.float32)[:, None] for x in xs)


# compiled as a whole: op by op they take seconds
fast_gae = jax.jit(gae)
fast_lambda = jax.jit(lambda_returns)
fast_discounted = jax.jit(discounted_returns)
fast_n_step = jax.jit(n_step_returns, static_argnames="n")

never = np.zeros((3, 1), bool)
at_1 = np.array([[False], [True], [False]])


@pytest.mark.parametrize(
    "terminated, truncated, final, want",
    [
        (never, never, 0.5, [2.12648, 1.634, 0.95]),
        (at_1, never, 0.5, [1.31, 0.5, 0.95]),
        (
            never,
            at_1,
            2.0,
            [2.606, 2.3, 0.95],
        ),  # V of the true last observation, not of the next episode's first
        (at_1, at_1, 2.0, [1.31, 0.5, 0.95]),  # both at once: dead
    ],
)
def test_gae_worked_numbers(terminated, truncated, final, want):
    reward, value, next_value = column([1, 1, 1], [0.5, 0.5, 0.5], [0.5, final, 0.5])
    advantage, target = fast_gae(
        reward, value, next_value, terminated, truncated, gamma=0.9, lam=0.8
    )
    close(advantage[:, 0], want)
    close(target[:, 0], np.array(want) + 0.5)


def test_gae_is_rlax_truncated_generalized_advantage_estimation():
    v = [1.0, 4.0, -3.0, -2.0, -1.0, -1.0]
    reward, value, next_value = column([0, 0, 1, 0, -0.5], v[:-1], v[1:])
    never = np.zeros((5, 1), bool)
    advantage, _ = fast_gae(reward, value, next_value, never, never, gamma=0.99, lam=0.7)
    # rlax prints four digits
    close(advantage[:, 0], [-0.676979, -5.248167, 2.4846, 0.6704, -0.49], atol=5e-5)


def test_lambda_and_n_step_returns_are_rlax():
    reward, discount, next_value = column(
        [1, 0, -1, 0, 1], [0.5, 0.9, 1, 0.5, 0.8], [3, 1, 5, -5, 3]
    )
    never = np.zeros((5, 1), bool)
    got = fast_lambda(reward, next_value, never, never, gamma=discount, lam=0.75)
    close(got[:, 0], [1.646055, 0.722813, 0.7375, 0.65, 3.4])
    close(
        fast_n_step(reward, next_value, never, never, gamma=discount, n=3)[:, 0],
        [2.8, -3.15, 0.7, 1.7, 3.4],
    )


def test_a_time_limit_is_not_a_death():
    """Reward 1 for ever, cut after 8 steps.

    V = 1 / (1 - gamma) = 50 whatever the length, 7.46 if that were a death.
    """
    T = 8
    gamma = 0.98
    reward = np.ones((T, 1), np.float32)
    values = np.full((T, 1), 50.0, np.float32)
    late = np.eye(T, dtype=bool)[:, -1:]
    close(fast_discounted(reward, values, 0 * late, late, gamma=gamma), 50.0, rtol=1e-5)
    close(fast_discounted(reward, values, late, 0 * late, gamma=gamma)[0], 7.46, rtol=1e-3)


@pytest.mark.parametrize("T, B, ends", [(7, 3, 0.25), (1, 2, 0.5), (5, 4, 1.0)])
def test_all_are_the_papers_loops(rng, T, B, ends):
    reward, value, next_value, dead, late = segment(rng, T, B, ends)
    advantage, target = fast_gae(reward, value, next_value, dead, late, gamma=0.9, lam=0.8)
    close(advantage, reference.gae(reward, value, next_value, dead, late, 0.9, 0.8))
    close(target, advantage + value)
    rest = (reward, next_value, dead, late)
    close(fast_lambda(*rest, gamma=0.9, lam=0.8), reference.lambda_returns(*rest, 0.9, 0.8))
    close(fast_discounted(*rest, gamma=0.9), reference.lambda_returns(*rest, 0.9, 1.0))
    for n in (1, 3, T + 2):
        close(fast_n_step(*rest, gamma=0.9, n=n), reference.n_step_returns(*rest, 0.9, n))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 1))
def test_special_cases_meet(seed, gamma, lam):
    """lam = 0 is one step, lam = 1 is any n >= T.

    And the GAE target is the lambda-return of consistent values.
    """
    reward, value, next_value, dead, late = segment(np.random.default_rng(seed))
    rest = (reward, next_value, dead, late)
    close(fast_lambda(*rest, gamma=gamma, lam=0.0), fast_n_step(*rest, gamma=gamma, n=1))
    close(fast_discounted(*rest, gamma=gamma), fast_n_step(*rest, gamma=gamma, n=7))
    # within an episode V' is the next V
    next_value[:-1] = np.where((dead | late)[:-1], next_value[:-1], value[1:])
    _, target = fast_gae(reward, value, next_value, dead, late, gamma=gamma, lam=lam)
    close(target, fast_lambda(reward, next_value, dead, late, gamma=gamma, lam=lam), atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 5))
def test_nothing_crosses_the_end_of_an_episode(seed, t):
    """Steps after an end change nothing before it; after termination not even next_value does."""
    reward, value, next_value, dead, late = segment(np.random.default_rng(seed))
    # column 2 goes on, so it does change
    dead[t], late[t] = [True, False, False], [False, True, False]
    dead[t + 1:, 2] = late[t + 1:, 2] = False
    dead[t, 2] = late[t, 2] = False
    before, _ = fast_gae(reward, value, next_value, dead, late, gamma=0.9, lam=0.8)
    reward[t + 1:] += 1.0
    value[t + 1:] -= 1.0
    next_value[t, 0] = 1e6
    after, _ = fast_gae(reward, value, next_value, dead, late, gamma=0.9, lam=0.8)
    np.testing.assert_array_equal(before[:t + 1, :2], after[:t + 1, :2])
    assert np.all(np.abs(before[t, 2] - after[t, 2]) > 1e-3)


def test_numbers_may_be_traced_and_vmapped_without_recompiling(rng):
    batch = segment(rng)
    rest = (batch[0], *batch[2:])
    calls = {
        "gae": lambda gamma, lam: fast_gae(*batch, gamma=gamma, lam=lam),
        "lambda": lambda gamma, lam: fast_lambda(*rest, gamma=gamma, lam=lam),
        "discounted": lambda gamma, lam: fast_discounted(*rest, gamma=gamma),
        "n_step": lambda gamma, lam: fast_n_step(*rest, gamma=gamma, n=3),
    }
    gammas = jnp.array([0.9, 0.5])
    lams = jnp.array([0.8, 1.0])
    for call in calls.values():
        both = jax.jit(jax.vmap(call))(gammas, lams)
        for i in range(2):
            jax.tree.map(
                lambda x, y, i=i: close(x[i], y, atol=1e-6),
                both,
                call(float(gammas[i]), float(lams[i])),
            )


def test_agents_axis_and_dtype(rng):
    reward, value, next_value = rng.normal(size=(3, 5, 2, 4)).astype(np.float32)
    dead, late = rng.random((2, 5, 2, 4)) < 0.3
    advantage, target = fast_gae(reward, value, next_value, dead, late, gamma=0.9, lam=0.8)
    assert advantage.dtype == target.dtype == jnp.float32
    flat = [x.reshape(5, 8) for x in (reward, value, next_value, dead, late)]
    close(advantage.reshape(5, 8), reference.gae(*flat, 0.9, 0.8))


def test_errors():
    x = jnp.zeros((3, 1))
    with pytest.raises(AssertionError):
        fast_gae(x, x, x[:2], x, x, gamma=0.9, lam=0.9)
    with pytest.raises(ValueError, match="n >= 1"):
        fast_n_step(x, x, x > 0, x > 0, gamma=0.9, n=0)
