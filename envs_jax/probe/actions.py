"""Action probes: one-step environments with a known best action, whose reward is 1."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Action, Environment
from envs_jax.probe.values import Probe, ProbeState, constant_start, one_step, random_start
from envs_jax.spaces import Box, MultiDiscrete

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key

    from envs_jax.core import Params, StepResult
    from envs_jax.probe.values import Start


@dataclass(frozen=True)
class ActionReward(Probe):
    """Probe of the advantage: one step, observation 0, reward that depends on the action.

    V = 1 under the best action. Discrete: Q = [-1, 1]. Continuous: Q(a) = 1 - (a - 0.5)^2.
    """

    observations = np.float32([[0.0]])
    max_steps = 1

    def values(self, gamma: float) -> Float[np.ndarray, "1"]:
        return np.array([1.0])

    @property
    def best_actions(self) -> np.ndarray:
        return np.float32([[0.5]]) if self.continuous else np.int32([1])

    def reset(self, key: Key[Array, ""], params: Params) -> Start:
        return constant_start()

    def step(self, key: Key[Array, ""], state: ProbeState, action: Action, params: Params,
             ) -> StepResult:
        one = jnp.float32(1.0)
        if self.continuous:
            reward = one - jnp.square(action[0] - 0.5)
        else:
            reward = jnp.where(action == 1, one, -one)
        return one_step(state, reward)


@dataclass(frozen=True)
class ObservationActionReward(Probe):
    """Probe of the policy's input: one step, observation -1 or 1 determines the best action.

    V = 1 under the best action for each observation o.
    Discrete: the reward is 1 for action 0 at o = -1 and for action 1 at o = 1, otherwise -1. A
    policy that ignores the observation earns 0 on average.
    Continuous: Q(o, a) = 1 - (a - o/2)^2. A policy that ignores the observation earns at most 0.75.
    """

    observations = np.float32([[-1.0], [1.0]])
    max_steps = 1

    def values(self, gamma: float) -> Float[np.ndarray, "2"]:
        return np.array([1.0, 1.0])

    @property
    def best_actions(self) -> np.ndarray:
        return np.float32([[-0.5], [0.5]]) if self.continuous else np.int32([0, 1])

    def reset(self, key: Key[Array, ""], params: Params) -> Start:
        return random_start(key)

    def step(self, key: Key[Array, ""], state: ProbeState, action: Action, params: Params,
             ) -> StepResult:
        o = state.obs[0]
        if self.continuous:
            reward = 1.0 - jnp.square(action[0] - 0.5 * o)
        else:
            reward = jnp.where(action == 1, o, -o)
        return one_step(state, reward)


class MultiDiscreteState(NamedTuple):
    """State: the correct answers."""

    answer: jax.Array    # [choices] int32


@dataclass(frozen=True)
class MultiDiscreteReward(Environment):
    """Probe of several choices at once: one step, observation of the correct choices (one-hot).

    The observation [sum(nvec)] concatenates a one-hot vector for each choice. The reward is the
    fraction of correct choices, so V = 1. A policy that ignores the observation earns mean(1 /
    nvec), which is 5/12 by default.
    """

    nvec: tuple[int, ...] = (2, 3)

    max_steps = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "nvec", tuple(self.nvec))
        if not self.nvec or not all(isinstance(n, int) and n >= 2 for n in self.nvec):
            raise ValueError("MultiDiscreteReward needs nvec with one or more integers >= 2, "
                             f"not {list(self.nvec)}")

    @property
    def best_actions(self) -> Int[np.ndarray, "n choices"]:
        """The best action for each of `observations`."""
        return np.array(list(product(*map(range, self.nvec))), np.int32)

    @property
    def observations(self) -> Float[np.ndarray, "n features"]:
        """All possible observations, [n, sum(nvec)]."""
        one_hot = [np.eye(n, dtype=np.float32)[a] for n, a in zip(self.nvec, self.best_actions.T)]
        return np.concatenate(one_hot, axis=1)

    def values(self, gamma: float) -> Float[np.ndarray, " n"]:
        """Return the value of each of `observations` under the best policy."""
        return np.ones(len(self.observations))

    def reset(self, key: Key[Array, ""], params: Params,
              ) -> tuple[Float[Array, " features"], MultiDiscreteState]:
        answer = self.action_space(params).sample(key)
        return self._observe(answer), MultiDiscreteState(answer)

    def step(self, key: Key[Array, ""], state: MultiDiscreteState, action: Int[Array, " choices"],
             params: Params) -> StepResult:
        reward = jnp.mean((action == state.answer).astype(jnp.float32))
        obs = self._observe(state.answer)
        return obs, state, reward, jnp.bool_(True), jnp.bool_(False), {}

    def _observe(self, answer: Int[Array, " choices"]) -> Float[Array, " features"]:
        one_hot = [jax.nn.one_hot(a, n, dtype=jnp.float32) for a, n in zip(answer, self.nvec)]
        return jnp.concatenate(one_hot)

    def observation_space(self, params: Params) -> Box:
        return Box(0.0, 1.0, (sum(self.nvec),))

    def action_space(self, params: Params) -> MultiDiscrete:
        return MultiDiscrete(self.nvec)
