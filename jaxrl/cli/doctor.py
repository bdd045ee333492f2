"""jaxrl doctor."""

from __future__ import annotations

import importlib.util
import os
import platform
import tempfile
import time
from importlib import metadata
from pathlib import Path

from jaxrl.cli.text import table
from jaxrl.errors import RunError

HELP = """
jaxrl doctor [device=auto|cpu|gpu]

Shows versions, devices, memory and Ray, then runs a self-test of a few seconds:
PPO learns a task whose solution is known. Exit codes: 0 passed; 1 the self-test
failed; 2 the requested device is missing.

Examples:
  jaxrl doctor
  jaxrl doctor device=cpu
"""

PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "chex", "numpy", "hydra-core", "omegaconf", "gymnax",
    "safetensors", "tensorboardX")
STEPS = 16_384
SELF_TEST = {
    "algo.num_envs": 64,
    "algo.rollout_length": 16,
    "algo.learning_rate": 5e-3,
    "algo.entropy_weight": 0.0,
}


def run(words: list[str]) -> None:
    from jaxrl import backend
    from jaxrl.cli.arguments import options
    from jaxrl.config.settings import SETTINGS

    known = {key: SETTINGS[key] for key in ("device", "debug")}
    values = options("doctor", words, known)
    backend.prepare(values.get("device", "auto"))
    rows = [("python", platform.python_version()), *versions(), *hardware(), ("ray", ray())]
    print("\n".join(table(rows)), flush=True)
    print("  " + self_test())


def versions() -> list[tuple[str, str]]:
    """Return (package, version) of the packages on which results depend."""
    rows = [("jaxrl", metadata.version("jaxrl"))]
    for name in PACKAGES:
        try:
            rows.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            rows.append((name, "missing"))
    return rows


def hardware() -> list[tuple[str, str]]:
    """Return (label, text) of devices, cores, compilation cache and memory."""
    import jax

    from jaxrl import backend
    from jaxrl.storage.files import size_text

    devices = [f"{device.platform}:{device.id} {device.device_kind}"
               for device in jax.local_devices()]
    cache = jax.config.jax_compilation_cache_dir or "off: every start compiles again"
    limit, free = backend.memory()
    memory = "unknown"
    if limit:
        memory = f"{size_text(free)} free of {size_text(limit)}"
    return [("devices", ", ".join(devices)), ("cores", str(backend.cores())), ("cache", cache),
            ("memory", memory)]


def ray() -> str:
    """Return the version of Ray, without an import."""
    if importlib.util.find_spec("ray") is None:
        return "missing"
    version = metadata.version("ray")
    address = os.environ.get("RAY_ADDRESS")
    return f"{version}, RAY_ADDRESS={address}" if address else version


def self_test() -> str:
    """Train PPO on a task of one step whose best return and value are 1, and return a report.

    Raises RunError if PPO does not learn the task.
    """
    from jaxrl import api

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = api.train(
            "ppo", "probe-both", preset="none", total_steps=STEPS, eval_every=STEPS,
            checkpoint_every=STEPS, eval_episodes=32, num_devices=1,
            out=str(Path(folder) / "run"), **SELF_TEST)
        earned = float(run.returns.mean())
        value = float(run.metrics()[-1]["value"][0])
        speed = run.summary["steps_per_second"]
    seconds = time.perf_counter() - began
    if not (earned > 0.95 and abs(value - 1) < 0.2):
        raise RunError(
            f"self-test failed: PPO on probe-both has return {earned:.2f} and value {value:.2f}, "
            "both should be 1.", "Please report this with the versions above")
    return (f"self-test passed in {seconds:.1f} s: PPO on probe-both has return {earned:.2f} "
            f"and value {value:.2f} (best: 1), {speed:,.0f} steps/s")
