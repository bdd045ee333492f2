"""Plain tables, and numbers as people write them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = (), indent: str = "  ") -> list[str]:
    """Lines of aligned columns; the last column is wrapped to the terminal."""
    rows = [[str(cell) for cell in row] for row in ([head] if head else []) + list(rows)]
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    left = len(indent) + sum(w + 2 for w in widths)
    room = max(shutil.get_terminal_size((120, 24)).columns - left, 24)
    lines = []
    for row in rows:
        first = indent + "".join(cell.ljust(width + 2) for cell, width in zip(row, widths))
        for i, part in enumerate(_wrapped(row[-1], room)):
            lines.append(((first if i == 0 else " " * left) + part).rstrip())
    return lines


def _wrapped(text: str, room: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]


def duration(seconds: float) -> str:
    """6.1 s, 4:05, 2:03:09."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rate(per_second: float) -> str:
    """Steps per second with three digits that mean something: 655,000."""
    if not per_second < 1e15 or per_second <= 0:      # also nan
        return "0"
    digits = max(len(str(int(per_second))) - 3, 0)
    return f"{round(per_second / 10**digits) * 10**digits:,}"
