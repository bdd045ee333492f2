"""Wrappers that change the rewards that a learner receives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax.numpy as jnp

from envs_jax.core import Action, Params, State
from envs_jax.wrappers.base import Wrapper

if TYPE_CHECKING:
    from jaxtyping import Array, Key

    from envs_jax.core import StepResult


@dataclass(frozen=True)
class ScaleReward(Wrapper):
    """Wrapper that multiplies rewards by `factor`."""

    factor: float

    def __post_init__(self) -> None:
        if not 0.0 < self.factor < math.inf:
            raise ValueError(f"ScaleReward needs a finite factor above 0, not {self.factor}")

    def step(self, key: Key[Array, ""], state: State, action: Action, params: Params) -> StepResult:
        obs, state, reward, *rest = self.env.step(key, state, action, params)
        return obs, state, reward * self.factor, *rest


@dataclass(frozen=True)
class ClipReward(Wrapper):
    """Wrapper that clips rewards to [low, high]."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"ClipReward needs low < high, not {self.low} and {self.high}")

    def step(self, key: Key[Array, ""], state: State, action: Action, params: Params) -> StepResult:
        obs, state, reward, *rest = self.env.step(key, state, action, params)
        return obs, state, jnp.clip(reward, self.low, self.high), *rest
