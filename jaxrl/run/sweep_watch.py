"""The header and progress of a sweep."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl import backend
from jaxrl.config.axes import Question
from jaxrl.population import trials as search
from jaxrl.population.trials import Trial
from jaxrl.run.plan import chosen
from jaxrl.run.reporter import Reporter, Silent
from jaxrl.storage import folder
from jaxrl.storage.files import counted


def header(path: Path, asked: Question) -> dict[str, str]:
    """Return the header of a sweep, label -> text."""
    s = asked.config.settings
    devices = backend.devices(s.num_devices)
    trials, _ = search.size(asked.options, asked.axes, s.total_steps)
    device = (f"{len(devices)} x {devices[0].device_kind}, "
              f"blocks of {counted(chosen(asked.options.block), 'trial')}")
    if s.workers:
        device += f", on {counted(s.workers, 'worker')}"
    return {
        "algorithm": f"{asked.config.algo} in {asked.config.env.name}",
        "search": _search(asked, trials),
        "over": "  ".join(axis.text() for axis in asked.axes),
        "trials": f"{trials} x {counted(s.num_seeds, 'seed')} x {s.total_steps:,} steps",
        "device": device,
        "sweep": folder.shown(path)}


def _search(asked: Question, trials: int) -> str:
    options = asked.options
    if options.search == "asha":
        total = asked.config.settings.total_steps
        rungs = search.rungs(trials, total, options.eta, options.grace)
        return "asha, rungs " + ", ".join(f"{count} to {steps:,}" for count, steps in rungs)
    if options.search == "optuna":
        return f"optuna, {options.batch} at once"
    return options.search


class Watch:
    """The reporter of the runs of a sweep, which turns their progress into that of the sweep.

    Steps are those of all members together. The return is that of the best trial at the time.
    """

    def __init__(self, reporter: Reporter, seeds: int, total: int):
        """Report to `reporter`. seeds: per trial. total: steps of all members of all trials."""
        self.reporter = reporter
        self.seeds = seeds
        self.total = total
        self.done = 0                            # steps of the runs that have ended
        self.before = 0                          # steps per seed before the current run
        self.count = 0                           # members of the current run
        self.began = time.perf_counter()

    def for_session(self) -> Reporter:
        """Return the reporter of a session: a silent one if the sweep's is silent."""
        return self.reporter if isinstance(self.reporter, Silent) else self

    def begin(self, trials: list[Trial], steps: Mapping[int, int]) -> None:
        """Begin a run. steps: trial -> environment steps per seed that it has done before."""
        self.before = steps.get(trials[0].number, 0)
        self.count = len(trials) * self.seeds

    def end(self, steps: int) -> None:
        """End a run whose members have done `steps` together, earlier runs included."""
        self.done += steps - self.before * self.count

    def header(self, facts: Mapping[str, Any]) -> None:
        """Drop the header of a run: the sweep has its own."""

    def progress(self, step: int, total: int, steps_per_second: float,
                 returns: np.ndarray | None, elapsed: float) -> None:
        """Report the progress of the sweep."""
        best = None
        if returns is not None:
            best = self._best(np.asarray(returns, np.float64).reshape(-1, self.seeds))
        done = self.done + (step - self.before) * self.count
        self.reporter.progress(min(done, self.total), self.total, steps_per_second, best,
                               time.perf_counter() - self.began)

    def _best(self, trials: np.ndarray) -> np.ndarray | None:
        """Return the row of [trials, seeds] with the highest mean; None if none is complete."""
        known = trials[np.isfinite(trials).all(axis=1)]
        return known[known.mean(axis=1).argmax()] if len(known) else None

    def note(self, text: str) -> None:
        """Pass on a note."""
        self.reporter.note(text)

    def result(self, summary: Mapping[str, Any], run_folder: Path) -> None:
        """Drop the result of a run: the sweep has its own."""
