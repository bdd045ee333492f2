"""Exact solutions of small problems in NumPy float64: finite MDPs and linear-quadratic control.

A finite MDP has `transitions` [S, A, S], the probabilities of the next state, and `rewards`: [S, A]
expected rewards, or [S, A, S] with one for each next state. `terminal` [S] bool (default: none)
marks the states whose arrival ends an episode; their values are 0, and their rows are not used.
Sutton and Barto 2018, chapters 3 and 4; Puterman 1994.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    Values = Float[np.ndarray, " S"]
    Rewards = Float[np.ndarray, "S A"]
    Transitions = Float[np.ndarray, "S A S"]
    Ends = Bool[np.ndarray, " S"]
    Matrix = Float[np.ndarray, "rows columns"]


def action_values(transitions: Any, rewards: Any, values: Any, gamma: float, terminal: Any = None,
                  ) -> Rewards:
    """Return q(s, a) = E[r + gamma v(s')] for given `values` [S]; zeros where `terminal`.

    `q.argmax(-1)` is a greedy policy. Sutton and Barto, eq. 4.6.
    """
    transitions, rewards, ends = _check(transitions, rewards, gamma, terminal)
    return _lookahead(transitions, rewards, np.asarray(values, np.float64), gamma, ends)


def optimal_values(transitions: Any, rewards: Any, gamma: float, terminal: Any = None) -> Values:
    """Return the value of each state under the best policy.

    Policy iteration (Sutton and Barto, section 4.3), which is exact. For gamma = 1, where a policy
    may have no value, value iteration from zero (section 4.4), until no value changes by more than
    1e-13 of the largest.
    Raises ValueError if value iteration does not converge: for gamma = 1, rewards in episodes that
    never end.
    """
    transitions, rewards, ends = _check(transitions, rewards, gamma, terminal)
    if gamma < 1.0:
        return _policy_iteration(transitions, rewards, gamma, ends)
    return _value_iteration(transitions, rewards, gamma, ends)


def policy_values(transitions: Any, rewards: Any, policy: Any, gamma: float, terminal: Any = None,
                  ) -> Values:
    """Return the value of each state under `policy`.

    policy: [S] integers, or [S, A] probabilities.
    Solves (I - gamma P) v = r (Sutton and Barto, section 4.1).
    Raises ValueError if gamma = 1 and some episode never ends under the policy.
    """
    transitions, rewards, ends = _check(transitions, rewards, gamma, terminal)
    chance = _probabilities(policy, rewards.shape)
    step = np.einsum("sa,sat->st", chance, transitions) * ~ends[:, None] * ~ends
    if gamma == 1.0 and not _reaches_the_end(step):
        raise ValueError("this policy has no value for gamma = 1: from some state, an episode "
                         "never ends. Choose gamma < 1")
    return np.linalg.solve(np.eye(len(step)) - gamma * step, (chance * rewards).sum(-1) * ~ends)


def finite_horizon(transitions: Any, rewards: Any, steps: int, *, policy: Any = None,
                   gamma: float = 1.0, terminal: Any = None) -> Float[np.ndarray, "steps_and_1 S"]:
    """Return the values of each state with n = 0 .. `steps` steps left: v_0 = 0, v_n from v_(n-1).

    policy: as in `policy_values`. Default: the best policy that knows the remaining time (Puterman,
    section 4.5). If the only reward is 1 for reaching a goal, the value is the probability of
    reaching the goal in time.
    """
    transitions, rewards, ends = _check(transitions, rewards, gamma, terminal)
    chance = None if policy is None else _probabilities(policy, rewards.shape)
    values = np.zeros((steps + 1, len(transitions)))
    for n in range(steps):
        q = _lookahead(transitions, rewards, values[n], gamma, ends)
        if chance is None:
            values[n + 1] = q.max(-1)
        else:
            values[n + 1] = (chance * q).sum(-1)
    return values


def riccati(A: Any, B: Any, Q: Any, R: Any, *, tolerance: float = 1e-12) -> tuple[Matrix, Matrix]:
    """Return (P [n, n], K [m, n]) of the best control u = -K x without a time limit.

    The system is x' = A x + B u, with a cost of x'Q x + u'R u per step; all future costs are x'P x.
    P solves the algebraic Riccati equation up to a relative `tolerance`. A [n, n], B [n, m], Q
    [n, n] positive semidefinite, R [m, m] positive definite.
    Bertsekas 2017, Dynamic Programming and Optimal Control I, section 3.1.
    Raises ValueError if there is no solution, because B cannot stabilize the system.
    """
    A, B, Q, R = _float64(A, B, Q, R)
    P = np.zeros_like(A)
    for _ in range(100_000):
        previous = P
        P, K = _riccati_step(A, B, Q, R, previous)
        largest = np.abs(P).max()
        if np.abs(P - previous).max() <= tolerance * largest:
            return P, K
        if largest > 1e100:
            break
    raise ValueError("the Riccati recursion does not converge; check that B can stabilize A")


def finite_riccati(A: Any, B: Any, Q: Any, R: Any, steps: int,
                   ) -> tuple[Float[np.ndarray, "steps_and_1 n n"],
                              Float[np.ndarray, "steps_and_1 m n"]]:
    """Return (P, K) of the best control with n = 0 .. `steps` steps left, as in `riccati`.

    With n steps left, the best control is u = -K[n] x, and the future costs are x'P[n] x. P[0] and
    K[0] are zeros.
    """
    A, B, Q, R = _float64(A, B, Q, R)
    solutions = [(np.zeros_like(A), np.zeros_like(B.T))]
    for _ in range(steps):
        P, _ = solutions[-1]
        solutions.append(_riccati_step(A, B, Q, R, P))
    P, K = map(np.stack, zip(*solutions))
    return P, K


def quadratic_cost(A: Any, B: Any, Q: Any, R: Any, K: Any, steps: int,
                   ) -> Float[np.ndarray, "steps_and_1 n n"]:
    """Return P: u = -K x costs x'P[n] x with n = 0 .. `steps` steps left, as in `riccati`."""
    A, B, Q, R, K = _float64(A, B, Q, R, K)
    closed_loop = A - B @ K
    cost = Q + K.T @ R @ K
    P = [np.zeros_like(A)]
    for _ in range(steps):
        P.append(cost + closed_loop.T @ P[-1] @ closed_loop)
    return np.stack(P)


def _float64(*matrices: Any) -> tuple[Matrix, ...]:
    return tuple(np.asarray(matrix, np.float64) for matrix in matrices)


def _riccati_step(A: Matrix, B: Matrix, Q: Matrix, R: Matrix, P: Matrix) -> tuple[Matrix, Matrix]:
    """Return (P, K) with one more step left than for the given P."""
    K = np.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
    P = Q + A.T @ P @ (A - B @ K)
    return (P + P.T) / 2.0, K


def _policy_iteration(transitions: Transitions, rewards: Rewards, gamma: float, ends: Ends,
                      ) -> Values:
    policy = rewards.argmax(-1)
    while True:
        values = policy_values(transitions, rewards, policy, gamma, ends)
        q = _lookahead(transitions, rewards, values, gamma, ends)
        gain = q.max(-1) - q[np.arange(len(q)), policy]
        # a smaller gain is rounding, with which ties would alternate forever
        better = gain > 1e-12 * max(1.0, np.abs(q).max())
        if not better.any():
            return values
        policy = np.where(better, q.argmax(-1), policy)


def _value_iteration(transitions: Transitions, rewards: Rewards, gamma: float, ends: Ends,
                     ) -> Values:
    values = np.zeros(len(transitions))
    for _ in range(50_000):
        previous = values
        values = _lookahead(transitions, rewards, previous, gamma, ends).max(-1)
        if np.abs(values - previous).max() <= 1e-13 * np.abs(values).max():
            return values
    raise ValueError("value iteration does not converge; for gamma = 1, episodes must end under "
                     "the best policy")


def _lookahead(transitions: Transitions, rewards: Rewards, values: Values, gamma: float, ends: Ends,
               ) -> Rewards:
    return (rewards + gamma * transitions @ (values * ~ends)) * ~ends[:, None]


def _check(transitions: Any, rewards: Any, gamma: float, terminal: Any,
           ) -> tuple[Transitions, Rewards, Ends]:
    """Return (transitions, expected rewards, states that end an episode); floats are float64.

    Raises ValueError if shapes do not fit, or numbers are not probabilities.
    """
    transitions, rewards = _float64(transitions, rewards)
    shape = transitions.shape
    S, A = (*shape, 0, 0)[:2]
    if shape != (S, A, S) or rewards.shape not in ((S, A), shape):
        raise ValueError("transitions must be [S, A, S], and rewards [S, A] or [S, A, S]; "
                         f"not {shape} and {rewards.shape}")
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma = {gamma} is not between 0 and 1")
    ends = np.zeros(S, bool) if terminal is None else np.asarray(terminal, bool)
    if ends.shape != (S,):
        raise ValueError(f"terminal must be [S] = [{S}], not {ends.shape}")
    total = transitions[~ends].sum(-1)
    if transitions.min() < 0.0 or not np.allclose(total, 1.0, atol=1e-9):
        raise ValueError("transitions must be probabilities: for each state and action, "
                         "they must be >= 0 and add up to 1")
    if rewards.ndim == 3:
        rewards = (transitions * rewards).sum(-1)
    return transitions, rewards, ends


def _probabilities(policy: Any, shape: tuple[int, int]) -> Rewards:
    """Return a policy [S] or [S, A] as probabilities [S, A]."""
    policy = np.asarray(policy)
    if policy.shape == shape:
        return policy.astype(np.float64)
    if policy.shape != shape[:1] or not np.issubdtype(policy.dtype, np.integer):
        raise ValueError("a policy must be [S] integers or [S, A] probabilities, with "
                         f"[S, A] = {shape}; not {policy.shape}")
    return np.eye(shape[1])[policy]


def _reaches_the_end(step: Float[np.ndarray, "S S"]) -> bool:
    """Return True if an episode can end from every state.

    step: probabilities of moving between states without ending the episode.
    """
    can_end = step.sum(-1) < 1.0 - 1e-9
    for _ in step:
        can_end = can_end | ((step > 0.0) @ can_end)
    return bool(can_end.all())
