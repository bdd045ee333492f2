"""A wrapper, and an environment made with it."""

import math
from dataclasses import dataclass

import jax

from envs_jax.classic.cartpole import CartPole
from envs_jax.spaces import Box
from envs_jax.wrappers import Wrapper


@dataclass(frozen=True)
class NoisyObservation(Wrapper):
    """Normal noise of deviation `scale` on the observations, which may leave their bounds."""

    scale: float

    def reset(self, key, params):
        key, noise = jax.random.split(key)
        obs, state = self.env.reset(key, params)
        return self._noisy(noise, obs), state

    def step(self, key, state, action, params):
        key, noise = jax.random.split(key)
        obs, *rest = self.env.step(key, state, action, params)
        return self._noisy(noise, obs), *rest

    def _noisy(self, key, obs):
        return obs + self.scale * jax.random.normal(key, obs.shape, obs.dtype)

    def observation_space(self, params):
        space = self.env.observation_space(params)
        return Box(-math.inf, math.inf, space.shape, space.dtype)


def noisy_cartpole(scale: float = 0.05):
    """CartPole under observations with noise of deviation `scale`."""
    return NoisyObservation(CartPole(), scale)
