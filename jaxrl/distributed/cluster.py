"""A Ray cluster for one run, private or the user's own, and the share of a worker.

A private cluster runs on this machine, has no dashboard and sends no usage statistics. Its
processes and files are gone when the context exits, also by Ctrl-C or SIGTERM. If this process is
killed, Linux ends workers and servers with it; two small agents of Ray follow a minute later. On a
user's cluster only the workers of the run end. A cluster is one trust domain: whoever holds its
token runs code on it (docs/cluster.md).
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

PATIENCE = 10.0          # seconds for a cluster to answer, and for enough machines to join
STORE = 512 << 20        # bytes of the private object store; more is spilled to disk
LONGEST_ROOT = 20        # characters; paths of Ray's sockets add some 75, and Linux allows 107
AUTH = "RAY_AUTH_MODE"   # Ray's choice of authentication, which it would leave in the environment
WHILE_STARTING = {       # environment variables while Ray starts; they are restored afterwards
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",       # a worker without GPUs sees none
    "RAY_worker_niceness": "0",      # Ray would make workers 15 steps nicer than the run
    "PYTHONBREAKPOINT": "",          # Ray would install its own debugger permanently
}


class Share(NamedTuple):
    """The resources of one worker; fractions share the memory of a GPU and the time of a CPU."""

    cpus: float = 1.0
    gpus: float = 0.0

    @property
    def threads(self) -> int:
        """CPU threads of a worker, also the number of its JAX devices if these are CPUs."""
        return max(1, int(self.cpus))

    def __str__(self) -> str:
        return amount(self.cpus, self.gpus)


class Node(NamedTuple):
    """A machine of the cluster, with the resources that Ray manages on it."""

    host: str
    cpus: float
    gpus: float

    def room(self, share: Share) -> int:
        """Return the number of workers that fit here if nothing else runs."""
        each = ((self.cpus, share.cpus), (self.gpus, share.gpus))
        return min((int(has / needs + 1e-9) for has, needs in each if needs), default=1 << 30)


class Cluster(NamedTuple):
    """A connection to a cluster, made by `connect`."""

    address: str           # host:port of its head
    private: bool          # started for this run, on this machine

    def nodes(self) -> list[Node]:
        """Return the machines that are up."""
        import ray

        nodes = []
        for node in ray.nodes():
            if node["Alive"]:
                resources = node["Resources"]
                cpus = resources.get("CPU", 0.0)
                nodes.append(Node(node["NodeManagerHostname"], cpus, resources.get("GPU", 0.0)))
        return nodes

    def require(self, workers: int, share: Share, patience: float = PATIENCE) -> None:
        """Raise UserError unless `workers` fit; wait `patience` seconds for machines to join."""
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
        """Return environment variables of a worker, which override those of the driver.

        Threads of XLA's CPU client (NPROC) and of BLAS, and JAX devices, follow the share. Other XLA
        flags are those of the driver, because bits depend on them. A GPU worker allocates memory as
        it needs it, up to its fraction.
        """
        threads = str(share.threads)
        variables = {
            "XLA_FLAGS": _xla_flags(), "JAX_NUM_CPU_DEVICES": threads, "JAX_PLATFORMS": "cpu",
            "NPROC": threads, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads}
        if share.gpus:
            variables |= {
                "JAX_PLATFORMS": "", "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
                "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 * min(share.gpus, 1.0):.3f}"}
        if self.private:
            variables |= _compilation_cache()
        return variables


def _xla_flags() -> str:
    """Return the XLA flags of the driver, without the number of its devices."""
    devices = "--xla_force_host_platform_device_count"
    flags = os.environ.get("XLA_FLAGS", "").split()
    return " ".join(flag for flag in flags if not flag.startswith(devices))


@contextlib.contextmanager
def connect(workers: int, address: str | None = None, *, share: Share | None = None,
            store: int = STORE) -> Iterator[Cluster]:
    """Connect to a private Ray cluster on this machine or, with `address`, to the user's cluster.

        with connect(2) as cluster: ...

    Enter this context before JAX's backend starts if possible, because Ray forks and JAX has
    threads. Signal handlers are restored, although Ray replaces them. A SIGTERM without a handler
    raises SystemExit(143) inside, so that all that was started ends. If Ray runs in this process
    already, it is used and left running. Raises UserError within seconds if there is no such
    cluster, or it is too small.

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
                    # every user may read Ray's folder, but not the one that contains it
                    _start(f"{folder}/r", share, store)
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
        token.mkdir(mode=0o700, exist_ok=True)       # Ray would let every user read it
    gpus = None if share.gpus else 0                 # None: Ray counts them
    ray.init(address="local", num_cpus=backend.cores(), num_gpus=gpus, include_dashboard=False,
             log_to_driver=False, logging_level=logging.ERROR, object_store_memory=store,
             _temp_dir=folder)
    with contextlib.suppress(OSError):
        (token / "auth_token").chmod(0o600)


def _session_folder() -> str:
    """Return a new folder with a short path that no other user can read (mode 0700)."""
    root = tempfile.gettempdir()
    if len(root) > LONGEST_ROOT:
        root = "/tmp"
    return tempfile.mkdtemp(prefix="jaxrl-ray-", dir=root)


def _require_machine(workers: int, share: Share) -> None:
    """Raise UserError if this machine is too small, before Ray starts.

    Ray counts GPUs later, unless there is no sign of any.
    """
    from jaxrl import backend  # imports JAX, which not every process that imports this module needs

    devices = ("nvidia[0-9]*", "kfd", "dxg")
    any_gpu = any(list(Path("/dev").glob(pattern)) for pattern in devices)
    gpus = float("inf") if any_gpu else 0.0
    here = Node(socket.gethostname(), float(backend.cores()), gpus)
    if here.room(share) < workers:
        raise _too_much(workers, share, [here], "this machine")


