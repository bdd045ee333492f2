"""The pool over Ray: one actor for each worker. Ray wraps a plain class here, and nowhere else.

Every call has a key (pool, round, position). A worker runs a key once, however often it is sent, and a reply counts
only if its key is the one that is waited for: what is late, or comes twice, is dropped. An actor that is lost is never
restarted by Ray, which would not know its state: a new one is made, brought up to date, and then let in.
"""

from __future__ import annotations

import contextlib
import reprlib
import time
import uuid
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jaxrl.distributed import pool
from jaxrl.distributed.cluster import Cluster, Share, amount
from jaxrl.distributed.pool import START, Failure, Pool, Restore, Shared, here, portable, raised
from jaxrl.errors import RunError

TICK = 0.5               # seconds between looks at the clock, and for Python to call its signal handlers


class _Host:
    """What Ray wraps: the object, and the last call, so that one that is sent twice runs once."""

    def __init__(self):
        pool.in_worker = True
        self._object, self._last = None, (None, None)

    def start(self, made: tuple) -> str:
        make, args, kwargs = made
        self._object = make(*args, **kwargs)
        return here()

    def restore(self, calls: Sequence[tuple[str, Any]]) -> None:
        for method, payload in calls:
            getattr(self._object, method)(payload.get() if isinstance(payload, Shared) else payload)

    def call(self, key: Any, method: str, item: Any) -> tuple[Any, Any]:
        if key != self._last[0]:
            self._last = (None, None)          # frees the last result before the next is made
            item = item.get() if isinstance(item, Shared) else item
            self._last = key, portable(getattr(self._object, method)(item))
        return self._last


STARTING, RESTORING, IDLE, BUSY = "starting", "restoring", "idle", "busy"
MOST_STARTS = 3          # of one worker, in a row


@dataclass
class _Worker:
    index: int
    actor: Any = None
    state: str = STARTING
    ref: Any = None                     # of the reply that is waited for
    key: Any = None                     # of the call it is at: (pool, round, position)
    deadline: float = float("inf")
    host: str = "a worker that has not started"
    starts: int = 0
    replaces: bool = False              # another one that was lost


class _Round:
    """The items of one map_unordered or broadcast: which of them wait, for whom, and how often each was tried."""

    def __init__(self, key: tuple, method: str, items: list[Any], place: list[int | None], *, timeout: float | None,
                 max_attempts: int = 1, name: Callable[[Any], str] = reprlib.repr, admit: bool = True):
        """place: the worker of each item, None for any. admit: workers that have started since join in."""
        self.key, self.method, self.items, self.place = key, method, items, place
        self.timeout, self.max_attempts, self.name, self.admit = timeout, max_attempts, name, admit
        self.attempts = [0] * len(items)
        self.open = len(items)
        self._waiting: dict[int | None, deque[int]] = defaultdict(deque)
        for position, where in enumerate(place):
            self._waiting[where].append(position)

    def take(self, worker: int) -> int | None:
        """The next position for a worker."""
        queue = self._waiting[worker] or self._waiting[None]
        return queue.popleft() if queue else None

    def put_back(self, position: int) -> None:
        """Its worker was lost: it is next."""
        self._waiting[self.place[position]].appendleft(position)

    def waits_for(self, worker: int) -> bool:
        """Whether some item can go to no other worker."""
        return bool(self._waiting[worker])

    def drop(self, worker: int) -> None:
        """Does without what can go to no other worker."""
        self.open -= len(self._waiting.pop(worker, ()))

    def position(self, key: Any) -> int | None:
        """Of a call of this round; None for a call of an earlier one."""
        return key[-1] if key is not None and key[:-1] == self.key else None

    def done(self, position: int, result: Any) -> tuple[int, Any]:
        """An outcome, which leaves one item less open."""
        self.open -= 1
        return position, result


