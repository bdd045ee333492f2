"""What a person sees of a run: a header, one live line, notes, the result and what to type next.

All but the result goes to stderr. Without a terminal the live line becomes a plain one every 10 seconds. Nothing here
may stop a run: a stream that is closed, full or knows only ASCII loses text, no more.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.cli.main import say
from jaxrl.cli.text import duration, rate
from jaxrl.storage.folder import is_pbt

EVERY = 10.0      # seconds between plain lines
REDRAW = 0.1      # seconds between frames of the live line


class Screen:
    """A `Reporter` (jaxrl/run/reporter.py). Use it as a context manager, so that the live line is cleared at an error.

    quiet: only the result. json: the result is the content of summary.json. episodes: of an evaluation, per seed.
    """

    def __init__(self, *, quiet: bool = False, json: bool = False, episodes: int | None = None,
                 clock: Callable[[], float] = time.monotonic):
        self.quiet, self.json, self.episodes, self.clock = quiet, json, episodes, clock
        self._last, self._live = -math.inf, None
        self._terminal = _is_terminal(sys.stderr)

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the live line."""
        live, self._live = self._live, None
        if live is not None:
            _harmless(live.stop)

    # ---------------------------------------------------------------- the Reporter

    def header(self, facts: Mapping[str, Any]) -> None:
        if self.quiet:
            return
        width = max((len(label) for label in facts), default=0)
        for label, text in list(facts.items())[:6]:
            say(f"  {label:<{width}}  {text}")

    def progress(self, step: int, total: int, steps_per_second: float, returns: np.ndarray | None,
                 elapsed: float) -> None:
        now = self.clock()
        if self.quiet or now - self._last < (REDRAW if self._terminal else EVERY):
            return
        self._last = now
        line = progress_line(step, total, steps_per_second, returns, elapsed, _unicode(sys.stderr))
        if self._terminal:
            _harmless(lambda: self._draw(line))
        else:
            say(line)

    def note(self, text: str) -> None:
        if not self.quiet or text.startswith(("warning", "error")):
            self.close()
            say(text if text.startswith(("warning", "error", "stopping", "saved")) else f"  {text}")

    def result(self, summary: Mapping[str, Any], run_folder: Path) -> None:
        self.close()
        if self.json:
            say(_summary_text(summary, Path(run_folder)), "stdout")
            return
        for line in result_lines(summary, Path(run_folder), self.episodes):
            say(line, "stdout")

    # ---------------------------------------------------------------- the live line

    def _draw(self, line: str) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        text = Text(line, no_wrap=True, overflow="ellipsis")
        if self._live is None:
            self._live = Live(text, console=Console(stderr=True), auto_refresh=False, transient=True,
                              redirect_stdout=False, redirect_stderr=False)
            self._live.start()
        self._live.update(text, refresh=True)


def progress_line(step: int, total: int, steps_per_second: float, returns: np.ndarray | None, elapsed: float,
                  unicode: bool = True) -> str:
    """step/total, steps/s, return mean ± CI over seeds, elapsed, ETA."""
    done = min(step / max(total, 1), 1.0)
    left = elapsed * (1 - done) / done if done > 0 else math.nan
    eta = duration(left) if math.isfinite(left) else "?"
    return (f"  {step:,}/{total:,} {done:4.0%}  {rate(steps_per_second)} steps/s  "
            f"return {mean_text(returns, unicode)}  {duration(elapsed)}, ETA {eta}")


def mean_text(returns: np.ndarray | None, unicode: bool = True) -> str:
    """"498.7 ± 2.1": mean over the seeds that have ended an episode and the half-width of its 95 % interval."""
    values = np.asarray([] if returns is None else returns, float).ravel()
    values = values[np.isfinite(values)]
    if not values.size:
        return "-"
    if values.size == 1:
        return number(values.mean())
    mean, half = float(values.mean()), _student(values.size - 1) * values.std(ddof=1) / math.sqrt(values.size)
    return f"{number(mean)} {'±' if unicode else '+-'} {number(half, like=mean)}"


def number(x: float, like: float | None = None) -> str:
    """A return: 498.7, 0.123, -1,234; with as many decimals as `like` has."""
    size = abs(x if like is None else like)
    return f"{x:,.{0 if size >= 1000 else 1 if size >= 10 else 3}f}"


def result_lines(summary: Mapping[str, Any], run: Path, episodes: int | None = None) -> list[str]:
    """The result and the next commands, ready to copy."""
    seeds, steps = summary["num_seeds"], summary["total_steps"]
    returns = [r for r in summary.get("eval_returns") or [] if r is not None]
    if returns:
        iqm = summary.get("eval_iqm")            # what the interval is of; over less than four seeds it is the mean
        mean = float(np.mean(returns)) if iqm is None else iqm
        low, high = (summary.get("eval_ci95") or [None, None])[:2]
        interval = f" [{number(low, mean)}, {number(high, mean)}]" if low is not None and high is not None else ""
        noun = "member" if is_pbt(run) else "seed"
        count = f"{seeds} {noun}{'s' if seeds > 1 else ''}" + (f" x {episodes} episodes" if episodes else "")
        score = f"return {number(mean)}{interval}  ({count})   "
    else:
        score = ""
    speed = f"{rate(summary.get('steps_per_second') or 0)} steps/s, compile {summary.get('compile_seconds') or 0:.1f} s"
    many = f" x {seeds}" if seeds > 1 else ""
    status = "" if summary["status"] == "completed" else f"{summary['status']}: "
    lines = [f"  {status}{score}{steps:,} steps{many} in {duration(summary.get('seconds') or 0)}  ({speed})"]
    if summary["status"] == "failed":
        return lines
    folder = shlex.quote(str(run))
    if run.is_dir() and not any((run / "checkpoints").glob("[0-9]*")):     # stopped before there was one
        return [*lines, f"  next:  jaxrl train config={folder}/config.yaml"]
    more = f" total_steps={_round_up(2 * steps)}" if summary["status"] == "completed" else ""
    return [*lines, f"  next:  jaxrl eval {folder}      jaxrl resume {folder}{more}"]


def _round_up(steps: int) -> str:
    """1e6 for 999,424 or 1,000,000: two digits are enough for a proposal."""
    power = 10 ** max(len(str(steps)) - 2, 0)
    mantissa, exponent = f"{-(-steps // power) * power:e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}" if steps >= 10_000 else str(steps)


def _student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, within 1 %."""
    few = (12.71, 4.303, 3.182, 2.776, 2.571)
    return few[freedom - 1] if freedom <= len(few) else 1.96 + 2.37 / freedom + 2.8 / freedom**2


def _summary_text(summary: Mapping[str, Any], run: Path) -> str:
    """The file as it was written; the same keys when it cannot be read."""
    try:
        return (run / "summary.json").read_text().rstrip("\n")
    except OSError:
        from jaxrl.storage.metrics import plain

        return json.dumps(plain(summary), indent=2)


def _is_terminal(stream: Any) -> bool:
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    except ValueError:                        # closed
        return False


def _unicode(stream: Any) -> bool:
    return "utf" in (getattr(stream, "encoding", None) or "").lower()


def _harmless(draw: Callable[[], Any]) -> None:
    """Drawing is not worth a run: a terminal may go away or refuse a character."""
    with contextlib.suppress(OSError, ValueError):
        draw()
