"""CPU seconds of the tests by folder, printed at the end of a run.

They are the unit of a folder's share of CI's time. A test counts with the processes it starts and
waits for. Ray's servers outlive their tests and do not count.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest

SECONDS: Counter[str] = Counter()
LOST: list[str] = []             # workers that were killed, with what they had counted


def cpu_now() -> float:
    """CPU seconds of this process and of the children it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def folder_of(item: pytest.Item) -> str:
    """The folder that pays for a test, such as "tests/run"; files at the top pay for themselves."""
    path = item.path.relative_to(item.config.rootpath)
    return str(path.parent if len(path.parts) > 2 else path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    before = cpu_now()
    try:
        return (yield)
    finally:
        SECONDS[folder_of(item)] += cpu_now() - before


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["cpu_seconds"] = dict(SECONDS)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    if not hasattr(node, "workeroutput"):
        LOST.append(str(node))
        return
    SECONDS.update(node.workeroutput["cpu_seconds"])


def pytest_terminal_summary(terminalreporter) -> None:
    if sum(SECONDS.values()) < 60:               # a few files while working
        return
    terminalreporter.section("CPU seconds by folder")
    for folder, seconds in sorted(SECONDS.items(), key=lambda pair: -pair[1]):
        terminalreporter.line(f"{seconds:8.1f}  {folder}")
    terminalreporter.line(f"{sum(SECONDS.values()):8.1f}  in all")
    if LOST:
        terminalreporter.line(f"without {len(LOST)} workers that were killed")
