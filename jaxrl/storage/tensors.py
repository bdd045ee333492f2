"""The safetensors file format, read and written as a stream.

The safetensors library opens these files, and this module those of the library. The library builds
the whole file in memory, which takes two more copies of a large replay, and its file writer loses
the errno of a full disk. Here arrays are written slice by slice and hashed on the way.

A file is an 8-byte little-endian header length, a JSON header {name: {dtype, shape, data_offsets}},
and the bytes of the arrays.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from io import BufferedIOBase
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxrl.storage.files import slices

_DTYPES = {
    "BOOL": np.bool_, "I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64,
    "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64,
    "F16": np.float16, "F32": np.float32, "F64": np.float64, "C64": np.complex64,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
}
DTYPES = {code: np.dtype(kind) for code, kind in _DTYPES.items()}
_CODES = {dtype: code for code, dtype in DTYPES.items()}
_LONGEST_HEADER = 100_000_000      # the library's limit
_MOST_AXES = 64                    # NumPy's limit


class Entry(NamedTuple):
    """One array of a file: its dtype code, shape, and byte range after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def check_name(name: str) -> None:
    """Raise ValueError unless `name` is a plain slash path.

    Names never reach a file system. Misleading ones are refused nevertheless.
    """
    parts = name.split("/") if isinstance(name, str) else [""]
    bad = any(part in ("", ".", "..") for part in parts)
    if bad or not name.isprintable() or name == "__metadata__":
        raise ValueError(f"{name!r} is not an array name")


def contiguous(name: str, array: np.ndarray) -> np.ndarray:
    """Return the array in C order and little-endian. Raises TypeError for an unknown dtype."""
    check_name(name)
    array = np.asarray(array)
    array = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    if array.dtype not in _CODES:
        raise TypeError(f"array {name} has dtype {array.dtype}: a checkpoint holds "
                        f"{', '.join(map(str, _CODES))}")
    return array


def header(arrays: dict[str, np.ndarray]) -> bytes:
    """Return the first bytes of a file that holds these arrays in this order."""
    entries: dict[str, Any] = {}
    start = 0
    for name, array in arrays.items():
        entries[name] = {"dtype": _CODES[array.dtype], "shape": list(array.shape),
                         "data_offsets": [start, start + array.nbytes]}
        start += array.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def order(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays sorted by item size, the widest first, then by name.

    So every array is aligned for mmap, and equal trees give equal files.
    """
    return dict(sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])))


def pieces(array: np.ndarray) -> Iterator[memoryview]:
    """Return the bytes of a contiguous array in slices."""
    return slices(array.reshape(-1).view(np.uint8).data)


def parse_header(file: BufferedIOBase, size: int) -> tuple[bytes, dict[str, Entry]]:
    """Read and check the header of a file of `size` bytes; return it with its entries.

    Entries must cover the data without gap or overlap, each as long as its dtype and shape need.
    Raises ValueError. Allocates no more than the size of the file.
    """
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > min(size - 8, _LONGEST_HEADER):
        raise ValueError("header is longer than the file")
    text = file.read(length)
    try:
        raw = json.loads(text)
        raw.pop("__metadata__", None)
        entries = {name: Entry(str(item["dtype"]), tuple(item["shape"]), *item["data_offsets"])
                   for name, item in raw.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("header is not valid") from None
    for name, entry in entries.items():
        _check_entry(name, entry)
    _check_ranges(entries, size - 8 - length)
    return prefix + text, entries


def _check_entry(name: str, entry: Entry) -> None:
    check_name(name)
    numbers = (*entry.shape, entry.start, entry.stop)
    valid = all(type(n) is int and 0 <= n < 1 << 62 for n in numbers)
    if not valid or len(entry.shape) > _MOST_AXES:
        raise ValueError(f"header of {name} is not valid")
    if entry.dtype not in DTYPES:
        raise ValueError(f"{name} has the unknown dtype {entry.dtype[:20]!r}")


def _check_ranges(entries: dict[str, Entry], size: int) -> None:
    """Raise ValueError unless the entries cover `size` bytes of data."""
    end = 0
    for name, entry in _by_start(entries):
        needed = math.prod(entry.shape) * DTYPES[entry.dtype].itemsize
        if entry.start != end or entry.stop - entry.start != needed or entry.stop > size:
            raise ValueError(f"header of {name} does not fit the file")
        end = entry.stop
    if end != size:
        raise ValueError("file is longer than its header says")


def _by_start(entries: dict[str, Entry]) -> list[tuple[str, Entry]]:
    return sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop))


def read(file: BufferedIOBase, size: int, want: Callable[[str], bool],
         ) -> tuple[dict[str, np.ndarray], dict[str, str], str]:
    """Read a file of `size` bytes in one pass.

    Return (wanted arrays, SHA-256 of every array, SHA-256 of the file). Raises ValueError.
    """
    head, entries = parse_header(file, size)
    total = hashlib.sha256(head)
    digests: dict[str, str] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, entry in _by_start(entries):
        digest = hashlib.sha256()
        count = entry.stop - entry.start
        if want(name):
            buffer = np.empty(count, np.uint8)
            for piece in slices(buffer.data):
                if file.readinto(piece) != len(piece):
                    raise ValueError("file ended early")
                digest.update(piece)
                total.update(piece)
            if entry.dtype == "BOOL" and buffer.size and buffer.max() > 1:
                raise ValueError(f"{name} holds values that are no booleans")
            arrays[name] = buffer.view(DTYPES[entry.dtype]).reshape(entry.shape)
        else:
            while count:
                data = file.read(min(count, 1 << 20))
                if not data:
                    raise ValueError("file ended early")
                digest.update(data)
                total.update(data)
                count -= len(data)
        digests[name] = digest.hexdigest()
    return arrays, digests, total.hexdigest()
