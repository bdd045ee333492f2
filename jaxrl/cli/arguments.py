"""Arguments of commands that work on a stored run: RUN, then key=value."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from typing import Any

from jaxrl.config.check import check, describe, unknown_key
from jaxrl.config.overrides import parse
from jaxrl.config.settings import SETTINGS
from jaxrl.declare import Declaration
from jaxrl.errors import Problem, UserError

DEVICE = {name: SETTINGS[name] for name in ("device", "num_devices")}
OUTPUT = {name: SETTINGS[name] for name in ("json", "debug")}


def of_run(command: str, words: list[str], known: Mapping[str, Declaration]
           ) -> tuple[str, dict[str, Any]]:
    """Return (RUN, key -> checked value of the settings that were given)."""
    path, rest = take_run(command, words)
    return path, options(command, rest, known)


def options(command: str, words: list[str], known: Mapping[str, Declaration]) -> dict[str, Any]:
    """Return key -> checked value of the settings that were given.

    known: every setting of the command. Raises UserError with all mistakes.
    """
    items, problems = parse(words)
    values: dict[str, Any] = {}
    for item in items:
        if item.key not in known:
            where = f"   (jaxrl {command} --help)"
            problems.append(unknown_key(item.key, describe(known), where=where))
            continue
        values[item.key], problem = check(known[item.key], item.key, item.value, item.text)
        if problem:
            problems.append(problem)
    if problems:
        raise UserError(problems)
    return values


def without_options(words: list[str], known: Container[str]) -> list[str]:
    """Return the words whose key is not in `known`."""
    return [word for word in words if _key(word) not in known]


def _key(word: str) -> str:
    return word.partition("=")[0].strip().lstrip("+")


def take_run(command: str, words: list[str]) -> tuple[str, list[str]]:
    """Return (RUN, the other words).

    RUN is the first word without a `=`, or a folder whose name has one.
    """
    for i, word in enumerate(words):
        if "=" not in word or os.path.isdir(word):
            return word, words[:i] + words[i + 1:]
    raise UserError([
        Problem(f"{command} needs a run: jaxrl {command} RUN", f"jaxrl {command} --help")])
