"""Value probes: rewards ignore the action, so that only the critic can be wrong.

Each probe states what a learner must use to get it right, and knows its values in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Action, Environment
from envs_jax.spaces import Box, Discrete

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key

    from envs_jax.core import Params, StepResult
    from envs_jax.spaces import Space

    Start = tuple[Float[Array, "1"], "ProbeState"]


class ProbeState(NamedTuple):
    """State of a probe: the observation, which is all there is to know."""

    obs: jax.Array       # [1] float32


@dataclass(frozen=True)
class Probe(Environment):
    """Base class of probes: observation [1] in [-1, 1], two actions or one in [-1, 1].

    continuous: the action is a number in [-1, 1] instead of 0 or 1.
    `observations` [n, 1] lists every observation before an action. `values` [n] are their values
    under the best policy. `best_actions` is [n], or [n, 1] if continuous; None if the action has
    no effect.
    """

    continuous: bool = False

    observations: ClassVar[np.ndarray]

    def values(self, gamma: float) -> Float[np.ndarray, " n"]:
        """Return the value of each of `observations` under the best policy."""
        raise TypeError(f"{self.name} does not define values")

    @property
    def best_actions(self) -> np.ndarray | None:
        """The best action for each of `observations`, [n] or [n, 1]; None if it has no effect."""
        return None

    def observation_space(self, params: Params) -> Box:
        return Box(-1.0, 1.0, (1,))

    def action_space(self, params: Params) -> Space:
        return Box(-1.0, 1.0, (1,)) if self.continuous else Discrete(2)


def constant_start() -> Start:
    """Return (observation, state) with the observation 0."""
    obs = jnp.zeros(1, jnp.float32)
    return obs, ProbeState(obs)


def random_start(key: Key[Array, ""]) -> Start:
    """Return (observation, state) with the observation -1 or 1, equally likely."""
    obs = jnp.where(jax.random.bernoulli(key), jnp.ones(1, jnp.float32), -1.0)
    return obs, ProbeState(obs)


def one_step(state: ProbeState, reward: Float[Array, ""]) -> StepResult:
    """Return the result of a step that ends the episode."""
    return state.obs, state, reward, jnp.bool_(True), jnp.bool_(False), {}


@dataclass(frozen=True)
class ConstantReward(Probe):
    """Probe of the reward: one step, observation 0, reward 1 for any action. V = 1."""

    observations = np.float32([[0.0]])
    max_steps = 1

    def values(self, gamma: float) -> Float[np.ndarray, "1"]:
        return np.array([1.0])

    def reset(self, key: Key[Array, ""], params: Params) -> Start:
        return constant_start()

    def step(self, key: Key[Array, ""], state: ProbeState, action: Action, params: Params,
             ) -> StepResult:
        return one_step(state, jnp.float32(1.0))


@dataclass(frozen=True)
class ObservationReward(Probe):
    """Probe of the observation: one step, observation -1 or 1, equal reward for any action.

    V(o) = o.
    """

    observations = np.float32([[-1.0], [1.0]])
    max_steps = 1

    def values(self, gamma: float) -> Float[np.ndarray, "2"]:
        return np.array([-1.0, 1.0])

    def reset(self, key: Key[Array, ""], params: Params) -> Start:
        return random_start(key)

    def step(self, key: Key[Array, ""], state: ProbeState, action: Action, params: Params,
             ) -> StepResult:
        return one_step(state, state.obs[0])


@dataclass(frozen=True)
class DelayedReward(Probe):
    """Probe of the discount: two steps, observations 0 and 1, rewards 0 and 1 for any action.

    V(0) = gamma, V(1) = 1.
    """

    observations = np.float32([[0.0], [1.0]])
    max_steps = 2

    def values(self, gamma: float) -> Float[np.ndarray, "2"]:
        return np.array([gamma, 1.0])

    def reset(self, key: Key[Array, ""], params: Params) -> Start:
        return constant_start()

    def step(self, key: Key[Array, ""], state: ProbeState, action: Action, params: Params,
             ) -> StepResult:
        reward = state.obs[0]
        obs = jnp.ones(1, jnp.float32)
        return obs, ProbeState(obs), reward, reward == 1.0, jnp.bool_(False), {}


@dataclass(frozen=True)
class EndlessReward(Probe):
    """Probe of truncation: endless episode, cut after 8 steps, observation 0, reward 1.

    V = 1 / (1 - gamma), which is 50 for gamma = 0.98. A learner that treats the time limit as a
    termination finds at most (1 - gamma^8) / (1 - gamma), which is 7.46 for gamma = 0.98.
    """

    observations = np.float32([[0.0]])
    time_limit = 8

    def values(self, gamma: float) -> Float[np.ndarray, "1"]:
        return np.array([1.0 / (1.0 - gamma)])

    def reset(self, key: Key[Array, ""], params: Params) -> Start:
        return constant_start()

    def step(self, key: Key[Array, ""], state: ProbeState, action: Action, params: Params,
             ) -> StepResult:
        return state.obs, state, jnp.float32(1.0), jnp.bool_(False), jnp.bool_(False), {}