def _compilation_cache() -> dict[str, str]:
    """Return variables that give workers on this machine the driver's compilation cache."""
    if "jax" not in sys.modules:
        return {}
    import jax

    from jaxrl import backend

    backend.use_cache()
    folder = jax.config.jax_compilation_cache_dir
    if not folder or "://" in folder:
        return {}
    least = jax.config.jax_persistent_cache_min_compile_time_secs
    return {"JAX_COMPILATION_CACHE_DIR": folder,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(least)}


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
        raise UserError(
            f"cannot join the Ray cluster at {address}: {reason}",
            "Run on one of its machines, with its versions of Python and Ray (docs/cluster.md)",
        ) from error


def _probe(address: str, patience: float) -> str:
    """Return the mode of authentication of a Ray head that answers within `patience` seconds.

    Raises UserError unless there is one that accepts this user. A head that requires no token must
    not receive one either: its answers would not reach this process, and it ends workers whose
    owner does not answer. Ray itself would try for more than a minute. So the head is asked from
    separate processes, which can be ended.
    """
    deadline = time.monotonic() + patience
    absent = UserError(f"no Ray cluster at {address} within {patience:.0f} s.",
                       "Start one (ray start --head) or leave out address=")
    _knock(address, deadline, absent)
    chosen = os.environ.get(AUTH)
    left = max(1.0, deadline - time.monotonic())
    for mode in _modes(chosen):
        try:
            done = _health(address, mode, left)
        except subprocess.TimeoutExpired:
            raise absent from None
        if "InvalidAuthToken" not in done.stdout + done.stderr:
            break
        left = patience                                    # the head is there
    else:
        raise UserError(
            f"the Ray cluster at {address} does not accept this user's token.",
            "Copy ~/.ray/auth_token from its head, and set RAY_AUTH_MODE=token (docs/cluster.md)")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no answer"]
        raise UserError(f"cannot join the Ray cluster at {address}: {lines[-1]}",
                        "Run with its versions of Python and Ray (docs/cluster.md)")
    if chosen == "token" and mode == "disabled":
        raise UserError(
            f"the Ray cluster at {address} asks for no token, but RAY_AUTH_MODE=token is set.",
            "Set it before ray start, too (docs/cluster.md), or unset it here")
    return mode


def _knock(address: str, deadline: float, absent: UserError) -> None:
    """Return when something listens at `address`; raise `absent` if nothing does in time."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f'address="{address}" is not host:port',
                        "The head prints it: ray start --head --port=6379")
    while True:
        try:
            where = (host.strip("[]"), int(port))
            socket.create_connection(where, timeout=deadline - time.monotonic()).close()
            return
        except (OSError, ValueError, OverflowError):
            if time.monotonic() + 0.2 > deadline:
                raise absent from None
            time.sleep(0.2)


def _modes(chosen: str | None) -> list[str]:
    """Return the modes of authentication to try, in order."""
    if chosen not in (None, "token"):
        return [chosen]
    return ["disabled", "token"] if _has_token() else ["disabled"]


def _health(address: str, mode: str, timeout: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout, env={**os.environ, AUTH: mode})


def _forget_token() -> None:
    """Make Ray read mode and token again; it keeps those of this process's last cluster."""
    from ray import _raylet  # Ray has no public function for this

    _raylet.Config.initialize("")
    if hasattr(_raylet, "AuthenticationTokenLoader"):      # versions with tokens
        _raylet.AuthenticationTokenLoader.instance().reset_cache()


def _has_token() -> bool:
    names = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    stored = Path.home() / ".ray" / "auth_token"
    return any(name in os.environ for name in names) or stored.exists()


# --- this process


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray from printing deaths of workers on stdout; the pool reports them.

    Ray prints them also with log_to_driver=False.
    """
    from ray._private import worker  # Ray has no public switch for this

    def print_nothing(*_: Any, **__: Any) -> None:
        pass

    before = getattr(worker, "print_to_stdstream", None)
    worker.print_to_stdstream = print_nothing
    try:
        yield
    finally:
        worker.print_to_stdstream = before


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Restore the handlers of SIGINT and SIGTERM at the end."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            if handler is not None:               # None: not set from Python
                signal.signal(signum, handler)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let a SIGTERM without a handler unwind the stack, as Ctrl-C does."""
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
    """Ignore the warning about forks; children of Ray execute at once, so threads do no harm."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called",
                                category=RuntimeWarning)
        yield


@contextlib.contextmanager
def _environment(*kept: str, **variables: str) -> Iterator[None]:
    """Set environment variables; at the end restore these and the ones named in `kept`."""
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


# --- messages


def _too_much(workers: int, share: Share, nodes: list[Node], where: str) -> UserError:
    room = sum(node.room(share) for node in nodes)
    has = amount(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes),
                 gpus_always=bool(share.gpus))
    machines = f" on {len(nodes)} machines" if len(nodes) > 1 else ""
    fewer = f"workers={room} or fewer" if room else "workers=0"
    return UserError(
        f"workers={workers} with {share} each need "
        f"{amount(workers * share.cpus, workers * share.gpus)}; {where} has {has}{machines}, "
        f"room for {room}.",
        f"Use {fewer}, or the address= of a larger cluster (docs/cluster.md)")


def amount(cpus: float, gpus: float, gpus_always: bool = False) -> str:
    """Return resources as text, such as "2 CPUs and 1 GPU"."""
    text = _count(cpus, "CPU")
    if (gpus or gpus_always) and gpus != float("inf"):
        text += f" and {_count(gpus, 'GPU')}"
    return text


def _count(number: float, unit: str) -> str:
    return f"{number:g} {unit}" if number == 1 else f"{number:g} {unit}s"
