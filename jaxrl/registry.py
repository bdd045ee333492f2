"""Names become values here, and only here: algorithms and environments by the tables that packages declare.

A package plugs in with an entry point whose value is a dict, name -> "module:attribute":

    [project.entry-points."jaxrl.algorithms"]
    mine = "my_package:ALGORITHMS"

Targets are imported when used, so that listing names is quick. A name in two packages is an error.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import warnings
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

from jaxrl.errors import Problem, UserError

ALGORITHMS, ENVIRONMENTS = "jaxrl.algorithms", "jaxrl.environments"


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The known word most like `word`, compared in lower case; None if none is alike."""
    lowered = {w.lower(): w for w in words}
    found = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return lowered[found[0]] if found else None


def unknown(kind: str, name: str, names: Iterable[str], where: str) -> Problem:
    """The text for a name that is in no table: what, the nearest, where to look."""
    near = nearest(name, names)
    return Problem(f'unknown {kind} "{name}".' + (f" Did you mean: {near}?" if near else "") + f"   ({where})")


def merge(tables: Iterable[tuple[str, Mapping[str, str]]]) -> dict[str, str]:
    """One table of several (package, table) pairs; a name in two packages is an error that names both."""
    merged, owner = {}, {}
    for package, table in tables:
        for name, target in table.items():
            if name in merged:
                raise UserError(f'"{name}" is declared by two packages, {owner[name]} and {package}. '
                                f"Rename one, or uninstall one")
            merged[name], owner[name] = target, package
    return merged


def _tables(group: str) -> Iterable[tuple[str, Mapping[str, str]]]:
    seen = set()
    for entry in metadata.entry_points(group=group):
        if entry.value in seen:      # the same package found twice on the path (an editable install, say)
            continue
        seen.add(entry.value)
        try:
            yield entry.value.partition(":")[0], entry.load()
        except (ImportError, AttributeError) as error:
            warnings.warn(f"{group}: {entry.value} cannot be loaded and is left out ({error})", stacklevel=2)


@functools.cache
def _table(group: str) -> dict[str, str]:
    return merge(_tables(group))


def algorithms() -> dict[str, str]:
    """Name -> "module:attribute" of every algorithm installed."""
    return _table(ALGORITHMS)


def environments() -> dict[str, str]:
    """Name -> "module:attribute" of every environment installed."""
    return _table(ENVIRONMENTS)


def _load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def algorithm(name: str) -> Any:
    """The `Algorithm` called `name`."""
    table = algorithms()
    if name not in table:
        raise UserError([unknown("algo", name, table, "jaxrl list algos")])
    return _load(table[name])


def environment_class(name: str) -> Any:
    """What the table holds for `name`, imported: an Environment class or a function that makes one."""
    table = environments()
    if name not in table:
        raise UserError([unknown("env", name, table, "jaxrl list envs")])
    return _load(table[name])


def environment(name: str, params: Mapping[str, Any] | None = None, time_limit: int | str | None = "default") -> Any:
    """-> (env, params), in the usual wrappers. `time_limit`: steps, None for none, "default" for the usual one."""
    import envs_jax

    return envs_jax.build(environment_class(name), time_limit=time_limit, **(params or {}))


def environment_options(name: str) -> dict[str, Any]:
    """What `env.params.*` may set, with defaults: fields of `default_params` first, then constructor arguments."""
    make = environment_class(name)
    _, params = environment(name)
    options = dict(fields(params))
    for argument in inspect.signature(make).parameters.values():
        if argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY):
            options.setdefault(argument.name, None if argument.default is argument.empty else argument.default)
    return options


def fields(params: Any) -> Mapping[str, Any]:
    """Name -> value of an environment's params: a NamedTuple, a dataclass, a dict, or () for none."""
    if hasattr(params, "_asdict"):
        return params._asdict()
    if hasattr(params, "__dataclass_fields__"):
        return {field: getattr(params, field) for field in params.__dataclass_fields__}
    return params if isinstance(params, Mapping) else {}
