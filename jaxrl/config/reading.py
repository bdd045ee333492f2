"""Reading of a nested dict of plain values as a checked `RunConfig`.

An error names everything that is wrong.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from jaxrl.config.check import check, describe, short, unknown_key
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

if TYPE_CHECKING:
    from envs_jax.core import EnvSpec

PREFERRED = ("sac", "td3", "ddpg", "dqn", "ppo", "a2c", "pg")    # for error texts, best first

PARAMS = "env.params."
WRAPPERS = "env.wrappers."
RANDOMIZE = "env.randomize."
CURRICULUM = "env.curriculum."
PARTS = (PARAMS, WRAPPERS, RANDOMIZE, CURRICULUM)


def read(
    plain: Mapping[str, Any],
    problems: Iterable[Problem] = (),
    texts: Mapping[str, str | None] | None = None,
) -> RunConfig:
    """Return the config of nested plain values.

    Raises UserError with `problems` and everything else that is wrong.
    texts: key -> the value as the user typed it, for the messages.
    """
    problems = list(problems)
    texts = texts or {}
    flat = flatten({key: value for key, value in plain.items() if key != "schedule"})
    algo = _name(flat, "algo", algorithms(), problems)
    env = _name(flat, "env", environments(), problems)
    known = declared(algo)
    if env is not None:
        known |= declared_of_env(env)
    good: dict[str, Any] = {}
    for key, value in flat.items():
        problem = None
        if key == "env.time_limit" and value == TIME_LIMIT.default:
            good[key] = value
        elif key in known:
            good[key], problem = check(known[key], key, value, texts.get(key))
        elif not _owner_is_unknown(key, algo, env):
            problem = _unknown(key, known, algo, env)
        if problem:
            problems.append(problem)
    problems += _conflicts(good)
    schedule = None
    if algo is not None:
        schedule, bad = read_schedule(plain.get("schedule"), known, texts)
        problems += bad
    if algo is None or env is None:
        raise UserError(problems)
    if problems:
        raise UserError(problems + _misfits(algo, env))
    return dataclasses.replace(_build(algo, env, good), schedule=schedule)


def _owner_is_unknown(key: str, algo: str | None, env: str | None) -> bool:
    """Tell whether a key belongs to an algorithm or environment whose name is itself wrong."""
    if algo is None and key.startswith("algo."):
        return True
    return env is None and key.startswith("env.")


def declared(algo: str | None) -> dict[str, Declaration]:
    """Return key -> declaration of every setting of a run with `algo`, without `env.*` parts."""
    found = {}
    if algo is not None:
        for declaration in declarations(algorithm(algo).config):
            found[f"algo.{declaration.name}"] = declaration
    return {**found, "env.time_limit": TIME_LIMIT, **SETTINGS}


def declared_of_env(env: str) -> dict[str, Declaration]:
    """Return key -> declaration of the settings of an environment.

    These are `env.params.*`, its wrappers, and the parameters that may be randomized or follow a
    curriculum.
    """
    options = environment_options(env)
    found = {PARAMS + name: _of_option(name, options) for name in options}
    found |= declared_wrappers()
    for name, default in environment_numbers(env).items():
        pair = tuple[int, int] if isinstance(default, int) else tuple[float, float]
        usual = f"instead of {short(default)}"
        for head, help in (
                (RANDOMIZE, f"range [low,high] of a uniform draw at every reset, {usual}"),
                (CURRICULUM, f"values [first,last] over the course of the training, {usual}")):
            found[head + name] = Declaration(name, pair | None, None, "static", help)
    return found


def declared_wrappers() -> dict[str, Declaration]:
    """Return key -> declaration of `env.wrappers.*`, in the order of application.

    The default of each means that the environment is not wrapped.
    """
    return {
        WRAPPERS + name: Declaration(
            name, option.type, option.default, "static", option.help, option.low, option.high)
        for name, option in wrappers().items()}


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> value. An empty dict has no keys."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _name(
    flat: dict[str, Any], key: str, table: Mapping[str, str], problems: list[Problem]
) -> str | None:
    """Take `key` (or `key.name`) out of `flat`. Return the name if it is in `table`."""
    name = flat.pop(f"{key}.name", None) or flat.pop(key, None)
    if name is None:
        some = ", ".join(list(table)[:8])
        problems.append(Problem(f"{key}= is missing. There are: {some}   (jaxrl list {key}s)"))
    elif not isinstance(name, str) or name not in table:
        problems.append(unknown(key, str(name), table, f"jaxrl list {key}s"))
    else:
        return name
    return None


def _of_option(name: str, options: Mapping[str, Any]) -> Declaration:
    """Return the declaration of an environment's parameter: the type is that of its default."""
    default = options[name]
    kind: Any
    if isinstance(default, bool) or not isinstance(default, numbers.Number):
        kind = {bool: bool, str: str, tuple: tuple[Any, ...]}.get(type(default), Any)
    elif isinstance(default, numbers.Integral):
        kind = int
    else:
        kind = float
    return Declaration(name, kind, default, "static", "")


