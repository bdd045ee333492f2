"""A Ray cluster for one run: a private one on this machine, or the user's, by its address. And a worker's share of it.

The private one has no dashboard and sends no usage statistics; its processes and files are gone when the context is
left, also by Ctrl-C or SIGTERM. If this process is killed, Linux ends workers and servers with it, and two small agents
of Ray's notice a minute later. Of the user's cluster only the run's own workers end. A cluster is one trust domain:
whoever holds its token runs code on it (docs/cluster.md).
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl.errors import UserError

PATIENCE = 10.0          # seconds for a cluster to answer, and for its machines to be enough
STORE = 512 << 20        # bytes of the private object store; what does not fit is spilled to disk
LONGEST_ROOT = 20        # characters: Ray's sockets lie some 75 deeper, and Linux allows 107
AUTH = "RAY_AUTH_MODE"   # Ray's choice of authentication, which it would leave in the environment
WHILE_STARTING = {       # the environment in which Ray starts; afterwards it is as it was
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",       # a worker without GPUs sees none
    "RAY_worker_niceness": "0",                      # workers matter as much as the run: Ray makes them 15 steps nicer
    "PYTHONBREAKPOINT": "",                          # Ray would put its own debugger there, for good
}


class Share(NamedTuple):
    """What one worker may use. Fractions of a GPU share its memory, fractions of a CPU its time."""

    cpus: float = 1.0
    gpus: float = 0.0

    @property
    def threads(self) -> int:
        """CPU threads of a worker, and JAX devices where those are CPUs."""
        return max(1, int(self.cpus))

    def __str__(self) -> str:
        return amount(self.cpus, self.gpus)


class Node(NamedTuple):
    """A machine of the cluster, and all that Ray may give away of it."""

    host: str
    cpus: float
    gpus: float

    def room(self, share: Share) -> int:
        """Workers that fit here, while nothing else does."""
        each = ((self.cpus, share.cpus), (self.gpus, share.gpus))
        return min((int(has / needs + 1e-9) for has, needs in each if needs), default=1 << 30)


class Cluster(NamedTuple):
    """A connection, as `connect` gives it."""

    address: str           # host:port of its head
    private: bool          # started for this run, on this machine

    def nodes(self) -> list[Node]:
        """The machines that are up now."""
        import ray

        return [Node(node["NodeManagerHostname"], node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
                for node in ray.nodes() if node["Alive"]]

    def require(self, workers: int, share: Share, patience: float = PATIENCE) -> None:
        """Raises UserError unless `workers` fit; machines that are just joining have `patience` seconds."""
        deadline = time.monotonic() + patience
        while True:
            nodes = self.nodes()
            if sum(node.room(share) for node in nodes) >= workers:
                return
            if self.private or time.monotonic() > deadline:
                where = "this machine" if self.private else f"the Ray cluster at {self.address}"
                raise _too_much(workers, share, nodes, where)
            time.sleep(0.2)

    def environment(self, share: Share) -> dict[str, str]:
        """Environment variables of a worker: set ones replace what the driver's environment holds.

        Threads of XLA's CPU client (NPROC) and of BLAS are the worker's share, and so are its devices. Other XLA flags
        are the driver's, because bits depend on them. A GPU worker allocates as it needs, up to its fraction.
        """
        threads = str(share.threads)
        variables = {"XLA_FLAGS": _xla_flags(), "JAX_NUM_CPU_DEVICES": threads, "JAX_PLATFORMS": "cpu",
                     "NPROC": threads, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads,
                     "MKL_NUM_THREADS": threads}
        if share.gpus:
            variables |= {"JAX_PLATFORMS": "", "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
                          "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 * min(share.gpus, 1.0):.3f}"}
        return variables | (_compilation_cache() if self.private else {})


def _xla_flags() -> str:
    """The driver's XLA flags, without the number of its devices."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    return " ".join(flag for flag in flags if not flag.startswith("--xla_force_host_platform_device_count"))


