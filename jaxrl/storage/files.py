"""Writing that survives kill -9, power loss and full disks.

A file is written under a temporary name, fsynced and renamed; then its folder is fsynced. All calls
go through `os`, so that errors carry an errno and a test can record or stop every step.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SLICE = 1 << 24     # bytes of one write: fast, and still in cache while they are hashed


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write every byte, even if single writes are short."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view[:_SLICE]):]


def write_new(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Create `path`, which must not exist, from chunks of bytes, and fsync it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        for chunk in chunks:
            write_all(fd, chunk)
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace the content of `path`. A reader finds the old content or the new, never a part."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        write_new(temporary, [data])
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def slices(data: memoryview) -> Iterator[memoryview]:
    """Return a long buffer in pieces."""
    for start in range(0, len(data), _SLICE):
        yield data[start:start + _SLICE]


def is_no_space(error: OSError) -> bool:
    """Return True if a full disk, a quota or a file size limit stopped a write."""
    return error.errno in _NO_SPACE


def free_bytes(path: Path) -> int:
    """Return the bytes that a user may still write beside `path`; 0 if unknown."""
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return 0


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: 1 seed, 8 seeds."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def size_text(count: float) -> str:
    """Return a number of bytes for a person: 12 B, 2.0 KiB, 21.9 GiB."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} GiB"


def shown(path: Path | str) -> str:
    """Return a path as a person types it: relative if it is inside the working directory."""
    try:
        return str(Path(path).absolute().relative_to(Path.cwd()))
    except (OSError, ValueError):
        return str(path)
