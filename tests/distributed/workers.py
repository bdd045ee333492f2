"""Classes of workers for tests. They are plain: only jaxrl/distributed wraps them with Ray."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from jaxrl.distributed.pool import shared


class Squares:
    """Answers, sleeps, dies, hangs and raises as its items say; `state` is what a new one lacks."""

    def __init__(self, folder: str | Path = ".", state: int = 0):
        self.folder = Path(folder)
        self.state = state
        self.calls = 0

    def square(self, x):
        self.calls += 1
        return x * x

    def load(self, state):
        self.state = state
        return os.getpid()

    def plus_state(self, x):
        return x + self.state

    def slowly(self, item):
        number, seconds = item
        time.sleep(seconds)
        return number, os.getpid()

    def once(self, item):
        """item: (number, what to do the first time that any worker has it)."""
        number, act = item
        mark = self.folder / f"{number}-{act}"
        if act != "nothing" and not mark.exists():
            mark.touch()
            self.act(act)
        return number + self.state

    def act(self, what):
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "hang":
            time.sleep(600)
        elif what == "freeze":               # not even Ray's threads go on
            os.kill(os.getpid(), signal.SIGSTOP)
        elif what == "raise":
            raise ValueError("bad reward\nin step 3")

    def where(self, _):
        return os.getpid()

    def count(self, _):
        return self.calls

    def kept(self, megabytes):
        """A value that stays here until somebody gets it."""
        return shared(np.full((megabytes, 1 << 20), 7, np.uint8))

    def total(self, handles):
        return sum(int(handle.get().sum(dtype=np.int64)) for handle in handles)

    def echo(self, value):
        return value

    def large(self, item):
        number, megabytes = item
        return np.full((megabytes, 1 << 20), number, np.uint8)

    def writeable(self, arrays):
        types = [type(array).__name__ for array in arrays]
        return [array.flags.writeable for array in arrays], types

    def resident(self, _):
        return resident()


class Broken:
    """Cannot be made."""

    def __init__(self):
        raise ValueError("no such environment")


class Learner:
    """Uses JAX, and says what it was given of the machine."""

    def environment(self, _):
        import jax

        product = jax.jit(lambda x: x @ x / 300.0)
        x = product(jax.numpy.ones((300, 300)))
        return {"environ": dict(os.environ), "devices": [str(device) for device in jax.devices()],
                "cache": jax.config.jax_compilation_cache_dir, "workers": pool_threads(),
                "pid": os.getpid(), "x": x, "key": jax.random.key(3)}

    def work(self, seconds):
        """CPU seconds used by this process within `seconds` of work that could use every core."""
        import jax

        product = jax.jit(lambda x: jax.lax.fori_loop(0, 20, lambda _, y: y @ x / 1000.0, x))
        x = jax.numpy.ones((1000, 1000))
        product(x).block_until_ready()
        start = time.perf_counter()
        used = time.process_time()
        while time.perf_counter() - start < seconds:
            product(x).block_until_ready()
        return (time.process_time() - used) / (time.perf_counter() - start)


def pool_threads() -> int:
    """Threads in which XLA's CPU client computes."""
    names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
    return sum("XLAEigen" in name or "XLAPjRtCpuClient" in name for name in names)


def resident() -> int:
    """Bytes of this process in memory that no other shares: the object store is not counted."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) * 1024
