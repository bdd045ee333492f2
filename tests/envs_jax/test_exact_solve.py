"""Tests of the exact solvers, by brute force and by hand."""

import itertools

import numpy as np
import pytest

from envs_jax.exact import solve


def test_two_states_in_numbers():
    P = np.array([[[0.9, 0.1]], [[0.5, 0.5]]])
    r = np.array([[1.0], [0.0]])
    for values in (
        solve.optimal_values(P, r, 0.9),
        solve.policy_values(P, r, np.zeros(2, int), 0.9),
    ):
        np.testing.assert_allclose(values, [8.59375, 7.03125], rtol=1e-12)
    np.testing.assert_allclose(solve.action_values(P, r, values, 0.9)[:, 0], values, rtol=1e-12)
    np.testing.assert_allclose(
        solve.finite_horizon(P, r, 2, gamma=0.9), [[0, 0], [1, 0], [1.81, 0.45]], rtol=1e-12
    )


def walk(n=5):
    """Return (P, r, ends) of n states in a row between two ends, of which the right one pays 1.

    Sutton and Barto, example 6.2.
    """
    P = np.zeros((n + 2, 1, n + 2))
    r = np.zeros((n + 2, 1, n + 2))
    for s in range(1, n + 1):
        P[s, 0, [s - 1, s + 1]] = 0.5
    r[:, :, -1] = 1.0
    ends = np.isin(np.arange(n + 2), (0, n + 1))
    # the rows of the end states are zeros, and never used
    return P, r, ends


def test_random_walk_without_discount():
    P, r, ends = walk()
    want = np.array([0, 1, 2, 3, 4, 5, 0]) / 6
    np.testing.assert_allclose(
        solve.policy_values(P, r, np.ones((7, 1)), 1.0, ends), want, atol=1e-12
    )
    np.testing.assert_allclose(solve.optimal_values(P, r, 1.0, ends), want, atol=1e-10)
    np.testing.assert_allclose(
        solve.finite_horizon(P, r, 1000, terminal=ends)[-1], want, atol=1e-10
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.99, 0.99999])
def test_the_optimum_is_the_best_of_all_policies(rng, gamma, S=4, A=3):
    P = rng.dirichlet(np.full(S, 0.5), (S, A))
    r = rng.normal(size=(S, A, S))
    ends = np.arange(S) == 2
    values = [solve.policy_values(P, r, np.array(policy), gamma, ends)
              for policy in itertools.product(range(A), repeat=S)]
    best = solve.optimal_values(P, r, gamma, ends)
    np.testing.assert_allclose(best, np.max(values, axis=0), rtol=1e-10, atol=1e-12)
    greedy = solve.action_values(P, r, best, gamma, ends).argmax(-1)
    np.testing.assert_allclose(
        solve.policy_values(P, r, greedy, gamma, ends), best, rtol=1e-10, atol=1e-12
    )
    assert best[2] == 0.0


def test_finite_horizon_against_all_plans(rng, S=3, A=2, T=3):
    """The best of all time-dependent policies, and one policy, by matrix products."""
    P = rng.dirichlet(np.ones(S), (S, A))
    r = rng.normal(size=(S, A))
    policies = list(itertools.product(range(A), repeat=S))
    at = np.arange(S)

    def worth(plan):
        chance = np.eye(S)
        total = np.zeros(S)
        for t, policy in enumerate(plan):
            total += 0.9**t * chance @ r[at, policy]
            chance = chance @ P[at, policy]
        return total

    want = np.max([worth(plan) for plan in itertools.product(policies, repeat=T)], axis=0)
    np.testing.assert_allclose(solve.finite_horizon(P, r, T, gamma=0.9)[T], want, rtol=1e-12)
    one = solve.finite_horizon(P, r, T, policy=np.array(policies[5]), gamma=0.9)
    np.testing.assert_allclose(one[T], worth([policies[5]] * T), rtol=1e-12)
    np.testing.assert_array_equal(one[0], np.zeros(S))


def test_what_has_no_value_is_said(rng):
    P = rng.dirichlet(np.ones(3), (3, 2))
    r = np.ones((3, 2))
    with pytest.raises(ValueError, match="never ends"):
        solve.policy_values(P, r, np.zeros(3, int), 1.0)
    with pytest.raises(ValueError, match="does not converge"):
        solve.optimal_values(P, r, 1.0)
    with pytest.raises(ValueError, match="stabilize"):
        solve.riccati([[2.0]], [[0.0]], [[1.0]], [[1.0]])
    shapes = r"\[S, A, S\]"
    for transitions, rewards, gamma, message in [
        (P * 0.9, r, 0.5, "add up"),
        (P, r[:2], 0.5, shapes),
        (P[0], r, 0.5, shapes),
        (P, r, 1.5, "gamma"),
    ]:
        with pytest.raises(ValueError, match=message):
            solve.optimal_values(transitions, rewards, gamma)
    with pytest.raises(ValueError, match="policy"):
        solve.policy_values(P, r, np.zeros(2, int), 0.5)
