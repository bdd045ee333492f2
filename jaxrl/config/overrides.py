"""Parsing of `key=value` words from the command line, by the grammar of Hydra overrides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from jaxrl.errors import Problem

TEXT_KEYS = {       # their values are text, whatever they look like
    "algo", "env", "preset", "config", "out", "init_from", "device", "address", "schedule"}


class Item(NamedTuple):
    """One override. `text` is the value as typed, None if it came from Python."""

    key: str
    value: Any
    text: str | None = None


class Several(NamedTuple):
    """An override with several values: `choices`, or the `ends` of a range.

    log: whether tag(log, ...) was typed.
    """

    key: str
    choices: tuple[Any, ...] | None
    ends: tuple[Any, Any] | None
    log: bool
    text: str | None = None

    def listed(self) -> tuple[Any, ...]:
        """Return the choices; a range has none."""
        return self.choices or ()

    def first(self) -> Any:
        """Return the first value: a choice, or the low end of the range."""
        return next(iter(self.choices or self.ends or ()), None)


def parse(words: Iterable[str]) -> tuple[list[Item], list[Problem]]:
    """Return (overrides, problems). Of the words with one key, the last counts."""
    items, several, problems = parse_sweep(words)
    for one in several:
        problems.append(Problem(
            f"{one.key}={one.text} names several values, this command takes one. "
            f"To try each: jaxrl sweep (a list is written [{one.text}])"))
    return items, problems


def parse_sweep(words: Iterable[str]) -> tuple[list[Item], list[Several], list[Problem]]:
    """Return (overrides, overrides with several values, problems).

    Of the words with one key, the last counts.
    """
    found: dict[str, Item | Several] = {}
    problems = []
    for word in words:
        one = _parse(word)
        if isinstance(one, Problem):
            problems.append(one)
        else:
            found.pop(one.key, None)
            found[one.key] = one
    items = [one for one in found.values() if isinstance(one, Item)]
    several = [one for one in found.values() if isinstance(one, Several)]
    return items, several, problems


def _several(key: str, sweep: Any, text: str) -> Several | Problem:
    """Return the values of a Hydra sweep.

    These are a,b and choice(a,b), range(a,b[,step]) and interval(a,b).
    """
    log = "log" in getattr(sweep, "tags", ())
    if hasattr(sweep, "end"):
        return Several(key, None, (sweep.start, sweep.end), log, text)
    if hasattr(sweep, "step"):
        if sweep.step == 1:                  # Hydra's default: the range is continuous here
            return Several(key, None, (sweep.start, sweep.stop), log, text)
        return Several(key, tuple(sweep.range()), None, log, text)
    if hasattr(sweep, "list"):
        return Several(key, tuple(getattr(x, "text", x) for x in sweep.list), None, log, text)
    return Problem(f"{key}={text} is not understood. "
                   "Several values are written 1,2,3, a range is range(1,3)")


def _parse(word: str) -> Item | Several | Problem:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, text = (part.strip() for part in word.partition("="))
    if not equals:
        return _no_value(word)
    key = key.lstrip("+")              # Hydra adds keys with + and ++; here every key exists
    if not key or not all(part.replace("-", "_").isidentifier() for part in key.split(".")):
        return Problem(f'"{word}" is not understood. '
                       "Settings are written key=value, such as seed=1")
    try:
        override = OverridesParser.create().parse_override(f"{key}={text}")
        value = override.value()
    except (HydraException, RecursionError, ValueError) as error:  # ValueError: 4300 digits
        if key in TEXT_KEYS:
            return Item(key, text, text)
        return Problem(f"{key}={text} cannot be read: {str(error).splitlines()[0]}. "
                       "Lists are written [1,2]; unusual characters need quotes")
    if override.is_sweep_override():
        return _several(key, value, text)
    if key in TEXT_KEYS and value is not None and not isinstance(value, str | list | dict):
        value = text                         # out=007 is a name, not a number
    return Item(key, value, text)


def _no_value(word: str) -> Problem:
    if word.startswith("~"):
        return Problem(
            f'"{word}": a setting cannot be deleted. Leave it out, or give another value')
    if word.startswith("-"):
        name = word.lstrip("-").replace("-", "_") or "seed"
        return Problem(f'"{word}" is not understood. '
                       f"Settings are written without dashes: {name}=...")
    return Problem(f'"{word}" is not a setting. '
                   "Settings are written key=value, such as algo=ppo env=cartpole")
