"""The pool in this process and over Ray, with workers that die, hang, raise and answer twice."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrl.distributed import open_pool
from jaxrl.distributed.actors import RayPool
from jaxrl.distributed.cluster import Share, connect
from jaxrl.distributed.pool import Failure, InlinePool, Shared
from jaxrl.errors import RunError, UserError
from tests.distributed.workers import Broken, Squares, resident

HALF = Share(cpus=0.5)                  # four workers on two cores


@pytest.fixture(scope="module")
def cluster():
    """One small Ray for the module: an object store of 80 MB."""
    with connect(2, store=80 << 20) as cluster:
        yield cluster


@pytest.fixture
def make(cluster, tmp_path):
    """Pools of two workers, closed after the test."""
    made = []

    def make(worker=Squares, *args, workers=2, **options):
        args = args or (tmp_path,)
        made.append(RayPool(cluster, worker, args, workers=workers, share=HALF, **options))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


@pytest.fixture(scope="module")
def lasting(cluster, tmp_path_factory):
    """A pool for the tests that do not hurt it."""
    args = (tmp_path_factory.mktemp("pool"),)
    with RayPool(cluster, Squares, args, workers=2, share=HALF) as pool:
        yield pool


@pytest.fixture(params=["inline", pytest.param("ray", marks=pytest.mark.slow)])
def pool(request, tmp_path):
    if request.param == "ray":
        return request.getfixturevalue("lasting")
    return InlinePool(Squares, (tmp_path,))


# ---------------------------------------------------------------- the same with and without Ray


def test_every_item_once(pool):
    before = sum(pool.broadcast("count"))
    assert sorted(pool.map_unordered("square", range(11))) == [(x, x * x) for x in range(11)]
    assert list(pool.map_unordered("square", [])) == []
    assert sum(pool.broadcast("count")) == before + 11


def test_broadcast_reaches_every_worker_and_call_one(pool):
    assert len(set(pool.broadcast("load", 5))) == pool.workers
    last = pool.workers - 1
    assert pool.call(last, "load", 7) == pool.call(last, "where")
    states = [pool.call(worker, "plus_state", 1) for worker in range(pool.workers)]
    assert states == [6] * last + [8]


def test_items_go_where_they_are_placed(pool):
    def place(item):
        return item[0] % pool.workers

    where = pool.broadcast("where")
    items = [(n, 0.001) for n in range(9)]
    for item, (number, pid) in pool.map_unordered("slowly", items, place=place):
        assert pid == where[place(item)] and number == item[0]
    with pytest.raises((IndexError, ValueError)):
        list(pool.map_unordered("square", [1], place=lambda _: pool.workers))


def test_arrays_cross_as_numpy(pool):
    """They are read-only, in trees of all kinds, and keys arrive as their data."""
    sent = {"a": jax.numpy.arange(3), "key": jax.random.key(7),
            "b": (np.arange(6.0).reshape(2, 3), None, "text")}
    back = pool.call(0, "echo", sent)
    assert isinstance(back["a"], np.ndarray) and not back["a"].flags.writeable
    assert not back["b"][0].flags.writeable and back["b"][1:] == (None, "text")
    np.testing.assert_array_equal(back["key"], jax.random.key_data(sent["key"]))
    np.testing.assert_array_equal(back["b"][0], sent["b"][0])
    big = [np.zeros(2), np.zeros((1 << 18,)), jax.numpy.zeros(5)]
    assert pool.call(0, "writeable", big) == ([False] * 3, ["ndarray"] * 3)
    assert big[0].flags.writeable                  # only what arrives is read-only


def test_large_values_are_sent_once(pool):
    """The caller puts them, or a worker keeps them for another one."""
    handle = pool.put(np.full(1000, 3))
    items = [[handle], [handle, handle]]
    totals = [total for _, total in pool.map_unordered("total", items, place=lambda _: 0)]
    assert totals == [3000, 6000]
    np.testing.assert_array_equal(pool.call(0, "echo", handle), np.full(1000, 3))
    kept = pool.call(pool.workers - 1, "kept", 2)
    assert isinstance(kept, Shared) and kept.get().shape == (2, 1 << 20)
    assert pool.call(0, "total", [kept]) == 7 * 2 << 20


def test_what_raises_is_named_and_the_rest_go_on(pool):
    pool.broadcast("load", 0)
    items = [(n, "raise" if n == 3 else "nothing") for n in range(8)]
    found = dict(pool.map_unordered("once", items, errors="collect",
                                    name=lambda item: f"member {item[0]}"))
    failure = found.pop((3, "raise"))
    assert isinstance(failure, Failure) and failure.item == (3, "raise")
    why = "ValueError: bad reward in step 3"
    assert failure.message == f"once of member 3 failed on {failure.host}: {why}"
    assert found == {(n, "nothing"): n for n in range(8) if n != 3}


def test_what_raises_can_end_the_round(pool):
    text = r"act of 'raise' failed on .*process \d+\): ValueError: bad reward in step 3"
    with pytest.raises(RunError, match=text) as error:
        list(pool.map_unordered("act", ["raise"]))
    assert "workers=0 debug=true" in str(error.value)
    assert isinstance(error.value.__cause__, ValueError)
    assert sorted(pool.map_unordered("square", range(5))) == [(x, x * x) for x in range(5)]


def test_workers_zero_is_without_ray():
    with open_pool(Squares, state=4, workers=0) as pool:
        assert pool.call(0, "plus_state", 1) == 5 and pool.broadcast("where") == [os.getpid()]
    no_workers = pytest.raises(UserError, match="needs workers")
    with no_workers, open_pool(Squares, address="10.0.0.5:6379"):
        pass


# ---------------------------------------------------------------- over Ray


@pytest.mark.slow
def test_both_workers_work(lasting):
    found = [result for _, result in lasting.map_unordered("slowly", [(n, 0.2) for n in range(8)])]
    pids = [pid for _, pid in found]
    assert sorted(n for n, _ in found) == list(range(8))
    assert all(pids.count(pid) >= 2 for pid in pids)
    assert len(set(pids)) == 2


@pytest.mark.slow
def test_late_replies_of_an_abandoned_round_are_dropped(lasting):
    pool = lasting
    for _ in pool.map_unordered("slowly", [(n, 0.2 * n) for n in range(4)]):
        break                                      # three calls are under way or wait
    assert sorted(pool.map_unordered("square", range(6))) == [(x, x * x) for x in range(6)]
    running = pool.map_unordered("square", range(6))
    next(running)
    with pytest.raises(RuntimeError, match="one round at a time"):
        pool.call(0, "where")
    running.close()
    assert pool.call(0, "square", 3) == 9


@pytest.mark.slow
def test_a_call_that_is_sent_twice_runs_once(make):
    """The same key gives the same reply, as after a broken connection."""
    import ray

    pool = make(workers=1)
    worker = pool._all[0]
    key = (pool._id, 99, 0)
    first, again = (worker.actor.call.remote(key, "square", 3) for _ in range(2))
    assert ray.get([first, again]) == [(key, 9), (key, 9)]
    assert pool.call(0, "count") == 1
    # a reply with another key than the expected one does not count: the item is still open
    work = _work(pool, [4])
    pool._send(worker, work, work.take(0))
    ray.get(worker.ref)
    worker.ref = worker.actor.call.remote((pool._id, 98, 0), "square", 5)
    assert not list(pool._turn(work)) and work.open == 1


def _work(pool, items):
    from jaxrl.distributed.actors import _Round

    return _Round(pool._next(), "square", items, [None] * len(items), timeout=None)


@pytest.mark.slow
@pytest.mark.fault
def test_a_worker_that_is_killed(make, capfd):
    """SIGKILL from outside during a round, and twice from inside: all results, nothing printed."""
    pool = make(restore=lambda worker: [("load", 10)])
    before = pool.broadcast("load", 10)
    killed = 0
    found = []
    for _, (number, _) in pool.map_unordered("slowly", [(n, 0.05) for n in range(40)]):
        found.append(number)
        if len(found) == 10:
            os.kill(before[0], signal.SIGKILL)
            killed += 1
    assert sorted(found) == list(range(40)) and killed == 1
    items = [(n, "die" if n in (3, 5) else "nothing") for n in range(8)]
    assert sorted(pool.map_unordered("once", items)) == [(item, item[0] + 10) for item in items]
    deadline = time.monotonic() + 30
    where = pool.broadcast("where")
    while None in where and time.monotonic() < deadline:
        list(pool.map_unordered("slowly", [(0, 0.2)]))
        where = pool.broadcast("where")
    assert None not in where and len(set(where)) == 2 and not set(where) & set(before)
    # both are up to date
    assert [pool.call(worker, "plus_state", 1) for worker in range(2)] == [11, 11]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("act", ["hang", "freeze"])
def test_a_worker_that_hangs(make, act):
    """It is killed after the time-out, and another one does its item.

    After SIGSTOP (freeze) not even Ray's threads answer.
    """
    pool = make(restore=lambda worker: [("load", 10)])
    before = pool.broadcast("load", 10)
    items = [(n, act if n == 2 else "nothing") for n in range(8)]
    start = time.monotonic()
    found = sorted(pool.map_unordered("once", items, timeout=1.5))
    assert found == [(item, item[0] + 10) for item in items]
    assert time.monotonic() - start < 30
    left = [pool.call(worker, "where", timeout=30) for worker in range(2)]     # the new one starts
    [gone] = set(before) - set(left)
    assert ended(gone)


def ended(pid: int, within: float = 10.0) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
@pytest.mark.fault
def test_an_item_that_always_costs_its_worker(make):
    """The error after its last attempt names it and the host; other items are done."""
    pool = make()
    found = dict(pool.map_unordered("act", ["die", "nothing"], max_attempts=2, errors="collect"))
    assert found["nothing"] is None
    last = f"last on {os.uname().nodename} (proc"
    assert found["die"].message.startswith(f"act of 'die' lost its worker 2 times, {last}")
    text = r"act of 'hang' lost its worker once, last on .*: no answer within 1 s"
    with pytest.raises(RunError, match=text):
        list(pool.map_unordered("act", ["hang"], timeout=1, max_attempts=1))


@pytest.mark.slow
@pytest.mark.fault
def test_workers_that_cannot_start(lasting, cluster):
    text = r"start of worker \d failed on .*: ValueError: no such environment"
    with pytest.raises(RunError, match=text):
        RayPool(cluster, Broken, workers=2, share=HALF)
    rest = Share(cpus=1.5 - lasting.workers * HALF.cpus)
    holder = RayPool(cluster, Squares, workers=1, share=rest)
    start = time.monotonic()
    text = (r"0 of 1 workers started within 2 s: they need 1 CPU; the cluster has 2 CPUs, "
            r"of which 0\.5 CPUs are free")
    with pytest.raises(RunError, match=text):
        RayPool(cluster, Squares, workers=1, start_timeout=2)
    assert time.monotonic() - start < 10
    holder.close()


@pytest.mark.slow
@pytest.mark.fault
def test_a_store_that_is_too_small_does_not_hang(lasting):
    """150 MB of results that are all kept, and 120 MB put, pass through 80 MB by spilling."""
    pool = lasting
    kept = list(pool.map_unordered("large", [(n, 10) for n in range(15)], timeout=60))
    assert len(kept) == 15
    assert all(value[0, 0] == number == value[-1, -1] for (number, _), value in kept)
    del kept
    handles = [pool.put(np.full((10, 1 << 20), n, np.uint8)) for n in range(12)]
    totals = [pool.call(n % 2, "total", [handle], timeout=60) for n, handle in enumerate(handles)]
    assert totals == [n * 10 << 20 for n in range(12)]


@pytest.mark.slow
def test_memory_is_flat_over_two_hundred_rounds(make):
    """A round sends a megabyte to every worker and receives one for every item: 800 MB in all."""
    pool = make()

    def rounds(count):
        for n in range(count):
            pool.broadcast("load", np.full(1 << 20, n % 256, np.uint8))
            for _, value in pool.map_unordered("large", [(n % 256, 1)] * 2):
                assert value[0, 0] == n % 256
        return [resident(), *pool.broadcast("resident")]

    before = rounds(40)
    after = rounds(200)
    assert all(b - a < 12 << 20 for a, b in zip(before, after, strict=True)), (before, after)
