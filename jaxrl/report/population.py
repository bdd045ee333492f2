"""The pictures of a population-based run: who descends from whom, and what became of each hyperparameter."""

from __future__ import annotations

import html
from pathlib import Path

from jaxrl.errors import UserError
from jaxrl.report.chart import Trail, trail_chart
from jaxrl.storage.lineage import Lineage, final_fitness, fittest, read_lineage


def section(run: Path | str) -> str:
    """Their part of report.html; "" for a run of another kind, or where its files are damaged."""
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
    text = (f"{lineage.members} members, {len(lineage.steps) - 1} rounds, {copies} copies. Bold: the line of member "
            f"{member + 1}, the fittest at step {step:,}.")
    charts = [_tree(lineage, step, fitness, line)]
    charts += [_values(lineage, name, max(step, lineage.steps[-1]), line) for name in lineage.values]
    return (f'<h2>Population <span class="soft">{html.escape(text)}</span></h2>'
            f'<div class="charts">{"".join(charts)}</div>')


def _values(lineage: Lineage, name: str, end: int, line: list[int]) -> str:
    """A hyperparameter of each member and of the line, constant between rounds."""
    times, values = [*lineage.steps, end], lineage.values[name]
    seen = [x for row in values for x in row]
    corners = lambda held: [(times[i + k], values[i][member]) for i, member in enumerate(held) for k in (0, 1)]
    trails = [Trail(corners([member] * len(values)), "seed") for member in range(lineage.members)]
    log = min(seen) > 0 and max(seen) > 10 * min(seen)
    return trail_chart(name, [*trails, Trail(corners(line), "best")], log=log)


def _tree(lineage: Lineage, step: int, fitness: list[float | None], line: list[int]) -> str:
    """Fitness at the end of each round: a member's line begins at the one that it went on from, dashed if another."""
    ends = list(zip(lineage.steps[1:], lineage.fitness[1:]))
    if not ends or step > ends[-1][0]:
        ends.append((step, fitness))
    trails, best = [], []
    for i, (at, values) in enumerate(ends):
        for member, value in enumerate(values):
            source = lineage.source[i][member] if i else member
            before = ends[i - 1][1][source] if i else None
            if value is not None:
                begin = [] if before is None else [(ends[i - 1][0], before)]
                trails.append(Trail([*begin, (at, value)], "seed" if source == member else "copy"))
        held = values[line[i]]
        best += [] if held is None else [(at, held)]
    return trail_chart("Fitness (dashed: copies)", [*trails, Trail(best, "best")])
