"""Domain randomization: each episode has its own dynamics (Tobin et al. 2017; Peng et al. 2018)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax import parameters
from envs_jax.core import Action, Obs, Params, State
from envs_jax.spaces import Box, as_bound
from envs_jax.wrappers.base import Wrapper

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key

    from envs_jax.core import StepResult

    Ranges = Mapping[str, tuple[float, float]]

INTEGERS = 2**31 - 2           # largest whole number in a range: int32 must also hold one more


class RandomizeState(NamedTuple):
    """State of Randomize."""

    env: Any
    drawn: dict[str, jax.Array]    # parameter -> value in this episode


@dataclass(frozen=True)
class Randomize(Wrapper):
    """Wrapper that draws parameters of `env` independently and uniformly from ranges at each reset.

    ranges: {"length": (0.4, 0.6)}, a numeric field of the parameters -> (low, high), both included.
    A field whose default is a whole number draws whole numbers. All other fields come from
    `params`. The policy does not observe the drawn values. Spaces cover all of the ranges.
    """

    ranges: Ranges                 # kept as sorted pairs, which are hashable

    def __post_init__(self) -> None:
        known = parameters.numbers(self.env.default_params)
        pairs = {}
        for name, pair in dict(self.ranges).items():
            if name not in known:
                raise ValueError(f"{self.name} has no number {name!r} to draw. "
                                 f"Known: {', '.join(known) or 'none'}")
            pairs[name] = _checked(name, pair, isinstance(known[name], int))
        object.__setattr__(self, "ranges", tuple(sorted(pairs.items())))
        _ = self.observation_space(self.default_params)          # reports a wrong space at once

    def inner_state(self, state: RandomizeState) -> State:
        return state.env

    def of_episode(self, state: RandomizeState, params: Params) -> Params:
        """Return the parameters of the episode of `state`."""
        return parameters.replace(params, **state.drawn)

    def reset(self, key: Key[Array, ""], params: Params) -> tuple[Obs, RandomizeState]:
        draw_key, key = jax.random.split(key)
        drawn = self._draw(draw_key)
        obs, inner = self.env.reset(key, parameters.replace(params, **drawn))
        return obs, RandomizeState(inner, drawn)

    def step(self, key: Key[Array, ""], state: RandomizeState, action: Action, params: Params,
             ) -> StepResult:
        params = self.of_episode(state, params)
        obs, inner, *rest = self.env.step(key, state.env, action, params)
        return obs, state._replace(env=inner), *rest

    def observation_space(self, params: Params) -> Any:
        return cover(self.env.observation_space, params, dict(self.ranges))

    def action_space(self, params: Params) -> Any:
        return cover(self.env.action_space, params, dict(self.ranges))

    def state_space(self, params: Params) -> Any:
        return cover(self.env.state_space, params, dict(self.ranges))

    def _of_inner_state(self, function: Callable | None) -> Callable | None:
        if function is None:
            return None
        return lambda state, params: function(state.env, self.of_episode(state, params))

    def _draw(self, key: Key[Array, ""]) -> dict[str, Array]:
        whole_key, real_key = jax.random.split(key)
        whole = {name: pair for name, pair in self.ranges if isinstance(pair[0], int)}
        real = {name: pair for name, pair in self.ranges if isinstance(pair[0], float)}
        drawn = {}
        if whole:
            low, high = np.array(list(whole.values())).T
            drawn |= zip(whole, _draw_whole(whole_key, low, high))
        if real:
            low, high = np.array(list(real.values())).T
            drawn |= zip(real, _draw_real(real_key, low, high))
        return drawn


def cover(space_of: Callable[[Params], Any], params: Params, ranges: Ranges) -> Any:
    """Return the smallest space that contains `space_of` of all parameters in `ranges`.

    Spaces may be pytrees. Only the corners of the ranges are computed, for the parameters that
    change the space at all: bounds are assumed to be monotonic in each parameter.
    """
    def at(values: Mapping[str, float]) -> Any:
        return space_of(parameters.replace(params, **values))

    low = {name: ends[0] for name, ends in ranges.items()}
    relevant = [name for name in ranges if at(low) != at({**low, name: ranges[name][1]})]
    corners = itertools.product(*(ranges[name] for name in relevant))
    found = [at({**low, **dict(zip(relevant, corner))}) for corner in corners]
    return jax.tree.map(_hull, *found)


def _hull(*spaces: Any) -> Any:
    """Return the smallest Box that contains `spaces`; any other space if all are equal.

    Raises ValueError if they differ in more than bounds.
    """
    first = spaces[0]
    if all(space == first for space in spaces):
        return first
    kind = (Box, first.shape, first.dtype)
    if any((type(space), space.shape, space.dtype) != kind for space in spaces):
        raise ValueError(f"a parameter changes the kind of a space, from {first} to {spaces[-1]}; "
                         "keep this parameter fixed")
    lows = [np.broadcast_to(space.low, space.shape) for space in spaces]
    highs = [np.broadcast_to(space.high, space.shape) for space in spaces]
    low = as_bound(np.min(lows, axis=0))
    high = as_bound(np.max(highs, axis=0))
    return Box(low, high, first.shape, first.dtype)


def _checked(name: str, pair: Any, whole: bool) -> tuple[float, float]:
    """Return (low, high) as Python numbers, ints if the parameter is `whole`.

    Raises ValueError if the pair is not a range of such numbers.
    """
    is_pair = isinstance(pair, list | tuple) and len(pair) == 2
    if not is_pair or not all(map(_is_finite_number, pair)):
        raise ValueError(f"the range of {name!r} must be two finite numbers, low and high, "
                         f"not {pair!r}")
    low, high = map(_as_whole if whole else float, pair)
    if whole and not all(isinstance(x, int) and abs(x) <= INTEGERS for x in (low, high)):
        raise ValueError(f"{name!r} is a whole number, so both ends of its range must be whole "
                         f"numbers of at most {INTEGERS}, not {low} and {high}")
    if low > high:
        raise ValueError(f"the range of {name!r} must have low <= high, not {low} and {high}")
    return low, high


def _is_finite_number(x: Any) -> bool:
    if not isinstance(x, int | float | np.number) or isinstance(x, bool):
        return False
    return math.isfinite(x)


def _as_whole(x: float) -> int | float:
    return int(x) if x == int(x) else float(x)


def _draw_whole(key: Key[Array, ""], low: np.ndarray, high: np.ndarray) -> Int[Array, " n"]:
    return jax.random.randint(key, low.shape, np.int32(low), np.int32(high + 1), jnp.int32)


def _draw_real(key: Key[Array, ""], low: np.ndarray, high: np.ndarray) -> Float[Array, " n"]:
    low = np.float32(low)
    high = np.float32(high)
    share = jax.random.uniform(key, low.shape, jnp.float32)
    return jnp.clip(low + share * (high - low), low, high)
