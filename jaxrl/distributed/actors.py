"""The pool over Ray: one actor for each worker. Only this module wraps a plain class with Ray.

Every call has a key (pool, round, position). A worker runs a key once, however often it is sent. A
reply counts only if its key is the expected one: late and repeated replies are dropped. Ray never
restarts a lost actor, because it does not know its state. A new one is made, brought up to date and
then admitted.
"""

from __future__ import annotations

import contextlib
import reprlib
import time
import uuid
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jaxrl.distributed import pool
from jaxrl.distributed.cluster import Cluster, Share, amount
from jaxrl.distributed.pool import START, Failure, Pool, Restore, Shared, here, portable, raised
from jaxrl.errors import RunError

TICK = 0.5               # seconds between looks at the clock, when Python can call signal handlers


class _Host:
    """The class that Ray wraps: the object, and the last call, so that a repeated one runs once."""

    def __init__(self):
        pool.in_worker = True
        self._object: Any = None
        self._last: tuple[Any, Any] = (None, None)       # (key, result)

    def start(self, made: tuple) -> str:
        make, args, kwargs = made
        self._object = make(*args, **kwargs)
        return here()

    def restore(self, calls: Sequence[tuple[str, Any]]) -> None:
        for method, payload in calls:
            getattr(self._object, method)(_value(payload))

    def call(self, key: Any, method: str, item: Any) -> tuple[Any, Any]:
        if key != self._last[0]:
            self._last = (None, None)          # frees the last result before the next is made
            self._last = key, portable(getattr(self._object, method)(_value(item)))
        return self._last


def _value(item: Any) -> Any:
    return item.get() if isinstance(item, Shared) else item


STARTING = "starting"
RESTORING = "restoring"
IDLE = "idle"
BUSY = "busy"
MOST_STARTS = 3          # failed starts of one worker in a row before a run fails


@dataclass
class _Worker:
    index: int
    actor: Any = None
    state: str = STARTING
    ref: Any = None                     # reference of the expected reply
    key: Any = None                     # key of the present call: (pool, round, position)
    deadline: float = float("inf")
    host: str = "a worker that has not started"
    starts: int = 0
    replaces: bool = False              # it replaces a worker that was lost


class _Round:
    """The items of one map_unordered or broadcast: waiting ones by worker, and attempts of each."""

    def __init__(self, key: tuple, method: str, items: list[Any], place: Sequence[int | None], *,
                 timeout: float | None, max_attempts: int = 1,
                 name: Callable[[Any], str] = reprlib.repr, admit: bool = True):
        """place: worker of each item, None for any; admit: new workers may join the round."""
        self.key = key
        self.method = method
        self.items = items
        self.place = place
        self.timeout = timeout
        self.max_attempts = max_attempts
        self.name = name
        self.admit = admit
        self.attempts = [0] * len(items)
        self.open = len(items)
        self._waiting: dict[int | None, deque[int]] = defaultdict(deque)
        for position, where in enumerate(place):
            self._waiting[where].append(position)

    def take(self, worker: int) -> int | None:
        """Return the next position for a worker, None if there is none."""
        queue = self._waiting[worker] or self._waiting[None]
        return queue.popleft() if queue else None

    def put_back(self, position: int) -> None:
        """Put an item whose worker was lost first in the queue."""
        self._waiting[self.place[position]].appendleft(position)

    def waits_for(self, worker: int) -> bool:
        """Return whether an item waits that no other worker may take."""
        return bool(self._waiting[worker])

    def drop(self, worker: int) -> None:
        """Give up the items that no other worker may take."""
        self.open -= len(self._waiting.pop(worker, ()))

    def position(self, key: Any) -> int | None:
        """Return the position in a key, None if it is the key of an earlier round."""
        if key is None or key[:-1] != self.key:
            return None
        return key[-1]

    def done(self, position: int, result: Any) -> tuple[int, Any]:
        """Return the outcome of an item, which is then no longer open."""
        self.open -= 1
        return position, result


