"""What came of a sweep: trials.csv, best.yaml, a page, and hyperparameters for TensorBoard."""

from __future__ import annotations

import csv
import html
import io
import math
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl import config as configs
from jaxrl.config.axes import Axis, Question
from jaxrl.config.check import short
from jaxrl.errors import UserError
from jaxrl.population.trials import Trial
from jaxrl.report.chart import Dot, number, scatter_chart
from jaxrl.report.page import REPORT, document
from jaxrl.report.tensorboard import TensorBoard
from jaxrl.storage.checkpoint import storage_error
from jaxrl.storage.files import shown, write_atomic

SWEEP, TABLE, BEST, BOARDS = "sweep.yaml", "trials.csv", "best.yaml", "tensorboard"
COLUMNS = ("trial", "status", "iqm", "ci_low", "ci_high", "steps", "seconds")
MOST_ROWS = 200              # of the page; trials.csv has all


class Outcome(NamedTuple):
    """What came of a trial so far.

    status: "completed", "pruned", "diverged" (a seed of it did), "failed" (it raised), or "going on". returns: mean
    greedy return of each seed; iqm: their interquartile mean, the score. steps: per seed. seconds: of training, beside
    the other trials of its runs. what: why it was pruned, what diverged or was raised. run: the one it was in last.
    """

    status: str
    returns: tuple[float, ...]
    iqm: float
    ci: tuple[float, float]
    steps: int
    seconds: float
    what: str
    run: str


Trials, Outcomes = Mapping[int, Trial], Mapping[int, Outcome]


def is_sweep(path: str | Path) -> bool:
    """Whether a folder holds a sweep."""
    return (Path(path) / SWEEP).is_file()


def check_alone(run: str | Path) -> None:
    """Raises UserError where a run is a part of a sweep, which is resumed as a whole."""
    above = Path(run).absolute().parent
    if is_sweep(above):
        raise UserError(f"{shown(run)} is a part of a sweep.", f"Resume that: jaxrl resume {shlex.quote(shown(above))}")


def write_table(sweep: Path, axes: Sequence[Axis], trials: Trials, outcomes: Outcomes) -> None:
    """trials.csv: a row for each trial there is, one column for each axis."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*COLUMNS, *(axis.key for axis in axes), "returns", "what", "run"])
    for trial in sorted(trials.values()):
        x = outcomes.get(trial.number)
        values = [_cell(trial.values[axis.key]) for axis in axes]
        if x is None:
            rows.writerow([trial.number, "going on", *[""] * 5, *values, "", "", ""])
        else:
            rows.writerow([trial.number, x.status, *map(_cell, (x.iqm, *x.ci)), x.steps, f"{x.seconds:.3f}", *values,
                           " ".join(map(_cell, x.returns)), x.what, x.run])
    _write(sweep, TABLE, text.getvalue())


def read_table(sweep: Path) -> list[dict[str, Any]]:
    """The rows of trials.csv: numbers as numbers, values of settings as text, returns as a list."""
    with open(sweep / TABLE, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.update(trial=int(row["trial"]), steps=int(row["steps"] or 0),
                   **{key: float(row[key] or "nan") for key in ("iqm", "ci_low", "ci_high", "seconds")},
                   returns=[float(x) for x in row["returns"].split()])
    return rows


def _cell(value: Any) -> str:
    """With every digit; nothing for what is not a number."""
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else "nan"
    return short(value)


def write(sweep: Path, asked: Question, trials: Trials, outcomes: Outcomes, best: int | None) -> None:
    """All that is written at the end; report.html is the last of it."""
    if best is not None:
        _write(sweep, BEST, configs.to_yaml(asked.of(trials[best].values)))
    _write_boards(sweep, asked.axes, trials, outcomes)
    _write(sweep, REPORT, page(sweep, asked, trials, outcomes, best))


def written(sweep: Path) -> bool:
    """Whether `write` came to its end."""
    return (sweep / REPORT).is_file()


def _write(sweep: Path, name: str, text: str) -> None:
    data = text.encode("utf-8", "replace")
    try:
        write_atomic(sweep / name, data)
    except OSError as error:
        raise storage_error(error, sweep, sweep / name, len(data)) from error


def _write_boards(sweep: Path, axes: Sequence[Axis], trials: Trials, outcomes: Outcomes) -> None:
    """TensorBoard's HParams: a folder for each trial."""
    shutil.rmtree(sweep / BOARDS, ignore_errors=True)
    width = len(str(max(trials)))
    for trial in sorted(trials.values()):
        x = outcomes[trial.number]
        home = sweep / BOARDS / f"trial{trial.number:0{width}}"
        home.mkdir(parents=True)
        board = TensorBoard(home)
        board.finish({axis.key: trial.values[axis.key] for axis in axes},
                     {"eval_iqm": x.iqm, "eval_returns": list(x.returns), "total_steps": x.steps})
        board.close()


