"""Tables of algorithms, environments and networks, and the only place where names become values.

A package plugs in with an entry point whose value is a dict, name -> "module:attribute":

    [project.entry-points."jaxrl.algorithms"]
    mine = "my_package:ALGORITHMS"

Targets are imported when used, so that listing names is quick. A name that two packages declare is
an error.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import warnings
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from jaxrl.errors import Problem, UserError

if TYPE_CHECKING:
    from envs_jax.core import Environment
    from envs_jax.wrappers import Option
    from jaxrl.types import Algorithm

ALGORITHMS = "jaxrl.algorithms"
ENVIRONMENTS = "jaxrl.environments"
NETWORKS = "jaxrl.networks"
SEARCHES = "jaxrl.searches"


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Return the known word most like `word`, ignoring case, or None if none is similar."""
    lowered = {w.lower(): w for w in words}
    found = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return lowered[found[0]] if found else None


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return " Did you mean: NEAREST?", or "" if no word is similar."""
    near = nearest(word, words)
    return f" Did you mean: {near}?" if near else ""


def unknown(kind: str, name: str, names: Iterable[str], where: str) -> Problem:
    """Return the problem of a name that is in no table, with the most similar name.

    where: the command that lists the names.
    """
    return Problem(f'unknown {kind} "{name}".{did_you_mean(name, names)}   ({where})')


def merge(tables: Iterable[tuple[str, Mapping[str, str]]]) -> dict[str, str]:
    """Merge (package, table) pairs into one table.

    Raises UserError if two packages declare the same name.
    """
    merged: dict[str, str] = {}
    owner: dict[str, str] = {}
    for package, table in tables:
        for name, target in table.items():
            if name in merged:
                raise UserError(
                    f'"{name}" is declared by two packages, {owner[name]} and {package}. '
                    "Rename one, or uninstall one")
            merged[name] = target
            owner[name] = package
    return merged


def _tables(group: str) -> Iterable[tuple[str, Mapping[str, str]]]:
    """Yield (package, table) of every entry point of a group; warn of those without a table."""
    seen: set[str] = set()
    for entry in metadata.entry_points(group=group):
        if entry.value in seen:      # one package twice on the path, as in an editable install
            continue
        seen.add(entry.value)
        try:
            table = entry.load()
        except (ImportError, AttributeError) as error:
            warnings.warn(
                f"{group}: {entry.value} cannot be loaded and is left out ({error})", stacklevel=2)
            continue
        if _is_table(table):
            yield entry.value.partition(":")[0], table
        else:
            warnings.warn(
                f'{group}: {entry.value} is left out: not a dict, name -> "module:attribute"',
                stacklevel=2)


def _is_table(table: Any) -> bool:
    if not isinstance(table, Mapping):
        return False
    return all(isinstance(text, str) for pair in table.items() for text in pair)


@functools.cache
def _table(group: str) -> dict[str, str]:
    return merge(_tables(group))


def algorithms() -> dict[str, str]:
    """Return name -> "module:attribute" of every installed algorithm."""
    return _table(ALGORITHMS)


def environments() -> dict[str, str]:
    """Return name -> "module:attribute" of every installed environment."""
    return _table(ENVIRONMENTS)


def networks() -> dict[str, str]:
    """Return name -> "module:attribute" of every installed torso (blocks/networks/modules.py)."""
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
    """Return the error of a target that cannot be imported: a mistake of its package."""
    return UserError(f'"{name}" is declared as {target}, which cannot be loaded: {error}')


def algorithm(name: str) -> Algorithm:
    """Return the `Algorithm` called `name`. Raises UserError if there is none."""
    table = algorithms()
    if name not in table:
        raise UserError([unknown("algo", name, table, "jaxrl list algos")])
    return _load(name, table[name])


def network(name: str) -> Any:
    """Return the torso called `name`, a flax module class. Raises UserError if there is none."""
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
    """Import the entry of `name`: an Environment class or a function that makes an Environment.

    Raises UserError if there is none, or if its package is not installed.
    """
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


def environment(
    name: str,
    params: Mapping[str, Any] | None = None,
    time_limit: int | str | None = "default",
    wrappers: Mapping[str, Any] | None = None,
    randomize: Mapping[str, Any] | None = None,
) -> tuple[Environment, Any]:
    """Return (env, params) with the environment in its wrappers.

    time_limit: steps, None for no limit, "default" for the environment's usual limit. The other
    arguments are those of `envs_jax.build`.
    """
    import envs_jax

    return envs_jax.build(environment_class(name), time_limit=time_limit, wrappers=wrappers,
                          randomize=randomize, **(params or {}))


def wrappers() -> Mapping[str, Option]:
    """Return name -> Option of the wrappers that `env.wrappers.*` names, in application order."""
    from envs_jax.wrappers import WRAPPERS

    return WRAPPERS


def environment_numbers(name: str) -> dict[str, int | float]:
    """Return the numbers among `default_params`, with their defaults.

    These are the parameters that `env.randomize.*` and `env.curriculum.*` may change while a
    program runs.
    """
    from envs_jax import parameters

    return parameters.numbers(environment(name)[1])


def environment_options(name: str) -> dict[str, Any]:
    """Return the parameters that `env.params.*` may set, with their defaults.

    The fields of `default_params` come first, then the arguments of the constructor.
    """
    from envs_jax import parameters

    make = environment_class(name)
    try:
        _, params = environment(name)
    except ValueError as error:
        raise UserError(f"{name} cannot be made: {error}") from error
    options = parameters.fields(params)
    for argument in inspect.signature(make).parameters.values():
        if argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY):
            required = argument.default is argument.empty
            options.setdefault(argument.name, None if required else argument.default)
    return options
