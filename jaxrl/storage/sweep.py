"""Files in the folder of a sweep.

    SWEEP/sweep.yaml                          the question (jaxrl/run/questions.py)
    SWEEP/trials.csv, best.yaml               the results
    SWEEP/report.html, tensorboard/           the same to look at (jaxrl/report/sweep.py)
    SWEEP/<round>-group<n>/                   a run, and beside the files of every run:
                            trials.json       numbers of its trials, in the order of the members
                            diverged.json     member -> what happened to it
"""

from __future__ import annotations

import csv
import io
import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl.errors import UserError
from jaxrl.storage.checkpoint import storage_error
from jaxrl.storage.files import shown, write_atomic
from jaxrl.storage.folder import read_summary

SWEEP = "sweep.yaml"
TABLE = "trials.csv"
BEST = "best.yaml"
BOARDS = "tensorboard"
TRIALS = "trials.json"
DIVERGED = "diverged.json"
COLUMNS = ("trial", "status", "iqm", "ci_low", "ci_high", "steps", "seconds")


class Outcome(NamedTuple):
    """The result of a trial so far.

    status: "completed", "pruned", "diverged" (one of its seeds), "failed" (it raised), "going on"
    returns: mean greedy return of each seed
    iqm: interquartile mean of the returns, the score
    ci: 95 % confidence interval of the score
    steps: environment steps per seed
    seconds: training time, shared with the other trials of its runs
    what: why it was pruned, what diverged, or what was raised
    run: name of the run that trained it last
    """

    status: str
    returns: tuple[float, ...]
    iqm: float
    ci: tuple[float, float]
    steps: int
    seconds: float
    what: str
    run: str


class Row(NamedTuple):
    """A trial for trials.csv.

    values: its settings as text. outcome: None for a trial that has not been trained yet.
    """

    number: int
    values: Sequence[str]
    outcome: Outcome | None


def is_sweep(path: str | Path) -> bool:
    """Return True if a folder holds a sweep."""
    return (Path(path) / SWEEP).is_file()


def open_sweep(path: str | Path) -> Path:
    """Return the folder of a sweep. Raises UserError if it is none."""
    if not is_sweep(path):
        raise UserError(f"{shown(path)} is not a sweep (no {SWEEP}).",
                        "Make one with jaxrl sweep.")
    return Path(path)


def check_alone(run: str | Path) -> None:
    """Raise UserError if a run is part of a sweep, because a sweep is resumed as a whole."""
    above = Path(run).absolute().parent
    if is_sweep(above):
        raise UserError(f"{shown(run)} is a part of a sweep.",
                        f"Resume the sweep: jaxrl resume {shlex.quote(shown(above))}")


def write_text(sweep: Path, name: str, text: str) -> None:
    """Replace a text file of the sweep. Raises RunError if the disk is full or gone."""
    data = text.encode("utf-8", "replace")
    try:
        write_atomic(sweep / name, data)
    except OSError as error:
        raise storage_error(error, sweep, sweep / name, len(data)) from error


# ---------------------------------------------------------------- trials.csv


def write_table(sweep: Path, keys: Sequence[str], rows: Iterable[Row]) -> None:
    """Write trials.csv: one line for each trial, with a column for each key."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *keys, "returns", "what", "run"])
    for row in rows:
        writer.writerow(_cells(row))
    write_text(sweep, TABLE, text.getvalue())


def _cells(row: Row) -> list[Any]:
    x = row.outcome
    if x is None:
        return [row.number, "going on", *[""] * 5, *row.values, "", "", ""]
    scores = map(exact, (x.iqm, *x.ci))
    returns = " ".join(map(exact, x.returns))
    return [row.number, x.status, *scores, x.steps, f"{x.seconds:.3f}", *row.values, returns,
            x.what, x.run]


def exact(value: float) -> str:
    """Return a number with every digit; nan for what is not finite."""
    return repr(value) if math.isfinite(value) else "nan"


def read_table(sweep: Path) -> list[dict[str, Any]]:
    """Return the lines of trials.csv: numbers, returns as a list, and settings as text."""
    with open(sweep / TABLE, encoding="utf-8", newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    for row in rows:
        row["trial"] = int(row["trial"])
        row["steps"] = int(row["steps"] or 0)
        for key in ("iqm", "ci_low", "ci_high", "seconds"):
            row[key] = float(row[key] or "nan")
        row["returns"] = [float(x) for x in row["returns"].split()]
    return rows


# ---------------------------------------------------------------- the runs of a sweep


def ended(run: Path) -> bool:
    """Return True if a run of the sweep needs no more training."""
    summary = read_summary(run) or {}
    return summary.get("status") in ("completed", "diverged")


def write_trials(run: Path, numbers: Sequence[int]) -> None:
    """Write the numbers of a run's trials, in the order of its members."""
    write_atomic(run / TRIALS, json.dumps(list(numbers)).encode())


def read_trials(run: Path) -> list[int]:
    """Return the numbers of a run's trials, in the order of its members."""
    return json.loads((run / TRIALS).read_text())


def write_diverged(run: Path, messages: Mapping[int, str]) -> None:
    """Write member -> what happened to it."""
    write_atomic(run / DIVERGED, json.dumps(dict(messages)).encode())


def read_diverged(run: Path) -> dict[int, str]:
    """Return member -> what happened to it; {} if no member diverged."""
    try:
        messages = json.loads((run / DIVERGED).read_text())
    except FileNotFoundError:
        return {}
    return {int(member): text for member, text in messages.items()}
