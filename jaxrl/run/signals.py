"""SIGINT and SIGTERM: the first asks the loop to stop at the end of its chunk, a second one stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

from jaxrl.errors import Interrupted


class Signals:
    """with Signals(note) as signals: ... if signals.received: save and leave."""

    def __init__(self, note: Callable[[str], None]):
        self.received: int | None = None
        self._note, self._before = note, {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():      # Python allows handlers nowhere else
            self._before = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: Any) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, _: Any) -> None:
        if self.received is not None:
            raise Interrupted(signum)
        self.received = signum
        self._note(f"stopping: {signal.Signals(signum).name} received, finishing the running chunk (again = stop now)")
