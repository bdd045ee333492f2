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

__all__ = ["SUMMARY_KEYS", "Lock", "create", "is_pbt", "open_run", "read_summary", "safe_name", "write_atomic",
           "write_environment", "write_summary"]

CONFIG, LOCK, SUMMARY, ENVIRONMENT = "config.yaml", ".lock", "summary.json", "environment.json"
PBT = "pbt.yaml"                 # of runs of population-based training
SUMMARY_KEYS = ("status", "algo", "env", "num_seeds", "total_steps", "env_steps_all", "seconds", "compile_seconds",
                "steps_per_second", "eval_returns", "eval_iqm", "eval_ci95", "train_returns", "best_step", "error")
STATUSES = ("completed", "interrupted", "diverged", "failed")
PACKAGES = ("jaxrl", "jax", "jaxlib", "flax", "optax", "chex", "numpy", "gymnax", "safetensors", "hydra-core",
            "omegaconf", "ray", "tensorboardX", "gymnasium")


# --- names and places


def safe_name(name: str) -> str:
    """An environment's or algorithm's name as part of a file name: lower case, and '-' for what is no letter or digit.

    The result is never empty, never hidden and never leaves its folder.
    """
    return re.sub(r"[^a-z0-9._-]", "-", str(name).lower()).lstrip(".-")[:80] or "x"


def create(env: str, algo: str, out: Path | str | None = None, root: Path | str = "runs") -> tuple[Path, Lock]:
    """A new run folder and the lock on it: `<root>/<env>-<algo>-<UTC time>-<4 letters>`, or `out`.

    `out` must be new or empty. Any number of processes may call this in the same second. Raises UserError.
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
        problem = f"cannot create a run in {shown(root)} ({error.strerror})."
        raise UserError(problem, "Choose another place: out=DIR") from None
    return run, lock


def _claim(run: Path) -> tuple[Path, Lock]:
    """`out` as a run folder. A lock file alone counts as empty: its owner died before it wrote anything."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        if set(os.listdir(run)) <= {LOCK}:
            lock = Lock(run)
            if set(os.listdir(run)) <= {LOCK}:
                sync_directory(run.parent)
                return run, lock
            lock.release()         # its owner finished in between
        elif (run / LOCK).exists():
            Lock(run).release()    # says who writes there, if somebody does
    except OSError as error:
        raise UserError(f"out={shown(run)} cannot be used ({error.strerror}).", "Choose another out=") from None
    raise UserError(f"out={shown(run)} is not empty.", f"Use another out=, or go on there: jaxrl resume {_quoted(run)}"
                    if (run / CONFIG).exists() else "Use another out=, or empty it.")


def open_run(path: Path | str) -> Path:
    """The folder of a stored run, by any path to it. Raises UserError with the runs that are near."""
    run = Path(path)
    with contextlib.suppress(OSError):
        if (run / CONFIG).is_file():
            return run
    near = _runs(run) or _runs(run.parent) or _runs(Path("runs"))
    close = difflib.get_close_matches(run.name.lower(), [found.name.lower() for found in near], n=3)
    near.sort(key=lambda found: found.name.lower() not in close)
    listed = ", ".join(shown(found) for found in near[:5])
    raise UserError(f"{shown(run)} is not a run (no {CONFIG}).",
                    f"Runs here: {listed}" if near else "There are no runs here: jaxrl train makes one.")


def is_pbt(path: str | Path) -> bool:
    """Whether a run is one of population-based training."""
    return (Path(path) / PBT).is_file()


def _runs(folder: Path) -> list[Path]:
    """Runs directly inside a folder, the newest first."""
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
    """After a fork the lock stays the parent's alone, and is free when that one dies."""
    for lock in list(_held):
        lock.close()


os.register_at_fork(after_in_child=_leave_to_parent)


class Lock:
    """The right to write a run, held while this process lives (flock): free after kill -9. Raises UserError if held.

    The file says who holds it: pid, host, time. It stays when released; the flock counts, not the file.
    """

    def __init__(self, run: Path | str):
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
            warnings.warn(f"{shown(self.run)} lies on a file system without locks: let one process write it",
                          stacklevel=2)
        _held.add(self)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with contextlib.suppress(OSError):       # a full disk must not stop a run from saying so later
            os.ftruncate(self._fd, 0)
            write_all(self._fd, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now}).encode())

    def _holder(self) -> str:
        """Who holds it; the text may lag a moment behind the lock."""
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
        """Frees the run for others."""
        self.close()

    def close(self) -> None:
        """Frees the run for others; harmless when done twice."""
        _held.discard(self)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


# --- environment.json and summary.json


def write_environment(run: Path | str, command: Sequence[str] | None = None, device: Any = None) -> dict[str, Any]:
    """Records how this process came to write the run. The first launch stays on top, later ones are in "resumed".

    command: the words typed, sys.argv by default. device: whatever describes it, JSON data.
    """
    run = Path(run)
    words = list(sys.argv if command is None else command)
    launch = {
        "command": shlex.join([Path(words[0]).name, *words[1:]]) if words else "",
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": plain(device),
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "git": _git(),
    }
    first = _read_json(run / ENVIRONMENT)
    content = launch if first is None else {**first, "resumed": [*first.get("resumed", []), launch]}
    _write_json(run, ENVIRONMENT, content)
    return content


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _git() -> dict[str, Any] | None:
    """The commit of the working directory, and whether tracked files were changed since; None outside a repository."""
    def ask(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, timeout=5, check=True,
                              env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"}).stdout.strip()
    try:
        return {"commit": ask("rev-parse", "HEAD"), "changed": bool(ask("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None


def write_summary(run: Path | str, summary: Mapping[str, Any]) -> None:
    """Replaces summary.json atomically. The keys are exactly SUMMARY_KEYS; NaN becomes null."""
    wrong = set(summary) ^ set(SUMMARY_KEYS)
    if wrong or summary["status"] not in STATUSES:
        raise ValueError(f"summary keys differ: {sorted(wrong)}" if wrong else f"unknown status {summary['status']!r}")
    _write_json(Path(run), SUMMARY, {key: summary[key] for key in SUMMARY_KEYS})


def read_summary(run: Path | str) -> dict[str, Any] | None:
    """summary.json, or None when the run never ended."""
    return _read_json(Path(run) / SUMMARY)


def read_environment(run: Path | str) -> dict[str, Any] | None:
    """environment.json, or None where there is none."""
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
