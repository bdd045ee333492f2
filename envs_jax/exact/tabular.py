"""Finite Markov decision processes (MDPs) as environments, defined by tables of outcomes.

The tables are NumPy arrays, computed from a few numbers when they are first needed, so that an
environment remains a hashable value. solve.py computes exact values from `transitions`, `rewards`
and `terminal`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.exact.solve import finite_horizon, optimal_values, policy_values
from envs_jax.spaces import Discrete

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Key

    from envs_jax.core import Params, StepResult


class Outcomes(NamedTuple):
    """Tables of an MDP with S states, A actions and K outcomes of each action. NumPy arrays."""

    probability: np.ndarray    # [S, A, K] float64, with sum 1 over K
    successor: np.ndarray      # [S, A, K] next state; two outcomes may have the same
    reward: np.ndarray         # [S, A, K]
    terminal: np.ndarray       # [S] bool: arrival ends the episode; the state's rows are not used
    start: np.ndarray          # [S] float64: probabilities of the first state


class TabularState(NamedTuple):
    """State: the index of the MDP's state."""

    place: jax.Array           # int32


@dataclass(frozen=True)
class Tabular(Environment):
    """Base class of finite MDPs: observation the index of the state, Discrete actions.

    A subclass defines `outcomes` as a cached property. The observation space is Discrete(S), as in
    Gymnasium's toy-text environments; networks receive it as a one-hot vector. Nothing is drawn
    where there is one outcome (K = 1) or one start.
    """

    @cached_property
    def outcomes(self) -> Outcomes:
        """The outcomes of each action in each state, with probabilities and rewards."""
        raise TypeError(f"{self.name} does not define outcomes")

    @cached_property
    def transitions(self) -> Float[np.ndarray, "S A S"]:
        """Probabilities of the next state, float64."""
        probability = self.outcomes.probability
        S, A, _ = probability.shape
        state, action, _ = np.ogrid[:S, :A, :0]
        transitions = np.zeros((S, A, S))
        np.add.at(transitions, (state, action, self.outcomes.successor), probability)
        return transitions

    @cached_property
    def rewards(self) -> Float[np.ndarray, "S A"]:
        """Expected rewards, float64."""
        return (self.outcomes.probability * self.outcomes.reward).sum(-1)

    @property
    def terminal(self) -> Bool[np.ndarray, " S"]:
        """The states that end an episode."""
        return self.outcomes.terminal

    @property
    def start(self) -> Float[np.ndarray, " S"]:
        """Probabilities of the first state, float64."""
        return self.outcomes.start

    def optimal_values(self, gamma: float) -> Float[np.ndarray, " S"]:
        """Return the value of each state under the best policy, without a time limit."""
        return optimal_values(self.transitions, self.rewards, gamma, self.terminal)

    def policy_values(self, policy: Any, gamma: float) -> Float[np.ndarray, " S"]:
        """Return the value of each state under `policy`, without a time limit.

        policy: [S] integers, or [S, A] probabilities.
        """
        return policy_values(self.transitions, self.rewards, policy, gamma, self.terminal)

    def expected_return(self, steps: int, policy: Any = None, gamma: float = 1.0) -> float:
        """Return the mean return of an episode of at most `steps`.

        policy: as in `policy_values`. Default: the best policy that knows the remaining time.
        """
        values = finite_horizon(self.transitions, self.rewards, steps, policy=policy, gamma=gamma,
                                terminal=self.terminal)
        return float(self.start @ values[-1])

    def reset(self, key: Key[Array, ""], params: Params) -> tuple[Int[Array, ""], TabularState]:
        places = np.flatnonzero(self.start)
        index = _draw(key, _thresholds(self.start[places]))
        place = jnp.asarray(places, jnp.int32)[index]
        return place, TabularState(place)

    def step(self, key: Key[Array, ""], state: TabularState, action: Int[Array, ""],
             params: Params) -> StepResult:
        probability, successor, reward, terminal, _ = self.outcomes
        thresholds = jnp.asarray(_thresholds(probability))
        outcome = (state.place, action, _draw(key, thresholds[state.place, action]))
        place = jnp.asarray(successor, jnp.int32)[outcome]
        over = jnp.asarray(terminal)[place]
        paid = jnp.asarray(reward, jnp.float32)[outcome]
        return place, TabularState(place), paid, over, jnp.bool_(False), {}

    def observation_space(self, params: Params) -> Discrete:
        return Discrete(self.outcomes.probability.shape[0])

    def action_space(self, params: Params) -> Discrete:
        return Discrete(self.outcomes.probability.shape[1])


def _thresholds(probability: Float[np.ndarray, "*batch K"]) -> Float[np.ndarray, "*batch K-1"]:
    """Return the thresholds between outcomes, float32.

    A uniform number selects the outcome whose index is the number of thresholds <= it.
    """
    return np.cumsum(probability, axis=-1)[..., :-1].astype(np.float32)


def _draw(key: Key[Array, ""], thresholds: Float[Array, " K-1"]) -> Int[Array, ""]:
    """Draw one of K outcomes by its K - 1 thresholds; the key is not used if K = 1."""
    if thresholds.shape[-1] == 0:
        return jnp.int32(0)
    return jnp.sum(thresholds <= jax.random.uniform(key, (1,)), dtype=jnp.int32)
