"""The interface of everything that watches a run. The loop calls it and prints nothing itself."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Reporter(Protocol):
    """A watcher of a run: `jaxrl.cli.screen.Screen` draws it, `Silent` ignores it."""

    def header(self, facts: Mapping[str, Any]) -> None:
        """Show label -> text, at most six lines, once, before the first update."""

    def progress(self, step: int, total: int, steps_per_second: float,
                 returns: np.ndarray | None, elapsed: float) -> None:
        """Show the progress after a chunk.

        Steps are per seed, `steps_per_second` is over all seeds. `returns` [seeds] holds mean
        training returns (nan: none yet), None if no episode has ended.
        """

    def note(self, text: str) -> None:
        """Show one line: a rounding, a warning, a checkpoint saved at a signal."""

    def result(self, summary: Mapping[str, Any], run_folder: Path) -> None:
        """Show the content of summary.json, once, at the end."""


class Silent:
    """A reporter that shows nothing, for the Python API."""

    def header(self, facts: Mapping[str, Any]) -> None:
        pass

    def progress(self, step: int, total: int, steps_per_second: float,
                 returns: np.ndarray | None, elapsed: float) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def result(self, summary: Mapping[str, Any], run_folder: Path) -> None:
        pass


@contextlib.contextmanager
def warnings_as_notes(reporter: Reporter) -> Iterator[None]:
    """Send the warnings of jaxrl itself to the reporter, unless the reporter is silent."""
    if isinstance(reporter, Silent):
        yield
        return
    home = str(Path(__file__).parents[1])
    show = warnings.showwarning

    def note(message: Warning | str, category: type[Warning], filename: str, *rest: Any,
             **more: Any) -> None:
        if str(filename).startswith(home):
            reporter.note(f"warning: {message}")
        else:
            show(message, category, filename, *rest, **more)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning, module="jaxrl")
        warnings.showwarning = note
        yield
