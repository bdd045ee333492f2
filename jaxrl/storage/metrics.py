"""metrics.jsonl and evals.jsonl: one JSON object a line, appended whole, valid to the last line whatever happens.

A checkpoint holds the number of rows that were written before it; resume cuts the file there, so that no row is lost or
doubled.
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

from jaxrl.storage.checkpoint import storage_error
from jaxrl.storage.files import shown, sync_directory, write_all

METRICS, EVALS = "metrics.jsonl", "evals.jsonl"


class Rows:
    """An append-only JSONL file of a run. Opening it cuts a last line that a crash tore.

    rows = Rows(run, METRICS); rows.append({...}); rows.sync() before a checkpoint that holds rows.rows
    """

    def __init__(self, run: Path | str, name: str):
        self._run, self.path = Path(run), Path(run) / name
        self.rows = 0
        try:
            new = not self.path.exists()
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            if new:
                sync_directory(self.path.parent)
            if self._is_file():
                self.rows, end = _scan(self._fd, None)
                os.ftruncate(self._fd, end)
        except OSError as error:
            raise storage_error(error, self._run, self.path, 0) from error

    def append(self, row: Mapping[str, Any]) -> None:
        """Writes one line at once. NaN and infinities become null. Raises RunError when the disk is full."""
        line = (json.dumps(plain(dict(row)), allow_nan=False) + "\n").encode()
        try:
            size = os.fstat(self._fd).st_size
            try:
                write_all(self._fd, line)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, size)       # what was written of it
                raise
        except OSError as error:
            raise storage_error(error, self._run, self.path, len(line)) from error
        self.rows += 1

    def sync(self) -> None:
        """Makes the rows durable: call it before a checkpoint that counts them."""
        try:
            if self._is_file():
                os.fsync(self._fd)
        except OSError as error:
            raise storage_error(error, self._run, self.path, 0) from error

    def truncate_to(self, rows: int) -> None:
        """Keeps the first `rows` lines. Warns when there are fewer, which only a hand can bring about."""
        if not self._is_file():
            return
        found, end = _scan(self._fd, rows)
        if found < rows:
            warnings.warn(f"{shown(self.path)} has {found} rows, the checkpoint was written after {rows}: "
                          f"{rows - found} are lost", stacklevel=2)
        try:
            os.ftruncate(self._fd, end)
        except OSError as error:
            raise storage_error(error, self._run, self.path, 0) from error
        self.rows = found
        self.sync()

    def close(self) -> None:
        """Ends writing; harmless when done twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _is_file(self) -> bool:
        """False for /dev/null and the like, which have no rows to count."""
        return stat.S_ISREG(os.fstat(self._fd).st_mode)

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(run: Path | str, name: str = METRICS) -> list[dict[str, Any]]:
    """All whole rows of a file; [] when there is none. A torn or foreign line ends the reading."""
    found: list[dict[str, Any]] = []
    with contextlib.suppress(FileNotFoundError), open(Path(run) / name, "rb") as file:
        for line in file:
            row = _parse(line)
            if row is None:
                break
            found.append(row)
    return found


def plain(value: Any) -> Any:
    """A value as JSON data: arrays to lists, NumPy and JAX scalars to numbers, what is not finite to None."""
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
        return plain((array if array.dtype.kind in "biuf" else array.astype(np.float32)).tolist())
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in a row")


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _scan(fd: int, most: int | None) -> tuple[int, int]:
    """(whole rows, byte where they end), of the first `most` rows or all."""
    rows = end = 0
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        for line in file:
            if rows == most or _parse(line) is None:
                break
            rows, end = rows + 1, end + len(line)
    return rows, end
