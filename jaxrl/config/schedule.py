"""Hyperparameters that change at steps of a run: written in a config, or as population-based training found them.

    schedule:                             in a config; `schedule=RUN` fills it from RUN, a run of jaxrl pbt
      steps: [0, 10240, 20480]            environment steps per seed
      learning_rate: [1e-3, 1.2e-3, 9.6e-4]    from each of these steps on, the last to the end
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl.config.check import check, short, unknown_key
from jaxrl.declare import Declaration
from jaxrl.errors import Problem, UserError

LINEAGE, EVALS = "lineage.jsonl", "evals.jsonl"          # of a run of population-based training
SCHEDULE = Declaration("schedule", str | None, None, "static", "a run of jaxrl pbt: the hyperparameters of its fittest "
                       "member are followed as they changed")


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
        found = discovered(plain) if isinstance(plain, str) else plain
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


# ---------------------------------------------------------------- what population-based training found


class Lineage(NamedTuple):
    """Rows of lineage.jsonl: for round 0, the start, and every round that followed."""

    steps: list[int]
    fitness: list[list[float | None] | None]      # of each member, before the round
    source: list[list[int]]                       # whom each member goes on from, itself if nobody else
    values: dict[str, list[list[float]]]          # name -> round -> of each member from there on

    @property
    def members(self) -> int:
        """How many there are."""
        return len(self.source[0])

    def line(self, member: int) -> list[int]:
        """After each round, the member that `member` at the end goes back to."""
        found = []
        for source in reversed(self.source):
            found.append(member)
            member = source[member]
        return found[::-1]


def read_lineage(run: Path | str) -> Lineage | None:
    """Of a run of population-based training; None of another."""
    rows = _rows(Path(run) / LINEAGE)
    if not rows:
        return None
    try:
        names = [name for name in rows[0] if name not in ("step", "fitness", "source")]
        return Lineage(*([row[key] for row in rows] for key in ("step", "fitness", "source")),
                       {name: [row[name] for row in rows] for name in names})
    except (KeyError, TypeError) as error:
        raise UserError(f"{Path(run) / LINEAGE} is damaged ({error}).") from None


def final_fitness(run: Path | str, lineage: Lineage) -> tuple[int, list[float | None]]:
    """(step, fitness of each member) of the last evaluation, or of the last round where there is none after it."""
    step, fitness = lineage.steps[-1], lineage.fitness[-1] or [None] * lineage.members
    try:
        for row in _rows(Path(run) / EVALS)[-1:]:
            if row["step"] >= step:
                return row["step"], [None if None in played else sum(played) / len(played) for played in row["returns"]]
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"{Path(run) / EVALS} is damaged ({error}).") from None
    return step, fitness


def fittest(fitness: Sequence[float | None]) -> int:
    """The member of the highest fitness; the first of several."""
    return max(range(len(fitness)), key=lambda i: -math.inf if fitness[i] is None else fitness[i])


def discovered(run: str) -> dict[str, list]:
    """The schedule that the fittest member of a run went through, itself and those it came from, as a config holds it:
    steps at which nothing changed are left out. Raises UserError if there is none."""
    lineage = read_lineage(run)
    if lineage is None:
        raise UserError(f"schedule={run} is no run of population-based training (no {LINEAGE}).",
                        "jaxrl pbt makes one; jaxrl train init_from=RUN starts from the parameters of another")
    if len(lineage.steps) < 2:
        raise UserError(f"schedule={run} has no round yet: nothing changed there.",
                        f"Go on with it: jaxrl resume {run}")
    line = lineage.line(fittest(final_fitness(run, lineage)[1]))
    rows = [{name: values[i][held] for name, values in lineage.values.items()} for i, held in enumerate(line)]
    kept = [i for i in range(len(rows)) if i == 0 or rows[i] != rows[i - 1]]
    return {"steps": [lineage.steps[i] for i in kept],
            **{name: [rows[i][name] for i in kept] for name in lineage.values}}


def _rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of JSON lines; a torn last one is not there yet."""
    try:
        whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]
    except OSError:
        return []
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}).") from None
