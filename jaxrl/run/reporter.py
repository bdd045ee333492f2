"""What a run tells whoever watches it. The loop calls these methods and prints nothing itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Reporter(Protocol):
    """`jaxrl.cli.screen.Screen` draws it, `Silent` does not."""

    def header(self, facts: Mapping[str, Any]) -> None:
        """Once, before the first update: label -> text, at most six lines, drawn in the order given."""

    def progress(self, step: int, total: int, steps_per_second: float, returns: np.ndarray | None,
                 elapsed: float) -> None:
        """After every chunk. Steps are per seed, `steps_per_second` is over all seeds; `returns` has one mean training
        return per seed (nan: none yet), None when no episode has ended."""

    def note(self, text: str) -> None:
        """A line worth reading: a rounding, a warning, a checkpoint saved at a signal."""

    def result(self, summary: Mapping[str, Any], run_folder: Path) -> None:
        """Once, at the end: the content of summary.json."""


class Silent:
    """Says nothing: the Python API."""

    def header(self, facts: Mapping[str, Any]) -> None:
        pass

    def progress(self, step: int, total: int, steps_per_second: float, returns: np.ndarray | None,
                 elapsed: float) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def result(self, summary: Mapping[str, Any], run_folder: Path) -> None:
        pass
