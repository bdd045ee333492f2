"""Output of a run for a person: a header, one live line, notes, the result and the next commands.

All but the result goes to stderr. Without a terminal, a plain line every 10 seconds replaces the
live line. Nothing here may stop a run: a stream that is closed, full or limited to ASCII loses
text and does no other harm.
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
from typing import TYPE_CHECKING, Any

import numpy as np

from envs_jax.sizes import ceil_div
from jaxrl.cli.main import say
from jaxrl.cli.text import duration, rate
from jaxrl.storage.files import counted
from jaxrl.storage.folder import is_pbt

if TYPE_CHECKING:
    from jaxrl.config.settings import Settings

EVERY = 10.0      # seconds between plain lines
REDRAW = 0.1      # seconds between frames of the live line


class Screen:
    """A `Reporter` (jaxrl/run/reporter.py) that prints; a context manager that ends the live line.

    quiet: print only the result. json: print the content of summary.json as the result.
    episodes: number of episodes per seed in an evaluation.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        json: bool = False,
        episodes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.quiet = quiet
        self.json = json
        self.episodes = episodes
        self.clock = clock
        self._last = -math.inf
        self._live: Any = None
        self._terminal = _is_terminal(sys.stderr)

    @classmethod
    def of(cls, settings: Settings) -> Screen:
        """Return the screen that the settings of a run ask for."""
        return cls(quiet=settings.quiet, json=settings.json, episodes=settings.eval_episodes)

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the live line."""
        live = self._live
        self._live = None
        if live is not None:
            _harmless(live.stop)

    # ---------------------------------------------------------------- the Reporter

    def header(self, facts: Mapping[str, Any]) -> None:
        if self.quiet:
            return
        width = max((len(label) for label in facts), default=0)
        for label, text in list(facts.items())[:6]:
            say(f"  {label:<{width}}  {text}")

    def progress(
        self,
        step: int,
        total: int,
        steps_per_second: float,
        returns: np.ndarray | None,
        elapsed: float,
    ) -> None:
        now = self.clock()
        wait = REDRAW if self._terminal else EVERY
        if self.quiet or now - self._last < wait:
            return
        self._last = now
        line = progress_line(
            step, total, steps_per_second, returns, elapsed, _unicode(sys.stderr))
        if self._terminal:
            _harmless(lambda: self._draw(line))
        else:
            say(line)

    def note(self, text: str) -> None:
        urgent = text.startswith(("warning", "error"))
        if self.quiet and not urgent:
            return
        self.close()
        if not (urgent or text.startswith(("stopping", "saved"))):
            text = f"  {text}"
        say(text)

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
            self._live = Live(
                text, console=Console(stderr=True), auto_refresh=False, transient=True,
                redirect_stdout=False, redirect_stderr=False)
            self._live.start()
        self._live.update(text, refresh=True)


def progress_line(
    step: int,
    total: int,
    steps_per_second: float,
    returns: np.ndarray | None,
    elapsed: float,
    unicode: bool = True,
) -> str:
    """Return step/total, steps/s, return mean ± interval over seeds, elapsed time, ETA."""
    done = min(step / max(total, 1), 1.0)
    eta = "?"
    if done > 0:
        eta = duration(elapsed * (1 - done) / done)
    return (f"  {step:,}/{total:,} {done:4.0%}  {rate(steps_per_second)} steps/s  "
            f"return {mean_text(returns, unicode)}  {duration(elapsed)}, ETA {eta}")


def mean_text(returns: np.ndarray | None, unicode: bool = True) -> str:
    """Return "498.7 ± 2.1": the mean over the seeds and half the width of its 95 % interval.

    Seeds without a finished episode are left out.
    """
    values = np.asarray([] if returns is None else returns, float).ravel()
    values = values[np.isfinite(values)]
    if not values.size:
        return "-"
    if values.size == 1:
        return number(values.mean())
    mean = float(values.mean())
    half = _student(values.size - 1) * values.std(ddof=1) / math.sqrt(values.size)
    sign = "±" if unicode else "+-"
    return f"{number(mean)} {sign} {number(half, like=mean)}"


def number(x: float, like: float | None = None) -> str:
    """Return a number as text: 498.7, 0.123, -1,234, with as many decimals as `like` would have."""
    size = abs(x if like is None else like)
    decimals = 3
    if size >= 1000:
        decimals = 0
    elif size >= 10:
        decimals = 1
    return f"{x:,.{decimals}f}"


def result_lines(summary: Mapping[str, Any], run: Path, episodes: int | None = None) -> list[str]:
    """Return the result of a run and the next commands, ready to copy."""
    seeds = summary["num_seeds"]
    steps = summary["total_steps"]
    status = summary["status"]
    head = "  "
    if status != "completed":
        head = f"  {status}: "
    many = f" x {seeds}" if seeds > 1 else ""
    lines = [f"{head}{_score(summary, run, episodes)}{steps:,} steps{many} "
             f"in {duration(summary.get('seconds') or 0)}  "
             f"({rate(summary.get('steps_per_second') or 0)} steps/s, "
             f"compile {summary.get('compile_seconds') or 0:.1f} s)"]
    if status == "failed":
        return lines
    folder = shlex.quote(str(run))
    if run.is_dir() and not any((run / "checkpoints").glob("[0-9]*")):     # stopped too early
        return [*lines, f"  next:  jaxrl train config={folder}/config.yaml"]
    resume = f"jaxrl resume {folder}"
    if status == "completed":
        resume += f" total_steps={_round_up(2 * steps)}"
    return [*lines, f"  next:  jaxrl eval {folder}      {resume}"]


def _score(summary: Mapping[str, Any], run: Path, episodes: int | None) -> str:
    """Return the final evaluation as text, "" if there is none."""
    returns = [r for r in summary.get("eval_returns") or [] if r is not None]
    if not returns:
        return ""
    mean = summary.get("eval_iqm")       # the interval is that of the IQM
    if mean is None:
        mean = float(np.mean(returns))
    low, high = (summary.get("eval_ci95") or [None, None])[:2]
    interval = ""
    if low is not None and high is not None:
        interval = f" [{number(low, mean)}, {number(high, mean)}]"
    count = counted(summary["num_seeds"], "member" if is_pbt(run) else "seed")
    if episodes:
        count += f" x {episodes} episodes"
    return f"return {number(mean)}{interval}  ({count})   "


def _round_up(steps: int) -> str:
    """Return a proposal of two digits: 1e6 for 999,424 and for 1,000,000."""
    if steps < 10_000:
        return str(steps)
    power = 10 ** max(len(str(steps)) - 2, 0)
    mantissa, exponent = f"{ceil_div(steps, power) * power:e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def _student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t, within 1 %."""
    few = (12.71, 4.303, 3.182, 2.776, 2.571)
    if freedom <= len(few):
        return few[freedom - 1]
    return 1.96 + 2.37 / freedom + 2.8 / freedom**2


def _summary_text(summary: Mapping[str, Any], run: Path) -> str:
    """Return the content of summary.json, or `summary` as JSON if the file cannot be read."""
    try:
        return (run / "summary.json").read_text().rstrip("\n")
    except OSError:
        from jaxrl.storage.metrics import plain

        return json.dumps(plain(summary), indent=2)


def _is_terminal(stream: Any) -> bool:
    if stream is None or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        return False
    try:
        return stream.isatty()
    except ValueError:                        # closed
        return False


def _unicode(stream: Any) -> bool:
    return "utf" in (getattr(stream, "encoding", None) or "").lower()


def _harmless(draw: Callable[[], Any]) -> None:
    """Call `draw` and ignore a terminal that is gone or refuses a character."""
    with contextlib.suppress(OSError, ValueError):
        draw()
