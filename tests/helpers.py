"""Helpers for tests of runs: a tiny learner, exact comparisons, reporters and processes."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.core import Environment
from envs_jax.spaces import Box, Discrete
from jaxrl import backend
from jaxrl import config as configs
from jaxrl.config.settings import RunConfig
from jaxrl.storage import checkpoint, folder, metrics

if not backend.started():
    # so that three seeds are two blocks, one of them filled up
    jax.config.update("jax_num_cpu_devices", 2)

TINY = {"algo": "ppo", "env": "masked-bandit", "preset": "none", "algo.num_envs": 4,
        "algo.rollout_length": 8,
        "algo.minibatches": 1, "algo.epochs": 1, "algo.network.hidden": [8], "eval_episodes": 6}
UPDATE = 32                                            # environment steps of one of its updates
EVERY = {"log_every": 2 * UPDATE, "eval_every": 4 * UPDATE, "checkpoint_every": 4 * UPDATE}
TIMES = ("seconds", "steps_per_second")


def tiny(updates: int = 12, /, **settings: Any) -> RunConfig:
    """Return a config of the tiny learner."""
    return configs.from_values({**TINY, "total_steps": updates * UPDATE, **EVERY, **settings})


# ---------------------------------------------------------------- what runs hold


def rows(run: Path, name: str = metrics.METRICS) -> list[dict]:
    """Return the rows of a file without the values that depend on a clock."""
    return [{key: x for key, x in row.items() if key not in TIMES}
            for row in metrics.read(run, name)]


def last_checkpoint(run: Path) -> tuple[dict[str, bytes], bytes]:
    """Return (arrays as bytes by name, the manifest) of the last checkpoint."""
    arrays, meta = checkpoint.load(run)
    return ({name: x.tobytes() for name, x in arrays.items()},
            (run / "checkpoints" / str(meta["step"]) / "manifest.json").read_bytes())


def assert_same(a: Path, b: Path) -> None:
    """Compare the last checkpoint, the metric rows and the evaluations of two runs exactly."""
    assert checkpoint.last(a) == checkpoint.last(b)
    arrays, manifest = last_checkpoint(a)
    other_arrays, other_manifest = last_checkpoint(b)
    assert arrays.keys() == other_arrays.keys() and "key" in arrays
    assert [name for name in arrays if arrays[name] != other_arrays[name]] == []
    assert manifest == other_manifest
    for name in (metrics.METRICS, metrics.EVALS):
        assert rows(a, name) == rows(b, name)
    for name in (metrics.METRICS, metrics.EVALS):      # nothing torn, nothing after the last row
        assert len(metrics.read(a, name)) == len((a / name).read_bytes().splitlines())


def status(run: Path) -> str | None:
    return (folder.read_summary(run) or {}).get("status")


# ---------------------------------------------------------------- who watches a run


class Watcher:
    """A reporter that keeps its calls, and acts at the header or the n-th progress."""

    def __init__(self, at: str | int | None = None, act=None):
        self.at = at
        self.act = act
        self.count = 0
        self.headers = []
        self.steps = []
        self.notes = []
        self.results = []

    def _now(self, moment: str | int) -> None:
        if moment == self.at:
            self.act()

    def header(self, facts):
        self.headers.append(dict(facts))
        self._now("header")

    def progress(self, step, total, steps_per_second, returns, elapsed):
        self.steps.append(step)
        self.count += 1
        self._now(self.count)

    def note(self, text):
        self.notes.append(text)

    def result(self, summary, run_folder):
        self.results.append(dict(summary))


class Killed(BaseException):
    """A stand-in for kill -9: the loop does not catch it and writes nothing more."""


def killer(at: str | int) -> Watcher:
    def act():
        raise Killed
    return Watcher(at, act)


# ---------------------------------------------------------------- an environment that goes wrong

NOTHING, NAN_REWARD, INF_REWARD, NAN_OBSERVATION, HUGE_REWARD = range(5)


class PoisonedParams(NamedTuple):
    poison: int = NOTHING
    at: int = 25              # the step of an episode at which it happens
    share: float = 1.0        # of the episodes in which it does


class PoisonedState(NamedTuple):
    t: jax.Array
    doomed: jax.Array


@dataclass(frozen=True)
class Poisoned(Environment):
    """Reward 1 for action 1, until step `at` of a doomed episode gives a non-finite value."""

    default_params = PoisonedParams()
    time_limit = 64

    def reset(self, key, params):
        return jnp.zeros(1), PoisonedState(jnp.int32(0), jax.random.uniform(key) < params.share)

    def step(self, key, state, action, params):
        bad = state.doomed & (state.t == params.at)
        poison = jnp.asarray([0.0, jnp.nan, jnp.inf, 0.0, 1e30])[params.poison]
        reward = jnp.where(bad, poison, (action == 1).astype(jnp.float32))
        obs = jnp.where(bad & (params.poison == NAN_OBSERVATION), jnp.nan, jnp.zeros(1))
        return obs, state._replace(t=state.t + 1), reward, jnp.bool_(False), jnp.bool_(False), {}

    def observation_space(self, params):
        return Box(-1.0, 1.0, (1,))

    def action_space(self, params):
        return Discrete(2)


# ---------------------------------------------------------------- real processes

COMMAND = [str(Path(sys.executable).with_name("jaxrl"))]


def words(updates: int, **settings: Any) -> list[str]:
    """Return `tiny` as the words of a command line."""
    values = {**TINY, "total_steps": updates * UPDATE, **EVERY, **settings}
    return [f"{key}={str(value).replace(' ', '')}" for key, value in values.items()]


def process(cache: Path, *command: str, **more: Any) -> subprocess.Popen:
    """Start `jaxrl ...` in its own process, `through` a shell if given, with a shared cache.

    It compiles as this process does, to the same bits.
    """
    through = more.pop("through", [])
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache),
           "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_NUM_CPU_DEVICES": "2",
           "JAX_PLATFORMS": "cpu", **more.pop("env", {})}
    env = {key: value for key, value in env.items() if value is not None}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
    return subprocess.Popen([*through, *COMMAND, *command], env=env, **pipes)


def ended(child: subprocess.Popen, timeout: float = 240) -> tuple[int, str, str]:
    """End a process and return (exit code, stdout, stderr)."""
    try:
        out, err = child.communicate(timeout=timeout)
    finally:
        child.kill()
        child.wait()
    return child.returncode, out, err


def wait_for(condition, child: subprocess.Popen, timeout: float = 240) -> None:
    """Wait until `condition()`, and fail if the process ends first."""
    until = time.monotonic() + timeout
    while not condition():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)


def static_part(config: RunConfig) -> str:
    """Return the part of an agent's config that shapes its programs."""
    from jaxrl.declare import hypers

    return repr(dataclasses.replace(config.agent,
                                    **dict.fromkeys(hypers(config.agent)._fields, 0.0)))


