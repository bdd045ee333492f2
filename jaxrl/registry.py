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

ALGORITHMS, ENVIRONMENTS, NETWORKS = "jaxrl.algorithms", "jaxrl.environments", "jaxrl.networks"
SEARCHES = "jaxrl.searches"


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
            table = entry.load()
        except (ImportError, AttributeError) as error:
            warnings.warn(f"{group}: {entry.value} cannot be loaded and is left out ({error})", stacklevel=2)
            continue
        if isinstance(table, Mapping) and all(isinstance(text, str) for pair in table.items() for text in pair):
            yield entry.value.partition(":")[0], table
        else:
            warnings.warn(f'{group}: {entry.value} is no dict, name -> "module:attribute": left out', stacklevel=2)


@functools.cache
def _table(group: str) -> dict[str, str]:
    return merge(_tables(group))


def algorithms() -> dict[str, str]:
    """Name -> "module:attribute" of every algorithm installed."""
    return _table(ALGORITHMS)


def environments() -> dict[str, str]:
    """Name -> "module:attribute" of every environment installed."""
    return _table(ENVIRONMENTS)


def networks() -> dict[str, str]:
    """Name -> "module:attribute" of every torso installed: see jaxrl/blocks/networks/modules.py."""
    return _table(NETWORKS)


def searches() -> dict[str, str]:
    """Return name -> "module:attribute" of every search installed (jaxrl/population/trials.py)."""
    return _table(SEARCHES)


def _load(name: str, target: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise _unloadable(name, target, error) from error


def _unloadable(name: str, target: str, error: Exception) -> UserError:
    """A target that cannot be imported is a mistake of the package that declares it."""
    return UserError(f'"{name}" is declared as {target}, which cannot be loaded: {error}')


def algorithm(name: str) -> Any:
    """The `Algorithm` called `name`."""
    table = algorithms()
    if name not in table:
        raise UserError([unknown("algo", name, table, "jaxrl list algos")])
    return _load(name, table[name])


def network(name: str) -> Any:
    """The torso called `name`: a flax module class."""
    table = networks()
    if name not in table:
        raise UserError([unknown("network", name, table, "jaxrl list networks")])
    return _load(name, table[name])


def search(name: str) -> Any:
    """Return the class of the search called `name`."""
    table = searches()
    if name not in table:
        raise UserError([unknown("search", name, table, "jaxrl sweep --help")])
    return _load(name, table[name])


def environment_class(name: str) -> Any:
    """What the table holds for `name`, imported: an Environment class or a function that makes one."""
    table = environments()
    if name not in table:
        raise UserError([unknown("env", name, table, "jaxrl list envs")])
    import envs_jax
    from envs_jax.suites import MissingPackage

    try:
        return envs_jax.load(name, table[name])
    except MissingPackage as error:
        raise UserError(str(error)) from None
    except (ImportError, AttributeError) as error:
        raise _unloadable(name, table[name], error) from error


def environment(name: str, params: Mapping[str, Any] | None = None, time_limit: int | str | None = "default",
                wrappers: Mapping[str, Any] | None = None, randomize: Mapping[str, Any] | None = None) -> Any:
    """-> (env, params), in wrappers. `time_limit`: steps, None for none, "default" for the usual one; the rest: see
    `envs_jax.build`."""
    import envs_jax

    return envs_jax.build(environment_class(name), time_limit=time_limit, wrappers=wrappers, randomize=randomize,
                          **(params or {}))


def wrappers() -> Mapping[str, Any]:
    """Name -> `envs_jax.wrappers.Option` of what `env.wrappers.*` may ask for, in the order of application."""
    from envs_jax.wrappers import WRAPPERS

    return WRAPPERS


def environment_numbers(name: str) -> dict[str, int | float]:
    """What `env.randomize.*` and `env.curriculum.*` may change while a program runs, with defaults: the numbers among
    `default_params`."""
    from envs_jax import parameters

    return parameters.numbers(environment(name)[1])


def environment_options(name: str) -> dict[str, Any]:
    """What `env.params.*` may set, with defaults: fields of `default_params` first, then constructor arguments."""
    from envs_jax import parameters

    make = environment_class(name)
    try:
        _, params = environment(name)
    except ValueError as error:
        raise UserError(f"{name} cannot be made: {error}") from error
    options = parameters.fields(params)
    for argument in inspect.signature(make).parameters.values():
        if argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY):
            options.setdefault(argument.name, None if argument.default is argument.empty else argument.default)
    return options
