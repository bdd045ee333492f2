"""The wrappers that can be asked for by name, as `envs_jax.make(..., wrappers={"frame_stack": 4})` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from envs_jax.core import Environment
from envs_jax.wrappers.actions import ActionRepeat, RescaleAction, StickyActions
from envs_jax.wrappers.observations import FlattenObservation, FrameStack, OneHotObservation
from envs_jax.wrappers.rewards import ClipReward, ScaleReward

Pair = tuple[float, float]


class Option(NamedTuple):
    """A wrapper by name: its value's type (`Pair`: low and high), the default, which means without it, and a range."""

    make: Callable[[Environment, Any], Environment]      # (env, value)
    type: Any
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    inside: bool = False        # of the time limit and the statistics, which then see what it does


WRAPPERS = {        # in the order in which they are put around an environment, the innermost first
    "rescale_action": Option(lambda env, _: RescaleAction(env), bool, False, "actions in [-1, 1] for any bounds",
                             inside=True),
    "sticky_actions": Option(StickyActions, float, 0.0, "probability that the last action is executed again", 0.0, 1.0,
                             inside=True),
    "action_repeat": Option(ActionRepeat, int, 1, "steps for which each action is executed, rewards added up",
                            1, 10_000),
    "scale_reward": Option(ScaleReward, float, 1.0, "factor of the rewards that are learned from", 1e-6, 1e6),
    "clip_reward": Option(lambda env, pair: ClipReward(env, *pair), Pair | None, None,
                          "[low, high] of the rewards that are learned from, after scaling"),
    "one_hot": Option(lambda env, _: OneHotObservation(env), bool, False, "discrete observations as one-hot vectors"),
    "flatten": Option(lambda env, _: FlattenObservation(env), bool, False, "any observation as one float32 vector"),
    "frame_stack": Option(FrameStack, int, 1, "observations seen at once, the newest last along the last axis",
                          1, 1000),
}


def wrap(env: Environment, wrappers: Mapping[str, Any], *, inside: bool) -> Environment:
    """`env` in those of `wrappers` (name in WRAPPERS -> value) that belong inside of the time limit, or outside."""
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
    number = lambda x: isinstance(x, int | float) and not isinstance(x, bool)
    if kind in (int, float):
        return number(value) and (kind is float or isinstance(value, int))
    return value is None or (isinstance(value, list | tuple) and len(value) == 2 and all(map(number, value)))


def _wanted(option: Option) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number"}
    return names.get(option.type, "two numbers, low and high")
