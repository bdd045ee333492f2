"""A bandit whose best arm is not always legal: a probe of the action mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.core import Environment
from envs_jax.spaces import Box, Discrete

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Key

    from envs_jax.core import StepResult


class MaskedBanditParams(NamedTuple):
    """Parameters of the reward."""

    penalty: float = 1.0     # cost of an illegal arm


class MaskedBanditState(NamedTuple):
    """State: the legality of the last arm in the next step."""

    best_legal: jax.Array    # bool


@dataclass(frozen=True)
class MaskedBandit(Environment):
    """Bandit with an action mask: observation [1], always 0, action one of `arms`.

    Arm k of `arms` pays k / (arms - 1). The last and best one is legal in half of the steps, at
    random, which only the mask shows. An illegal arm costs `penalty`, and info["illegal"] is 1 for
    it, otherwise 0. A policy that respects the mask earns at most `optimal_reward` per step,
    (1 + second best) / 2, which is 5/6 by default. A policy without the mask earns at most the
    second best, 2/3.
    """

    arms: int = 4

    default_params = MaskedBanditParams()
    time_limit = 16

    def __post_init__(self) -> None:
        if self.arms < 2:
            raise ValueError(f"MaskedBandit needs arms >= 2, not {self.arms}")

    @property
    def optimal_reward(self) -> float:
        """Mean reward of a step under the best policy."""
        return 0.5 * (1.0 + self.blind_reward)

    @property
    def blind_reward(self) -> float:
        """Mean reward of a step under the best policy that never chooses the last arm."""
        return (self.arms - 2) / (self.arms - 1)

    def reset(self, key: Key[Array, ""], params: MaskedBanditParams,
              ) -> tuple[Float[Array, "1"], MaskedBanditState]:
        return jnp.zeros(1, jnp.float32), MaskedBanditState(jax.random.bernoulli(key))

    def step(self, key: Key[Array, ""], state: MaskedBanditState, action: Int[Array, ""],
             params: MaskedBanditParams) -> StepResult:
        illegal = (action == self.arms - 1) & ~state.best_legal
        cost = -params.penalty
        reward = jnp.where(illegal, cost, action.astype(jnp.float32) / (self.arms - 1))
        obs, state = self.reset(key, params)
        info = {"illegal": illegal.astype(jnp.int32)}
        return obs, state, reward, jnp.bool_(False), jnp.bool_(False), info

    def action_mask(self, state: MaskedBanditState, params: MaskedBanditParams,
                    ) -> Bool[Array, " arms"]:
        """Return the legal arms."""
        return (jnp.arange(self.arms) < self.arms - 1) | state.best_legal

    def observation_space(self, params: MaskedBanditParams) -> Box:
        return Box(0.0, 0.0, (1,))

    def action_space(self, params: MaskedBanditParams) -> Discrete:
        return Discrete(self.arms)
