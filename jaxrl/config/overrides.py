"""`key=value` words of a command line, by the grammar of Hydra overrides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from jaxrl.errors import Problem

TEXT_KEYS = {       # taken as they stand
    "algo", "env", "preset", "config", "out", "init_from", "device", "address", "schedule"}


class Item(NamedTuple):
    """One override. `text` is the value as typed, None when it came from Python."""

    key: str
    value: Any
    text: str | None = None


class Several(NamedTuple):
    """An override that names several values: `choices`, or the `ends` of a range. `log`: tag(log, ...) was typed."""

    key: str
    choices: tuple | None
    ends: tuple[Any, Any] | None
    log: bool
    text: str | None = None


def parse(words: Iterable[str]) -> tuple[list[Item], list[Problem]]:
    """-> (what could be read, what could not). A later word wins over an earlier one of the same key."""
    items, several, problems = parse_sweep(words)
    return items, problems + [
        Problem(f"{one.key}={one.text} names several values, this command takes one. "
                f"To try each: jaxrl sweep (a list is written [{one.text}])") for one in several]


def parse_sweep(words: Iterable[str]) -> tuple[list[Item], list[Several], list[Problem]]:
    """`parse` where a key may have several values. Of one key, the last word counts."""
    found: dict[str, Item | Several] = {}
    problems = []
    for word in words:
        one = _parse(word)
        if isinstance(one, Problem):
            problems.append(one)
        else:
            found.pop(one.key, None)
            found[one.key] = one
    return ([one for one in found.values() if isinstance(one, Item)],
            [one for one in found.values() if isinstance(one, Several)], problems)


def _several(key: str, sweep: Any, text: str) -> Several | Problem:
    """What Hydra's grammar knows of several values: a,b and choice(a,b), range(a,b[,step]), interval(a,b)."""
    log = "log" in getattr(sweep, "tags", ())
    if hasattr(sweep, "end"):
        return Several(key, None, (sweep.start, sweep.end), log, text)
    if hasattr(sweep, "step"):
        if sweep.step == 1:                  # not given: from the one to the other
            return Several(key, None, (sweep.start, sweep.stop), log, text)
        return Several(key, tuple(sweep.range()), None, log, text)
    if hasattr(sweep, "list"):
        return Several(key, tuple(getattr(x, "text", x) for x in sweep.list), None, log, text)
    return Problem(f"{key}={text} is not understood. Several values are written 1,2,3, a range is range(1,3)")


def _parse(word: str) -> Item | Several | Problem:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, text = (part.strip() for part in word.partition("="))
    if not equals:
        return _no_value(word)
    key = key.lstrip("+")                    # +key and ++key are how Hydra adds one; here every key exists already
    if not key or not all(part.replace("-", "_").isidentifier() for part in key.split(".")):
        return Problem(f'"{word}" is not understood. Settings are written key=value, such as seed=1')
    try:
        override = OverridesParser.create().parse_override(f"{key}={text}")
        sweep, value = override.is_sweep_override(), None if override.is_sweep_override() else override.value()
    except (HydraException, RecursionError, ValueError) as error:     # ValueError: a number of 4300 digits
        if key in TEXT_KEYS:
            return Item(key, text, text)
        return Problem(f'{key}={text} cannot be read: {str(error).splitlines()[0]}. '
                       "Lists are written [1,2]; odd characters go in quotes")
    if sweep:
        return _several(key, override.value(), text)
    if key in TEXT_KEYS and value is not None and not isinstance(value, str | list | dict):
        value = text                         # out=007 is a name, not a number
    return Item(key, value, text)


def _no_value(word: str) -> Problem:
    if word.startswith("~"):
        return Problem(f'"{word}": a setting cannot be deleted. Leave it out, or give another value')
    if word.startswith("-"):
        return Problem(f'"{word}" is not understood. Settings are written without dashes: '
                       f"{word.lstrip('-').replace('-', '_') or 'seed'}=...")
    return Problem(f'"{word}" is not a setting. Settings are written key=value, such as algo=ppo env=cartpole')