class RayPool(Pool):
    """A pool with one Ray actor for each worker.

    restore  worker -> [(method, payload), ...]: the calls that bring a new object up to date, which
             replaces a lost one. Use `pool.put` for large payloads.

    Raises RunError if workers do not start within `start_timeout` seconds.
    """

    def __init__(self, cluster: Cluster, make: Callable[..., Any], args: Sequence[Any] = (),
                 kwargs: dict[str, Any] | None = None, *, workers: int, share: Share | None = None,
                 restore: Restore | None = None, start_timeout: float = START):
        import ray

        self._ray = ray
        self._cluster = cluster
        self._share = share or Share()
        self.workers = workers
        self._restore = restore
        self._start_timeout = start_timeout
        self._id = uuid.uuid4().hex
        self._rounds = 0
        self._running = False
        cluster.require(workers, self._share)
        self._actor = ray.remote(max_restarts=0, max_task_retries=0)(_Host).options(
            num_cpus=self._share.cpus, num_gpus=self._share.gpus, scheduling_strategy="SPREAD",
            runtime_env={"env_vars": cluster.environment(self._share)})
        self._made = ray.put((make, portable(tuple(args)), portable(dict(kwargs or {}))))
        self._all = [_Worker(index) for index in range(workers)]
        try:
            self._start_all()
        except BaseException:
            self.close()
            raise

    def put(self, value: Any) -> Shared:
        return Shared(ref=self._ray.put(portable(value)))

    def map_unordered(self, method: str, items: Iterable[Any], *,
                      place: Callable[[Any], int] | None = None, timeout: float | None = None,
                      max_attempts: int = 3, errors: str = "raise",
                      name: Callable[[Any], str] = reprlib.repr) -> Iterator[tuple[Any, Any]]:
        items = list(items)
        places: list[int | None] = [None] * len(items)
        if place is not None:
            places = [range(self.workers)[place(item)] for item in items]
        work = _Round(self._next(), method, items, places, timeout=timeout,
                      max_attempts=max_attempts, name=name)
        with contextlib.closing(self._run(work)) as results:
            for position, result in results:
                if errors == "raise" and isinstance(result, Failure):
                    result.throw()
                yield items[position], result

    def broadcast(self, method: str, payload: Any = None, *,
                  timeout: float | None = None) -> list[Any]:
        up = [worker.index for worker in self._up()]
        work = _Round(self._next(), method, [self.put(payload)] * len(up), up, timeout=timeout,
                      admit=False, name=lambda _: "a broadcast")
        results: list[Any] = [None] * self.workers
        with contextlib.closing(self._run(work)) as found:
            for position, result in found:
                if isinstance(result, Failure):
                    result.throw()
                results[up[position]] = result
        return results

    def close(self) -> None:
        for worker in self._all:
            self._kill(worker)

    # --- a round

    def _next(self) -> tuple[str, int]:
        self._rounds += 1
        return self._id, self._rounds

    def _run(self, work: _Round) -> Generator[tuple[int, Any], None, None]:
        """Yield (position, result or Failure) of every item.

        Workers that an earlier round left busy join when they are free.
        """
        for worker in self._all:
            if worker.state == BUSY and work.timeout is not None:
                worker.deadline = min(worker.deadline, time.monotonic() + work.timeout)
        if self._running:
            raise RuntimeError("one round at a time: the last map_unordered has not ended")
        self._running = True
        try:
            while work.open:
                for worker in self._all:
                    if worker.state == IDLE and (position := work.take(worker.index)) is not None:
                        self._send(worker, work, position)
                yield from self._turn(work)
        finally:
            self._running = False

    def _turn(self, work: _Round) -> Iterator[tuple[int, Any]]:
        """Wait for the next reply, or for TICK seconds; yield the outcomes that this decides."""
        expected = {worker.ref: worker for worker in self._all
                    if worker.ref is not None and (work.admit or worker.state == BUSY)}
        ready, _ = self._ray.wait(list(expected), num_returns=1, timeout=TICK)
        for ref in ready:
            yield from self._answer(expected[ref], work)
        if not ready:
            now = time.monotonic()
            for worker in [worker for worker in expected.values() if now > worker.deadline]:
                yield from self._overdue(worker, work)

    def _send(self, worker: _Worker, work: _Round, position: int) -> None:
        work.attempts[position] += 1
        worker.state = BUSY
        worker.key = (*work.key, position)
        timeout = float("inf") if work.timeout is None else work.timeout
        worker.deadline = time.monotonic() + timeout
        item = portable(work.items[position])
        worker.ref = worker.actor.call.remote(worker.key, work.method, item)

    def _answer(self, worker: _Worker, work: _Round) -> Iterator[tuple[int, Any]]:
        """Handle a reply, or the news that there will be none."""
        errors = self._ray.exceptions
        ref = worker.ref
        worker.ref = None
        try:
            reply = self._ray.get(ref)
        except errors.RayTaskError as error:
            yield from self._failed(worker, work, error)
        except errors.ActorUnavailableError as error:
            yield from self._unsure(worker, work, error)
        except errors.RayError as error:
            yield from self._lost(worker, work, _reason(error))
        else:
            yield from self._replied(worker, work, reply)

    def _replied(self, worker: _Worker, work: _Round, reply: Any) -> Iterator[tuple[int, Any]]:
        if worker.state == STARTING:
            worker.host = reply
            if worker.replaces and self._restore is not None:
                self._bring_up_to_date(worker)
                return
        key = worker.key
        worker.state = IDLE
        worker.starts = 0
        worker.key = None
        position = work.position(key)
        if position is not None and reply[0] == key:
            yield work.done(position, reply[1])

    def _failed(self, worker: _Worker, work: _Round, error: Exception) -> Iterator[tuple[int, Any]]:
        """Handle an exception in the object's own code."""
        cause = getattr(error, "cause", None) or error
        if worker.state != BUSY:
            failure = raised("start", f"worker {worker.index}", None, worker.host, cause)
            raise RunError(failure.message, failure.hint) from error
        position = work.position(worker.key)
        worker.state = IDLE
        worker.key = None
        if position is not None:
            item = work.items[position]
            failure = raised(work.method, work.name(item), item, worker.host, cause)
            yield work.done(position, failure)

    def _unsure(self, worker: _Worker, work: _Round, error: Exception) -> Iterator[tuple[int, Any]]:
        """Handle a broken connection: the call is sent again, and its key makes it run once."""
        position = work.position(worker.key)
        if position is None or work.attempts[position] >= work.max_attempts:
            yield from self._lost(worker, work, _reason(error))
        else:
            self._send(worker, work, position)

    def _overdue(self, worker: _Worker, work: _Round) -> Iterator[tuple[int, Any]]:
        """Handle a call that takes too long.

        Its worker is replaced. A worker that does not start is an error only if no other worker can
        do the work.
        """
        if worker.state == BUSY:
            within = "" if work.timeout is None else f" within {work.timeout:g} s"
            yield from self._lost(worker, work, f"no answer{within}")
        elif worker.state == RESTORING:
            yield from self._lost(worker, work, f"not up to date within {self._start_timeout:g} s")
        elif work.waits_for(worker.index) or not self._up():
            raise self._not_started()
        else:
            worker.deadline = time.monotonic() + self._start_timeout

    # --- workers

    def _up(self) -> list[_Worker]:
        return [worker for worker in self._all if worker.state in (IDLE, BUSY)]

    def _start_all(self) -> None:
        for worker in self._all:
            self._start(worker)
        nothing = _Round((), "", [], [], timeout=None)
        deadline = time.monotonic() + self._start_timeout
        while any(worker.state != IDLE for worker in self._all):
            if time.monotonic() > deadline:
                raise self._not_started()
            list(self._turn(nothing))

    def _start(self, worker: _Worker) -> None:
        worker.starts += 1
        worker.state = STARTING
        worker.key = None
        worker.deadline = time.monotonic() + self._start_timeout
        worker.actor = self._actor.remote()
        worker.ref = worker.actor.start.remote(self._made)

    def _bring_up_to_date(self, worker: _Worker) -> None:
        worker.state = RESTORING
        worker.deadline = time.monotonic() + self._start_timeout
        worker.ref = worker.actor.restore.remote(portable(list(self._restore(worker.index))))

    def _lost(self, worker: _Worker, work: _Round, reason: str) -> Iterator[tuple[int, Any]]:
        """Replace a lost worker; another one takes its item, until its attempts are exhausted."""
        host = worker.host
        position = work.position(worker.key)
        if worker.state != BUSY and worker.starts >= MOST_STARTS:
            raise RunError(f"a worker was lost {worker.starts} times while it started, last on "
                           f"{host}: {reason}", "Out of memory, perhaps: use fewer workers=")
        warnings.warn(f"worker {worker.index} on {host} was lost ({reason}); another one takes its "
                      "place", stacklevel=2)
        self._kill(worker)
        worker.replaces = worker.replaces or worker.state != STARTING     # else nothing to restore
        self._start(worker)
        if not work.admit:
            work.drop(worker.index)
        if position is None:
            return
        tried = work.attempts[position]
        if not work.admit:
            yield work.done(position, None)
        elif tried < work.max_attempts:
            work.put_back(position)
        else:
            item = work.items[position]
            times = "once" if tried == 1 else f"{tried} times"
            yield work.done(position, Failure(
                item, host, f"{work.method} of {work.name(item)} lost its worker {times}, last on "
                f"{host}: {reason}",
                "Out of memory, or stuck: use fewer workers=, or run it in one process: workers=0"))

    def _kill(self, worker: _Worker) -> None:
        actor = worker.actor
        worker.actor = None
        worker.ref = None
        if actor is not None and self._ray.is_initialized():
            self._ray.kill(actor, no_restart=True)

    def _not_started(self) -> RunError:
        up = len(self._up())
        free = self._ray.available_resources()
        nodes = self._cluster.nodes()
        share = self._share
        gpus = bool(share.gpus)
        has = amount(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes), gpus)
        return RunError(
            f"{up} of {self.workers} workers started within {self._start_timeout:g} s: they need "
            f"{amount(self.workers * share.cpus, self.workers * share.gpus)}; the cluster has "
            f"{has}, of which {amount(free.get('CPU', 0.0), free.get('GPU', 0.0), gpus)} are free.",
            "Wait until the others have finished, or use fewer workers=")


def _reason(error: Exception) -> str:
    """Return Ray's reason for the death of an actor, on one line."""
    text = str(error).strip()
    detail = text.partition("Worker exit detail: ")[2] or text
    return detail.partition("\n")[0].strip()