class RayPool(Pool):
    """One Ray actor for each worker. Raises RunError when they do not start within `start_timeout` seconds.

    restore  worker -> [(method, payload), ...]: the calls that bring a new object up to date, which takes the place of
             a lost one. Large payloads: `pool.put`.
    """

    def __init__(self, cluster: Cluster, make: Callable[..., Any], args: Sequence[Any] = (),
                 kwargs: dict[str, Any] | None = None, *, workers: int, share: Share | None = None,
                 restore: Restore | None = None, start_timeout: float = START):
        import ray

        self._ray, self._cluster, self._share = ray, cluster, share or Share()
        self.workers, self._restore, self._start_timeout = workers, restore, start_timeout
        self._id, self._rounds, self._running = uuid.uuid4().hex, 0, False
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

    def map_unordered(self, method, items, *, place=None, timeout=None, max_attempts=3, errors="raise",
                      name=reprlib.repr):
        items = list(items)
        places = [None if place is None else range(self.workers)[place(item)] for item in items]
        work = _Round(self._next(), method, items, places, timeout=timeout, max_attempts=max_attempts, name=name)
        with contextlib.closing(self._run(work)) as results:
            for position, result in results:
                if errors == "raise" and isinstance(result, Failure):
                    result.throw()
                yield items[position], result

    def broadcast(self, method, payload=None, *, timeout=None):
        up = [worker.index for worker in self._all if worker.state in (IDLE, BUSY)]
        work = _Round(self._next(), method, [self.put(payload)] * len(up), up, timeout=timeout, admit=False,
                      name=lambda _: "a broadcast")
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

    def _run(self, work: _Round) -> Iterator[tuple[int, Any]]:
        """(position, result or Failure) of every item. Workers that an earlier round left busy come in when free."""
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
        """Waits for the next reply, or for TICK seconds. Gives what is settled by it."""
        watched = {worker.ref: worker for worker in self._all
                   if worker.ref is not None and (work.admit or worker.state == BUSY)}
        ready, _ = self._ray.wait(list(watched), num_returns=1, timeout=TICK)
        late = [] if ready else [ref for ref, worker in watched.items() if time.monotonic() > worker.deadline]
        for ref in ready:
            yield from self._answer(watched[ref], work)
        for ref in late:
            yield from self._overdue(watched[ref], work)

    def _send(self, worker: _Worker, work: _Round, position: int) -> None:
        work.attempts[position] += 1
        worker.state, worker.key = BUSY, (*work.key, position)
        worker.deadline = time.monotonic() + (float("inf") if work.timeout is None else work.timeout)
        worker.ref = worker.actor.call.remote(worker.key, work.method, portable(work.items[position]))

    def _answer(self, worker: _Worker, work: _Round) -> Iterator[tuple[int, Any]]:
        """A reply is there, or the news that there will be none."""
        errors = self._ray.exceptions
        ref, worker.ref = worker.ref, None
        try:
            reply = self._ray.get(ref)
        except errors.RayTaskError as error:
            yield from self._failed(worker, work, error)
        except errors.ActorUnavailableError as error:
            yield from self._unsure(worker, work, error)
        except errors.RayError as error:
            yield from self._lost(worker, work, _reason(error))
        else:
            if worker.state == STARTING:
                worker.host = reply
            position = work.position(worker.key)
            if worker.state == STARTING and worker.replaces and self._restore is not None:
                self._bring_up_to_date(worker)
                return
            answered, worker.state, worker.starts, worker.key = worker.key, IDLE, 0, None
            if position is not None and reply[0] == answered:
                yield work.done(position, reply[1])

    def _failed(self, worker: _Worker, work: _Round, error: Exception) -> Iterator[tuple[int, Any]]:
        """The object's own code raised."""
        cause = getattr(error, "cause", None) or error
        if worker.state != BUSY:
            raise RunError(raised("start", f"worker {worker.index}", None, worker.host, cause).message,
                           "To see where, run it in one process: workers=0 debug=true") from error
        position, worker.state, worker.key = work.position(worker.key), IDLE, None
        if position is not None:
            item = work.items[position]
            yield work.done(position, raised(work.method, work.name(item), item, worker.host, cause))

    def _unsure(self, worker: _Worker, work: _Round, error: Exception) -> Iterator[tuple[int, Any]]:
        """The connection broke, and the call may have been run or not: sent again with its key, it is run once."""
        position = work.position(worker.key)
        if position is None or work.attempts[position] >= work.max_attempts:
            yield from self._lost(worker, work, _reason(error))
        else:
            self._send(worker, work, position)

    def _overdue(self, worker: _Worker, work: _Round) -> Iterator[tuple[int, Any]]:
        """A call that hangs costs its worker. One that does not start is only missed if nobody else can go on."""
        if worker.state == BUSY:
            within = "" if work.timeout is None else f" within {work.timeout:g} s"
            yield from self._lost(worker, work, f"no answer{within}")
        elif worker.state == RESTORING:
            yield from self._lost(worker, work, f"not up to date within {self._start_timeout:g} s")
        elif work.waits_for(worker.index) or not any(other.state in (IDLE, BUSY) for other in self._all):
            raise self._not_started()
        else:
            worker.deadline = time.monotonic() + self._start_timeout

    # --- workers

    def _start_all(self) -> None:
        for worker in self._all:
            self._start(worker)
        nothing, deadline = _Round((), "", [], [], timeout=None), time.monotonic() + self._start_timeout
        while any(worker.state != IDLE for worker in self._all):
            if time.monotonic() > deadline:
                raise self._not_started()
            list(self._turn(nothing))

    def _start(self, worker: _Worker) -> None:
        worker.starts += 1
        worker.state, worker.key = STARTING, None
        worker.deadline = time.monotonic() + self._start_timeout
        worker.actor = self._actor.remote()
        worker.ref = worker.actor.start.remote(self._made)

    def _bring_up_to_date(self, worker: _Worker) -> None:
        worker.state, worker.deadline = RESTORING, time.monotonic() + self._start_timeout
        worker.ref = worker.actor.restore.remote(portable(list(self._restore(worker.index))))

    def _lost(self, worker: _Worker, work: _Round, reason: str) -> Iterator[tuple[int, Any]]:
        """Puts a new worker in its place. What it was at goes to the next one, until it is out of attempts."""
        host, position = worker.host, work.position(worker.key)
        if worker.state != BUSY and worker.starts >= MOST_STARTS:
            raise RunError(f"a worker was lost {worker.starts} times while it started, last on {host}: {reason}",
                           "Out of memory, perhaps: use fewer workers=")
        warnings.warn(f"worker {worker.index} on {host} was lost ({reason}); another one takes its place", stacklevel=2)
        self._kill(worker)
        worker.replaces = True
        self._start(worker)
        if not work.admit:
            work.drop(worker.index)
        if position is None:
            return
        item, tried = work.items[position], work.attempts[position]
        if not work.admit:
            yield work.done(position, None)
        elif tried < work.max_attempts:
            work.put_back(position)
        else:
            times = "once" if tried == 1 else f"{tried} times"
            yield work.done(position, Failure(
                item, host, f"{work.method} of {work.name(item)} lost its worker {times}, last on {host}: {reason}",
                "Out of memory, or stuck: use fewer workers=, or run it in one process: workers=0"))

    def _kill(self, worker: _Worker) -> None:
        actor, worker.actor, worker.ref = worker.actor, None, None
        if actor is not None and self._ray.is_initialized():
            self._ray.kill(actor, no_restart=True)

    def _not_started(self) -> RunError:
        up = sum(worker.state in (IDLE, BUSY) for worker in self._all)
        free, nodes, share = self._ray.available_resources(), self._cluster.nodes(), self._share
        gpus = bool(share.gpus)
        has = amount(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes), gpus)
        return RunError(
            f"{up} of {self.workers} workers started within {self._start_timeout:g} s: they need "
            f"{amount(self.workers * share.cpus, self.workers * share.gpus)}; the cluster has {has}, of which "
            f"{amount(free.get('CPU', 0.0), free.get('GPU', 0.0), gpus)} are free.",
            "Wait until others are done with it, or use fewer workers=")


def _reason(error: Exception) -> str:
    """What Ray says of a death, on one line."""
    text = str(error).strip()
    detail = text.partition("Worker exit detail: ")[2] or text
    return detail.partition("\n")[0].strip()
