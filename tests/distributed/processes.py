"""Processes of this machine: what a run with workers has started, and whether it is gone."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path


def family(pid: int) -> set[int]:
    """Return all processes that descend from one."""
    children: dict[int, set[int]] = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            parent = int(status.read_text().partition("PPid:")[2].split()[0])
            children.setdefault(parent, set()).add(int(status.parent.name))
    found = set()
    new = {pid}
    while new:
        new = {child for one in new for child in children.get(one, ())} - found
        found |= new
    return found


def alive(pid: int) -> bool:
    """Return whether a process runs; zombies, which have no command line, do not."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def agent(pid: int) -> bool:
    """Return whether it is one of the two agents that Ray starts on a machine."""
    return b"Agent" in Path(f"/proc/{pid}/cmdline").read_bytes()[:30]


def workers(pid: int) -> set[int]:
    """Return the processes of a driver that hold blocks: Ray names a process after its actor."""
    found = set()
    for one in family(pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{one}/cmdline").read_bytes().startswith(b"ray::_Host"):
                found.add(one)
    return found


def gone(pids: set[int], within: float = 15.0) -> bool:
    """Return True when all have ended; fail with the names of those that have not in time."""
    deadline = time.monotonic() + within
    while (left := set(filter(alive, pids))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, f"left running: {left}"
    return True
