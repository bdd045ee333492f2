"""metrics.jsonl and evals.jsonl: one JSON object per line, valid to the last line at any time.

A checkpoint holds the number of rows that were written before it. Resume cuts the file there, so
that no row is lost or doubled.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.errors import UserError
from jaxrl.storage.checkpoint import storage_error
from jaxrl.storage.files import shown, sync_directory, write_all

METRICS = "metrics.jsonl"
EVALS = "evals.jsonl"


class Rows:
    """An append-only JSONL file of a run.

    rows = Rows(run, METRICS); rows.append({...}); rows.sync() before a checkpoint with rows.rows
    """

    def __init__(self, run: Path | str, name: str):
        """Open the file and cut a last line that a crash tore."""
        self._run = Path(run)
        self.path = self._run / name
        self.rows = 0
        try:
            new = not self.path.exists()
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._fd = os.open(self.path, flags, 0o666)
            if new:
                sync_directory(self.path.parent)
            if self._is_file():
                self.rows, end = _scan(self._fd, None)
                os.ftruncate(self._fd, end)
        except OSError as error:
            raise storage_error(error, self._run, self.path, 0) from error

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one line. NaN and infinities become null. Raises RunError if the disk is full."""
        line = (json.dumps(plain(dict(row)), allow_nan=False) + "\n").encode()
        try:
            size = os.fstat(self._fd).st_size
            try:
                write_all(self._fd, line)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, size)       # the part that was written
                raise
        except OSError as error:
            raise storage_error(error, self._run, self.path, len(line)) from error
        self.rows += 1

    def sync(self) -> None:
        """Make the rows durable. Call this before a checkpoint that counts them."""
        try:
            if self._is_file():
                os.fsync(self._fd)
        except OSError as error:
            raise storage_error(error, self._run, self.path, 0) from error

    def truncate_to(self, rows: int) -> None:
        """Keep the first `rows` lines. Warn if there are fewer, because somebody removed them."""
        if not self._is_file():
            return
        found, end = _scan(self._fd, rows)
        if found < rows:
            warnings.warn(f"{shown(self.path)} has {found} rows, the checkpoint was written after "
                          f"{rows}: {rows - found} are lost", stacklevel=2)
        try:
            os.ftruncate(self._fd, end)
        except OSError as error:
            raise storage_error(error, self._run, self.path, 0) from error
        self.rows = found
        self.sync()

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _is_file(self) -> bool:
        """Return False for devices such as /dev/null, which have no rows to count."""
        return stat.S_ISREG(os.fstat(self._fd).st_mode)

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(run: Path | str, name: str = METRICS, *, strict: bool = False) -> list[dict[str, Any]]:
    """Return all whole rows of a file; [] if there is no file.

    Reading ends at a torn or foreign line. strict: raise UserError for a foreign line.
    """
    path = Path(run) / name
    found: list[dict[str, Any]] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), open(path, "rb") as file:
        for line in file:
            row = _parse(line)
            if row is None:
                if strict and line.endswith(b"\n"):
                    number = len(found) + 1
                    raise UserError(f"{shown(path)} is damaged (line {number} is not a row).")
                break
            found.append(row)
    return found


def plain(value: Any) -> Any:
    """Return a value as JSON data.

    Arrays become lists, NumPy and JAX scalars numbers, and numbers that are not finite None.
    """
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            array = array.astype(np.float32)
        return plain(array.tolist())
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a row")


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the row of a whole line; None for other lines."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _scan(fd: int, most: int | None) -> tuple[int, int]:
    """Return (whole rows, byte at which they end) of the first `most` rows or all."""
    rows = 0
    end = 0
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        for line in file:
            if rows == most or _parse(line) is None:
                break
            rows += 1
            end += len(line)
    return rows, end
