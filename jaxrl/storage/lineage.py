"""What population-based training found: the rows of lineage.jsonl, and the schedule of the fittest line of members."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl.errors import UserError
from jaxrl.storage.folder import CONFIG
from jaxrl.storage.metrics import EVALS

LINEAGE = "lineage.jsonl"


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


def config_file(run: str) -> Path:
    """Where the config of a run lies."""
    return Path(run) / CONFIG


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
