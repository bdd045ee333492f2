"""What workers have in common, wherever they are, and those that are in this process."""

from __future__ import annotations

import os
import reprlib
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl.errors import RunError, reason

START = 60.0             # seconds for the workers to start; the first import of JAX is in them
Restore = Callable[[int], Sequence[tuple[str, Any]]]


class Failure(NamedTuple):
    """What map_unordered(errors="collect") gives in place of a result."""

    item: Any
    host: str            # where it was tried last
    message: str         # what happened there
    hint: str
    cause: BaseException | None = None

    def error(self) -> RunError:
        """What `throw` raises."""
        error = RunError(self.message, self.hint)
        error.__cause__ = self.cause
        return error

    def throw(self) -> None:
        """Raises it as a RunError."""
        raise self.error()


class Shared:
    """A value that was sent once, by `pool.put` or, in a worker, by `shared`; whoever receives it calls `get`.

    As an item or payload itself it arrives as its value; inside of one, as this handle. One that a worker made is gone
    when that worker dies.
    """

    def __init__(self, value: Any = None, ref: Any = None):
        self._value, self._ref = value, ref

    def get(self) -> Any:
        """The value, arrays as read-only NumPy. Raises RunError if the worker that made it is gone."""
        if self._ref is None:
            return self._value
        import ray

        try:
            return ray.get(self._ref)
        except ray.exceptions.ObjectLostError as error:
            raise RunError("a shared value was lost with the worker that made it.", "Make it again") from error


in_worker = False        # set in a process that is one


def shared(value: Any) -> Shared:
    """A handle on a large value that a worker returns or passes on, without the value crossing the driver."""
    value = portable(value)
    if not in_worker:
        return Shared(value)
    import ray

    return Shared(ref=ray.put(value))


def portable(value: Any) -> Any:
    """`value` with every JAX array in it as a NumPy array on the host, and typed keys as their key data."""
    if "jax" not in sys.modules:
        return value
    import jax

    def leaf(x: Any) -> Any:
        if not isinstance(x, jax.Array):
            return x
        return np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x)

    return jax.tree.map(leaf, value)


class Pool(ABC):
    """Workers 0 ... workers - 1, each an object of the class given. Used from one thread, one round at a time."""

    workers: int

    @abstractmethod
    def put(self, value: Any) -> Shared:
        """Sends a value once, for any number of items to refer to."""

    @abstractmethod
    def map_unordered(self, method: str, items: Iterable[Any], *, place: Callable[[Any], int] | None = None,
                      timeout: float | None = None, max_attempts: int = 3, errors: str = "raise",
                      name: Callable[[Any], str] = reprlib.repr) -> Iterator[tuple[Any, Any]]:
        """(item, object.method(item)) for every item, exactly once, as they are done.

        place         the worker that an item must go to; None: whichever is free
        timeout       seconds for one call, compilation included; then its worker is killed, and it goes to another.
                      None waits for ever. Without Ray it is not held.
        max_attempts  so often may an item lose its worker
        errors        what an exception in the method does: "raise" ends the round with a RunError that names item, host
                      and message; "collect" gives (item, Failure), and the others go on. Never tried again: what raises
                      once will raise twice. An item out of attempts counts as one.
        name          of an item, for errors
        """

    @abstractmethod
    def broadcast(self, method: str, payload: Any = None, *, timeout: float | None = None) -> list[Any]:
        """object.method(payload) on every worker; the payload is put once. -> results, by worker.

        A worker that is just being replaced is left out, and its result None: `restore` will bring it up to date, when
        the next `map_unordered` lets it in. So the caller changes its own state before that.
        """

    def call(self, worker: int, method: str, item: Any = None, *, timeout: float | None = None,
             max_attempts: int = 3) -> Any:
        """object.method(item) on one worker."""
        [(_, result)] = self.map_unordered(method, [item], place=lambda _: worker, timeout=timeout,
                                           max_attempts=max_attempts)
        return result

    @abstractmethod
    def close(self) -> None:
        """Ends the workers, whatever they are doing."""

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class InlinePool(Pool):
    """One object in this process; items are worked off in their order."""

    workers = 1

    def __init__(self, make: Callable[..., Any], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None):
        self._object = make(*map(_received, args), **{k: _received(v) for k, v in (kwargs or {}).items()})

    def put(self, value: Any) -> Shared:
        return Shared(_received(value))

    def map_unordered(self, method, items, *, place=None, timeout=None, max_attempts=3, errors="raise",
                      name=reprlib.repr):
        for item in items:
            if place is not None and place(item) != 0:
                raise ValueError(f"item {name(item)} is placed on worker {place(item)}, there is one")
            try:
                result = self._call(method, item)
            except Exception as error:
                result = raised(method, name(item), item, here(), error)
                if errors == "raise":
                    result.throw()
            yield item, result

    def broadcast(self, method, payload=None, *, timeout=None):
        return [self.call(0, method, payload)]

    def close(self) -> None:
        self._object = None

    def _call(self, method: str, item: Any) -> Any:
        item = item.get() if isinstance(item, Shared) else _received(item)
        return _received(getattr(self._object, method)(item))


def _received(value: Any) -> Any:
    """`value` as it would arrive over Ray, without a copy: NumPy, read-only."""
    import jax

    def leaf(x: Any) -> Any:
        if isinstance(x, np.ndarray):
            x = x.view()
            x.flags.writeable = False
        return x

    return jax.tree.map(leaf, portable(value))


def here() -> str:
    """This process, for people."""
    return f"{socket.gethostname()} (process {os.getpid()})"


def raised(method: str, name: str, item: Any, host: str, error: BaseException) -> Failure:
    """The failure of an item whose method raised `error`."""
    return Failure(item, host, f"{method} of {name} failed on {host}: {reason(error)}",
                   "To see where, run it in one process: workers=0 debug=true", error)