@contextlib.contextmanager
def connect(workers: int, address: str | None = None, *, share: Share | None = None,
            store: int = STORE) -> Iterator[Cluster]:
    """with connect(2) as cluster: a private Ray on this machine; with `address`, the user's cluster.

    To be entered before JAX's backend starts where that is possible: Ray forks, and JAX has threads. Signal handlers
    are left as they were, although Ray replaces them; only a SIGTERM that nobody handles raises SystemExit(143) inside,
    so that what was started is ended. In a process whose Ray is up already, that one is used, and left
    up. Raises UserError within seconds where there is no such cluster, or not enough of it.

    store: bytes of the private cluster's object store, at least 75 MiB.
    """
    share = share or Share()
    up = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    if not up and address is None:
        _require_machine(workers, share)          # before Ray is even imported
    import ray

    if up:
        cluster = Cluster(ray.get_runtime_context().gcs_address, private=False)
        cluster.require(workers, share)
        yield cluster
        return
    folder = None
    with _environment(AUTH):
        try:
            with _handlers_kept(), _no_fork_warning(), _environment(**WHILE_STARTING):
                if address is None:
                    folder = _session_folder()
                    _start(f"{folder}/r", share, store)     # Ray opens its folder to everybody, not the one around it
                else:
                    _join(address)
            cluster = Cluster(ray.get_runtime_context().gcs_address, private=address is None)
            cluster.require(workers, share)
            with _quiet(), _terminable():
                yield cluster
        finally:
            with _handlers_kept():
                ray.shutdown()
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)


# --- a private cluster


def _start(folder: str, share: Share, store: int) -> None:
    import ray

    from jaxrl import backend

    token = Path.home() / ".ray"
    with contextlib.suppress(OSError):
        token.mkdir(mode=0o700, exist_ok=True)       # Ray would make it, and the token in it, readable for everybody
    ray.init(address="local", num_cpus=backend.cores(), num_gpus=None if share.gpus else 0, include_dashboard=False,
             log_to_driver=False, logging_level=logging.ERROR, object_store_memory=store, _temp_dir=folder)
    with contextlib.suppress(OSError):
        (token / "auth_token").chmod(0o600)


def _session_folder() -> str:
    """A new folder that nobody else can read (mode 0700), with a short path."""
    root = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="jaxrl-ray-", dir=root if len(root) <= LONGEST_ROOT else "/tmp")


def _require_machine(workers: int, share: Share) -> None:
    """What can be said before Ray is started. GPUs are counted by Ray, unless there is no sign of any."""
    from jaxrl import backend  # brings JAX, which not every process that reads this module needs

    signs = [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("kfd"), *Path("/dev").glob("dxg")]
    here = Node(socket.gethostname(), float(backend.cores()), float("inf") if signs else 0.0)
    if here.room(share) < workers:
        raise _too_much(workers, share, [here], "this machine")


def _compilation_cache() -> dict[str, str]:
    """The driver's folder of compiled programs for workers on the same machine, if it is one."""
    if "jax" not in sys.modules:
        return {}
    import jax

    from jaxrl import backend

    backend.use_cache()
    folder = jax.config.jax_compilation_cache_dir
    if not folder or "://" in folder:
        return {}
    least = jax.config.jax_persistent_cache_min_compile_time_secs
    return {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(least)}


# --- a user's cluster


def _join(address: str) -> None:
    import ray

    if address != "auto":
        os.environ[AUTH] = _probe(address, PATIENCE)
        _forget_token()
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"cannot join the Ray cluster at {address}: {reason}",
                        "Run on one of its machines, with its versions of Python and Ray (docs/cluster.md)") from error


