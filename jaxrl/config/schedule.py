"""Schedules of hyperparameters: values that change at certain steps of a run.

A schedule is written in a config, or comes from a run of population-based training:

    schedule:                             `schedule=RUN` fills this from RUN, a run of jaxrl pbt
      steps: [0, 10240, 20480]            environment steps per seed
      learning_rate: [1e-3, 1.2e-3, 9.6e-4]    value from each step on, the last to the end
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jaxrl.config.check import check, describe, short, unknown_key
from jaxrl.declare import Declaration
from jaxrl.errors import Problem, UserError

SCHEDULE = Declaration(
    "schedule", str | None, None, "static",
    "path of a jaxrl pbt run; the hyperparameters change as those of its best member did")


class Reader(Protocol):
    """A reader of the run that `schedule=RUN` names.

    The reader is registered from outside, because nothing in jaxrl.config opens a run folder.
    """

    def config_file(self, run: str) -> Path: ...
    def discovered(self, run: str) -> Mapping[str, Any]: ...


_reader: Callable[[], Reader]


def register(reader: Callable[[], Reader]) -> None:
    """Register a function that makes the reader; `import jaxrl` calls this."""
    global _reader
    _reader = reader


def reader() -> Reader:
    """Return the registered reader."""
    return _reader()


class Schedule(NamedTuple):
    """Hyperparameters over steps: values[name][i] holds from steps[i] on. Steps ascend from 0."""

    steps: tuple[int, ...]
    values: Mapping[str, tuple[float, ...]]

    def at(self, step: int) -> dict[str, float]:
        """Return name -> value at an environment step."""
        i = max(i for i, begins in enumerate(self.steps) if begins <= step)
        return {name: values[i] for name, values in self.values.items()}

    def to_plain(self) -> dict[str, list]:
        """Return the schedule as a config holds it."""
        lists = {name: list(values) for name, values in self.values.items()}
        return {"steps": list(self.steps), **lists}


def read_schedule(
    plain: Any, known: Mapping[str, Declaration], typed: Mapping[str, Any]
) -> tuple[Schedule | None, list[Problem]]:
    """Read the value of `schedule` in a config: None, a run, or steps and values.

    known: declarations of `algo.*`. typed: keys that the user gave beside the schedule, which it
    must not change. Returns (schedule, problems).
    """
    if plain is None:
        return None, []
    try:
        found = reader().discovered(plain) if isinstance(plain, str) else plain
    except UserError as error:
        return None, error.problems
    if not _has_steps_and_values(found):
        return None, [Problem(
            f"schedule={short(plain)} is not understood: it names a run of jaxrl pbt, or holds "
            "steps and a list of values for each hyperparameter")]
    steps = tuple(found["steps"])
    problems = []
    if not _ascends_from_0(steps):
        problems.append(Problem("schedule.steps has to ascend from 0, in whole environment steps"))
    values = {}
    for name in found:
        if name != "steps":
            values[name], bad = _read_values(name, found[name], len(steps), known, typed)
            problems += bad
    if problems:
        return None, problems
    return Schedule(steps, values), []


def _has_steps_and_values(found: Any) -> bool:
    if not isinstance(found, Mapping) or len(found) < 2:
        return False
    return isinstance(found.get("steps"), list | tuple)


def _ascends_from_0(steps: tuple[Any, ...]) -> bool:
    if steps[:1] != (0,) or not all(type(step) is int for step in steps):
        return False
    return list(steps) == sorted(set(steps))


def _read_values(
    name: str, given: Any, length: int, known: Mapping[str, Declaration], typed: Mapping[str, Any]
) -> tuple[tuple[float, ...], list[Problem]]:
    """Check the values of one hyperparameter; `length` is the number of steps."""
    key = f"algo.{name}"
    hypers = {key: declaration for key, declaration in known.items()
              if key.startswith("algo.") and key.count(".") == 1 and declaration.kind == "hyper"}
    if key in known and key not in hypers:
        return (), [Problem(f"schedule changes {key}, which shapes the program")]
    if key not in hypers:
        return (), [unknown_key(key, describe(hypers), "schedule")]
    if key in typed:
        return (), [Problem(f"{key}= has no effect beside schedule=, which changes it. "
                            "Leave one of them out")]
    if not isinstance(given, list | tuple) or len(given) != length:
        return (), [Problem(f"schedule.{name} has to be a list of {length} values, one for each "
                            "of schedule.steps")]
    values = []
    for x in given:
        value, problem = check(known[key], f"schedule.{name}", x)
        if problem:
            return (), [problem]
        values.append(value)
    return tuple(values), []
