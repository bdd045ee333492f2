"""jaxrl sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HELP = """
jaxrl sweep algo=NAME env=NAME KEY=A,B,C [KEY=range(LOW,HIGH)] [search=...] [key=value ...]

Trains many trials side by side and finds the best. KEY=A,B,C tries every value; range(LOW,HIGH) is drawn from, by the
logarithm where the setting's own search range is logarithmic (jaxrl list ppo), or with tag(log,interval(LOW,HIGH)).
Random, asha and optuna search over all declared search ranges where no KEY has several values.
Trials that differ in numbers only (learning rates, discounts ...) share one compiled program. Each trial has num_seeds=
seeds; its score is the IQM over them of the final greedy evaluation. `jaxrl resume SWEEP` goes on with a stopped one.

Examples:
  jaxrl sweep algo=ppo env=cartpole algo.learning_rate=1e-4,3e-4,1e-3 num_seeds=8
  jaxrl sweep algo=ppo env=cartpole search=asha trials=64 "algo.learning_rate=range(1e-5,1e-2)" algo.num_envs=8,16

All settings of jaxrl train but stop_return, init_from and profile, and these:
"""
MOST = 10                   # trials in the table at the end


def more_help() -> list[str]:
    """The settings of a sweep, for the help."""
    from jaxrl.cli.text import table
    from jaxrl.config.axes import OPTIONS
    from jaxrl.config.check import short

    return table([name, short(d.default), d.help] for name, d in OPTIONS.items())


def run(words: list[str]) -> None:
    from jaxrl import backend, config
    from jaxrl.cli.screen import Screen
    from jaxrl.config.axes import OPTIONS, question
    from jaxrl.config.overrides import parse_sweep

    settings = config.peek([word for word in words if word.partition("=")[0].lstrip("+") not in OPTIONS])
    backend.prepare(settings.device)             # before anything asks JAX for its devices
    asked = question(*parse_sweep(words))

    from jaxrl.run import sweep

    settings = asked.config.settings
    with Screen(quiet=settings.quiet or settings.json) as screen:
        path = sweep.sweep(asked, screen)
    say_result(path, json=settings.json)


def resume(path: str, words: list[str]) -> None:
    """`jaxrl resume SWEEP`."""
    from jaxrl import backend
    from jaxrl.cli.screen import Screen
    from jaxrl.run import questions, sweep

    settings = questions.read(Path(path), words).config.settings
    backend.prepare(settings.device)
    with Screen(quiet=settings.quiet or settings.json) as screen:
        path = sweep.resume(path, words, screen)
    say_result(path, json=settings.json)


def say_result(path: Path, *, json: bool) -> None:
    """The best trials and the next commands; with `json` every trial, on stdout."""
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
    """A table of the best trials, what became of the others, and what to type next."""
    import shlex

    from jaxrl.cli.screen import number
    from jaxrl.cli.text import table
    from jaxrl.report.page import REPORT
    from jaxrl.storage.files import shown
    from jaxrl.storage.sweep import BEST, BOARDS, COLUMNS, TABLE

    axes = [key for key in rows[0] if key not in {*COLUMNS, "returns", "what", "run"}]
    done = sorted((row for row in rows if row["status"] == "completed"), key=lambda row: (-row["iqm"], row["trial"]))
    lines = table([[row["trial"], f"{number(row['iqm'])} [{number(row['ci_low'], row['iqm'])}, "
                    f"{number(row['ci_high'], row['iqm'])}]", f"{row['steps']:,}",
                    "  ".join(f"{key.removeprefix('algo.')}={_short(row[key])}" for key in axes)]
                   for row in done[:MOST]], ["trial", "return", "steps", "settings"])
    others = [f"{count} {status}" for status in ("completed", "pruned", "diverged", "failed")
              if (count := sum(row["status"] == status for row in rows))]
    folder = shlex.quote(shown(path))
    return [*lines, f"  {len(rows)} trials: {', '.join(others)}.  All of them: {folder}/{TABLE}, {folder}/{REPORT}",
            f"  next:  jaxrl train config={folder}/{BEST}      tensorboard --logdir {folder}/{BOARDS}"]


def _short(text: str) -> str:
    """A number as short as a person writes it; other text as it is."""
    from jaxrl.config.check import short

    try:
        return short(float(text)) if "." in text or "e" in text else text
    except ValueError:
        return text
