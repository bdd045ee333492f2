"""Action probes: one-step environments whose best action, and its reward of 1, are known."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.probe.values import Probe, constant_start, one_step, random_start
from envs_jax.spaces import Box, MultiDiscrete


@dataclass(frozen=True)
class ActionReward(Probe):
    """Does the actor follow the advantage? One step, observation 0: V = 1 under the best action.

    Discrete: Q = [-1, 1]. Continuous: Q(a) = 1 - (a - 0.5)^2.
    """

    observations = np.float32([[0.0]])
    max_steps = 1

    def values(self, gamma):
        return np.array([1.0])

    @property
    def best_actions(self):
        return np.float32([[0.5]]) if self.continuous else np.int32([1])

    def reset(self, key, params):
        return constant_start()

    def step(self, key, state, action, params):
        one = jnp.float32(1.0)
        reward = one - jnp.square(action[0] - 0.5) if self.continuous else jnp.where(action == 1, one, -one)
        return one_step(state, reward)


@dataclass(frozen=True)
class ObservationActionReward(Probe):
    """Does the actor use the observation? One step, observation o = -1 or 1: V = 1 under the best action for it.

    Discrete: 1 for action 0 at o = -1 and action 1 at o = 1, else -1; blind play earns 0 on average.
    Continuous: Q(o, a) = 1 - (a - o/2)^2; blind play earns 0.75 at most.
    """

    observations = np.float32([[-1.0], [1.0]])
    max_steps = 1

    def values(self, gamma):
        return np.array([1.0, 1.0])

    @property
    def best_actions(self):
        return np.float32([[-0.5], [0.5]]) if self.continuous else np.int32([0, 1])

    def reset(self, key, params):
        return random_start(key)

    def step(self, key, state, action, params):
        o = state.obs[0]
        reward = 1.0 - jnp.square(action[0] - 0.5 * o) if self.continuous else jnp.where(action == 1, o, -o)
        return one_step(state, reward)


class MultiDiscreteState(NamedTuple):
    answer: jax.Array    # [choices] int32: the right answers


@dataclass(frozen=True)
class MultiDiscreteReward(Environment):
    """Are several choices at once told apart? One step; the right answer to each is shown, one-hot, one after another.

    Reward: the share of right answers, so V = 1; blind or random play earns mean(1 / nvec), 5/12 with the default.
    """

    nvec: tuple[int, ...] = (2, 3)

    max_steps = 1

    def __post_init__(self):
        object.__setattr__(self, "nvec", tuple(self.nvec))
        if not self.nvec or not all(isinstance(n, int) and n >= 2 for n in self.nvec):
            raise ValueError(f"MultiDiscreteReward needs two choices or more in each place, not {list(self.nvec)}")

    @property
    def best_actions(self) -> np.ndarray:
        """[n, choices], in the order of `observations`."""
        return np.array(list(product(*map(range, self.nvec))), np.int32)

    @property
    def observations(self) -> np.ndarray:
        """[n, sum(nvec)]: all that there are."""
        return np.concatenate([np.eye(n, dtype=np.float32)[a] for n, a in zip(self.nvec, self.best_actions.T)], axis=1)

    def values(self, gamma: float) -> np.ndarray:
        """[n]: what each of `observations` is worth under the best policy."""
        return np.ones(len(self.observations))

    def reset(self, key, params):
        answer = self.action_space(params).sample(key)
        return self._observe(answer), MultiDiscreteState(answer)

    def step(self, key, state, action, params):
        reward = jnp.mean((action == state.answer).astype(jnp.float32))
        return self._observe(state.answer), state, reward, jnp.bool_(True), jnp.bool_(False), {}

    def _observe(self, answer):
        return jnp.concatenate([jax.nn.one_hot(a, n, dtype=jnp.float32) for a, n in zip(answer, self.nvec)])

    def observation_space(self, params):
        return Box(0.0, 1.0, (sum(self.nvec),))

    def action_space(self, params):
        return MultiDiscrete(self.nvec)
