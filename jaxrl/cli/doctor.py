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

Versions, devices, memory and Ray, then a self-test of a few seconds: PPO learns a task whose solution is known. Exit
code 0: all is well; 1: the self-test failed; 2: what was asked for is not here.

Examples:
  jaxrl doctor
  jaxrl doctor device=cpu
"""

PACKAGES = ("jax", "jaxlib", "flax", "optax", "chex", "numpy", "hydra-core", "omegaconf", "gymnax", "safetensors",
            "tensorboardX")
STEPS = 16_384


def run(words: list[str]) -> None:
    from jaxrl import backend
    from jaxrl.cli.arguments import options
    from jaxrl.config.settings import SETTINGS

    backend.prepare(options("doctor", words, {key: SETTINGS[key] for key in ("device", "debug")}).get("device", "auto"))
    rows = [("python", platform.python_version()), *versions(), *hardware(), ("ray", ray())]
    print("\n".join(table(rows)), flush=True)
    print("  " + self_test())


def versions() -> list[tuple[str, str]]:
    """(package, version) of what a result depends on."""
    rows = [("jaxrl", metadata.version("jaxrl"))]
    for name in PACKAGES:
        try:
            rows.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            rows.append((name, "missing"))
    return rows


def hardware() -> list[tuple[str, str]]:
    """(label, text) of devices, cores, compilation cache and memory."""
    import jax

    from jaxrl import backend
    from jaxrl.population.budget import size_text

    kinds = [f"{device.platform}:{device.id} {device.device_kind}" for device in jax.local_devices()]
    limit, free = backend.memory()
    return [("devices", ", ".join(kinds)), ("cores", str(backend.cores())), ("cache", _cache(jax)),
            ("memory", f"{size_text(free)} free of {size_text(limit)}" if limit else "unknown")]


def _cache(jax) -> str:
    return jax.config.jax_compilation_cache_dir or "off: every start compiles anew"


def ray() -> str:
    """Its version; it is not imported."""
    if importlib.util.find_spec("ray") is None:
        return "missing"
    address = os.environ.get("RAY_ADDRESS")
    return metadata.version("ray") + (f", RAY_ADDRESS={address}" if address else "")


def self_test() -> str:
    """Trains PPO on a task of one step whose best return and value are 1; raises RunError if it does not learn it."""
    from jaxrl import api

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = api.train("ppo", "probe-both", preset="none", total_steps=STEPS, eval_every=STEPS, checkpoint_every=STEPS,
                        eval_episodes=32, num_devices=1, out=str(Path(folder) / "run"), **{
                            "algo.num_envs": 64, "algo.rollout_length": 16, "algo.learning_rate": 5e-3,
                            "algo.entropy_weight": 0.0})
        earned, value = float(run.returns.mean()), float(run.metrics()[-1]["value"][0])
        speed = run.summary["steps_per_second"]
    seconds = time.perf_counter() - began
    if not (earned > 0.95 and abs(value - 1) < 0.2):
        raise RunError(f"self-test failed: PPO on probe-both earns {earned:.2f} and values it {value:.2f}, both should "
                       "be 1.", "Please report it with the versions above")
    return (f"self-test passed in {seconds:.1f} s: PPO on probe-both earns {earned:.2f} (best: 1), "
            f"values it {value:.2f}, {speed:,.0f} steps/s")
