"""How test processes compile: quickly, or as users' programs do, with one cache for all of them.

Compilation is most of what the quick tests cost. Two flags of XLA:CPU and no optimizations make it
six times cheaper; the programs then run four times slower, which only long training notices.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import jax
import pytest

from jaxrl import backend

FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
QUICK = {"XLA_FLAGS": FLAGS, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
KEPT_DAYS = 14


def configure(config: pytest.Config) -> None:
    """Choose XLA's effort and the cache, for this process and those that its tests start."""
    if config.getoption("compile") == "quick":
        os.environ.update(QUICK)
        jax.config.update("jax_disable_most_optimizations", True)
    cache = _open_cache()
    if not hasattr(config, "workerinput"):       # the process that starts the others
        _drop_useless(cache)


def _open_cache() -> Path:
    """Point JAX at the tests' own cache in the user's cache folder; it keeps every program."""
    folder = backend.cache_folder("jaxrl-tests")
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"jax_compilation_cache_dir": str(folder),
                "jax_persistent_cache_min_compile_time_secs": 0.0,
                "jax_persistent_cache_min_entry_size_bytes": -1}
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
    return folder


def _drop_useless(folder: Path) -> None:
    """Delete old entries, and half-written ones of processes killed since the last start.

    JAX recognizes half an entry and compiles again, but never replaces it.
    """
    from jax._src.compilation_cache import compress_executable, decompress_executable

    decompress_executable(compress_executable(b"x"))       # else JAX changed, and all would go
    marker = folder / "checked"
    checked = marker.stat().st_mtime if marker.exists() else 0.0
    marker.touch()
    for entry in folder.glob("*-cache"):
        try:
            written = entry.stat().st_mtime
            if time.time() - written > KEPT_DAYS * 86400:
                raise ValueError("old")
            if written >= checked:
                decompress_executable(entry.read_bytes())
        except Exception:
            entry.unlink(missing_ok=True)
