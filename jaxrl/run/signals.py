"""SIGINT and SIGTERM: the first asks the loop to stop at the end of its chunk, a second one stops at once.

At once, but never in the middle of a save: that is quick, and what it saves is what the user wants to go on from.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from jaxrl.errors import Interrupted


class Signals:
    """with Signals(note) as signals: ... if signals.received: save and leave."""

    def __init__(self, note: Callable[[str], None]):
        self.received: int | None = None
        self._note, self._before, self._held = note, {}, False

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():      # Python allows handlers nowhere else
            self._before = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: Any) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While something is saved: a second signal is ignored."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before

    def _handle(self, signum: int, frame: Any) -> None:
        if self.received is not None:
            if self._held:
                return
            if _swallowed(frame):
                threading.Timer(0.02, signal.raise_signal, [signum]).start()      # again, when that is over
                return
            raise Interrupted(signum)
        self.received = signum
        with contextlib.suppress(RuntimeError):      # of a stream that was being written when the signal came
            self._note(f"stopping: {signal.Signals(signum).name} received, finishing the running chunk "
                       "(again = stop now)")


def _swallowed(frame: Any) -> bool:
    """Whether Python would print and forget an exception raised here: in JAX's callback of the garbage collector."""
    return frame is not None and frame.f_code.co_name == "_xla_gc_callback"
