"""A nested dict of plain values becomes a checked `RunConfig`, or an error that names everything wrong with it."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

from jaxrl.config.check import check, short, unknown_key
from jaxrl.config.schedule import SCHEDULE, read_schedule
from jaxrl.config.settings import SETTINGS, TIME_LIMIT, EnvConfig, RunConfig, Settings
from jaxrl.declare import Declaration, declarations
from jaxrl.errors import Problem, UserError
from jaxrl.registry import (
    algorithm,
    algorithms,
    environment,
    environment_numbers,
    environment_options,
    environments,
    nearest,
    unknown,
    wrappers,
)

PREFERRED = ("sac", "td3", "ddpg", "dqn", "ppo", "a2c", "pg")      # which algorithms an error text names, best first

PARAMS, WRAPPERS, RANDOMIZE, CURRICULUM = PARTS = ("env.params.", "env.wrappers.", "env.randomize.", "env.curriculum.")


def read(plain: Mapping[str, Any], problems: Iterable[Problem] = (),
         texts: Mapping[str, str | None] | None = None) -> RunConfig:
    """Raises UserError with `problems` and all that is found. `texts`: key -> what the user typed, for the messages."""
    problems, texts = list(problems), texts or {}
    flat = flatten({key: value for key, value in plain.items() if key != "schedule"})
    algo = _name(flat, "algo", algorithms(), problems)
    env = _name(flat, "env", environments(), problems)
    known = {**declared(algo), **(declared_of_env(env) if env else {})}
    good: dict[str, Any] = {}
    for key, value in flat.items():
        problem = None
        if key == "env.time_limit" and value == TIME_LIMIT.default:
            good[key] = value
        elif key in known:
            good[key], problem = check(known[key], key, value, texts.get(key))
        elif not key.startswith(tuple(f"{head}." for head, name in (("algo", algo), ("env", env)) if name is None)):
            problem = _unknown(key, known, algo, env)
        problems += [problem] if problem else []
    problems += _conflicts(good)
    schedule, bad = read_schedule(plain.get("schedule"), known, texts) if algo else (None, [])
    problems += bad
    if problems:
        raise UserError(problems + (_misfits(algo, env) if algo and env else []))
    return dataclasses.replace(_build(algo, env, good), schedule=schedule)


def declared(algo: str | None) -> dict[str, Declaration]:
    """Key -> declaration of every setting there is with `algo`; `env.params.*` are the environment's."""
    own = declarations(algorithm(algo).config) if algo else ()
    return {**{f"algo.{d.name}": d for d in own}, "env.time_limit": TIME_LIMIT, **SETTINGS}


def declared_of_env(env: str) -> dict[str, Declaration]:
    """Key -> declaration of what belongs to the environment: `env.params.*`, its wrappers, what may change in it."""
    options = environment_options(env)
    found = {PARAMS + name: _of_option(name, options) for name in options}
    found |= declared_wrappers()
    for name, default in environment_numbers(env).items():
        pair = tuple[int, int] if isinstance(default, int) else tuple[float, float]
        for head, help in ((RANDOMIZE, "[low,high] to draw from at every reset"),
                           (CURRICULUM, "[first,last] of the training")):
            found[head + name] = Declaration(name, pair | None, None, "static", f"{help}, in place of {short(default)}")
    return found


def declared_wrappers() -> dict[str, Declaration]:
    """Key -> declaration of `env.wrappers.*`, in the order of application. The default means: without it."""
    return {WRAPPERS + name: Declaration(name, kind="static", **{field: getattr(option, field) for field in (
        "type", "default", "help", "low", "high")}) for name, option in wrappers().items()}


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


def _unknown(key: str, known: Mapping[str, Declaration], algo: str | None, env: str | None) -> Problem:
    described = {name: (d.default, d.help) for name, d in known.items()}
    for part in PARTS:
        if f"{key}." == part:
            return Problem(f"{key} holds settings, it is none itself. They are written {part}NAME=value   "
                           f"(jaxrl list {env})")
        if key.startswith(part):
            return _unknown_of_env(key, part, described, env or "")
    if key.startswith("algo."):
        return unknown_key(key, {k: v for k, v in described.items() if k.startswith("algo.")}, algo or "",
                           f"   (jaxrl list {algo})")
    return unknown_key(key, described | {"algo": (None, "the algorithm"), "env": (None, "the environment"),
                                          "schedule": (None, SCHEDULE.help)},
                       where="   (jaxrl train --help)")


def _unknown_of_env(key: str, part: str, described: Mapping[str, tuple[Any, str]], env: str) -> Problem:
    same = {name: about for name, about in described.items() if name.startswith(part)}
    names, name = [name.removeprefix(part) for name in same], key.removeprefix(part)
    if part in (RANDOMIZE, CURRICULUM) and PARAMS + name in described:
        return Problem(f"{key}: {name} is not a number that may change while the program of {env} runs. These are: "
                       f"{', '.join(names) or 'none'}")
    where = f" There are: {', '.join(names)}   (jaxrl list wrappers)" if part == WRAPPERS else (
        f" It has: {', '.join(names) or 'no parameters'}")
    return unknown_key(key, same if nearest(name, names) else {}, env, where)


