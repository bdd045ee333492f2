"""Domain randomisation: every episode has dynamics of its own (Tobin et al. 2017; Peng et al. 2018)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax import parameters
from envs_jax.spaces import Box, as_bound
from envs_jax.wrappers.base import Wrapper

INTEGERS = 2**31 - 2           # the largest whole number at the end of a range: what int32 holds, and one more


class RandomizeState(NamedTuple):
    env: Any
    drawn: dict[str, jax.Array]    # parameter -> its value in this episode


@dataclass(frozen=True)
class Randomize(Wrapper):
    """Draws parameters of `env` uniformly from ranges at every reset, independently of each other.

    ranges: {"length": (0.4, 0.6)}, a numeric field of the parameters -> (low, high), both ends included; a field whose
    default is a whole number draws whole numbers. All other fields come from `params`, as always. The policy is not
    told what was drawn. A space covers the whole of the ranges.
    """

    ranges: Mapping[str, tuple[float, float]]      # kept as sorted pairs, which can be hashed

    def __post_init__(self):
        known = parameters.numbers(self.env.default_params)
        pairs = dict(self.ranges)
        for name, pair in pairs.items():
            if name not in known:
                raise ValueError(f"{self.name} has no number {name!r} to draw. Known: {', '.join(known) or 'none'}")
            pairs[name] = _checked(name, pair, isinstance(known[name], int))
        object.__setattr__(self, "ranges", tuple(sorted(pairs.items())))
        _ = self.observation_space(self.default_params)

    def inner_state(self, state):
        return state.env

    def of_episode(self, state: RandomizeState, params: Any) -> Any:
        """The parameters of the episode that `state` is of."""
        return parameters.replace(params, **state.drawn)

    def reset(self, key, params):
        draw_key, key = jax.random.split(key)
        drawn = self._draw(draw_key)
        obs, inner = self.env.reset(key, parameters.replace(params, **drawn))
        return obs, RandomizeState(inner, drawn)

    def step(self, key, state, action, params):
        obs, inner, *rest = self.env.step(key, state.env, action, self.of_episode(state, params))
        return obs, state._replace(env=inner), *rest

    def observation_space(self, params):
        return cover(self.env.observation_space, params, dict(self.ranges))

    def action_space(self, params):
        return cover(self.env.action_space, params, dict(self.ranges))

    def state_space(self, params):
        return cover(self.env.state_space, params, dict(self.ranges))

    def _of_inner_state(self, function):
        return function and (lambda state, params: function(state.env, self.of_episode(state, params)))

    def _draw(self, key: jax.Array) -> dict[str, jax.Array]:
        drawn = {}
        whole_key, real_key = jax.random.split(key)
        for key, kind, draw in ((whole_key, int, _draw_whole), (real_key, float, _draw_real)):
            names = [name for name, (low, _) in self.ranges if isinstance(low, kind)]
            if names:
                low, high = np.array([dict(self.ranges)[name] for name in names]).T
                drawn |= dict(zip(names, draw(key, low, high)))
        return drawn


def cover(space_of: Callable[[Any], Any], params: Any, ranges: Mapping[str, tuple[float, float]]) -> Any:
    """The smallest space (or pytree of spaces) that holds `space_of` of all parameters in `ranges`.

    Looks at the corners of the ranges, for the parameters on which the space depends at all: bounds that grow or fall
    with a parameter are largest and smallest there.
    """
    at = lambda values: space_of(parameters.replace(params, **values))
    low = {name: ends[0] for name, ends in ranges.items()}
    matter = [name for name in ranges if at(low) != at({**low, name: ranges[name][1]})]
    corners = itertools.product(*(ranges[name] for name in matter))
    return jax.tree.map(_hull, *(at({**low, **dict(zip(matter, corner))}) for corner in corners))


def _hull(*spaces: Any) -> Any:
    first = spaces[0]
    if all(space == first for space in spaces):
        return first
    if not all(isinstance(space, Box) and (space.shape, space.dtype) == (first.shape, first.dtype) for space in spaces):
        raise ValueError(f"a parameter changes the kind of a space, from {first} to {spaces[-1]}; it has to stay fixed")
    low, high = ([np.broadcast_to(getattr(space, end), space.shape) for space in spaces] for end in ("low", "high"))
    return Box(as_bound(np.min(low, axis=0)), as_bound(np.max(high, axis=0)), first.shape, first.dtype)


def _checked(name: str, pair: Any, whole: bool) -> tuple[float, float]:
    """(low, high) as Python numbers of the kind that the parameter is of."""
    number = lambda x: isinstance(x, int | float | np.number) and not isinstance(x, bool) and math.isfinite(x)
    if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(map(number, pair))):
        raise ValueError(f"the range of {name!r} is two finite numbers, low and high, not {pair!r}")
    low, high = (int(x) if whole and x == int(x) else float(x) for x in pair)
    if whole and not (isinstance(low, int) and isinstance(high, int) and max(abs(low), abs(high)) <= INTEGERS):
        raise ValueError(f"{name!r} is a whole number, and so are the ends of its range, not {low} and {high}")
    if low > high:
        raise ValueError(f"the range of {name!r} goes from low to high, not from {low} to {high}")
    return low, high


def _draw_whole(key: jax.Array, low: np.ndarray, high: np.ndarray) -> jax.Array:
    return jax.random.randint(key, low.shape, np.int32(low), np.int32(high + 1), jnp.int32)


def _draw_real(key: jax.Array, low: np.ndarray, high: np.ndarray) -> jax.Array:
    low, high = np.float32(low), np.float32(high)
    return jnp.clip(low + jax.random.uniform(key, low.shape, jnp.float32) * (high - low), low, high)
