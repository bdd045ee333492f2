"""Wrappers that change actions before the environment receives them.

Bounds are those of the default parameters, because `params` may be traced and spaces are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax import spaces
from envs_jax.core import Action, Obs, Params, State
from envs_jax.sizes import ceil_div
from envs_jax.spaces import Box
from envs_jax.wrappers.base import Wrapper, agents_axis, is_count, legal

if TYPE_CHECKING:
    from jaxtyping import Array, Key

    from envs_jax.core import StepResult


@dataclass(frozen=True)
class ClipAction(Wrapper):
    """Wrapper that clips the actions of a Box to its bounds."""

    def __post_init__(self) -> None:
        space = self.action_space(self.default_params)
        if not isinstance(space, Box):
            raise ValueError(f"ClipAction needs a Box of actions; {self.name} has {space}")

    def step(self, key: Key[Array, ""], state: State, action: Action, params: Params) -> StepResult:
        low, high = _bounds(self.action_space(self.default_params), action)
        return self.env.step(key, state, jnp.clip(action, low, high), params)


@dataclass(frozen=True)
class RescaleAction(Wrapper):
    """Wrapper with actions in [-1, 1], mapped linearly to the bounds of `env`.

    Actions outside [-1, 1] are mapped outside the bounds; put ClipAction inside this wrapper.
    """

    def __post_init__(self) -> None:
        space = self.env.action_space(self.default_params)
        bounded = isinstance(space, Box) and space.bounded
        if not bounded or not np.issubdtype(space.dtype, np.floating):
            raise ValueError("RescaleAction needs a bounded Box of real actions; "
                             f"{self.name} has {space}")

    def step(self, key: Key[Array, ""], state: State, action: Action, params: Params) -> StepResult:
        low, high = _bounds(self.env.action_space(self.default_params), action)
        return self.env.step(key, state, low + 0.5 * (action + 1.0) * (high - low), params)

    def action_space(self, params: Params) -> Box:
        inner = self.env.action_space(params)
        return Box(-1.0, 1.0, inner.shape, inner.dtype)


class StickyActionsState(NamedTuple):
    """State of StickyActions."""

    env: Any
    action: Any                # the last executed action, zeros at the start of an episode
    started: jax.Array         # bool: there is a last action


@dataclass(frozen=True)
class StickyActions(Wrapper):
    """Wrapper that executes the last action again, instead of the new one, with probability `p`.

    Machado et al. 2018, "Revisiting the Arcade Learning Environment", section 5.2. The first action
    of an episode is always executed, and so is an action where the mask forbids the last one. The
    draws of several agents are independent.
    """

    p: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.p <= 1.0:
            raise ValueError(f"StickyActions needs a probability, 0 <= p <= 1, not {self.p}")

    def inner_state(self, state: StickyActionsState) -> State:
        return state.env

    def reset(self, key: Key[Array, ""], params: Params) -> tuple[Obs, StickyActionsState]:
        obs, inner = self.env.reset(key, params)
        action = spaces.zeros(self.action_space(self.default_params), agents_axis(self))
        return obs, StickyActionsState(inner, action, jnp.bool_(False))

    def step(self, key: Key[Array, ""], state: StickyActionsState, action: Action, params: Params,
             ) -> StepResult:
        draw_key, key = jax.random.split(key)
        sticks = jax.random.bernoulli(draw_key, self.p, agents_axis(self))
        sticks = sticks & state.started & legal(self.env, state.env, state.action, params)
        sticks = sticks.reshape(sticks.shape + (1,) * (state.action.ndim - sticks.ndim))
        action = jnp.where(sticks, state.action, action.astype(state.action.dtype))
        obs, inner, *outcome = self.env.step(key, state.env, action, params)
        return obs, StickyActionsState(inner, action, jnp.bool_(True)), *outcome


class _Repeat(NamedTuple):
    """Result of the steps that ActionRepeat has executed."""

    stopped: jax.Array         # bool
    reward: jax.Array          # float32, [agents] with agents: sum so far
    outcome: Any               # (observation, state, terminated, truncated, info) of the last step


@dataclass(frozen=True)
class ActionRepeat(Wrapper):
    """Wrapper that executes each action `n` times, and adds up the rewards.

    Repetition stops when the episode ends, and when the mask no longer allows the action.
    Observation, flags and info are those of the last executed step.
    """

    n: int

    def __post_init__(self) -> None:
        if not is_count(self.n):
            raise ValueError(f"ActionRepeat needs a whole number n >= 1, not {self.n}")

    @property
    def max_steps(self) -> int | None:
        longest = self.env.max_steps
        if longest is None or self.action_mask is not None:
            return longest
        return ceil_div(longest, self.n)

    def step(self, key: Key[Array, ""], state: State, action: Action, params: Params) -> StepResult:
        def once(last: _Repeat, key: Key[Array, ""]) -> tuple[_Repeat, None]:
            stopped = last.stopped
            _, inner, *_ = last.outcome
            obs, inner, reward, terminated, truncated, info = self.env.step(
                key, inner, action, params)
            total = last.reward + jnp.where(stopped, 0.0, reward)
            outcome = jax.tree.map(lambda old, new: jnp.where(stopped, old, new), last.outcome,
                                   (obs, inner, terminated, truncated, info))
            stopped = stopped | jnp.all(terminated) | truncated
            stopped = stopped | ~jnp.all(legal(self.env, inner, action, params))
            return _Repeat(stopped, total, outcome), None

        # the first step overwrites these zeros
        shapes = jax.eval_shape(self.env.step, key, state, action, params)
        obs, _, reward, *rest = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        first = _Repeat(jnp.bool_(False), reward, (obs, state, *rest))
        last, _ = jax.lax.scan(once, first, jax.random.split(key, self.n))
        obs, state, *rest = last.outcome
        return obs, state, last.reward, *rest


def _bounds(space: Box, action: Action) -> tuple[np.ndarray, np.ndarray]:
    """Return (low, high) in the shape of `action`, which may have an axis of agents."""
    low = np.broadcast_to(np.asarray(space.low, space.dtype), action.shape)
    high = np.broadcast_to(np.asarray(space.high, space.dtype), action.shape)
    return low, high
