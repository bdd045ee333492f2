"""Set-up of JAX before its backend starts: platform, CPU devices, compilation cache."""

from __future__ import annotations

import hashlib
import os
import platform as machine
from pathlib import Path

import jax

from jaxrl.errors import UserError


def started() -> bool:
    """Tell whether JAX's backend has started in this process; then its devices are fixed."""
    from jax._src import xla_bridge  # there is no public function for this

    return xla_bridge.backends_are_initialized()


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def prepare(device: str = "auto") -> None:
    """Choose the platform, make one CPU device per core, and turn on the compilation cache.

    The number of CPU devices stays as the user chose it, if they did. If the backend has already
    started, its devices stay as they are. Raises UserError if JAX sees no device of that kind.
    """
    if not started():
        if device == "cpu":
            jax.config.update("jax_platforms", "cpu")
        flags = os.environ.get("XLA_FLAGS", "")
        chosen = "xla_force_host_platform_device_count" in flags
        if not chosen and "JAX_NUM_CPU_DEVICES" not in os.environ:
            jax.config.update("jax_num_cpu_devices", cores())
    use_cache()
    if device == "gpu" and jax.default_backend() != "gpu":
        raise UserError(
            f"device=gpu was asked for, but JAX sees only: {jax.default_backend()}. Install a GPU "
            'build of jaxlib (README, "GPU"), or use device=cpu')


def devices(limit: int | None = None) -> list[jax.Device]:
    """Return the devices for blocks of members, at most `limit`. Raises UserError if too few."""
    found = jax.local_devices()
    if limit is not None and limit > len(found):
        names = ", ".join(map(str, found))
        raise UserError(
            f"num_devices={limit} was asked for, but JAX sees {len(found)}: {names}")
    return found[:limit]


def memory(device: jax.Device | None = None) -> tuple[int, int]:
    """Return (limit, free) bytes of a device's own memory, or (0, 0) if they are not known.

    For a CPU or None this is the host's memory: that of the machine, or of the control group of
    this process if that is less.
    """
    if device is not None and device.platform != "cpu":
        found = device.memory_stats() or {}
        limit = found.get("bytes_limit", 0)
        return limit, max(limit - found.get("bytes_in_use", 0), 0)
    try:
        text = Path("/proc/meminfo").read_text()
        kibibytes = dict(line.split(":") for line in text.splitlines())
        limit = int(kibibytes["MemTotal"].split()[0]) * 1024
        free = int(kibibytes["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0, 0
    for folder in _cgroups():
        try:
            most = int((folder / "memory.max").read_text())
            used = int((folder / "memory.current").read_text())
        except (OSError, ValueError):            # "max" stands for no limit
            continue
        limit = min(limit, most)
        free = min(free, max(most - used, 0))
    return limit, free


def _cgroups(root: Path = Path("/sys/fs/cgroup")) -> list[Path]:
    """Return this process's control group (version 2) and its parents."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        inner = next(line[3:] for line in lines if line.startswith("0::"))
    except (OSError, StopIteration):
        return [root]
    path = root / inner.strip().lstrip("/")
    return [path, *(parent for parent in path.parents if parent.is_relative_to(root))]


def use_cache() -> None:
    """Turn on JAX's persistent compilation cache, in a folder that only the user may read.

    A cache that is already configured stays.
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
        return                  # no home, or a read-only one: every start compiles
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def cache_folder(name: str) -> Path:
    """Return the path of a folder for compiled programs in the user's cache folder.

    Compiled CPU programs need the same type of processor, compiler and flags, so the path depends
    on these.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    flags = os.environ.get("XLA_FLAGS", "")
    made_for = "\n".join([_processor(), jax.lib.__version__, flags])
    return root / name / hashlib.sha256(made_for.encode()).hexdigest()[:12]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = (line for line in lines if line.startswith(("flags", "Features")))
        return next(features, machine.processor())
    except OSError:
        return machine.platform() + machine.processor()
