"""The report of a sweep: best.yaml, a page, and hyperparameters for TensorBoard."""

from __future__ import annotations

import html
import math
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxrl import config as configs
from jaxrl.config.axes import Axis, Question
from jaxrl.config.check import short
from jaxrl.population.trials import Trial
from jaxrl.report.chart import Dot, number, scatter_chart
from jaxrl.report.page import REPORT, document, facts
from jaxrl.report.tensorboard import TensorBoard
from jaxrl.storage.files import shown
from jaxrl.storage.sweep import BEST, BOARDS, TABLE, Outcome, write_text

MOST_ROWS = 200              # of the page; trials.csv has all
_HEAD = ("trial", "status", "IQM", "95 %", "steps")

Trials = Mapping[int, Trial]
Outcomes = Mapping[int, Outcome]


def write(sweep: Path, asked: Question, trials: Trials, outcomes: Outcomes,
          best: int | None) -> None:
    """Write the report. best: the number of the best trial. report.html is the last file."""
    if best is not None:
        write_text(sweep, BEST, configs.to_yaml(asked.of(trials[best].values)))
    _write_boards(sweep, asked.axes, trials, outcomes)
    write_text(sweep, REPORT, page(sweep, asked, trials, outcomes, best))


def written(sweep: Path) -> bool:
    """Return True if `write` was completed."""
    return (sweep / REPORT).is_file()


def _write_boards(sweep: Path, axes: Sequence[Axis], trials: Trials, outcomes: Outcomes) -> None:
    """Write TensorBoard's HParams, a folder for each trial."""
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
    """Return the trial numbers, the best first.

    The order is by status, then by steps, then by score; trials that diverged come last.
    """
    order = {"completed": 0, "going on": 1, "pruned": 1, "diverged": 2, "failed": 2}

    def rank(number: int) -> tuple[float, ...]:
        x = outcomes[number]
        score = -math.inf if math.isnan(x.iqm) else x.iqm
        return order[x.status], -x.steps, -score, number

    return sorted((number for number in trials if number in outcomes), key=rank)


def page(sweep: Path, asked: Question, trials: Trials, outcomes: Outcomes,
         best: int | None) -> str:
    """Return report.html: a chart for each axis, and the trials."""
    config = asked.config
    name = f"{config.algo} on {config.env.name}: {asked.options.search} sweep"
    charts = "".join(_chart(axis, trials, outcomes, best) for axis in asked.axes)
    return document(name, [
        f"<h1>{html.escape(name)}</h1>", f'<div class="soft">{html.escape(shown(sweep))}</div>',
        facts(_facts(asked, trials, outcomes, best)),
        '<h2>Score by setting <span class="soft">IQM over seeds of the greedy return; faint: '
        "pruned early; the best in green</span></h2>",
        f'<div class="charts">{charts}</div>', "<h2>Trials</h2>",
        _table(asked.axes, trials, outcomes),
        f"<h2>Next</h2><pre>{html.escape(_commands(sweep, best))}</pre>"])


def _facts(asked: Question, trials: Trials, outcomes: Outcomes,
           best: int | None) -> list[tuple[str, str]]:
    s = asked.config.settings
    pairs = [(str(len(trials)), "trials"), (number(s.num_seeds), "seeds each"),
             (number(s.total_steps), "steps per seed")]
    if best is not None:
        x = outcomes[best]
        pairs.insert(0, (number(x.iqm), f"best, trial {best} · 95 % {_interval(x)}"))
    return pairs


def _interval(x: Outcome) -> str:
    low, high = x.ci
    return f"[{number(low)}, {number(high)}]"


def _commands(sweep: Path, best: int | None) -> str:
    quoted = shlex.quote(shown(sweep))
    commands = [f"tensorboard --logdir {quoted}/{BOARDS}"]
    if best is not None:
        commands.insert(0, f"jaxrl train config={quoted}/{BEST}")
    return "\n".join(commands)


def _table(axes: Sequence[Axis], trials: Trials, outcomes: Outcomes) -> str:
    """Return a table of the best trials."""
    names = [*_HEAD, *(axis.key for axis in axes), ""]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    numbers = ranked(trials, outcomes)
    rows = []
    for n in numbers[:MOST_ROWS]:
        rows.append(f"<tr>{_cells(axes, trials[n], outcomes[n])}</tr>")
    table = f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'
    more = len(numbers) - MOST_ROWS
    if more > 0:
        table += f'<p class="soft">{more} more in {TABLE}</p>'
    return table


def _cells(axes: Sequence[Axis], trial: Trial, x: Outcome) -> str:
    texts = [str(trial.number), x.status, number(x.iqm), _interval(x), f"{x.steps:,}"]
    texts += [short(trial.values[axis.key]) for axis in axes]
    texts.append(x.what)
    return "".join(f"<td>{html.escape(text)}</td>" for text in texts)


def _chart(axis: Axis, trials: Trials, outcomes: Outcomes, best: int | None) -> str:
    """Return a chart of the score of every trial over one axis."""
    names = _names(axis)
    log = names is None and _is_log(axis)
    dots = []
    for trial, x in outcomes.items():
        if not math.isfinite(x.iqm) or x.status == "diverged":
            continue
        value = trials[trial].values[axis.key]
        at = float(value) if names is None else float(axis.choices.index(value))
        text = f"trial {trial}: {axis.key}={short(value)}, {number(x.iqm)}"
        dots.append(Dot(at, x.iqm, text, _kind(trial, x, best)))
    return scatter_chart(axis.key, dots, log=log, names=names)


def _names(axis: Axis) -> list[str] | None:
    """Return the labels of an axis of few choices; None for an axis of numbers."""
    if axis.choices is None or (axis.hyper and len(axis.choices) > 6):
        return None
    return [short(choice) for choice in axis.choices]


def _is_log(axis: Axis) -> bool:
    if axis.range:
        return axis.range.log
    choices = axis.choices or ()
    low = min(choices)
    high = max(choices)
    return low > 0 and high > 30 * low


def _kind(trial: int, x: Outcome, best: int | None) -> str:
    if trial == best:
        return "top"
    return "faint" if x.status == "pruned" else "dot"
