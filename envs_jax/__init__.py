"""Environments as pure functions: spaces, environments, wrappers, and a vectoriser with auto-reset.

    env, params = envs_jax.make("cartpole", length=1.0)
    obs, state = env.reset(key, params)
    obs, state, reward, terminated, truncated, info = env.step(key, state, action, params)

Importing this package imports neither JAX nor an environment.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from envs_jax.core import Environment, EnvSpec, Input, TimeStep, spec

__all__ = ["ENVIRONMENTS", "EnvSpec", "Environment", "Input", "TimeStep", "build", "make", "spec"]

ENVIRONMENTS = {
    "cartpole": "envs_jax.classic.cartpole:CartPole",
    "pendulum": "envs_jax.classic.pendulum:Pendulum",
    "repeat-previous": "envs_jax.memory.repeat:RepeatPrevious",
    "probe-constant": "envs_jax.probe.values:ConstantReward",
    "probe-observation": "envs_jax.probe.values:ObservationReward",
    "probe-discount": "envs_jax.probe.values:DelayedReward",
    "probe-truncation": "envs_jax.probe.values:EndlessReward",
    "probe-action": "envs_jax.probe.actions:ActionReward",
    "probe-both": "envs_jax.probe.actions:ObservationActionReward",
    "probe-multidiscrete": "envs_jax.probe.actions:MultiDiscreteReward",
    "masked-bandit": "envs_jax.probe.bandit:MaskedBandit",
    "two-step": "envs_jax.probe.two_step:TwoStepGame",
}


def make(name: str, *, time_limit: int | Literal["default"] | None = "default", **settings: Any):
    """The environment of that name in ENVIRONMENTS, in its usual wrappers: see `build`. -> (environment, params)"""
    if name not in ENVIRONMENTS:
        raise ValueError(f"unknown environment {name!r}{_nearest(name, ENVIRONMENTS)}")
    module, attribute = ENVIRONMENTS[name].split(":")
    return build(getattr(importlib.import_module(module), attribute), time_limit=time_limit, **settings)


def build(kind: type[Environment], /, *, time_limit: int | Literal["default"] | None = "default", **settings: Any):
    """An environment of class `kind` inside ClipAction (a Box of actions), TimeLimit (unless None), EpisodeStatistics.

    time_limit: in steps; "default" is the limit that the class declares. Each further setting is an argument of the
    constructor or a field of `default_params`. -> (environment, params)
    """
    from envs_jax.spaces import Box
    from envs_jax.wrappers import ClipAction, EpisodeStatistics, TimeLimit

    arguments = inspect.signature(kind).parameters
    env = kind(**{key: value for key, value in settings.items() if key in arguments})
    params, fields = env.default_params, getattr(env.default_params, "_fields", ())
    for key in (key for key in settings if key not in arguments):
        if key not in fields:
            raise ValueError(f"{env.name} has no setting {key!r}{_nearest(key, (*arguments, *fields))}")
        of_float = isinstance(getattr(params, key), float) and isinstance(settings[key], int)
        params = params._replace(**{key: float(settings[key]) if of_float else settings[key]})   # or 1 retraces 1.0

    limit = env.time_limit if time_limit == "default" else time_limit
    if isinstance(env.action_space(params), Box):
        env = ClipAction(env)
    if limit is not None:
        env = TimeLimit(env, limit)
    return EpisodeStatistics(env), params


def _nearest(word: str, known: Any) -> str:
    """The part of an error message that helps: the nearest known word, and all of them."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return (f"; did you mean {near[0]!r}?" if near else ";") + f" Known: {', '.join(sorted(known)) or 'none'}"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("envs_jax.core"), name)
