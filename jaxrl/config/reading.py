"""A nested dict of plain values becomes a checked `RunConfig`, or an error that names everything wrong with it."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

from jaxrl.config.check import check, unknown_key
from jaxrl.config.settings import SETTINGS, TIME_LIMIT, EnvConfig, RunConfig, Settings
from jaxrl.declare import Declaration, declarations
from jaxrl.errors import Problem, UserError
from jaxrl.registry import algorithm, algorithms, environment, environment_options, environments, unknown

PARAMS = "env.params."


def read(plain: Mapping[str, Any], problems: Iterable[Problem] = (),
         texts: Mapping[str, str | None] | None = None) -> RunConfig:
    """Raises UserError with `problems` and all that is found. `texts`: key -> what the user typed, for the messages."""
    problems, texts, flat = list(problems), texts or {}, flatten(plain)
    algo = _name(flat, "algo", algorithms(), problems)
    env = _name(flat, "env", environments(), problems)
    known = declared(algo)
    options = environment_options(env) if env else {}
    good: dict[str, Any] = {}
    for key, value in flat.items():
        problem = None
        if key == "env.time_limit" and value == TIME_LIMIT.default:
            good[key] = value
        elif key in known:
            good[key], problem = check(known[key], key, value, texts.get(key))
        elif key.startswith(PARAMS) and key[len(PARAMS):] in options:
            good[key], problem = check(_of_option(key[len(PARAMS):], options), key, value, texts.get(key))
        elif not key.startswith(tuple(f"{head}." for head, name in (("algo", algo), ("env", env)) if name is None)):
            problem = _unknown(key, known, options, algo, env)
        problems += [problem] if problem else []
    if problems:
        raise UserError(problems + (_misfits(algo, env) if algo and env else []))
    return _build(algo, env, good)


def declared(algo: str | None) -> dict[str, Declaration]:
    """Key -> declaration of every setting there is with `algo`; `env.params.*` are the environment's."""
    own = declarations(algorithm(algo).config) if algo else ()
    return {**{f"algo.{d.name}": d for d in own}, "env.time_limit": TIME_LIMIT, **SETTINGS}


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value; an empty dict has no keys."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _name(flat: dict[str, Any], key: str, table: Mapping[str, str], problems: list[Problem]) -> str | None:
    """Takes `key` (or `key.name`) out of `flat`; the name if it is in `table`."""
    name = flat.pop(f"{key}.name", None) or flat.pop(key, None)
    if name is None:
        problems.append(Problem(f"{key}= is missing. There are: {', '.join(list(table)[:8])}   (jaxrl list {key}s)"))
    elif not isinstance(name, str) or name not in table:
        problems.append(unknown(key, str(name), table, f"jaxrl list {key}s"))
    else:
        return name
    return None


def _of_option(name: str, options: Mapping[str, Any]) -> Declaration:
    """What is known of an environment's parameter: the type of its default."""
    default = options[name]
    if isinstance(default, bool) or not isinstance(default, numbers.Number):
        kind = {bool: bool, str: str, tuple: tuple[Any, ...]}.get(type(default), Any)
    else:
        kind = int if isinstance(default, numbers.Integral) else float
    return Declaration(name, kind, default, "static", "")


def _unknown(key: str, known: Mapping[str, Declaration], options: Mapping[str, Any], algo: str | None,
             env: str | None) -> Problem:
    if key.startswith(PARAMS):
        return unknown_key(key, {PARAMS + name: (default, "") for name, default in options.items()}, env or "",
                           f" It has: {', '.join(options) or 'no parameters'}")
    described = {name: (d.default, d.help) for name, d in known.items()}
    if key.startswith("algo."):
        return unknown_key(key, {k: v for k, v in described.items() if k.startswith("algo.")}, algo or "",
                           f"   (jaxrl list {algo})")
    return unknown_key(key, described | {"algo": (None, "the algorithm"), "env": (None, "the environment")},
                       where="   (jaxrl train --help)")


def _build(algo: str, env: str, good: Mapping[str, Any]) -> RunConfig:
    """The config of checked values; what does not fit together is reported."""
    params = {key[len(PARAMS):]: value for key, value in good.items() if key.startswith(PARAMS)}
    limit = good.get("env.time_limit", TIME_LIMIT.default)
    try:
        made, values = environment(env, params, limit)
    except (TypeError, ValueError) as error:
        shown = " ".join(f"{PARAMS}{key}={value}" for key, value in params.items())
        raise UserError(f"{env} cannot be made with {shown or f'env.time_limit={limit}'}: {error}") from error
    agent = _instance(algorithm(algo).config(), {key[len("algo."):]: value for key, value in good.items()
                                                 if key.startswith("algo.")})
    problems = _problems(algo, env, agent, (made, values))
    if problems:
        raise UserError(problems)
    settings = Settings(**{key: value for key, value in good.items() if key in SETTINGS})
    limit = made.time_limit if limit == TIME_LIMIT.default else limit
    return RunConfig(settings, algo, agent, EnvConfig(env, limit, params))


def _instance(default: Any, values: Mapping[str, Any]) -> Any:
    """`default`, a config dataclass, with the dotted `values` put in."""
    changes: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        head, _, rest = key.partition(".")
        if rest:
            inner.setdefault(head, {})[rest] = value
        else:
            changes[head] = value
    changes |= {head: _instance(getattr(default, head), below) for head, below in inner.items()}
    return dataclasses.replace(default, **changes)


def _problems(algo: str, env: str, agent: Any, made: tuple[Any, Any]) -> list[Problem]:
    """What the algorithm says of its config and the environment. {algo} and {env} in a text become the names."""
    from envs_jax.core import spec  # and with it JAX, which a list of settings does without

    texts = agent.problems(spec(*made)) if hasattr(agent, "problems") else []
    return [Problem(text.replace("{algo}", algo).replace("{env}", env)) for text in texts]


def _misfits(algo: str, env: str) -> list[Problem]:
    """What is wrong with this algorithm in this environment whatever the settings: said beside other mistakes."""
    return _problems(algo, env, algorithm(algo).config(), environment(env))
