"""Hyperparameters that change at steps of a run: written in a config, or as population-based training found them.

    schedule:                             in a config; `schedule=RUN` fills it from RUN, a run of jaxrl pbt
      steps: [0, 10240, 20480]            environment steps per seed
      learning_rate: [1e-3, 1.2e-3, 9.6e-4]    from each of these steps on, the last to the end
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jaxrl.config.check import check, short, unknown_key
from jaxrl.declare import Declaration
from jaxrl.errors import Problem, UserError

SCHEDULE = Declaration("schedule", str | None, None, "static", "a run of jaxrl pbt: the hyperparameters of its fittest "
                       "member are followed as they changed")


class Reader(Protocol):
    """What reads a run that `schedule=RUN` names. It is given, because nothing in jaxrl.config opens a run folder."""

    def config_file(self, run: str) -> Path: ...
    def discovered(self, run: str) -> Mapping[str, Any]: ...


_reader: Callable[[], Reader]


def register(reader: Callable[[], Reader]) -> None:
    """Called by `import jaxrl`. reader: called when a run is named."""
    global _reader
    _reader = reader


def reader() -> Reader:
    """The one that was registered."""
    return _reader()


class Schedule(NamedTuple):
    """values[name][i] from steps[i] on; steps ascend from 0."""

    steps: tuple[int, ...]
    values: Mapping[str, tuple[float, ...]]

    def at(self, step: int) -> dict[str, float]:
        """Name -> value at an environment step."""
        i = max(i for i, begins in enumerate(self.steps) if begins <= step)
        return {name: values[i] for name, values in self.values.items()}

    def to_plain(self) -> dict[str, list]:
        """As a config holds it."""
        return {"steps": list(self.steps), **{name: list(values) for name, values in self.values.items()}}


def read_schedule(plain: Any, known: Mapping[str, Declaration], typed: Mapping[str, Any]
                  ) -> tuple[Schedule | None, list[Problem]]:
    """What a config says under `schedule`: None, a run, or steps and values. known: declarations of `algo.*`; typed:
    keys that the user gave beside it, which it must not change."""
    if plain is None:
        return None, []
    try:
        found = reader().discovered(plain) if isinstance(plain, str) else plain
    except UserError as error:
        return None, error.problems
    if not isinstance(found, Mapping) or not isinstance(found.get("steps"), list | tuple) or len(found) < 2:
        return None, [Problem(f"schedule={short(plain)} is not understood: it names a run of jaxrl pbt, or holds steps "
                              "and a list of values for each hyperparameter")]
    steps, problems, values = tuple(found["steps"]), [], {}
    if not all(type(x) is int for x in steps) or steps[:1] != (0,) or list(steps) != sorted(set(steps)):
        problems.append(Problem("schedule.steps has to ascend from 0, in whole environment steps"))
    hypers = {key: (d.default, d.help) for key, d in known.items()
              if key.startswith("algo.") and d.kind == "hyper" and key.count(".") == 1}
    for name, given in found.items():
        key = f"algo.{name}"
        if name == "steps":
            continue
        if key in known and key not in hypers:
            problems.append(Problem(f"schedule changes {key}, which shapes the program"))
        elif key not in hypers:
            problems.append(unknown_key(key, hypers, "schedule"))
        elif key in typed:
            problems.append(Problem(f"{key}= has no effect beside schedule=, which changes it. Leave one of them out"))
        elif not isinstance(given, list | tuple) or len(given) != len(steps):
            problems.append(Problem(f"schedule.{name} has to be a list of {len(steps)} values, one for each of steps"))
        else:
            checked = [check(known[key], f"schedule.{name}", x) for x in given]
            problems += [problem for _, problem in checked if problem][:1]
            values[name] = tuple(value for value, _ in checked)
    return (None if problems else Schedule(steps, values)), problems