def _probe(address: str, patience: float) -> str:
    """How a Ray head that answers there within `patience` seconds wants to be spoken to: the mode of authentication.

    Raises UserError unless there is one that takes this user. One that asks for no token must not be asked for one,
    either: of what it then says to this process nothing is heard, and it ends workers whose owner does not answer.
    Ray itself would try for more than a minute. It is asked in processes of their own, which can be ended.
    """
    deadline = time.monotonic() + patience
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f'address="{address}" is not host:port', "The head prints it: ray start --head --port=6379")
    absent = UserError(f"no Ray cluster at {address} within {patience:.0f} s.",
                       "Start one (ray start --head) or leave out address=")
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=deadline - time.monotonic()).close()
            break
        except (OSError, ValueError, OverflowError):
            if time.monotonic() + 0.2 > deadline:
                raise absent from None
            time.sleep(0.2)
    chosen, left = os.environ.get(AUTH), max(1.0, deadline - time.monotonic())
    if chosen not in (None, "token"):
        modes = [chosen]
    else:
        modes = ["disabled", "token"] if _has_token() else ["disabled"]
    for mode in modes:
        try:
            done = _health(address, mode, left)
        except subprocess.TimeoutExpired:
            raise absent from None
        if "InvalidAuthToken" not in done.stdout + done.stderr:
            break
        left = patience                                    # somebody is there
    else:
        raise UserError(f"the Ray cluster at {address} does not take this user's token.",
                        "Copy ~/.ray/auth_token from its head, and set RAY_AUTH_MODE=token (docs/cluster.md)")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise UserError(f"cannot join the Ray cluster at {address}: {lines[-1] if lines else 'no answer'}",
                        "Run with its versions of Python and Ray (docs/cluster.md)")
    if chosen == "token" and mode == "disabled":
        raise UserError(f"the Ray cluster at {address} asks for no token, but RAY_AUTH_MODE=token is set here.",
                        "Set it before ray start, too (docs/cluster.md), or unset it here")
    return mode


def _health(address: str, mode: str, timeout: float) -> subprocess.CompletedProcess[str]:
    ask = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    return subprocess.run(ask, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, AUTH: mode})


def _forget_token() -> None:
    """Mode and token are read again: Ray keeps those of this process's last cluster."""
    from ray import _raylet  # as Ray itself does it: there is no public way

    _raylet.Config.initialize("")
    if hasattr(_raylet, "AuthenticationTokenLoader"):      # versions that know of tokens
        _raylet.AuthenticationTokenLoader.instance().reset_cache()


def _has_token() -> bool:
    names = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    return any(name in os.environ for name in names) or (Path.home() / ".ray" / "auth_token").exists()


# --- this process


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray prints deaths of workers on this process's stdout, also with log_to_driver=False. The pool reports them."""
    from ray._private import worker  # there is no public switch for it

    before = getattr(worker, "print_to_stdstream", None)
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """SIGINT and SIGTERM are handled as before, whatever is done inside."""
    main = threading.current_thread() is threading.main_thread()
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield
    finally:
        for signum, handler in before.items():
            if handler is not None:               # None: set by something else than Python
                signal.signal(signum, handler)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """A SIGTERM that nobody handles unwinds the stack, as Ctrl-C does, instead of ending the process on the spot."""
    def leave(signum: int, _: Any) -> None:
        raise SystemExit(128 + signum)

    main = threading.current_thread() is threading.main_thread()
    mine = main and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if mine:
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        if mine and signal.getsignal(signal.SIGTERM) is leave:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _no_fork_warning() -> Iterator[None]:
    """Ray's children execute at once; JAX's threads are of no matter to them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
        yield


@contextlib.contextmanager
def _environment(*kept: str, **variables: str) -> Iterator[None]:
    """With these variables; afterwards they, and those that are kept, are as they were."""
    before = {name: os.environ.get(name) for name in (*kept, *variables)}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


# --- what is asked for and what there is, in words


def _too_much(workers: int, share: Share, nodes: list[Node], where: str) -> UserError:
    room = sum(node.room(share) for node in nodes)
    has = amount(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes), gpus_always=bool(share.gpus))
    machines = f" on {len(nodes)} machines" if len(nodes) > 1 else ""
    return UserError(
        f"workers={workers} with {share} each need {amount(workers * share.cpus, workers * share.gpus)}; "
        f"{where} has {has}{machines}, room for {room}.",
        (f"Use workers={room} or fewer, or" if room else "Use workers=0, or")
        + " the address= of a larger cluster (docs/cluster.md)")


def amount(cpus: float, gpus: float, gpus_always: bool = False) -> str:
    """2 CPUs and 1 GPU."""
    count = lambda number, unit: f"{number:g} {unit}" + ("" if number == 1 else "s")
    return count(cpus, "CPU") + (
        f" and {count(gpus, 'GPU')}" if (gpus or gpus_always) and gpus != float("inf") else "")
