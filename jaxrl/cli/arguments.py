"""Words of the commands that work on a stored run: RUN, then key=value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from jaxrl.config.check import check, unknown_key
from jaxrl.config.overrides import parse
from jaxrl.config.settings import SETTINGS
from jaxrl.declare import Declaration
from jaxrl.errors import Problem, UserError

DEVICE = {name: SETTINGS[name] for name in ("device", "num_devices")}
OUTPUT = {name: SETTINGS[name] for name in ("json", "debug")}


def of_run(command: str, words: list[str], known: Mapping[str, Declaration]) -> tuple[str, dict[str, Any]]:
    """-> (RUN, key -> checked value of those that were given)."""
    path, rest = take_run(command, words)
    return path, options(command, rest, known)


def options(command: str, words: list[str], known: Mapping[str, Declaration]) -> dict[str, Any]:
    """key -> checked value of those that were given; `known` are all that the command takes."""
    items, problems = parse(words)
    values: dict[str, Any] = {}
    for item in items:
        if item.key in known:
            values[item.key], problem = check(known[item.key], item.key, item.value, item.text)
            problems += [problem] if problem else []
        else:
            described = {name: (d.default, d.help) for name, d in known.items()}
            problems.append(unknown_key(item.key, described, where=f"   (jaxrl {command} --help)"))
    if problems:
        raise UserError(problems)
    return values


def take_run(command: str, words: list[str]) -> tuple[str, list[str]]:
    """The first word that is not key=value is the run; a folder whose name holds a `=` is one, too."""
    for i, word in enumerate(words):
        if "=" not in word or os.path.isdir(word):
            return word, words[:i] + words[i + 1:]
    raise UserError([Problem(f"{command} needs a run: jaxrl {command} RUN", f"jaxrl {command} --help")])
