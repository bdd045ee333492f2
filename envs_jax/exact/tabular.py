"""Finite Markov decision processes (MDPs) as environments: tables of what may follow each action in each state.

The tables are NumPy arrays, made from a few numbers when they are first asked for, so an environment stays a hashable
value. solve.py finds exact values from `transitions`, `rewards` and `terminal`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.exact.solve import finite_horizon, optimal_values, policy_values
from envs_jax.spaces import Discrete


class Outcomes(NamedTuple):
    """An MDP of S states and A actions: each of these leads to one of K outcomes. NumPy arrays."""

    probability: np.ndarray    # [S, A, K] float64, adding up to 1 over K
    successor: np.ndarray      # [S, A, K] the next state; two outcomes may share it
    reward: np.ndarray         # [S, A, K]
    terminal: np.ndarray       # [S] bool: an episode ends on arrival, what the rows of such a state say is never used
    start: np.ndarray          # [S] float64: probabilities of the first state


class TabularState(NamedTuple):
    place: jax.Array           # int32: which of the S states


@dataclass(frozen=True)
class Tabular(Environment):
    """Base of the finite MDPs. A subclass gives `outcomes`, as a cached property.

    The observation is the number of the state, Discrete(S), as in Gymnasium's toy texts: networks see it one-hot.
    Nothing is drawn where there is one outcome (K = 1) or one start.
    """

    @cached_property
    def outcomes(self) -> Outcomes:
        """What may follow, with its probability and reward."""
        raise TypeError(f"{self.name} does not define outcomes")

    @cached_property
    def transitions(self) -> np.ndarray:
        """[S, A, S] float64: probabilities of the next state."""
        probability, successor, *_ = self.outcomes
        S, A, _ = probability.shape
        transitions = np.zeros((S, A, S))
        np.add.at(transitions, (*np.ogrid[:S, :A, :0][:2], successor), probability)
        return transitions

    @cached_property
    def rewards(self) -> np.ndarray:
        """[S, A] float64: expected rewards."""
        return (self.outcomes.probability * self.outcomes.reward).sum(-1)

    @property
    def terminal(self) -> np.ndarray:
        """[S] bool: the states that end an episode."""
        return self.outcomes.terminal

    @property
    def start(self) -> np.ndarray:
        """[S] float64: probabilities of the first state."""
        return self.outcomes.start

    def optimal_values(self, gamma: float) -> np.ndarray:
        """[S]: what each state is worth under the best policy, without a time limit."""
        return optimal_values(self.transitions, self.rewards, gamma, self.terminal)

    def policy_values(self, policy: Any, gamma: float) -> np.ndarray:
        """[S]: what each state is worth under `policy`, [S] integers or [S, A] probabilities, without a time limit."""
        return policy_values(self.transitions, self.rewards, policy, gamma, self.terminal)

    def expected_return(self, steps: int, policy: Any = None, gamma: float = 1.0) -> float:
        """Of an episode of at most `steps`: under `policy`, or under the best one that knows the time."""
        values = finite_horizon(self.transitions, self.rewards, steps, policy=policy, gamma=gamma,
                                terminal=self.terminal)
        return float(self.start @ values[-1])

    def reset(self, key, params):
        places = np.flatnonzero(self.start)
        place = jnp.asarray(places, jnp.int32)[_draw(key, _thresholds(self.start[places]))]
        return place, TabularState(place)

    def step(self, key, state, action, params):
        probability, successor, reward, terminal, _ = self.outcomes
        thresholds = jnp.asarray(_thresholds(probability))
        at = (state.place, action, _draw(key, thresholds[state.place, action]))
        place = jnp.asarray(successor, jnp.int32)[at]
        over = jnp.asarray(terminal)[place]
        return place, TabularState(place), jnp.asarray(reward, jnp.float32)[at], over, jnp.bool_(False), {}

    def observation_space(self, params):
        return Discrete(self.outcomes.probability.shape[0])

    def action_space(self, params):
        return Discrete(self.outcomes.probability.shape[1])


def _thresholds(probability: np.ndarray) -> np.ndarray:
    """[..., K] -> [..., K - 1] float32: a uniform number picks the outcome with as many thresholds at or below it."""
    return np.cumsum(probability, axis=-1)[..., :-1].astype(np.float32)


def _draw(key: jax.Array, thresholds: Any) -> jax.Array:
    """One of K outcomes, int32, by its K - 1 thresholds; the key is not used if K = 1."""
    if thresholds.shape[-1] == 0:
        return jnp.int32(0)
    return jnp.sum(thresholds <= jax.random.uniform(key, (1,)), dtype=jnp.int32)
