"""Wrappers by name, for `envs_jax.make(..., wrappers={"frame_stack": 4})` and `env.wrappers.*`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from envs_jax.core import Environment
from envs_jax.wrappers.actions import ActionRepeat, RescaleAction, StickyActions
from envs_jax.wrappers.observations import FlattenObservation, FrameStack, OneHotObservation
from envs_jax.wrappers.rewards import ClipReward, ScaleReward

Pair = tuple[float, float]


class Option(NamedTuple):
    """The setting that adds a wrapper: its type, default, range and help text.

    The type `Pair` means (low, high). The default means that the wrapper is not used.
    """

    make: Callable[[Environment, Any], Environment]      # (env, value) -> wrapped environment
    type: Any
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    inside: bool = False        # inside the time limit and the statistics


def _rescaled(env: Environment, _: bool) -> Environment:
    return RescaleAction(env)


def _clipped(env: Environment, pair: Pair) -> Environment:
    return ClipReward(env, *pair)


def _one_hot(env: Environment, _: bool) -> Environment:
    return OneHotObservation(env)


def _flattened(env: Environment, _: bool) -> Environment:
    return FlattenObservation(env)


WRAPPERS = {        # in the order of application, the innermost first
    "rescale_action": Option(
        _rescaled, bool, False, "actions in [-1, 1], mapped to the bounds of the environment",
        inside=True),
    "sticky_actions": Option(
        StickyActions, float, 0.0, "probability that the last action is executed again",
        low=0.0, high=1.0, inside=True),
    "action_repeat": Option(
        ActionRepeat, int, 1, "number of environment steps for each action; their rewards add up",
        low=1, high=10_000),
    "scale_reward": Option(
        ScaleReward, float, 1.0, "factor of the rewards that the learner receives",
        low=1e-6, high=1e6),
    "clip_reward": Option(
        _clipped, Pair | None, None,
        "bounds [low, high] of the rewards that the learner receives, after scaling"),
    "one_hot": Option(_one_hot, bool, False, "discrete observations as one-hot vectors"),
    "flatten": Option(_flattened, bool, False, "observations as one float32 vector"),
    "frame_stack": Option(
        FrameStack, int, 1, "number of observations stacked along the last axis, the newest last",
        low=1, high=1000),
}


def wrap(env: Environment, wrappers: Mapping[str, Any], *, inside: bool) -> Environment:
    """Return `env` in the wrappers that belong inside the time limit, or else outside.

    wrappers: name in WRAPPERS -> value. Raises ValueError if a value has the wrong type.
    """
    for name, option in WRAPPERS.items():
        value = wrappers.get(name, option.default)
        if option.inside != inside:
            continue
        if not _fits(option.type, value):
            raise ValueError(f"the wrapper {name!r} takes {_wanted(option)}, not {value!r}")
        if value != option.default:
            env = option.make(env, value)
    return env


def _fits(kind: Any, value: Any) -> bool:
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return _is_number(value) and isinstance(value, int)
    if kind is float:
        return _is_number(value)
    if value is None:
        return True
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


def _wanted(option: Option) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number"}
    return names.get(option.type, "two numbers, low and high")
