"""What a learner is paid, which need not be what the environment pays."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax.numpy as jnp

from envs_jax.wrappers.base import Wrapper


@dataclass(frozen=True)
class ScaleReward(Wrapper):
    """Multiplies rewards by `factor`."""

    factor: float

    def __post_init__(self):
        if not 0.0 < self.factor < math.inf:
            raise ValueError(f"ScaleReward needs a finite factor above 0, not {self.factor}")

    def step(self, key, state, action, params):
        obs, state, reward, *rest = self.env.step(key, state, action, params)
        return obs, state, reward * self.factor, *rest


@dataclass(frozen=True)
class ClipReward(Wrapper):
    """Clips rewards into [low, high]."""

    low: float
    high: float

    def __post_init__(self):
        if not self.low < self.high:
            raise ValueError(f"ClipReward needs low < high, not {self.low} and {self.high}")

    def step(self, key, state, action, params):
        obs, state, reward, *rest = self.env.step(key, state, action, params)
        return obs, state, jnp.clip(reward, self.low, self.high), *rest
