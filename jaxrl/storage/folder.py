"""The run folder: its name, its lock, environment.json and summary.json."""

from __future__ import annotations

import contextlib
import datetime
import difflib
import errno
import fcntl
import importlib.metadata
import json
import os
import platform
import re
import secrets
import shlex
import socket
import string
import subprocess
import sys
import time
import warnings
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrl.errors import UserError
from jaxrl.storage.checkpoint import storage_error
from jaxrl.storage.files import shown, sync_directory, write_all, write_atomic
from jaxrl.storage.metrics import plain

__all__ = ["SUMMARY_KEYS", "Lock", "create", "is_pbt", "open_run", "read_summary", "safe_name",
           "write_atomic", "write_environment", "write_summary"]

CONFIG = "config.yaml"
LOCK = ".lock"
SUMMARY = "summary.json"
ENVIRONMENT = "environment.json"
PBT = "pbt.yaml"                 # of runs of population-based training
SUMMARY_KEYS = ("status", "algo", "env", "num_seeds", "total_steps", "env_steps_all", "seconds",
                "compile_seconds", "steps_per_second", "eval_returns", "eval_iqm", "eval_ci95",
                "train_returns", "best_step", "error")
STATUSES = ("completed", "interrupted", "diverged", "failed")
PACKAGES = ("jaxrl", "jax", "jaxlib", "flax", "optax", "chex", "numpy", "gymnax", "safetensors",
            "hydra-core", "omegaconf", "ray", "tensorboardX", "gymnasium")


# --- names and places


def safe_name(name: str) -> str:
    """Return the name of an environment or algorithm as a part of a file name.

    It is in lower case, with '-' for other characters than letters, digits, '.', '_' and '-'. It is
    never empty, never hidden and never leaves its folder.
    """
    return re.sub(r"[^a-z0-9._-]", "-", str(name).lower()).lstrip(".-")[:80] or "x"


def create(env: str, algo: str, out: Path | str | None = None,
           root: Path | str = "runs") -> tuple[Path, Lock]:
    """Make a run folder and return it with its lock.

    The folder is `<root>/<env>-<algo>-<UTC time>-<4 letters>`, or `out`. Any number of processes
    may call this in the same second. Raises UserError unless `out` is new or empty.
    """
    if out is not None:
        return _claim(Path(out))
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        while True:
            letters = "".join(secrets.choice(string.ascii_lowercase) for _ in range(4))
            run = Path(root) / f"{safe_name(env)}-{safe_name(algo)}-{now}-{letters}"
            with contextlib.suppress(FileExistsError):
                run.mkdir()
                break
        lock = Lock(run)
        sync_directory(Path(root))
    except OSError as error:
        raise UserError(f"cannot create a run in {shown(root)} ({error.strerror}).",
                        "Choose another place: out=DIR") from None
    return run, lock


