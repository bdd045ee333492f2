"""TensorBoard event files in `tb/`: scalars, evaluations, HParams.

A failure gives one warning and never stops the run. Events are written by tensorboardX's record
writer in this thread, because its SummaryWriter passes them to a thread that dies on a full disk
and then blocks the run.
"""

from __future__ import annotations

import contextlib
import functools
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.storage.files import shown
from jaxrl.storage.metrics import plain

_NOT_PLOTTED = {"step", "seconds"}
_FLUSH_SECONDS = 5.0       # a flush is an fsync
_FINAL = ("eval_iqm", "eval_returns", "train_returns", "steps_per_second", "best_step")


def _harmless(method: Callable) -> Callable:
    """Turn the first failure into a warning, after which the object does nothing."""
    @functools.wraps(method)
    def guarded(self: TensorBoard, *args: Any, **kwargs: Any) -> None:
        if self.failed:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self.failed = True
            with contextlib.suppress(Exception):
                self._writer.close()
            warnings.warn(f"TensorBoard files in {shown(self.folder)} stop here ({error}). The run "
                          "continues; metrics.jsonl has everything", stacklevel=2)
    return guarded


class TensorBoard:
    """A writer of the rows of a run."""

    def __init__(self, run: Path | str, resumed_at: int | None = None, per_seed: bool = False):
        """Open a new event file.

        resumed_at: the step from which a run continues; TensorBoard drops earlier points after it.
        per_seed: write the values of single seeds, too.
        """
        self.folder = Path(run) / "tb"
        self.per_seed = per_seed
        self.failed = False
        self._writer: Any = None
        self._flushed = 0.0
        self._open(resumed_at)

    @_harmless
    def _open(self, resumed_at: int | None) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self.folder.mkdir(exist_ok=True)
        number = len(list(self.folder.glob("events.out.tfevents.*")))     # names differ in a second
        self._writer = EventsWriter(str(self.folder / "events"), f".{number}")
        if resumed_at is not None:
            log = SessionLog(status=SessionLog.START)
            event = Event(step=int(resumed_at) + 1, wall_time=time.time(), session_log=log)
            self._writer.write_event(event)
        self._writer.flush()

    @_harmless
    def metrics(self, row: Mapping[str, Any]) -> None:
        """Write a row of metrics.jsonl: the mean over seeds of every number, as train/<name>."""
        names = [name for name in row if name not in _NOT_PLOTTED]
        self._scalars(int(row["step"]), {f"train/{name}": row[name] for name in names})

    @_harmless
    def evaluation(self, row: Mapping[str, Any]) -> None:
        """Write a row of evals.jsonl: eval/return, the mean over seeds and episodes."""
        means = [_mean(returns) for returns in row["returns"]]
        self._scalars(int(row["step"]), {"eval/return": means})

    @_harmless
    def finish(self, hyper: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """Write HParams: hyperparameters by their config names, and numbers of summary.json."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import hparams

        means = {f"final/{name}": _mean(summary.get(name)) for name in _FINAL}
        found = {tag: value for tag, value in means.items() if value is not None}
        for part in hparams({name: _setting(value) for name, value in hyper.items()}, found):
            self._writer.write_event(Event(wall_time=time.time(), summary=part))
        self._scalars(int(summary["total_steps"] or 0), found)

    @_harmless
    def flush(self) -> None:
        """Write the buffered events to the file."""
        self._writer.flush()

    @_harmless
    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self.failed = True      # there is no file any more

    def _scalars(self, step: int, values: Mapping[str, Any]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        points = []
        for tag, value in values.items():
            mean = _mean(value)
            if mean is not None:
                points.append(Summary.Value(tag=tag, simple_value=mean))
            seeds = plain(value)
            if self.per_seed and isinstance(seeds, list) and len(seeds) > 1:
                for index, seed in enumerate(map(_mean, seeds)):
                    if seed is not None:
                        points.append(Summary.Value(tag=f"{tag}/seed_{index}", simple_value=seed))
        if points:
            summary = Summary(value=points)
            self._writer.write_event(Event(step=step, wall_time=time.time(), summary=summary))
            if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self._writer.flush()
                self._flushed = time.monotonic()


def _mean(value: Any) -> float | None:
    """Return the mean of the finite numbers in a number or (nested) list; None without any."""
    value = plain(value)
    if isinstance(value, list):
        found = [mean for mean in map(_mean, value) if mean is not None]
        if not found:
            return None
        return float(np.mean(found))
    return float(value) if isinstance(value, (int, float)) else None


def _setting(value: Any) -> bool | float | str:
    """Return a hyperparameter as HParams can show it."""
    if not isinstance(value, (list, tuple, dict)):
        value = plain(value)
        if isinstance(value, (bool, int, float, str)):
            return value
    return str(value)
