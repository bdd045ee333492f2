"""The question of a sweep, from Python values and from sweep.yaml."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxrl import config as configs
from jaxrl.config.axes import OPTIONS, Axis, Question, question
from jaxrl.config.overrides import Item, Several, parse_sweep
from jaxrl.declare import Range
from jaxrl.errors import Problem, UserError
from jaxrl.storage.files import shown
from jaxrl.storage.sweep import SWEEP

FORMAT = 1
CHANGEABLE = ("device", "num_devices", "workers", "address", "quiet", "json", "debug")  # on resume


def ask(values: Mapping[str, Any]) -> Question:
    """Return the question of a sweep that is given in Python values."""
    return question(*items_of(values))


def items_of(values: Mapping[str, Any]) -> tuple[list[Item], list[Several]]:
    """Return Python values as the words of a command line would give them.

    A list names several values, a `Range` the ends of one.
    """
    items: list[Item] = []
    several: list[Several] = []
    for key, value in values.items():
        if isinstance(value, Range):
            several.append(Several(key, None, (value.low, value.high), value.log))
        elif isinstance(value, list):
            several.append(Several(key, tuple(value), None, False))
        else:
            items.append(Item(key, value))
    return items, several


def to_plain(asked: Question) -> dict[str, Any]:
    """Return the content of sweep.yaml: options, axes, and the shared settings as typed."""
    axes = {axis.key: _plain_axis(axis) for axis in asked.axes}
    fixed = {}
    for item in asked.fixed:
        if item.key == "config":
            fixed[item.key] = str(Path(item.value).absolute())
        elif item.key != "out":
            fixed[item.key] = _listed(item.value)
    return {"format": FORMAT, **vars(asked.options), "axes": axes, "fixed": fixed}


def _plain_axis(axis: Axis) -> Any:
    if axis.range is None:
        return [_listed(choice) for choice in axis.choices or ()]
    return axis.range._asdict()


def _listed(value: Any) -> Any:
    """Return tuples, nested ones too, as lists."""
    return list(map(_listed, value)) if isinstance(value, list | tuple) else value


def read(path: Path, overrides: Iterable[str] = ()) -> Question:
    """Return the question of a sweep folder.

    overrides: words of `jaxrl resume`; they may change where the sweep runs. Raises UserError.
    """
    changes = _changes(overrides)
    plain = configs.load_yaml(path / SWEEP)
    try:
        if plain["format"] != FORMAT:
            raise UserError(f"{shown(path)} was written by format {plain['format']}; "
                            f"this jaxrl reads {FORMAT}.")
        fixed = {**plain["fixed"], **changes}
        several = [_axis_words(key, stored) for key, stored in plain["axes"].items()]
        options = {key: plain[key] for key in OPTIONS}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{shown(path / SWEEP)} is damaged ({error}).") from None
    asked = question([Item(key, value) for key, value in {**fixed, **options}.items()], several)
    ranges = {key: Range(**x) for key, x in plain["axes"].items() if isinstance(x, dict)}
    axes = [axis._replace(range=ranges.get(axis.key)) for axis in asked.axes]   # with stored `log`
    return asked._replace(axes=tuple(axes))


def _changes(overrides: Iterable[str]) -> dict[str, Any]:
    items, several, problems = parse_sweep(overrides)
    words: list[Item | Several] = [*items, *several]
    for one in words:
        if one.key not in CHANGEABLE:
            problems.append(Problem(f"{one.key}={one.text} cannot change when a sweep is resumed"))
    if problems:
        raise UserError(problems)
    return {item.key: item.value for item in items}


def _axis_words(key: str, stored: Any) -> Several:
    if isinstance(stored, dict):
        return Several(key, None, (stored["low"], stored["high"]), stored["log"])
    return Several(key, tuple(stored), None, False)