def _unknown(
    key: str, known: Mapping[str, Declaration], algo: str | None, env: str | None
) -> Problem:
    for part in PARTS:
        if f"{key}." == part:
            return Problem(f"{key} is a group of settings, not a setting. "
                           f"They are written {part}NAME=value   (jaxrl list {env})")
        if key.startswith(part):
            return _unknown_of_env(key, part, known, env or "")
    described = describe(known)
    if key.startswith("algo."):
        own = {name: about for name, about in described.items() if name.startswith("algo.")}
        return unknown_key(key, own, algo or "", f"   (jaxrl list {algo})")
    described["algo"] = (None, "the algorithm")
    described["env"] = (None, "the environment")
    described["schedule"] = (None, SCHEDULE.help)
    return unknown_key(key, described, where="   (jaxrl train --help)")


def _unknown_of_env(key: str, part: str, known: Mapping[str, Declaration], env: str) -> Problem:
    same = {name: declaration for name, declaration in known.items() if name.startswith(part)}
    names = [name.removeprefix(part) for name in same]
    name = key.removeprefix(part)
    if part in (RANDOMIZE, CURRICULUM) and PARAMS + name in known:
        return Problem(f"{key}: {name} cannot change while the program of {env} runs. "
                       f"The parameters that can: {', '.join(names) or 'none'}")
    where = f" Its parameters: {', '.join(names) or 'none'}"
    if part == WRAPPERS:
        where = f" There are: {', '.join(names)}   (jaxrl list wrappers)"
    if nearest(name, names) is None:
        same = {}
    return unknown_key(key, describe(same), env, where)


def _conflicts(good: Mapping[str, Any]) -> list[Problem]:
    """Return one message for each pair of incompatible settings and each reversed range."""
    problems = []
    if good.get("address") is not None and not good.get("workers"):
        problems.append(Problem(f"address={good['address']} needs workers.",
                                "Give their number, such as: workers=8"))
    for key, value in good.items():
        name = key.rpartition(".")[2]
        if value is None:
            continue
        if key.startswith(RANDOMIZE) and good.get(CURRICULUM + name) is not None:
            problems.append(Problem(
                f"{key} and {CURRICULUM}{name} exclude each other: {name} is either drawn at "
                "every reset or follows the training. Leave one of them out"))
        if key.startswith((RANDOMIZE, CURRICULUM)) and PARAMS + name in good:
            problems.append(Problem(
                f"{PARAMS}{name}={short(good[PARAMS + name])} has no effect beside {key}. "
                "Leave one of them out"))
        if _is_range(key) and value[0] > value[1]:
            problems.append(Problem(f"{key}={short(value)} is reversed: write [low,high]"))
    return problems


def _is_range(key: str) -> bool:
    return key.startswith(RANDOMIZE) or key == f"{WRAPPERS}clip_reward"


