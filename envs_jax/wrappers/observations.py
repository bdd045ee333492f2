"""Wrappers that change observations.

Observations may be pytrees. With several agents, each leaf has the axis of agents first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Action, Obs, Params, State
from envs_jax.spaces import Box, Discrete, MultiDiscrete, Space, as_bound
from envs_jax.wrappers.base import Wrapper, agents_axis, is_count

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key

    from envs_jax.core import StepResult


@dataclass(frozen=True)
class ObservationWrapper(Wrapper):
    """Base class of wrappers that apply `observe` to observations and `observed` to their space."""

    def __post_init__(self) -> None:
        _ = self.observation_space(self.default_params)          # reports a wrong space at once

    def observed(self, space: Any) -> Any:
        """Return the new observation space for that of `env`; pytrees of spaces."""
        raise TypeError(f"{type(self).__name__} does not define observed")

    def observe(self, space: Any, obs: Obs) -> Obs:
        """Return the new observation for `obs`, an element of `space`."""
        raise TypeError(f"{type(self).__name__} does not define observe")

    def reset(self, key: Key[Array, ""], params: Params) -> tuple[Obs, State]:
        obs, state = self.env.reset(key, params)
        return self._observe(obs), state

    def step(self, key: Key[Array, ""], state: State, action: Action, params: Params) -> StepResult:
        obs, *rest = self.env.step(key, state, action, params)
        return self._observe(obs), *rest

    def observation_space(self, params: Params) -> Any:
        return self.observed(self.env.observation_space(params))

    def _observe(self, obs: Obs) -> Obs:
        return self.observe(self.env.observation_space(self.default_params), obs)


class OneHotObservation(ObservationWrapper):
    """Wrapper that turns discrete observations into float32 one-hot vectors.

    A Discrete(n) becomes a vector of length n, a MultiDiscrete one of length sum(nvec). Boxes in a
    pytree do not change. Raises ValueError if there is no discrete observation.
    """

    def observed(self, space: Any) -> Any:
        if all(isinstance(leaf, Box) for leaf in jax.tree.leaves(space)):
            raise ValueError("OneHotObservation needs a Discrete or MultiDiscrete observation; "
                             f"{self.name} has {shown(space)}")
        return jax.tree.map(_one_hot_space, space)

    def observe(self, space: Any, obs: Obs) -> Obs:
        return jax.tree.map(_one_hot, space, obs)


class FlattenObservation(ObservationWrapper):
    """Wrapper that concatenates an observation into one float32 vector; choices become one-hot."""

    def observed(self, space: Any) -> Box:
        leaves = [_one_hot_space(leaf) for leaf in jax.tree.leaves(space)]
        low = np.concatenate([np.broadcast_to(leaf.low, leaf.shape).ravel() for leaf in leaves])
        high = np.concatenate([np.broadcast_to(leaf.high, leaf.shape).ravel() for leaf in leaves])
        return Box(as_bound(low), as_bound(high), low.shape)

    def observe(self, space: Any, obs: Obs) -> Float[Array, "*agents features"]:
        def flat(leaf: Space, x: Array) -> Float[Array, "*agents features"]:
            return _one_hot(leaf, x).astype(jnp.float32).reshape(*agents_axis(self), -1)

        return jnp.concatenate(jax.tree.leaves(jax.tree.map(flat, space, obs)), axis=-1)


class FrameStackState(NamedTuple):
    """State of FrameStack."""

    env: Any
    frames: Any                # the last n observations, as the wrapper returns them


@dataclass(frozen=True)
class FrameStack(Wrapper):
    """Wrapper that concatenates the last `n` observations along the last axis, the newest last.

    An image [height, width, channels] becomes [height, width, n * channels], a vector [d] becomes
    [n * d], a scalar [n], and a Discrete a MultiDiscrete; each leaf of a pytree is stacked. An
    episode starts with n copies of its first observation, and no frame comes from the previous
    episode. The last observation of an episode is stacked like all others.
    """

    n: int

    def __post_init__(self) -> None:
        if not is_count(self.n):
            raise ValueError(f"FrameStack needs a whole number n >= 1, not {self.n}")

    def inner_state(self, state: FrameStackState) -> State:
        return state.env

    def reset(self, key: Key[Array, ""], params: Params) -> tuple[Obs, FrameStackState]:
        obs, inner = self.env.reset(key, params)
        frame = self._frame(obs)
        frames = jax.tree.map(lambda x: jnp.concatenate([x] * self.n, axis=-1), frame)
        return frames, FrameStackState(inner, frames)

    def step(self, key: Key[Array, ""], state: FrameStackState, action: Action, params: Params,
             ) -> StepResult:
        obs, inner, *rest = self.env.step(key, state.env, action, params)
        frames = jax.tree.map(_push, state.frames, self._frame(obs))
        return frames, FrameStackState(inner, frames), *rest

    def observation_space(self, params: Params) -> Any:
        return jax.tree.map(self._stacked, self.env.observation_space(params))

    def _frame(self, obs: Obs) -> Obs:
        """Return `obs` with scalars as vectors of length 1."""
        space = self.env.observation_space(self.default_params)
        return jax.tree.map(lambda leaf, x: x if leaf.shape else x[..., None], space, obs)

    def _stacked(self, space: Space) -> Space:
        if not isinstance(space, Box):
            return MultiDiscrete(_nvec(space) * self.n)
        frame = space.shape or (1,)
        low = self._stacked_bound(space.low, frame)
        high = self._stacked_bound(space.high, frame)
        return Box(low, high, (*frame[:-1], frame[-1] * self.n), space.dtype)

    def _stacked_bound(self, bound: Any, frame: tuple[int, ...]) -> Any:
        if np.ndim(bound) == 0:
            return bound
        return as_bound(np.concatenate([np.asarray(bound).reshape(frame)] * self.n, axis=-1))


def shown(space: Any) -> str:
    """Return the text of a space, or of a pytree of spaces, for a message."""
    return ", ".join(map(str, jax.tree.leaves(space)))


def _push(frames: Array, new: Array) -> Array:
    """Return `frames` without the oldest one and with `new` at the end."""
    return jnp.concatenate([frames[..., new.shape[-1]:], new], axis=-1)


def _nvec(space: Discrete | MultiDiscrete) -> tuple[int, ...]:
    return (space.n,) if isinstance(space, Discrete) else space.nvec


def _one_hot_space(space: Space) -> Box:
    return space if isinstance(space, Box) else Box(0.0, 1.0, (sum(_nvec(space)),))


def _one_hot(space: Space, x: Array) -> Array:
    """Return choices as one-hot vectors, one after another; arrays of a Box stay unchanged."""
    if isinstance(space, Box):
        return x
    if not space.shape:
        x = x[..., None]
    nvec = _nvec(space)
    choice = np.repeat(np.arange(len(nvec)), nvec)             # index of the choice of each entry
    value = np.concatenate([np.arange(n, dtype=np.int32) for n in nvec])
    value = value.reshape((1,) * (x.ndim - 1) + (-1,))
    return (x[..., choice] == value).astype(jnp.float32)