# ---------------------------------------------------------------- the page


def ranked(trials: Trials, outcomes: Outcomes) -> list[int]:
    """Trial numbers, the best first: those trained to the end, then by steps, then what diverged."""
    order = {"completed": 0, "going on": 1, "pruned": 1, "diverged": 2, "failed": 2}
    score = lambda x: -math.inf if math.isnan(x.iqm) else x.iqm
    return sorted((n for n in trials if n in outcomes), key=lambda n: (
        order[outcomes[n].status], -outcomes[n].steps, -score(outcomes[n]), n))


def page(sweep: Path, asked: Question, trials: Trials, outcomes: Outcomes, best: int | None) -> str:
    """report.html: a chart for each axis, and the trials."""
    config, quoted = asked.config, shlex.quote(shown(sweep))
    name = f"{config.algo} on {config.env.name}: {asked.options.search} sweep"
    charts = "".join(_chart(axis, trials, outcomes, best) for axis in asked.axes)
    facts = [(str(len(trials)), "trials"), (number(config.settings.num_seeds), "seeds each"),
             (number(config.settings.total_steps), "steps per seed")]
    if best is not None:
        facts.insert(0, (number(outcomes[best].iqm), f"best, trial {best} · 95 % [{number(outcomes[best].ci[0])}, "
                                                     f"{number(outcomes[best].ci[1])}]"))
    cells = "".join(f'<div class="fact"><b>{html.escape(big)}</b><span>{html.escape(small)}</span></div>'
                    for big, small in facts)
    head = "".join(f"<th>{html.escape(text)}</th>" for text in _HEAD + tuple(axis.key for axis in asked.axes) + ("",))
    rows = ranked(trials, outcomes)
    body = "".join(f"<tr>{_cells(asked.axes, trials[n], outcomes[n])}</tr>" for n in rows[:MOST_ROWS])
    more = f'<p class="soft">{len(rows) - MOST_ROWS} more in {TABLE}</p>' if len(rows) > MOST_ROWS else ""
    commands = (f"jaxrl train config={quoted}/{BEST}\n" if best is not None else "") + (
        f"tensorboard --logdir {quoted}/{BOARDS}")
    return document(name, [
        f"<h1>{html.escape(name)}</h1>", f'<div class="soft">{html.escape(shown(sweep))}</div>',
        f'<div class="facts">{cells}</div>',
        '<h2>Score by setting <span class="soft">IQM over seeds of the greedy return; faint: pruned early; the best in '
        "green</span></h2>",
        f'<div class="charts">{charts}</div>', "<h2>Trials</h2>",
        f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>{more}',
        f"<h2>Next</h2><pre>{html.escape(commands)}</pre>"])


_HEAD = ("trial", "status", "IQM", "95 %", "steps")


def _cells(axes: Sequence[Axis], trial: Trial, x: Outcome) -> str:
    texts = [str(trial.number), x.status, number(x.iqm), f"[{number(x.ci[0])}, {number(x.ci[1])}]", f"{x.steps:,}",
             *(short(trial.values[axis.key]) for axis in axes), x.what]
    return "".join(f"<td>{html.escape(text)}</td>" for text in texts)


def _chart(axis: Axis, trials: Trials, outcomes: Outcomes, best: int | None) -> str:
    """The score of every trial over one axis."""
    names = None
    if axis.choices is not None and not (axis.hyper and len(axis.choices) > 6):
        names = [short(choice) for choice in axis.choices]
    log = names is None and (axis.range.log if axis.range else min(axis.choices) > 0 and
                             max(axis.choices) > 30 * min(axis.choices))
    dots = []
    for number_, x in outcomes.items():
        if math.isfinite(x.iqm) and x.status != "diverged":
            value = trials[number_].values[axis.key]
            kind = "top" if number_ == best else "faint" if x.status == "pruned" else "dot"
            at = float(value) if names is None else float(axis.choices.index(value))
            dots.append(Dot(at, x.iqm, f"trial {number_}: {axis.key}={short(value)}, {number(x.iqm)}", kind))
    return scatter_chart(f"{axis.key}{' (log)' if log else ''}", dots, log=log, names=names)
