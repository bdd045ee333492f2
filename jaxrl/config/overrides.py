"""`key=value` words of a command line, by the grammar of Hydra overrides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from jaxrl.errors import Problem

TEXT_KEYS = {"algo", "env", "preset", "config", "out", "init_from", "device"}   # names and paths: taken as they stand


class Item(NamedTuple):
    """One override. `text` is the value as typed, None when it came from Python."""

    key: str
    value: Any
    text: str | None = None


def parse(words: Iterable[str]) -> tuple[list[Item], list[Problem]]:
    """-> (what could be read, what could not). A later word wins over an earlier one of the same key."""
    items, problems = [], []
    for word in words:
        found = _parse(word)
        (items if isinstance(found, Item) else problems).append(found)
    return items, problems


def _parse(word: str) -> Item | Problem:
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
        return Problem(f"{key}={text} names several values, this command takes one. "
                       f"Run it once for each (a list is written [{text}])")
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
