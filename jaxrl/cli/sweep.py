"""jaxrl sweep."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

HELP = """
jaxrl sweep algo=NAME env=NAME KEY=A,B,C [KEY=range(LOW,HIGH)] [key=value ...]

Trains many trials side by side and finds the best. KEY=A,B,C tries every value;
KEY=range(LOW,HIGH) draws values, on a log scale if the setting's own search
range has one (jaxrl list ppo) or with KEY=tag(log,interval(LOW,HIGH)). If no
KEY has several values, random, asha and optuna search over all declared search
ranges. Trials that differ only in numbers (learning rates, discounts ...) share
one compiled program. Each trial has num_seeds= seeds; its score is the IQM over
the seeds of the final greedy evaluation. jaxrl resume SWEEP continues a stopped
sweep.

Examples:
  jaxrl sweep algo=ppo env=cartpole algo.gamma=0.9,0.95,0.99 num_seeds=8
  jaxrl sweep algo=ppo env=cartpole search=asha "algo.gamma=range(0.9,0.999)"

All settings of jaxrl train but stop_return, init_from and profile, and:
"""
MOST = 10                   # trials in the table at the end


def more_help() -> list[str]:
    """Return the table of the settings of a sweep."""
    from jaxrl.cli.text import table
    from jaxrl.config.axes import OPTIONS
    from jaxrl.config.check import short

    return table([name, short(d.default), d.help] for name, d in OPTIONS.items())


def run(words: list[str]) -> None:
    from jaxrl import backend, config
    from jaxrl.cli.arguments import without_options
    from jaxrl.cli.screen import Screen
    from jaxrl.config.axes import OPTIONS, question
    from jaxrl.config.overrides import parse_sweep

    settings = config.peek(without_options(words, OPTIONS))
    backend.prepare(settings.device)             # before anything asks JAX for its devices
    asked = question(*parse_sweep(words))

    from jaxrl.run import sweep

    settings = asked.config.settings
    with Screen(quiet=settings.quiet or settings.json) as screen:
        folder = sweep.sweep(asked, screen)
    say_result(folder, json=settings.json)


def resume(path: str, words: list[str]) -> None:
    """Continue a stopped sweep: `jaxrl resume SWEEP`."""
    from jaxrl import backend
    from jaxrl.cli.screen import Screen
    from jaxrl.run import questions, sweep

    settings = questions.read(Path(path), words).config.settings
    backend.prepare(settings.device)
    with Screen(quiet=settings.quiet or settings.json) as screen:
        folder = sweep.resume(path, words, screen)
    say_result(folder, json=settings.json)


def say_result(path: Path, *, json: bool) -> None:
    """Print the best trials and the next commands, or with `json` every trial, on stdout."""
    from jaxrl.cli.main import say
    from jaxrl.storage.sweep import read_table

    rows = read_table(path)
    if json:
        from json import dumps

        from jaxrl.storage.metrics import plain

        say(dumps(plain({"sweep": str(path), "trials": rows}), indent=2), "stdout")
        return
    for line in result_lines(rows, path):
        say(line, "stdout")


def result_lines(rows: list[dict[str, Any]], path: Path) -> list[str]:
    """Return a table of the best trials, the number of trials by status, and the next commands."""
    import shlex

    from jaxrl.cli.text import table
    from jaxrl.report.page import REPORT
    from jaxrl.storage.files import shown
    from jaxrl.storage.sweep import BEST, BOARDS, COLUMNS, TABLE

    axes = [key for key in rows[0] if key not in {*COLUMNS, "returns", "what", "run"}]
    completed = [row for row in rows if row["status"] == "completed"]
    completed.sort(key=lambda row: (-row["iqm"], row["trial"]))
    lines = table(
        [[row["trial"], _return(row), f"{row['steps']:,}", _settings(row, axes)]
         for row in completed[:MOST]],
        ["trial", "return", "steps", "settings"])
    folder = shlex.quote(shown(path))
    return [
        *lines,
        f"  {len(rows)} trials: {_counts(rows)}.  "
        f"All of them: {folder}/{TABLE}, {folder}/{REPORT}",
        f"  next:  jaxrl train config={folder}/{BEST}      tensorboard --logdir {folder}/{BOARDS}"]


def _return(row: dict[str, Any]) -> str:
    """Return the IQM of a trial with its confidence interval."""
    from jaxrl.cli.screen import number

    iqm = row["iqm"]
    return f"{number(iqm)} [{number(row['ci_low'], iqm)}, {number(row['ci_high'], iqm)}]"


def _settings(row: dict[str, Any], axes: list[str]) -> str:
    return "  ".join(f"{key.removeprefix('algo.')}={_short(row[key])}" for key in axes)


def _counts(rows: list[dict[str, Any]]) -> str:
    """Return the number of trials of each status that occurs: "6 completed, 2 pruned"."""
    found = Counter(row["status"] for row in rows)
    statuses = ("completed", "pruned", "diverged", "failed")
    return ", ".join(f"{found[status]} {status}" for status in statuses if found[status])


def _short(text: str) -> str:
    """Return a number as short as a person writes it, and other text unchanged."""
    from jaxrl.config.check import short

    if "." not in text and "e" not in text:
        return text
    try:
        return short(float(text))
    except ValueError:
        return text
