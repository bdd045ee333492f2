"""What a policy sees. Observations may be pytrees, and with agents each leaf has their axis first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.spaces import Box, Discrete, MultiDiscrete, as_bound
from envs_jax.wrappers.base import Wrapper, agents_axis


@dataclass(frozen=True)
class ObservationWrapper(Wrapper):
    """A wrapper that sends every observation through `observe`, and the spaces through `observed`."""

    def __post_init__(self):
        _ = self.observation_space(self.default_params)          # what does not fit is said at once

    def observed(self, space: Any) -> Any:
        """What `env`'s space of observations, or pytree of spaces, becomes."""
        raise TypeError(f"{type(self).__name__} does not define observed")

    def observe(self, space: Any, obs: Any) -> Any:
        """What `obs` of `space` becomes."""
        raise TypeError(f"{type(self).__name__} does not define observe")

    def reset(self, key, params):
        obs, state = self.env.reset(key, params)
        return self._observe(obs), state

    def step(self, key, state, action, params):
        obs, *rest = self.env.step(key, state, action, params)
        return self._observe(obs), *rest

    def observation_space(self, params):
        return self.observed(self.env.observation_space(params))

    def _observe(self, obs):
        return self.observe(self.env.observation_space(self.default_params), obs)


class OneHotObservation(ObservationWrapper):
    """Choices as float32 vectors with a 1 at each: a Discrete(n) is n long, a MultiDiscrete the sum of its `nvec`.

    In a pytree the other leaves stay as they are; without any choice there is nothing to do, which is an error.
    """

    def observed(self, space):
        if all(isinstance(leaf, Box) for leaf in jax.tree.leaves(space)):
            raise ValueError(f"OneHotObservation needs a Discrete or MultiDiscrete observation; {self.name} has "
                             f"{shown(space)}")
        return jax.tree.map(_one_hot_space, space)

    def observe(self, space, obs):
        return jax.tree.map(_one_hot, space, obs)


class FlattenObservation(ObservationWrapper):
    """Everything as one float32 vector: the leaves of a pytree one after another, choices one-hot."""

    def observed(self, space):
        leaves = [_one_hot_space(leaf) for leaf in jax.tree.leaves(space)]
        low, high = (np.concatenate([np.broadcast_to(getattr(leaf, end), leaf.shape).ravel()
                                     for leaf in leaves]) for end in ("low", "high"))
        return Box(as_bound(low), as_bound(high), low.shape)

    def observe(self, space, obs):
        flat = jax.tree.map(lambda s, x: _one_hot(s, x).astype(jnp.float32).reshape(*agents_axis(self), -1), space, obs)
        return jnp.concatenate(jax.tree.leaves(flat), axis=-1)


class FrameStackState(NamedTuple):
    env: Any
    frames: Any                # the last n observations, as they are seen


@dataclass(frozen=True)
class FrameStack(Wrapper):
    """The last `n` observations, one after another along the last axis, the newest last.

    An image [height, width, channels] becomes [height, width, n * channels], a vector [d] becomes [n * d], a scalar
    [n], a Discrete a MultiDiscrete; of a pytree this holds for every leaf. An episode starts with n times its first
    observation: nothing is seen of the episode before, and the last observation of an episode is stacked as any other.
    """

    n: int

    def __post_init__(self):
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise ValueError(f"FrameStack needs a whole number n >= 1, not {self.n}")

    def inner_state(self, state):
        return state.env

    def reset(self, key, params):
        obs, inner = self.env.reset(key, params)
        frames = jax.tree.map(lambda x: jnp.concatenate([x] * self.n, axis=-1), self._frame(obs))
        return frames, FrameStackState(inner, frames)

    def step(self, key, state, action, params):
        obs, inner, *rest = self.env.step(key, state.env, action, params)
        push = lambda old, new: jnp.concatenate([old[..., new.shape[-1]:], new], axis=-1)
        frames = jax.tree.map(push, state.frames, self._frame(obs))
        return frames, FrameStackState(inner, frames), *rest

    def observation_space(self, params):
        return jax.tree.map(self._stacked, self.env.observation_space(params))

    def _frame(self, obs):
        """`obs` with scalars as vectors of length 1."""
        space = self.env.observation_space(self.default_params)
        return jax.tree.map(lambda s, x: x if s.shape else x[..., None], space, obs)

    def _stacked(self, space):
        if isinstance(space, Discrete | MultiDiscrete):
            return MultiDiscrete(_nvec(space) * self.n)
        frame = space.shape or (1,)
        low, high = (bound if np.ndim(bound) == 0 else
                     as_bound(np.concatenate([np.asarray(bound).reshape(frame)] * self.n, axis=-1))
                     for bound in (space.low, space.high))
        return Box(low, high, (*frame[:-1], frame[-1] * self.n), space.dtype)


def shown(space: Any) -> str:
    """A space, or a pytree of them, in a message."""
    return ", ".join(map(str, jax.tree.leaves(space)))


def _nvec(space: Discrete | MultiDiscrete) -> tuple[int, ...]:
    return (space.n,) if isinstance(space, Discrete) else space.nvec


def _one_hot_space(space: Any) -> Box:
    return space if isinstance(space, Box) else Box(0.0, 1.0, (sum(_nvec(space)),))


def _one_hot(space: Any, x: jax.Array) -> jax.Array:
    if isinstance(space, Box):
        return x
    x = x if space.shape else x[..., None]
    choice = np.repeat(np.arange(len(_nvec(space))), _nvec(space))           # whose the entry is
    value = np.concatenate([np.arange(n, dtype=np.int32) for n in _nvec(space)])
    return (x[..., choice] == value.reshape((1,) * (x.ndim - 1) + (-1,))).astype(jnp.float32)
