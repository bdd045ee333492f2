"""Plain tables, and numbers as people write them."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

NARROW = 24         # columns: the least width of the last column beside the others


def table(rows: Iterable[Sequence[Any]], head: Sequence[str] = (), indent: str = "  "
          ) -> list[str]:
    """Return lines of aligned columns, the last column wrapped to the width of the terminal.

    On a narrow terminal the last column is below the others.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    if head:
        cells.insert(0, list(head))
    if not cells:
        return []
    widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in cells))]
    left = len(indent) + sum(width + 2 for width in widths)
    columns = shutil.get_terminal_size((120, 24)).columns
    lines = []
    for row in cells:
        first = indent + "".join(cell.ljust(width + 2) for cell, width in zip(row, widths))
        if columns - left >= NARROW:
            texts = _wrapped(row[-1], columns - left)
            lines.append(first + texts[0])
            lines += [" " * left + text for text in texts[1:]]
        else:
            below = indent + " " * 4
            lines.append(first)
            lines += [below + text for text in _wrapped(row[-1], max(columns - 6, NARROW)) if text]
    return [line.rstrip() for line in lines]


def _wrapped(text: str, room: int) -> list[str]:
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]


def duration(seconds: float) -> str:
    """Return a duration: 6.1 s, 4:05, 2:03:09."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}"


def rate(per_second: float) -> str:
    """Return steps per second with three significant digits: 655,000."""
    if not 0 < per_second < 1e15:      # also nan
        return "0"
    digits = max(len(str(int(per_second))) - 3, 0)
    return f"{round(per_second / 10**digits) * 10**digits:,}"
