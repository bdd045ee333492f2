"""Writing that survives kill -9, power loss and full disks: temporary name, write, fsync, one rename, fsync the parent.

No JAX here. Everything goes through `os`, so that errors carry an errno and a test can record or stop every step.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SLICE = 1 << 24     # bytes given to one write: long enough to be fast, short enough to stay in cache while hashed


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Writes every byte, however short single writes fall."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view[:_SLICE]):]


def write_new(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Creates `path`, which must not exist, from chunks of bytes, and fsyncs it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        for chunk in chunks:
            write_all(fd, chunk)
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces `path` by `data`: a reader finds the old content or the new, whole, whenever the machine stops."""
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
    """A long buffer in pieces."""
    for start in range(0, len(data), _SLICE):
        yield data[start:start + _SLICE]


def is_no_space(error: OSError) -> bool:
    """Whether the disk, a quota or a file size limit is what stopped a write."""
    return error.errno in _NO_SPACE


def free_bytes(path: Path) -> int:
    """Bytes a user may still write beside `path`; 0 when nobody can say."""
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return 0


def size_text(count: int) -> str:
    """41 MB, 3.2 GB, 12 kB: what a person wants to know of a size."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            value = count / scale
            return f"{value:.1f} {unit}" if unit != "MB" and value < 100 else f"{value:.0f} {unit}"
    return f"{-(-count // 1000)} kB" if count else "0 MB"


def shown(path: Path | str) -> str:
    """A path as a person types it: relative where it lies under the working directory."""
    try:
        return str(Path(path).absolute().relative_to(Path.cwd()))
    except (OSError, ValueError):
        return str(path)