def _below(part: str, good: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the keys that begin with `part`, without that prefix."""
    return {key.removeprefix(part): value for key, value in good.items() if key.startswith(part)}


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _build(algo: str, env: str, good: Mapping[str, Any]) -> RunConfig:
    """Return the config of checked values. Raises UserError if they do not fit together."""
    params = _below(PARAMS, good)
    asked = {name: value for name, value in _below(WRAPPERS, good).items()
             if value != wrappers()[name].default}
    randomize = _without_none(_below(RANDOMIZE, good))
    curriculum = _without_none(_below(CURRICULUM, good))
    limit = good.get("env.time_limit", TIME_LIMIT.default)
    try:
        made, values = environment(env, params, limit, asked, randomize)
    except (TypeError, ValueError) as error:
        parts = [f"{key}={short(value)}" for key, value in good.items() if key.startswith(PARTS)]
        shown = " ".join(parts) or f"env.time_limit={limit}"
        raise UserError(f"{env} cannot be made with {shown}: {error}") from error
    agent = _instance(algorithm(algo).config(), _below("algo.", good))
    settings = Settings(**{key: value for key, value in good.items() if key in SETTINGS})
    problems = _problems(algo, env, agent, (made, values))
    problems += _changed_actions(env, made, values, curriculum)
    problems += _endless_warmup(agent, settings)
    if problems:
        raise UserError(problems)
    if limit == TIME_LIMIT.default:
        limit = made.time_limit
    env_config = EnvConfig(env, limit, params, asked, randomize, curriculum)
    return RunConfig(settings, algo, agent, env_config)


def _endless_warmup(agent: Any, settings: Settings) -> list[Problem]:
    """Report a warm-up that does not end within the run: both are rounded up to whole updates."""
    from envs_jax.sizes import ceil_div  # here, so that `import jaxrl` imports no environment

    warmup = getattr(agent, "warmup", 0)
    total = settings.total_steps
    per_update = getattr(agent, "num_envs", 1) * getattr(agent, "rollout_length", 1)
    if ceil_div(warmup, per_update) < ceil_div(total, per_update):
        return []
    whole = f" in whole updates of {per_update:,} steps" if warmup < total else ""
    return [Problem(
        f"algo.warmup={warmup:,} is not less than total_steps={total:,}{whole}: "
        "nothing would be learned.",
        f"Try: total_steps={10 * max(warmup, per_update)}, or a shorter algo.warmup")]


def _changed_actions(
    env: str, made: Any, params: Any, curriculum: Mapping[str, tuple[Any, Any]]
) -> list[Problem]:
    """Report the parameters of a curriculum on which the actions depend.

    The actions of a policy must stay the same during training.
    """
    if not curriculum:
        return []
    from envs_jax.wrappers import cover  # imports JAX

    space = made.unwrapped.action_space
    problems = []
    for name, (first, last) in curriculum.items():
        constant = cover(space, params, {name: (first, first)})
        if cover(space, params, {name: (first, last)}) != constant:
            problems.append(Problem(f"{CURRICULUM}{name} changes the actions of {env}, "
                                    "which must stay the same during training"))
    return problems


def _instance(default: Any, values: Mapping[str, Any]) -> Any:
    """Return a copy of `default`, a config dataclass, with the dotted `values` put in."""
    changes: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        head, _, rest = key.partition(".")
        if rest:
            inner.setdefault(head, {})[rest] = value
        else:
            changes[head] = value
    for head, below in inner.items():
        changes[head] = _instance(getattr(default, head), below)
    return dataclasses.replace(default, **changes)


def _problems(algo: str, env: str, agent: Any, made: tuple[Any, Any]) -> list[Problem]:
    """Return what the algorithm reports about its config and the environment.

    In its texts, {algo} and {env} become the names, and {others} the names of algorithms that fit
    this environment.
    """
    from envs_jax.core import spec  # imports JAX, which a list of settings does not need

    facts = spec(*made)
    texts = agent.problems(facts) if hasattr(agent, "problems") else []
    others = ""
    if any("{others}" in text for text in texts):
        others = _fitting(algo, facts)
    problems = []
    for text in texts:
        text = text.replace("{algo}", algo).replace("{env}", env).replace("{others}", others)
        problems.append(Problem(text))
    return problems


def _fitting(algo: str, spec: EnvSpec) -> str:
    """Return names of installed algorithms beside `algo` whose defaults fit an environment."""
    def fits(name: str) -> bool:
        config = algorithm(name).config()
        return name != algo and not (hasattr(config, "problems") and config.problems(spec))

    known = algorithms()
    names = [name for name in PREFERRED if name in known and fits(name)][:4]
    if names:
        return ", ".join(names)
    return next(filter(fits, known), "another algorithm")


def _misfits(algo: str, env: str) -> list[Problem]:
    """Report what does not fit between algorithm and environment whatever the settings."""
    return _problems(algo, env, algorithm(algo).config(), environment(env))
