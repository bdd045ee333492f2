"""The interface of a pool of workers, and the pool with one worker in this process."""

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

START = 60.0             # seconds for the workers to start, including their first import of JAX
Restore = Callable[[int], Sequence[tuple[str, Any]]]


class Failure(NamedTuple):
    """The outcome of an item that failed, from map_unordered(errors="collect")."""

    item: Any
    host: str            # where it was tried last
    message: str         # what happened there
    hint: str
    cause: BaseException | None = None

    def error(self) -> RunError:
        """Return the failure as an exception."""
        error = RunError(self.message, self.hint)
        error.__cause__ = self.cause
        return error

    def throw(self) -> None:
        """Raise the failure as a RunError."""
        raise self.error()


class Shared:
    """A handle on a value that is sent once, by `pool.put` or, in a worker, by `shared`.

    A handle that is an item or payload arrives as its value; a handle inside of one arrives as a
    handle, whose `get` returns the value. A value that a worker made is lost if that worker dies.
    """

    def __init__(self, value: Any = None, ref: Any = None):
        self._value = value
        self._ref = ref

    def get(self) -> Any:
        """Return the value, arrays as read-only NumPy arrays.

        Raises RunError if the worker that made it was lost.
        """
        if self._ref is None:
            return self._value
        import ray

        try:
            return ray.get(self._ref)
        except ray.exceptions.ObjectLostError as error:
            raise RunError("a shared value was lost with the worker that made it.",
                           "Make it again") from error


in_worker = False        # set in the process of a worker


def shared(value: Any) -> Shared:
    """Return a handle on a large value, which then reaches other workers without the driver."""
    value = portable(value)
    if not in_worker:
        return Shared(value)
    import ray

    return Shared(ref=ray.put(value))


def portable(value: Any) -> Any:
    """Return `value` with JAX arrays as NumPy arrays on the host, typed keys as key data."""
    if "jax" not in sys.modules:
        return value
    import jax

    def leaf(x: Any) -> Any:
        if not isinstance(x, jax.Array):
            return x
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        return np.asarray(x)

    return jax.tree.map(leaf, value)


class Pool(ABC):
    """Workers 0 ... workers - 1, each an object of one class.

    A pool is used from one thread, one round (a call of `map_unordered` or `broadcast`) at a time.
    """

    workers: int

    @abstractmethod
    def put(self, value: Any) -> Shared:
        """Send a value once; return a handle that any number of items may contain."""

    @abstractmethod
    def map_unordered(self, method: str, items: Iterable[Any], *,
                      place: Callable[[Any], int] | None = None, timeout: float | None = None,
                      max_attempts: int = 3, errors: str = "raise",
                      name: Callable[[Any], str] = reprlib.repr) -> Iterator[tuple[Any, Any]]:
        """Yield (item, object.method(item)) for every item, exactly once, as they are done.

        place         worker of an item; None for any worker that is free
        timeout       seconds for one call, compilation included. Then its worker is killed, and
                      another one tries the item. None waits for ever; ignored without Ray.
        max_attempts  times that an item may lose its worker
        errors        outcome of an exception in the method: "raise" ends the round with a RunError
                      that names item, host and message; "collect" yields (item, Failure) and
                      continues. Such an item is not tried again. An item whose attempts are
                      exhausted has the same outcome.
        name          name of an item in errors
        """

    @abstractmethod
    def broadcast(self, method: str, payload: Any = None, *,
                  timeout: float | None = None) -> list[Any]:
        """Return object.method(payload) of every worker; the payload is sent once.

        The result is None for a worker that is being replaced: `restore` brings it up to date when
        the next `map_unordered` admits it. So the caller changes its own state before that.
        """

    def call(self, worker: int, method: str, item: Any = None, *, timeout: float | None = None,
             max_attempts: int = 3) -> Any:
        """Return object.method(item) of one worker."""
        [(_, result)] = self.map_unordered(method, [item], place=lambda _: worker, timeout=timeout,
                                           max_attempts=max_attempts)
        return result

    @abstractmethod
    def close(self) -> None:
        """End the workers at once."""

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class InlinePool(Pool):
    """A pool with one object in this process, which takes the items in order."""

    workers = 1

    def __init__(self, make: Callable[..., Any], args: Sequence[Any] = (),
                 kwargs: dict[str, Any] | None = None):
        given = {name: _received(value) for name, value in (kwargs or {}).items()}
        self._object = make(*map(_received, args), **given)

    def put(self, value: Any) -> Shared:
        return Shared(_received(value))

    def map_unordered(self, method: str, items: Iterable[Any], *,
                      place: Callable[[Any], int] | None = None, timeout: float | None = None,
                      max_attempts: int = 3, errors: str = "raise",
                      name: Callable[[Any], str] = reprlib.repr) -> Iterator[tuple[Any, Any]]:
        for item in items:
            if place is not None and place(item) != 0:
                raise ValueError(f"item {name(item)} is placed on worker {place(item)}, "
                                 "but this pool has worker 0 only")
            try:
                result = self._call(method, item)
            except Exception as error:
                result = raised(method, name(item), item, here(), error)
                if errors == "raise":
                    result.throw()
            yield item, result

    def broadcast(self, method: str, payload: Any = None, *,
                  timeout: float | None = None) -> list[Any]:
        return [self.call(0, method, payload)]

    def close(self) -> None:
        self._object = None

    def _call(self, method: str, item: Any) -> Any:
        item = item.get() if isinstance(item, Shared) else _received(item)
        return _received(getattr(self._object, method)(item))


def _received(value: Any) -> Any:
    """Return `value` as it would arrive over Ray, without a copy: read-only NumPy arrays."""
    import jax

    def leaf(x: Any) -> Any:
        if isinstance(x, np.ndarray):
            x = x.view()
            x.flags.writeable = False
        return x

    return jax.tree.map(leaf, portable(value))


def here() -> str:
    """Return a name of this process for messages."""
    return f"{socket.gethostname()} (process {os.getpid()})"


def raised(method: str, name: str, item: Any, host: str, error: BaseException) -> Failure:
    """Return the failure of an item whose method raised `error`."""
    return Failure(item, host, f"{method} of {name} failed on {host}: {reason(error)}",
                   "For the traceback run it in one process: workers=0 debug=true", error)
