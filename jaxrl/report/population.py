"""Charts of population-based training: the descent of the members and their hyperparameters."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from jaxrl.errors import UserError
from jaxrl.report.chart import Points, Trail, trail_chart
from jaxrl.storage.lineage import Lineage, final_fitness, fittest, read_lineage


def section(run: Path | str) -> str:
    """Return the charts for report.html; "" for a run of another kind or with damaged files."""
    try:
        lineage = read_lineage(run)
        if lineage is None:
            return ""
        step, fitness = final_fitness(run, lineage)
    except UserError:
        return ""
    member = fittest(fitness)
    line = lineage.line(member)
    copies = sum(source != i for row in lineage.source for i, source in enumerate(row))
    text = (f"{lineage.members} members, {len(lineage.steps) - 1} rounds, {copies} copies. Bold: "
            f"the line of member {member + 1}, the fittest at step {step:,}.")
    end = max(step, lineage.steps[-1])
    charts = [_tree(lineage, step, fitness, line)]
    charts += [_values(lineage, name, end, line) for name in lineage.values]
    return (f'<h2>Population <span class="soft">{html.escape(text)}</span></h2>'
            f'<div class="charts">{"".join(charts)}</div>')


def _values(lineage: Lineage, name: str, end: int, line: list[int]) -> str:
    """Return a chart of a hyperparameter of each member and of the line, up to the step `end`."""
    steps = [*lineage.steps, end]
    values = lineage.values[name]

    def corners(held: list[int]) -> Points:
        """Return both ends of each interval, in which the value of member held[i] is constant."""
        points: Points = []
        for i, member in enumerate(held):
            points += [(steps[i], values[i][member]), (steps[i + 1], values[i][member])]
        return points

    trails = [Trail(corners([member] * len(values)), "seed") for member in range(lineage.members)]
    low = min(map(min, values))
    high = max(map(max, values))
    log = low > 0 and high > 10 * low
    return trail_chart(name, [*trails, Trail(corners(line), "best")], log=log)


def _tree(lineage: Lineage, step: int, fitness: list[float | None], line: list[int]) -> str:
    """Return a chart of the fitness at the end of each round.

    The line of a member begins at the member that it copied, and is dashed then.
    """
    ends: list[tuple[int, Any]] = list(zip(lineage.steps[1:], lineage.fitness[1:]))
    if not ends or step > ends[-1][0]:
        ends.append((step, fitness))
    trails: list[Trail] = []
    best: Points = []
    for i, (at, values) in enumerate(ends):
        for member, value in enumerate(values):
            if value is not None:
                trails.append(_descent(lineage, ends, i, member))
        held = values[line[i]]
        if held is not None:
            best.append((at, held))
    return trail_chart("Fitness (dashed: copies)", [*trails, Trail(best, "best")])


def _descent(lineage: Lineage, ends: list[tuple[int, Any]], round: int, member: int) -> Trail:
    """Return the trail of a member in a round, from its source. ends: (step, fitness) of rounds."""
    step, fitness = ends[round]
    points: Points = [(step, fitness[member])]
    if round == 0:
        return Trail(points, "seed")
    source = lineage.source[round][member]
    start, before = ends[round - 1]
    if before[source] is not None:
        points.insert(0, (start, before[source]))
    return Trail(points, "seed" if source == member else "copy")