def _claim(run: Path) -> tuple[Path, Lock]:
    """Return the run folder `out` and its lock.

    A folder with nothing but a lock file counts as empty: its owner died before it wrote anything.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        if set(os.listdir(run)) <= {LOCK}:
            lock = Lock(run)
            if set(os.listdir(run)) <= {LOCK}:
                sync_directory(run.parent)
                return run, lock
            lock.release()         # its owner finished in between
        elif (run / LOCK).exists():
            Lock(run).release()    # raises the error that names the writer, if there is one
    except OSError as error:
        raise UserError(f"out={shown(run)} cannot be used ({error.strerror}).",
                        "Choose another out=") from None
    hint = "Use another out=, or empty it."
    if (run / CONFIG).exists():
        hint = f"Use another out=, or continue there: jaxrl resume {_quoted(run)}"
    raise UserError(f"out={shown(run)} is not empty.", hint)


def open_run(path: Path | str) -> Path:
    """Return the folder of a stored run. Raises UserError with the runs nearby if it is none."""
    run = Path(path)
    with contextlib.suppress(OSError):
        if (run / CONFIG).is_file():
            return run
    near = _runs(run) or _runs(run.parent) or _runs(Path("runs"))
    names = [found.name.lower() for found in near]
    close = difflib.get_close_matches(run.name.lower(), names, n=3)
    near.sort(key=lambda found: found.name.lower() not in close)
    hint = "There are no runs here: jaxrl train makes one."
    if near:
        hint = f"Runs here: {', '.join(shown(found) for found in near[:5])}"
    raise UserError(f"{shown(run)} is not a run (no {CONFIG}).", hint)


def is_pbt(path: str | Path) -> bool:
    """Return True if a run is one of population-based training."""
    return (Path(path) / PBT).is_file()


def _runs(folder: Path) -> list[Path]:
    """Return the runs directly inside a folder, the newest first."""
    try:
        found = [entry for entry in folder.iterdir() if (entry / CONFIG).is_file()]
        return sorted(found, key=lambda run: (run / CONFIG).stat().st_mtime, reverse=True)
    except OSError:
        return []


def _quoted(run: Path) -> str:
    return shlex.quote(shown(run))


# --- one writer


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """Close the locks in a forked child, so that they are free when the parent dies."""
    for lock in list(_held):
        lock.close()


os.register_at_fork(after_in_child=_leave_to_parent)


class Lock:
    """The right to write a run, held by flock while this process lives and free after kill -9.

    The file names the owner: pid, host, time. It stays when the lock is released; only the flock
    counts.
    """

    def __init__(self, run: Path | str):
        """Take the lock. Raises UserError if another process holds it."""
        self.run = Path(run)
        self._fd = os.open(self.run / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            problem = f"{shown(self.run)} is being written by {self._holder()}."
            self.close()
            raise UserError(problem, "Use another out=, or stop it.") from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL):
                self.close()
                raise
            warnings.warn(f"{shown(self.run)} is on a file system without locks: make sure that "
                          "only one process writes it", stacklevel=2)
        _held.add(self)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        with contextlib.suppress(OSError):       # the run itself reports a full disk later
            os.ftruncate(self._fd, 0)
            write_all(self._fd, json.dumps(owner).encode())

    def _holder(self) -> str:
        """Return the name of the owner; the text of the file may lag a moment behind the lock."""
        for _ in range(20):
            try:
                text = json.loads(os.pread(self._fd, 1024, 0))
                since = datetime.datetime.fromisoformat(text["since"]).astimezone()
                today = since.date() == datetime.datetime.now().date()
                when = since.strftime("%H:%M" if today else "%Y-%m-%d %H:%M")
                return f"process {int(text['pid'])} on host {safe_name(text['host'])} since {when}"
            except (ValueError, KeyError, TypeError, OSError, RecursionError):
                time.sleep(0.02)
        return "another process"

    def release(self) -> None:
        """Free the run for other processes."""
        self.close()

    def close(self) -> None:
        """Free the run for other processes. Closing twice is harmless."""
        _held.discard(self)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


# --- environment.json and summary.json


def write_environment(run: Path | str, command: Sequence[str] | None = None,
                      device: Any = None) -> dict[str, Any]:
    """Record in environment.json how this process writes the run, and return the content.

    The first launch stays on top, later ones are in "resumed". command: the words of the command
    line, by default sys.argv. device: a description as JSON data.
    """
    run = Path(run)
    words = list(sys.argv if command is None else command)
    if words:
        words[0] = Path(words[0]).name
    launch = {
        "command": shlex.join(words),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": plain(device),
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
        "cpus": _cpus(),
        "git": _git(),
    }
    content = launch
    first = _read_json(run / ENVIRONMENT)
    if first is not None:
        content = {**first, "resumed": [*first.get("resumed", []), launch]}
    _write_json(run, ENVIRONMENT, content)
    return content


def _cpus() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _git() -> dict[str, Any] | None:
    """Return the commit of the working directory, and "changed", True if tracked files differ.

    None outside a repository.
    """
    def ask(*words: str) -> str:
        env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=5,
                              check=True, env=env)
        return done.stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"),
                "changed": bool(ask("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None


def write_summary(run: Path | str, summary: Mapping[str, Any]) -> None:
    """Replace summary.json atomically. NaN becomes null.

    Raises ValueError unless the keys are exactly SUMMARY_KEYS and the status is known.
    """
    wrong = set(summary) ^ set(SUMMARY_KEYS)
    if wrong:
        raise ValueError(f"summary keys differ: {sorted(wrong)}")
    if summary["status"] not in STATUSES:
        raise ValueError(f"unknown status {summary['status']!r}")
    _write_json(Path(run), SUMMARY, {key: summary[key] for key in SUMMARY_KEYS})


def read_summary(run: Path | str) -> dict[str, Any] | None:
    """Return summary.json; None if the run has not ended."""
    return _read_json(Path(run) / SUMMARY)


def read_environment(run: Path | str) -> dict[str, Any] | None:
    """Return environment.json; None if there is none."""
    return _read_json(Path(run) / ENVIRONMENT)


def _write_json(run: Path, name: str, content: Mapping[str, Any]) -> None:
    data = (json.dumps(plain(content), indent=2, allow_nan=False) + "\n").encode()
    try:
        write_atomic(run / name, data)
    except OSError as error:
        raise storage_error(error, run, run / name, len(data)) from error


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
