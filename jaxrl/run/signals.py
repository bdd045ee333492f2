"""SIGINT and SIGTERM: the first one stops the loop after its chunk, a second one stops it at once.

A second signal never interrupts a save. Saving is quick, and the user resumes from what it writes.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from jaxrl.errors import Interrupted


class Signals:
    """Handlers of SIGINT and SIGTERM: with Signals(note) as signals: ... signals.received ..."""

    def __init__(self, note: Callable[[str], None]):
        self.received: int | None = None
        self._note = note
        self._before: dict[signal.Signals, Any] = {}
        self._held = False

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():      # the only one that may
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, *_: Any) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Ignore a second signal while something is saved."""
        before = self._held
        self._held = True
        try:
            yield
        finally:
            self._held = before

    def _handle(self, signum: int, frame: Any) -> None:
        if self.received is not None:
            if self._held:
                return
            if _swallowed(frame):
                # Try again later, in the main thread: a signal elsewhere would not end its sleep.
                main = threading.main_thread().ident
                threading.Timer(0.02, signal.pthread_kill, [main, signum]).start()
                return
            raise Interrupted(signum)
        self.received = signum
        with contextlib.suppress(RuntimeError):      # the signal came while a stream was written
            self._note(f"stopping: {signal.Signals(signum).name} received, finishing the current "
                       "step; press Ctrl-C again to stop at once")


def _swallowed(frame: Any) -> bool:
    """Return True if Python would print and forget an exception raised in this frame.

    That is the case in JAX's callback of the garbage collector.
    """
    return frame is not None and frame.f_code.co_name == "_xla_gc_callback"
