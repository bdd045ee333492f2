"""Ray as a run starts, joins and leaves it: real processes, and what is left of them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from jaxrl.distributed import open_pool
from jaxrl.distributed.actors import RayPool
from jaxrl.distributed.cluster import Cluster, Node, Share, connect
from jaxrl.errors import RunError, UserError
from tests.distributed.processes import agent, family, gone
from tests.distributed.workers import Learner, Squares

ROOT = Path(__file__).parents[2]


# ---------------------------------------------------------------- what is not there


@pytest.mark.parametrize("share, text", [
    (Share(), "workers=64 with 1 CPU each need 64 CPUs; this machine has {n} CPUs, room for {n}."),
    (Share(cpus=2), "workers=64 with 2 CPUs each need 128 CPUs; this machine has {n} CPUs, room for {half}."),
    (Share(cpus=0.5, gpus=0.25), "workers=64 with 0.5 CPUs and 0.25 GPUs each need 32 CPUs and 16 GPUs; this machine "
                                 "has {n} CPUs and 0 GPUs, room for 0.")])
def test_more_than_this_machine_has(monkeypatch, share, text):
    """Said before Ray is started."""
    from jaxrl import backend

    monkeypatch.setattr(backend, "cores", lambda: 2)
    if share.gpus and list(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("there are GPUs here")
    start = time.monotonic()
    with pytest.raises(UserError) as error, connect(64, share=share):
        pass
    assert time.monotonic() - start < 10 and error.value.exit_code == 2
    assert error.value.problems[0].message == text.format(n=2, half=1)


@pytest.mark.parametrize("listens", [False, True])
def test_nobody_at_that_address(monkeypatch, listens):
    """Neither behind a closed port nor behind one where somebody else listens, who never answers."""
    from jaxrl.distributed import cluster

    assert cluster.PATIENCE == 10
    monkeypatch.setattr(cluster, "PATIENCE", 1.0)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{other.getsockname()[1]}"
        if listens:
            other.listen()
        start = time.monotonic()
        with pytest.raises(UserError) as error, connect(1, address):
            pass
        assert time.monotonic() - start < 5
        assert error.value.problems[0] == (f"no Ray cluster at {address} within 1 s.",
                                           "Start one (ray start --head) or leave out address=")


def test_an_address_that_is_none():
    with pytest.raises(UserError, match='address="ray-head" is not host:port'), connect(1, "ray-head"):
        pass


def test_room_is_counted_machine_by_machine():
    """Three halves do not make a worker that needs a whole one."""
    assert Node("a", 8.0, 1.0).room(Share(cpus=1, gpus=0.25)) == 4
    assert Node("a", 3.0, 0.0).room(Share(cpus=2)) == 1 and Node("a", 0.3, 0.0).room(Share(cpus=0.1)) == 3
    assert Node("a", 8.0, 0.0).room(Share(cpus=1, gpus=0.1)) == 0


def test_the_environment_of_a_gpu_worker():
    environment = Cluster("10.0.0.5:6379", private=False).environment(Share(cpus=4, gpus=0.25))
    assert environment["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false" and environment["JAX_PLATFORMS"] == ""
    assert environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.225" and environment["NPROC"] == "4"
    assert "JAX_COMPILATION_CACHE_DIR" not in environment           # of this machine, not of that one


# ---------------------------------------------------------------- what a worker is given


@pytest.mark.slow
def test_the_drivers_flags_do_not_leak(monkeypatch, tmp_path, capfd):
    """Devices, threads, XLA's flags and the cache of compiled programs; and both workers have a core."""
    import jax

    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=3 --xla_cpu_enable_fast_math=false")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "5")
    monkeypatch.setenv("NPROC", "7")
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("long" * 30)))     # sockets would have no room there
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    before, environment = family(os.getpid()), dict(os.environ)
    with open_pool(Learner, workers=2) as pool:
        assert signal.getsignal(signal.SIGINT) == handlers[0]
        started = family(os.getpid()) - before
        assert len(started) >= 3
        for found in pool.broadcast("environment", timeout=60):
            environ = found["environ"]
            assert environ["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=false" and environ["JAX_PLATFORMS"] == "cpu"
            assert environ["OMP_NUM_THREADS"] == environ["NPROC"] == environ["JAX_NUM_CPU_DEVICES"] == "1"
            assert len(found["devices"]) == 1
            assert found["workers"] == 1 and found["cache"] == jax.config.jax_compilation_cache_dir is not None
            assert isinstance(found["x"], np.ndarray) and found["key"].tolist() == [0, 3]
            assert os.getpriority(os.PRIO_PROCESS, found["pid"]) == os.getpriority(os.PRIO_PROCESS, 0)
        both = pool.broadcast("work", 2.0, timeout=60)
        # a core each, when nobody else wants it; never two, which is what a pool of threads for all cores would use
        assert all(0 < share < 1.15 for share in both), both
    assert gone(started) and [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    theirs = {name for name in os.environ if name.startswith("RAY_")}          # Ray remembers its mode there
    assert {k: v for k, v in os.environ.items() if k not in theirs} == {
        k: v for k, v in environment.items() if k not in theirs}
    token = Path.home() / ".ray" / "auth_token"
    if "RAY_AUTH_TOKEN" not in environment and token.exists():
        assert token.stat().st_mode & 0o077 == 0
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------- what is left


CHILD = """
    import os, signal, sys, time
    from jaxrl.distributed import open_pool
    from tests.distributed.workers import Squares

    signal.signal(signal.SIGINT, signal.default_int_handler)     # a shell's background jobs ignore it, and these tests
    with open_pool(Squares, workers=1) as pool:                  # may be one
        print(pool.call(0, "where"), flush=True)
        for item, _ in pool.map_unordered("slowly", [(n, 0.5) for n in range(1000)]):
            print("item", flush=True)
"""


def children(code: str, count: int) -> list[subprocess.Popen]:
    """Drivers, each the leader of a group as a terminal makes it."""
    return [subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, cwd=ROOT,
                             stderr=subprocess.PIPE, start_new_session=True, env={**os.environ, "TMPDIR": "/tmp"})
            for _ in range(count)]


def send(child: subprocess.Popen, signum: int) -> None:
    """A terminal's Ctrl-C goes to the whole group, other signals to the driver alone."""
    (os.killpg if signum == signal.SIGINT else os.kill)(child.pid, signum)


@pytest.mark.slow
@pytest.mark.fault
def test_nothing_is_left():
    """By Ctrl-C, by a SIGTERM that nobody handles, and by a SIGKILL of the driver, in the middle of a round. Two of
    Ray's agents notice the last one only after a minute, which is not waited for."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    drivers = children(CHILD, len(signals))
    try:
        for child, signum in zip(drivers, signals):
            worker = int(child.stdout.readline())
            assert child.stdout.readline() == "item\n"
            started = family(child.pid)
            assert worker in started and len(started) >= 4
            folders = {folder for pid in started for folder in re.findall(
                r"/tmp/jaxrl-ray-\w+", Path(f"/proc/{pid}/cmdline").read_text(errors="replace"))}
            assert len(folders) == 1 and Path(min(folders)).stat().st_mode & 0o777 == 0o700
            late = {pid for pid in started if signum == signal.SIGKILL and agent(pid)}
            send(child, signum)
            child.communicate(timeout=30)
            assert child.returncode in (-signum, 1, 128 + signum)
            assert len(late) <= 2 and gone(started - late)
            assert signum == signal.SIGKILL or not Path(min(folders)).exists()
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        for child in drivers:
            child.kill()
            child.communicate()


RUN = """
    import sys, time
    from jaxrl.distributed import open_pool
    from jaxrl.run.signals import Signals
    from tests.distributed.workers import Squares

    with open_pool(Squares, workers=1) as pool, Signals(lambda text: print(text, flush=True)) as signals:
        print("up", flush=True)
        count = 0
        for _ in pool.map_unordered("slowly", [(n, 0.2) for n in range(20)]):
            count += 1
            print("item", flush=True)
        print("received", int(signals.received or 0), count, flush=True)
        print(pool.call(0, "square", 3), flush=True)
"""


@pytest.mark.slow
@pytest.mark.fault
def test_a_run_finishes_its_round_after_one_signal():
    """The run's own handlers are in force, and workers do not see a Ctrl-C, although it goes to the whole group."""
    signals = (signal.SIGINT, signal.SIGTERM)
    drivers = children(RUN, len(signals))
    try:
        for child, signum in zip(drivers, signals):
            assert child.stdout.readline() == "up\n"
            assert child.stdout.readline() == "item\n"
            send(child, signum)
        for child, signum in zip(drivers, signals):
            out, err = child.communicate(timeout=40)
            assert (f"stopping: {signum.name} received, finishing the current step; "
                    "press Ctrl-C again to stop at once\n") in out
            assert out.endswith(f"item\nreceived {int(signum)} 20\n9\n")
            assert child.returncode == 0 and not err
    finally:
        for child in drivers:
            child.kill()
            child.communicate()


# ---------------------------------------------------------------- a cluster of the user's


@pytest.fixture(scope="module")
def head():
    """`ray start --head` as a user does it, with the token that this user has."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={port}", "--num-cpus=2", "--block",
           "--include-dashboard=false", "--object-store-memory=80000000", "--disable-usage-stats",
           "--temp-dir=/tmp/jaxrl-head"]
    process = subprocess.Popen(ray, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    yield f"127.0.0.1:{port}"
    started = family(process.pid)
    process.terminate()
    process.wait(30)
    assert gone(started)


JOIN = """
    import sys
    from jaxrl.distributed.cluster import Share
    from jaxrl.distributed import open_pool
    from jaxrl.errors import UserError
    from tests.distributed.workers import Squares

    try:
        with open_pool(Squares, address=sys.argv[1], workers=int(sys.argv[2])) as pool:
            print(sorted(pool.map_unordered("square", range(5)))[-1], len(set(pool.broadcast("where"))))
    except UserError as error:
        print(error)
"""


def join(head: str, workers: int, **environment: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(JOIN), head, str(workers)], cwd=ROOT, text=True,
                          env={**os.environ, **environment}, capture_output=True, timeout=90)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_a_users_cluster(head):
    """Joined with its token; refused with another; left running, so that it can say what it lacks."""
    mine = {"RAY_AUTH_TOKEN": "a" * 64}
    assert join(head, 2, **mine) == "(4, 16) 2"
    assert "does not accept this user's token. Copy ~/.ray/auth_token" in join(head, 1, RAY_AUTH_TOKEN="b" * 64)
    assert join(head, 3, **mine).startswith("workers=3 with 1 CPU each need 3 CPUs; the Ray cluster at ")


@pytest.mark.slow
@pytest.mark.fault
def test_a_machine_that_leaves_and_comes_back(tmp_path, monkeypatch):
    """Two nodes, one of which is removed in mid round: the other does its items; its worker returns with it. This
    cluster asks nobody for a token, and must not be asked for one either, although its user has one."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster as Nodes

    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    quick = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_timeout_ms": 3000,
             "health_check_failure_threshold": 3}
    each = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 << 20, "include_dashboard": False}
    nodes = Nodes(initialize_head=True, head_node_args={**each, "_system_config": quick})
    try:
        other = nodes.add_node(**{k: v for k, v in each.items() if k != "include_dashboard"})
        with monkeypatch.context() as other_mode:
            other_mode.setenv("RAY_AUTH_MODE", "token")
            with pytest.raises(UserError, match="asks for no token, but"), connect(2, nodes.address):
                pass
        with connect(2, nodes.address) as cluster:
            assert not cluster.private and len(cluster.nodes()) == 2
            with RayPool(cluster, Squares, (tmp_path,), workers=2, restore=lambda _: [("load", 10)],
                         start_timeout=20) as pool:
                before = pool.broadcast("load", 10)
                found = []
                for _, (number, _) in pool.map_unordered("slowly", [(n, 0.1) for n in range(60)], timeout=10):
                    found.append(number)
                    if len(found) == 10:
                        nodes.remove_node(other, allow_graceful=False)
                assert sorted(found) == list(range(60))
                assert len(set(pool.broadcast("where")) & set(before)) == 1
                nodes.add_node(**{k: v for k, v in each.items() if k != "include_dashboard"})
                back = [pool.call(worker, "where", timeout=30) for worker in range(2)]
                assert len(set(back)) == 2 and len(set(back) & set(before)) == 1
                assert [pool.call(worker, "plus_state", 1) for worker in range(2)] == [11, 11]
        assert not ray.is_initialized() and nodes.list_all_nodes        # left, not shut down
        assert "RAY_AUTH_MODE" not in os.environ
    finally:
        nodes.shutdown()


@pytest.mark.slow
@pytest.mark.fault
def test_the_rest_of_the_cluster_is_somebody_elses():
    """Room enough, but taken: said within the time to start."""
    with connect(2, store=80 << 20) as cluster:
        with RayPool(cluster, Squares, workers=2):
            start = time.monotonic()
            with pytest.raises(RunError, match=r"0 of 2 workers started within 2 s: they need 2 CPUs; .* 0 CPUs are f"):
                RayPool(cluster, Squares, workers=2, start_timeout=2)
            assert time.monotonic() - start < 10
        with connect(1) as same:                                        # Ray is up: used, and left up
            assert same.address == cluster.address and not same.private
        assert cluster.nodes()
