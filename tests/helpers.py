"""What the tests of runs share: a tiny learner that is compiled once, runs compared bit for bit, deaths on demand."""

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
    jax.config.update("jax_num_cpu_devices", 2)       # so that three seeds are two blocks, one of them filled up

TINY = {"algo": "ppo", "env": "masked-bandit", "preset": "none", "algo.num_envs": 4, "algo.rollout_length": 8,
        "algo.minibatches": 1, "algo.epochs": 1, "algo.network.hidden": [8], "eval_episodes": 6}
UPDATE = 32                                            # environment steps of one of its updates
EVERY = {"log_every": 2 * UPDATE, "eval_every": 4 * UPDATE, "checkpoint_every": 4 * UPDATE}
TIMES = ("seconds", "steps_per_second")


def tiny(updates: int = 12, /, **settings: Any) -> RunConfig:
    """A config of the tiny learner."""
    return configs.from_values({**TINY, "total_steps": updates * UPDATE, **EVERY, **settings})


# ---------------------------------------------------------------- what runs hold


def rows(run: Path, name: str = metrics.METRICS) -> list[dict]:
    """The rows of a file but for what a clock decides."""
    return [{key: x for key, x in row.items() if key not in TIMES} for row in metrics.read(run, name)]


def last_checkpoint(run: Path) -> tuple[dict[str, bytes], bytes]:
    """(arrays as bytes, by name; the manifest)"""
    arrays, meta = checkpoint.load(run)
    return ({name: x.tobytes() for name, x in arrays.items()},
            (run / "checkpoints" / str(meta["step"]) / "manifest.json").read_bytes())


def assert_same(a: Path, b: Path) -> None:
    """The last checkpoint, every metric row and every evaluation of two runs, bit for bit."""
    assert checkpoint.last(a) == checkpoint.last(b)
    (arrays, manifest), (others, other) = last_checkpoint(a), last_checkpoint(b)
    assert arrays.keys() == others.keys() and "key" in arrays
    assert [name for name in arrays if arrays[name] != others[name]] == []
    assert manifest == other
    for name in (metrics.METRICS, metrics.EVALS):
        assert rows(a, name) == rows(b, name)
    for name in (metrics.METRICS, metrics.EVALS):      # nothing torn, nothing after the last row
        assert len(metrics.read(a, name)) == len((a / name).read_bytes().splitlines())


def status(run: Path) -> str | None:
    return (folder.read_summary(run) or {}).get("status")


# ---------------------------------------------------------------- who watches a run


class Watcher:
    """A reporter that keeps what it is told, and does something at a moment: "header", or the n-th progress."""

    def __init__(self, at: str | int | None = None, act=None):
        self.at, self.act, self.count = at, act, 0
        self.headers, self.steps, self.notes, self.results = [], [], [], []

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
    """Stands in for kill -9: nothing of the loop catches it, nothing more is written."""


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
    """Reward 1 for action 1, until at step `at` of a doomed episode something is not finite."""

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
    """`tiny` as the words of a command line."""
    values = {**TINY, "total_steps": updates * UPDATE, **EVERY, **settings}
    return [f"{key}={str(value).replace(' ', '')}" for key, value in values.items()]


def process(cache: Path, *command: str, **more: Any) -> subprocess.Popen:
    """`jaxrl ...` in a process of its own (started `through` a shell), with a compilation cache that tests share.
    It compiles as this process does, to the same bits."""
    through = more.pop("through", [])
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
           "JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu",
           **more.pop("env", {})}
    env = {key: value for key, value in env.items() if value is not None}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
    return subprocess.Popen([*through, *COMMAND, *command], env=env, **pipes)


def ended(child: subprocess.Popen, timeout: float = 240) -> tuple[int, str, str]:
    """(exit code, stdout, stderr); the process is gone afterwards."""
    try:
        out, err = child.communicate(timeout=timeout)
    finally:
        child.kill()
        child.wait()
    return child.returncode, out, err


def wait_for(condition, child: subprocess.Popen, timeout: float = 240) -> None:
    """Until `condition()`; fails when the process ends first."""
    until = time.monotonic() + timeout
    while not condition():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)


def static_part(config: RunConfig) -> str:
    """What of an agent's config shapes its programs."""
    from jaxrl.declare import hypers

    return repr(dataclasses.replace(config.agent, **dict.fromkeys(hypers(config.agent)._fields, 0.0)))


