"""Environments as pure functions: spaces, environments, wrappers, vectorization with auto-reset.

    env, params = envs_jax.make("cartpole", length=1.0)
    obs, state = env.reset(key, params)
    obs, state, reward, terminated, truncated, info = env.step(key, state, action, params)

Importing this package imports neither JAX nor an environment.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from envs_jax import parameters, suites

if TYPE_CHECKING:
    from envs_jax.bridges.gymnasium import to_gymnasium, to_gymnasium_vector
    from envs_jax.bridges.gymnax import to_gymnax
    from envs_jax.core import Environment, EnvSpec, Input, TimeStep, spec

__all__ = [
    "ENVIRONMENTS", "EnvSpec", "Environment", "Input", "TimeStep", "build", "load", "make", "spec",
    "to_gymnasium", "to_gymnasium_vector", "to_gymnax"]

_HOMES = {       # name -> the module that defines it, imported when the name is first used
    "EnvSpec": "core",
    "Environment": "core",
    "Input": "core",
    "TimeStep": "core",
    "spec": "core",
    "to_gymnasium": "bridges.gymnasium",
    "to_gymnasium_vector": "bridges.gymnasium",
    "to_gymnax": "bridges.gymnax",
}

ENVIRONMENTS = {
    "cartpole": "envs_jax.classic.cartpole:CartPole",
    "pendulum": "envs_jax.classic.pendulum:Pendulum",
    "acrobot": "envs_jax.classic.acrobot:Acrobot",
    "mountaincar": "envs_jax.classic.mountaincar:MountainCar",
    "mountaincar-continuous": "envs_jax.classic.mountaincar:MountainCarContinuous",
    "cartpole-candidates": "envs_jax.classic.candidates:CandidateCartPole",
    "repeat-previous": "envs_jax.memory.repeat:RepeatPrevious",
    "tmaze": "envs_jax.memory.tmaze:TMaze",
    "memory-chain": "envs_jax.memory.chain:MemoryChain",
    "random-mdp": "envs_jax.exact.random_mdp:RandomMDP",
    "frozenlake": "envs_jax.exact.frozenlake:FrozenLake",
    "cliffwalk": "envs_jax.exact.cliffwalk:CliffWalk",
    "deepsea": "envs_jax.exact.deepsea:DeepSea",
    "lqr": "envs_jax.exact.lqr:LQR",
    "probe-constant": "envs_jax.probe.values:ConstantReward",
    "probe-observation": "envs_jax.probe.values:ObservationReward",
    "probe-discount": "envs_jax.probe.values:DelayedReward",
    "probe-truncation": "envs_jax.probe.values:EndlessReward",
    "probe-action": "envs_jax.probe.actions:ActionReward",
    "probe-both": "envs_jax.probe.actions:ObservationActionReward",
    "probe-multidiscrete": "envs_jax.probe.actions:MultiDiscreteReward",
    "masked-bandit": "envs_jax.probe.bandit:MaskedBandit",
    "two-step": "envs_jax.probe.two_step:TwoStepGame",
    **suites.TABLE,
}


def make(name: str, **settings: Any) -> tuple[Environment, Any]:
    """Return (environment, params) for a name in ENVIRONMENTS, with the usual wrappers.

        make("cartpole", length=1.0, time_limit=200, wrappers={"frame_stack": 4},
             randomize={"masspole": (0.05, 0.2)})

    `settings` are those of `build`. Raises ValueError if the name is unknown.
    """
    if name not in ENVIRONMENTS:
        raise ValueError(f"unknown environment {name!r}{_nearest(name, ENVIRONMENTS)}")
    return build(load(name, ENVIRONMENTS[name]), **settings)


def load(name: str, target: str) -> Callable[..., Environment]:
    """Return the class or function that makes the environment `name`.

    target: "module:attribute", the value of `name` in a table of environments. All names
    `family/id` of a family have the same target, which receives the id as its first argument. If
    the target has a method `signature(id)`, its result describes the other arguments.
    """
    suites.require(name)
    module, _, attribute = target.partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    _, slash, member = name.partition("/")
    if not slash:
        return kind
    make_member = functools.partial(kind, member)
    if hasattr(kind, "signature"):
        make_member.__signature__ = kind.signature(member)
    return make_member


def build(
    kind: Callable[..., Environment], /, *, time_limit: int | Literal["default"] | None = "default",
    wrappers: Mapping[str, Any] | None = None,
    randomize: Mapping[str, tuple[float, float]] | None = None, **settings: Any,
) -> tuple[Environment, Any]:
    """Return (environment, params): `kind(...)` in wrappers, in the order of envs_jax/wrappers.

    time_limit: in steps of the environment; "default" is the limit that the class declares, None
    means no limit.
    wrappers: name in envs_jax.wrappers.WRAPPERS -> value.
    randomize: parameter -> (low, high), drawn at every reset.
    settings: arguments of `kind`, or fields of `default_params`.
    Raises ValueError if a name is unknown or a value does not fit.
    """
    from envs_jax.spaces import Box
    from envs_jax.wrappers import (
        WRAPPERS,
        ClipAction,
        DefaultParams,
        EpisodeStatistics,
        Randomize,
        TimeLimit,
        wrap,
    )

    wrappers = wrappers or {}
    for name in wrappers:
        if name not in WRAPPERS:
            raise ValueError(f"unknown wrapper {name!r}{_nearest(name, WRAPPERS)}")

    env, params = _configured(kind, settings)
    if env.action_space(params) != env.action_space(env.default_params):
        env = DefaultParams(env, params)
    if time_limit == "default":
        time_limit = env.time_limit
    if randomize:
        env = Randomize(env, randomize)
    if isinstance(env.action_space(params), Box):
        env = ClipAction(env)
    env = wrap(env, wrappers, inside=True)
    if time_limit is not None:
        env = TimeLimit(env, time_limit)
    return wrap(EpisodeStatistics(env), wrappers, inside=False), params


def _configured(
    kind: Callable[..., Environment], settings: Mapping[str, Any],
) -> tuple[Environment, Any]:
    """Return (environment, params).

    A setting is an argument of the constructor if there is one of this name, else a parameter.
    """
    arguments = inspect.signature(kind).parameters
    env = kind(**{key: value for key, value in settings.items() if key in arguments})
    params = env.default_params
    fields = parameters.fields(params)
    for key, value in settings.items():
        if key in arguments:
            continue
        if key not in fields:
            known = (*arguments, *fields)
            raise ValueError(f"{env.name} has no setting {key!r}{_nearest(key, known)}")
        if isinstance(fields[key], float) and isinstance(value, int):
            value = float(value)                       # a whole number would be traced as an int
        params = parameters.replace(params, **{key: value})
    return env, params


def _nearest(word: str, known: Iterable[str]) -> str:
    """Return the end of an error message: the nearest known word, and all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    suggestion = f"; did you mean {near[0]!r}?" if near else ";"
    return f"{suggestion} Known: {', '.join(names) or 'none'}"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"envs_jax.{_HOMES[name]}"), name)
