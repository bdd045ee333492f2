"""Set-up of JAX before its backend starts: which platform, one host device per core, the compilation cache."""

from __future__ import annotations

import hashlib
import os
import platform as machine
from pathlib import Path

import jax

from jaxrl.errors import UserError


def started() -> bool:
    """Whether JAX's backend is already up in this process, so that its devices can no longer be chosen."""
    from jax._src import xla_bridge  # there is no public question for it

    return xla_bridge.backends_are_initialized()


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(device: str = "auto") -> None:
    """Choose the platform, make one CPU device per core (unless the user chose), switch the compilation cache on.

    In a process whose backend is already up nothing is changed: it goes on with the devices there are.
    """
    if not started():
        if device == "cpu":
            jax.config.update("jax_platforms", "cpu")
        chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
        if not chosen and "JAX_NUM_CPU_DEVICES" not in os.environ:
            jax.config.update("jax_num_cpu_devices", cores())
    use_cache()
    if device == "gpu" and jax.default_backend() != "gpu":
        raise UserError(f"device=gpu was asked for, JAX sees only: {jax.default_backend()}. This is a CPU build of "
                        'jaxlib (README, "GPU"), or use device=cpu')


def devices(limit: int | None = None) -> list[jax.Device]:
    """The devices that blocks of members are dealt out to."""
    found = jax.local_devices()
    if limit is not None and limit > len(found):
        raise UserError(f"num_devices={limit} was asked for, JAX sees {len(found)}: {', '.join(map(str, found))}")
    return found[:limit]


def memory(device: jax.Device | None = None) -> tuple[int, int]:
    """(limit, free) bytes of a device's own memory; for a CPU or None the host's, as far as this process may use it:
    the machine's, or its control group's where that is less. (0, 0) where it is not known."""
    if device is not None and device.platform != "cpu":
        found = device.memory_stats() or {}
        limit = found.get("bytes_limit", 0)
        return limit, max(limit - found.get("bytes_in_use", 0), 0)
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        limit, free = (int(lines[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return 0, 0
    for folder in _cgroups():
        try:
            most, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
        except (OSError, ValueError):            # "max": no limit here
            continue
        limit, free = min(limit, most), min(free, max(most - used, 0))
    return limit, free


def _cgroups(root: Path = Path("/sys/fs/cgroup")) -> list[Path]:
    """This process's control group (version 2) and those around it."""
    try:
        inner = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return [root]
    path = root / inner.strip().lstrip("/")
    return [path, *(parent for parent in path.parents if parent == root or root in parent.parents)]


def use_cache() -> None:
    """A persistent compilation cache in a folder of the user's own (mode 0700), unless one is configured.

    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    folder = cache_folder("jaxrl")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.parent.chmod(0o700)
        if folder.stat().st_uid != os.getuid():
            return
    except OSError:
        return                                # no home, or a read-only one: compile each time
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def cache_folder(name: str) -> Path:
    """A folder for compiled programs in the user's cache folder.

    Compiled CPU programs fit one type of processor, one compiler and its flags, so these are part of the path.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.path.expanduser("~")) / ".cache")
    made_for = "\n".join([_processor(), jax.lib.__version__, os.environ.get("XLA_FLAGS", "")])
    return root / name / hashlib.sha256(made_for.encode()).hexdigest()[:12]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line for line in lines if line.startswith(("flags", "Features"))), machine.processor())
    except OSError:
        return machine.platform() + machine.processor()
