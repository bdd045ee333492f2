"""What becomes of an action before the environment sees it. Bounds are those of the default parameters: spaces are not
traced, `params` may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax import spaces
from envs_jax.spaces import Box
from envs_jax.wrappers.base import Wrapper, agents_axis, legal


@dataclass(frozen=True)
class ClipAction(Wrapper):
    """Clips the actions of a Box into its bounds before the environment sees them."""

    def __post_init__(self):
        space = self.action_space(self.default_params)
        if not isinstance(space, Box):
            raise ValueError(f"ClipAction needs a Box of actions; {self.name} has {space}")

    def step(self, key, state, action, params):
        low, high = _bounds(self.action_space(self.default_params), action)
        return self.env.step(key, state, jnp.clip(action, low, high), params)


@dataclass(frozen=True)
class RescaleAction(Wrapper):
    """Actions are in [-1, 1], and become the bounds of `env` and what lies between, linearly.

    What is outside of [-1, 1] lands outside of the bounds: ClipAction inside of this wrapper takes care of it.
    """

    def __post_init__(self):
        space = self.env.action_space(self.default_params)
        if not isinstance(space, Box) or not space.bounded or not np.issubdtype(space.dtype, np.floating):
            raise ValueError(f"RescaleAction needs a bounded Box of real actions; {self.name} has {space}")

    def step(self, key, state, action, params):
        low, high = _bounds(self.env.action_space(self.default_params), action)
        return self.env.step(key, state, low + 0.5 * (action + 1.0) * (high - low), params)

    def action_space(self, params):
        inner = self.env.action_space(params)
        return Box(-1.0, 1.0, inner.shape, inner.dtype)


class StickyActionsState(NamedTuple):
    env: Any
    action: Any                # the one executed last, zeros at an episode's start
    started: jax.Array         # bool: there is one


@dataclass(frozen=True)
class StickyActions(Wrapper):
    """With probability `p` the action executed last is executed again, in place of the one asked for.

    Machado et al. 2018, "Revisiting the Arcade Learning Environment", section 5.2. An episode's first action is always
    executed, and so is one asked for where the mask forbids the last. Agents stick independently of each other.
    """

    p: float

    def __post_init__(self):
        if not 0.0 <= self.p <= 1.0:
            raise ValueError(f"StickyActions needs a probability, 0 <= p <= 1, not {self.p}")

    def inner_state(self, state):
        return state.env

    def reset(self, key, params):
        obs, inner = self.env.reset(key, params)
        action = spaces.zeros(self.action_space(self.default_params), agents_axis(self))
        return obs, StickyActionsState(inner, action, jnp.bool_(False))

    def step(self, key, state, action, params):
        draw_key, key = jax.random.split(key)
        sticks = jax.random.bernoulli(draw_key, self.p, agents_axis(self))
        sticks = sticks & state.started & legal(self.env, state.env, state.action, params)
        sticks = sticks.reshape(sticks.shape + (1,) * (state.action.ndim - sticks.ndim))
        action = jnp.where(sticks, state.action, action.astype(state.action.dtype))
        obs, inner, *outcome = self.env.step(key, state.env, action, params)
        return obs, StickyActionsState(inner, action, jnp.bool_(True)), *outcome


@dataclass(frozen=True)
class ActionRepeat(Wrapper):
    """Executes every action `n` times: one step of this wrapper is `n` steps of `env`, and its reward their sum.

    It stops early where the episode ends, and where the mask no longer allows the action: the steps that are left do
    not happen. Observation, flags and info are those of the last step that did.
    """

    n: int

    def __post_init__(self):
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise ValueError(f"ActionRepeat needs a whole number n >= 1, not {self.n}")

    @property
    def max_steps(self) -> int | None:
        longest = self.env.max_steps
        return longest if longest is None or self.action_mask is not None else -(-longest // self.n)

    def step(self, key, state, action, params):
        def once(carry, key):
            stopped, total, before = carry
            obs, state, reward, terminated, truncated, info = self.env.step(key, before[1], action, params)
            total = total + jnp.where(stopped, 0.0, reward)
            after = obs, state, terminated, truncated, info
            after = jax.tree.map(lambda old, new: jnp.where(stopped, old, new), before, after)
            stopped = stopped | jnp.all(terminated) | truncated | ~jnp.all(legal(self.env, state, action, params))
            return (stopped, total, after), None

        obs, _, total, *rest = jax.eval_shape(self.env.step, key, state, action, params)
        blank = lambda tree: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)
        start = jnp.bool_(False), blank(total), (blank(obs), state, *blank(rest))     # overwritten by the first step
        (_, reward, (obs, state, *flags)), _ = jax.lax.scan(once, start, jax.random.split(key, self.n))
        return obs, state, reward, *flags


def _bounds(space: Box, action: Any) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of the shape of `action`, which may have an axis of agents."""
    return tuple(np.broadcast_to(np.asarray(bound, space.dtype), action.shape) for bound in (space.low, space.high))
