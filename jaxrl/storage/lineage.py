"""The results of population-based training: lineage.jsonl, and the schedule of the fittest line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl.errors import UserError
from jaxrl.storage.folder import CONFIG
from jaxrl.storage.metrics import EVALS, read

LINEAGE = "lineage.jsonl"


class Lineage(NamedTuple):
    """The rows of lineage.jsonl, one per round. Round 0 is the start.

    steps: environment steps per member before the round
    fitness: of each member before the round; None at the start
    source: for each member, the member that it copies, or itself
    values: hyperparameter -> round -> value of each member after the round
    """

    steps: list[int]
    fitness: list[list[float | None] | None]
    source: list[list[int]]
    values: dict[str, list[list[float]]]

    @property
    def members(self) -> int:
        """The number of members."""
        return len(self.source[0])

    def line(self, member: int) -> list[int]:
        """Return, for each round, the member after it from which `member` at the end descends."""
        found = []
        for source in reversed(self.source):
            found.append(member)
            member = source[member]
        return found[::-1]


def read_lineage(run: Path | str) -> Lineage | None:
    """Return the lineage of a run; None if it is no run of population-based training.

    Raises UserError if the file is damaged.
    """
    rows = _rows(run, LINEAGE)
    if not rows:
        return None
    try:
        names = [name for name in rows[0] if name not in ("step", "fitness", "source")]
        return Lineage(
            steps=[row["step"] for row in rows],
            fitness=[row["fitness"] for row in rows],
            source=[row["source"] for row in rows],
            values={name: [row[name] for row in rows] for name in names})
    except (KeyError, TypeError) as error:
        raise UserError(f"{Path(run) / LINEAGE} is damaged ({error}).") from None


def _rows(run: Path | str, name: str) -> list[dict[str, Any]]:
    """Return the rows of a file; [] if it cannot be read. Raises UserError if it is damaged."""
    try:
        return read(run, name, strict=True)
    except OSError:
        return []


def final_fitness(run: Path | str, lineage: Lineage) -> tuple[int, list[float | None]]:
    """Return (step, fitness of each member) at the last evaluation or round, whichever is later.

    Raises UserError if evals.jsonl is damaged.
    """
    step = lineage.steps[-1]
    fitness = lineage.fitness[-1] or [None] * lineage.members
    try:
        for row in _rows(run, EVALS)[-1:]:
            if row["step"] >= step:
                return row["step"], [_mean(returns) for returns in row["returns"]]
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"{Path(run) / EVALS} is damaged ({error}).") from None
    return step, fitness


def _mean(returns: list[float | None]) -> float | None:
    known = [x for x in returns if x is not None]
    if len(known) < len(returns):
        return None
    return sum(known) / len(known)


def fittest(fitness: Sequence[float | None]) -> int:
    """Return the member of the highest fitness, the first of equals."""
    known = [-math.inf if x is None else x for x in fitness]
    return known.index(max(known))


def config_file(run: str) -> Path:
    """Return the path of the config of a run."""
    return Path(run) / CONFIG


def discovered(run: str) -> dict[str, list]:
    """Return the schedule of the fittest member of a run and of those from which it descends.

    It is in the form of a config: steps, and a list of values for each hyperparameter. Steps at
    which nothing changed are left out. Raises UserError if there is no schedule.
    """
    lineage = read_lineage(run)
    if lineage is None:
        raise UserError(f"schedule={run} is no run of population-based training (no {LINEAGE}).",
                        "jaxrl pbt makes one; jaxrl train init_from=RUN starts from the parameters "
                        "of another run")
    if len(lineage.steps) < 2:
        raise UserError(f"schedule={run} has no round yet: nothing changed there.",
                        f"Continue it: jaxrl resume {run}")
    _, fitness = final_fitness(run, lineage)
    rows = []
    for i, member in enumerate(lineage.line(fittest(fitness))):
        rows.append({name: values[i][member] for name, values in lineage.values.items()})
    kept = [i for i in range(len(rows)) if i == 0 or rows[i] != rows[i - 1]]
    return {"steps": [lineage.steps[i] for i in kept],
            **{name: [rows[i][name] for i in kept] for name in lineage.values}}
