"""Exact solutions of small problems, in NumPy float64: finite MDPs, and linear systems with quadratic costs.

A finite MDP is given by its `transitions` [S, A, S], probabilities of the next state, and its `rewards` [S, A],
expected ones, or [S, A, S], one for each next state; `terminal` [S] bool (default: none) marks the states that end an
episode on arrival: they are worth 0, whatever their own rows say. Sutton & Barto 2018, chapters 3 and 4; Puterman 1994.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def action_values(transitions: Any, rewards: Any, values: Any, gamma: float, terminal: Any = None) -> np.ndarray:
    """q(s, a) = E[r + gamma v(s')], given `values` [S] of the states. -> [S, A], zeros where `terminal`

    `q.argmax(-1)` is a greedy policy. Sutton & Barto, eq. 4.6.
    """
    transitions, rewards, ends = _check(transitions, rewards, gamma, terminal)
    return _lookahead(transitions, rewards, np.asarray(values, np.float64), gamma, ends)


def optimal_values(transitions: Any, rewards: Any, gamma: float, terminal: Any = None) -> np.ndarray:
    """What each state is worth under the best policy. -> [S]

    By policy iteration (Sutton & Barto, section 4.3), which is exact; with gamma = 1, where a policy may have no value,
    by value iteration from zero (section 4.4), until a sweep changes nothing by more than 1e-13 of the largest value.
    ValueError if those sweeps go on for ever: rewards without discount, and episodes that never end.
    """
    transitions, rewards, ends = _check(transitions, rewards, gamma, terminal)
    return (_policy_iteration if gamma < 1.0 else _value_iteration)(transitions, rewards, gamma, ends)


def policy_values(transitions: Any, rewards: Any, policy: Any, gamma: float, terminal: Any = None) -> np.ndarray:
    """What each state is worth under `policy`, by solving (I - gamma P) v = r (Sutton & Barto, section 4.1). -> [S]

    policy: [S] integers, an action each, or [S, A] probabilities.
    ValueError with gamma = 1 and a policy under which some episode never ends.
    """
    transitions, rewards, ends = _check(transitions, rewards, gamma, terminal)
    chance = _probabilities(policy, rewards.shape)
    step = np.einsum("sa,sat->st", chance, transitions) * ~ends[:, None] * ~ends
    if gamma == 1.0 and not _reaches_the_end(step):
        raise ValueError("with gamma = 1 this policy has no value: from some state an episode never ends")
    return np.linalg.solve(np.eye(len(step)) - gamma * step, (chance * rewards).sum(-1) * ~ends)


def finite_horizon(transitions: Any, rewards: Any, steps: int, *, policy: Any = None, gamma: float = 1.0,
                   terminal: Any = None) -> np.ndarray:
    """What each state is worth when `steps` are left, or fewer: v_0 = 0, v_n from v_(n-1). -> [steps + 1, S]

    Of `policy` ([S] or [S, A], as in `policy_values`), or, where none is given, of the best one that knows the time
    (Puterman, section 4.5). Where the only reward is 1, for reaching a goal, it is the probability to reach it in time.
    """
    transitions, rewards, ends = _check(transitions, rewards, gamma, terminal)
    chance = None if policy is None else _probabilities(policy, rewards.shape)
    values = np.zeros((steps + 1, len(transitions)))
    for n in range(steps):
        q = _lookahead(transitions, rewards, values[n], gamma, ends)
        values[n + 1] = q.max(-1) if chance is None else (chance * q).sum(-1)
    return values


def riccati(A: Any, B: Any, Q: Any, R: Any, *, tolerance: float = 1e-12) -> tuple[np.ndarray, np.ndarray]:
    """The best control of x' = A x + B u at a cost of x'Q x + u'R u a step, for ever. -> (P [n, n], K [m, n])

    u = -K x is best, and all that is to come costs x'P x: P solves the algebraic Riccati equation, to a relative
    `tolerance`. A [n, n], B [n, m], Q [n, n] positive semidefinite, R [m, m] positive definite.
    Bertsekas 2017, Dynamic Programming and Optimal Control I, section 3.1.
    ValueError if there is no such solution: the system cannot be stabilised.
    """
    A, B, Q, R = (np.asarray(x, np.float64) for x in (A, B, Q, R))
    P = np.zeros_like(A)
    for _ in range(100_000):
        before, (P, K) = P, _riccati_step(A, B, Q, R, P)
        largest = np.abs(P).max()
        if np.abs(P - before).max() <= tolerance * largest:
            return P, K
        if largest > 1e100:
            break
    raise ValueError("the Riccati recursion does not converge: can B stabilise A?")


def finite_riccati(A: Any, B: Any, Q: Any, R: Any, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """As `riccati`, when n = 0 .. `steps` steps are left. -> (P [steps + 1, n, n], K [steps + 1, m, n])

    With n steps to go u = -K[n] x is best, and what is to come costs x'P[n] x; P[0] and K[0] are zeros.
    """
    A, B, Q, R = (np.asarray(x, np.float64) for x in (A, B, Q, R))
    found = [(np.zeros_like(A), np.zeros_like(B.T))]
    for _ in range(steps):
        found.append(_riccati_step(A, B, Q, R, found[-1][0]))
    P, K = map(np.stack, zip(*found))
    return P, K


def quadratic_cost(A: Any, B: Any, Q: Any, R: Any, K: Any, steps: int) -> np.ndarray:
    """What u = -K x costs in the system of `riccati`: x'P[n] x if n = 0 .. `steps` are left. -> P [steps + 1, n, n]"""
    A, B, Q, R, K = (np.asarray(x, np.float64) for x in (A, B, Q, R, K))
    closed, cost = A - B @ K, Q + K.T @ R @ K
    P = [np.zeros_like(A)]
    for _ in range(steps):
        P.append(cost + closed.T @ P[-1] @ closed)
    return np.stack(P)


def _riccati_step(A, B, Q, R, P) -> tuple[np.ndarray, np.ndarray]:
    """The P with a step more to go, and the K of that step."""
    K = np.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
    P = Q + A.T @ P @ (A - B @ K)
    return (P + P.T) / 2.0, K


def _policy_iteration(transitions, rewards, gamma, ends) -> np.ndarray:
    policy = rewards.argmax(-1)
    while True:
        values = policy_values(transitions, rewards, policy, gamma, ends)
        q = _lookahead(transitions, rewards, values, gamma, ends)
        gain = q.max(-1) - q[np.arange(len(q)), policy]
        better = gain > 1e-12 * max(1.0, np.abs(q).max())         # what is less is rounding: no ties for ever
        if not better.any():
            return values
        policy = np.where(better, q.argmax(-1), policy)


def _value_iteration(transitions, rewards, gamma, ends) -> np.ndarray:
    values = np.zeros(len(transitions))
    for _ in range(50_000):
        before, values = values, _lookahead(transitions, rewards, values, gamma, ends).max(-1)
        if np.abs(values - before).max() <= 1e-13 * np.abs(values).max():
            return values
    raise ValueError("value iteration does not converge: with gamma = 1 episodes must end under the best policy")


def _lookahead(transitions, rewards, values, gamma, ends) -> np.ndarray:
    return (rewards + gamma * transitions @ (values * ~ends)) * ~ends[:, None]


def _check(transitions, rewards, gamma, terminal) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> (transitions [S, A, S] and expected rewards [S, A], float64; the states that end an episode [S] bool)"""
    transitions, rewards = np.asarray(transitions, np.float64), np.asarray(rewards, np.float64)
    shape, (S, A) = transitions.shape, (*transitions.shape, 0, 0)[:2]
    if shape != (S, A, S) or rewards.shape not in ((S, A), shape):
        raise ValueError(f"transitions are [S, A, S], rewards [S, A] or [S, A, S]; not {shape} and {rewards.shape}")
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma = {gamma} is not between 0 and 1")
    ends = np.zeros(S, bool) if terminal is None else np.asarray(terminal, bool)
    if ends.shape != (S,):
        raise ValueError(f"terminal is [S] = [{S}], not {ends.shape}")
    if transitions.min() < 0.0 or not np.allclose(transitions[~ends].sum(-1), 1.0, atol=1e-9):
        raise ValueError("transitions are probabilities: from each state, by each action, they add up to 1")
    return transitions, (transitions * rewards).sum(-1) if rewards.ndim == 3 else rewards, ends


def _probabilities(policy, shape: tuple[int, int]) -> np.ndarray:
    """A policy [S] or [S, A] as probabilities [S, A]."""
    policy = np.asarray(policy)
    if policy.shape == shape:
        return policy.astype(np.float64)
    if policy.shape != shape[:1] or not np.issubdtype(policy.dtype, np.integer):
        raise ValueError(f"a policy is [S] integers or [S, A] probabilities, here {shape}; not {policy.shape}")
    return np.eye(shape[1])[policy]


def _reaches_the_end(step: np.ndarray) -> bool:
    """Whether an episode can end from every state, where `step` [S, S] moves between those that do not end it."""
    can = step.sum(-1) < 1.0 - 1e-9
    for _ in step:
        can = can | ((step > 0.0) @ can)
    return bool(can.all())
