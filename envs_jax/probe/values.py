"""Value probes: environments whose rewards ignore the action, so that only the critic can be wrong.

Each says what a learner must see to get it right, and knows its values in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.spaces import Box, Discrete


class ProbeState(NamedTuple):
    obs: jax.Array       # [1] float32: what is observed is all there is to know


@dataclass(frozen=True)
class Probe(Environment):
    """Base of the probes: an observation [1] in [-1, 1]; two actions, or with `continuous` one number in [-1, 1].

    `observations` [n, 1] lists every observation in which there is something to do, and `values` [n] their worth under
    the best policy; `best_actions` [n], or [n, 1] if continuous, is None where the action does not matter.
    """

    continuous: bool = False

    observations: ClassVar[np.ndarray]

    def values(self, gamma: float) -> np.ndarray:
        """[n]: what each of `observations` is worth under the best policy."""
        raise TypeError(f"{self.name} does not define values")

    @property
    def best_actions(self) -> np.ndarray | None:
        """[n] or [n, 1]: the right action in each of `observations`; None where it does not matter."""
        return None

    def observation_space(self, params):
        return Box(-1.0, 1.0, (1,))

    def action_space(self, params):
        return Box(-1.0, 1.0, (1,)) if self.continuous else Discrete(2)


def constant_start() -> tuple[jax.Array, ProbeState]:
    """Reset to the observation 0."""
    obs = jnp.zeros(1, jnp.float32)
    return obs, ProbeState(obs)


def random_start(key: jax.Array) -> tuple[jax.Array, ProbeState]:
    """Reset to the observation -1 or 1, equally likely."""
    obs = jnp.where(jax.random.bernoulli(key), jnp.ones(1, jnp.float32), -1.0)
    return obs, ProbeState(obs)


def one_step(state: ProbeState, reward: jax.Array):
    """What `step` returns when it ends the episode."""
    return state.obs, state, reward, jnp.bool_(True), jnp.bool_(False), {}


@dataclass(frozen=True)
class ConstantReward(Probe):
    """Is the reward seen? One step, observation 0, reward 1: V = 1."""

    observations = np.float32([[0.0]])
    max_steps = 1

    def values(self, gamma):
        return np.array([1.0])

    def reset(self, key, params):
        return constant_start()

    def step(self, key, state, action, params):
        return one_step(state, jnp.float32(1.0))


@dataclass(frozen=True)
class ObservationReward(Probe):
    """Is the observation seen? One step, observation -1 or 1 and reward equal to it: V(o) = o."""

    observations = np.float32([[-1.0], [1.0]])
    max_steps = 1

    def values(self, gamma):
        return np.array([-1.0, 1.0])

    def reset(self, key, params):
        return random_start(key)

    def step(self, key, state, action, params):
        return one_step(state, state.obs[0])


@dataclass(frozen=True)
class DelayedReward(Probe):
    """Is the discount right? Two steps, observations 0 then 1, rewards 0 then 1: V(0) = gamma, V(1) = 1."""

    observations = np.float32([[0.0], [1.0]])
    max_steps = 2

    def values(self, gamma):
        return np.array([gamma, 1.0])

    def reset(self, key, params):
        return constant_start()

    def step(self, key, state, action, params):
        reward, obs = state.obs[0], jnp.ones(1, jnp.float32)
        return obs, ProbeState(obs), reward, reward == 1.0, jnp.bool_(False), {}


@dataclass(frozen=True)
class EndlessReward(Probe):
    """Is a time limit told from an end? Observation 0, reward 1, for ever: V = 1 / (1 - gamma), 50 at gamma 0.98.

    Cut after 8 steps; who takes that for an end finds at most (1 - gamma^8) / (1 - gamma), 7.46 at gamma 0.98.
    """

    observations = np.float32([[0.0]])
    time_limit = 8

    def values(self, gamma):
        return np.array([1.0 / (1.0 - gamma)])

    def reset(self, key, params):
        return constant_start()

    def step(self, key, state, action, params):
        return state.obs, state, jnp.float32(1.0), jnp.bool_(False), jnp.bool_(False), {}