def _conflicts(good: Mapping[str, Any]) -> list[Problem]:
    """What cannot be true of one parameter at once, and ranges the wrong way round."""
    problems = []
    if good.get("address") is not None and not good.get("workers"):
        problems.append(Problem(f"address={good['address']} needs workers.", "Say how many: workers=8"))
    for key, value in good.items():
        name = key.rpartition(".")[2]
        if value is None:
            continue
        if key.startswith(RANDOMIZE) and good.get(CURRICULUM + name) is not None:
            problems.append(Problem(f"{key} and {CURRICULUM}{name} exclude each other: {name} is drawn at every reset, "
                                    "or follows the training. Leave one of them out"))
        if key.startswith((RANDOMIZE, CURRICULUM)) and PARAMS + name in good:
            problems.append(Problem(f"{PARAMS}{name}={short(good[PARAMS + name])} has no effect beside {key}. "
                                    "Leave one of them out"))
        if (key.startswith(RANDOMIZE) or key == f"{WRAPPERS}clip_reward") and value[0] > value[1]:
            problems.append(Problem(f"{key}={short(value)} is the wrong way round: [low,high]"))
    return problems


def _build(algo: str, env: str, good: Mapping[str, Any]) -> RunConfig:
    """The config of checked values; what does not fit together is reported."""
    params, asked, randomize, curriculum = ({key[len(part):]: value for key, value in good.items()
                                             if key.startswith(part)} for part in PARTS)
    asked = {name: value for name, value in asked.items() if value != wrappers()[name].default}
    randomize, curriculum = ({name: pair for name, pair in pairs.items() if pair is not None}
                             for pairs in (randomize, curriculum))
    limit = good.get("env.time_limit", TIME_LIMIT.default)
    try:
        made, values = environment(env, params, limit, asked, randomize)
    except (TypeError, ValueError) as error:
        shown = " ".join(f"{key}={short(value)}" for key, value in good.items() if key.startswith(PARTS))
        raise UserError(f"{env} cannot be made with {shown or f'env.time_limit={limit}'}: {error}") from error
    agent = _instance(algorithm(algo).config(), {key[len("algo."):]: value for key, value in good.items()
                                                 if key.startswith("algo.")})
    settings = Settings(**{key: value for key, value in good.items() if key in SETTINGS})
    problems = (_problems(algo, env, agent, (made, values)) + _unsteady(env, made, values, curriculum)
                + _never(agent, settings))
    if problems:
        raise UserError(problems)
    limit = made.time_limit if limit == TIME_LIMIT.default else limit
    return RunConfig(settings, algo, agent, EnvConfig(env, limit, params, asked, randomize, curriculum))


def _never(agent: Any, settings: Settings) -> list[Problem]:
    """A warm-up that the run does not come to the end of: both are rounded up to whole updates."""
    warmup, total = getattr(agent, "warmup", 0), settings.total_steps
    per = getattr(agent, "num_envs", 1) * getattr(agent, "rollout_length", 1)
    if -(-warmup // per) < -(-total // per):
        return []
    whole = f" in whole updates of {per:,} steps" if warmup < total else ""
    return [Problem(f"algo.warmup={warmup:,} is not less than total_steps={total:,}{whole}: nothing would be learned.",
                    f"Try: total_steps={10 * max(warmup, per)}, or a shorter algo.warmup")]


def _unsteady(env: str, made: Any, params: Any, curriculum: Mapping[str, tuple[Any, Any]]) -> list[Problem]:
    """Of a curriculum, the parameters on which the actions depend: those of a policy are the same from start to end."""
    if not curriculum:
        return []
    from envs_jax.wrappers import cover  # and with it JAX

    space = made.unwrapped.action_space
    return [Problem(f"{CURRICULUM}{name} changes the actions of {env}, which stay the same while it is trained")
            for name, ends in curriculum.items() if cover(space, params, {name: ends}) != cover(space, params, {
                name: (ends[0], ends[0])})]


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
    """What the algorithm says of its config and the environment. {algo} and {env} in a text become the names, {others}
    those of algorithms that have nothing against this environment."""
    from envs_jax.core import spec  # and with it JAX, which a list of settings does without

    seen = spec(*made)
    texts = agent.problems(seen) if hasattr(agent, "problems") else []
    others = _fitting(algo, seen) if any("{others}" in text for text in texts) else ""
    return [Problem(text.replace("{algo}", algo).replace("{env}", env).replace("{others}", others)) for text in texts]


def _fitting(algo: str, spec: Any) -> str:
    """Names of installed algorithms beside `algo` whose defaults fit an environment."""
    def fits(name: str) -> bool:
        config = algorithm(name).config()
        return name != algo and not (hasattr(config, "problems") and config.problems(spec))

    known = algorithms()
    names = [name for name in PREFERRED if name in known and fits(name)][:4]
    return ", ".join(names) or next((name for name in known if fits(name)), "another algorithm")


def _misfits(algo: str, env: str) -> list[Problem]:
    """What is wrong with this algorithm in this environment whatever the settings: said beside other mistakes."""
    return _problems(algo, env, algorithm(algo).config(), environment(env))
