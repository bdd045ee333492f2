"""Preparation of a run: its learner, its plan, and a check that its members fit in memory.

A resume also checks here that the run can be written, may change as asked, and is not complete.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl import backend
from jaxrl.config.settings import RunConfig
from jaxrl.declare import hypers
from jaxrl.drivers.build import Learner, build
from jaxrl.errors import UserError
from jaxrl.population import budget
from jaxrl.population.members import block_size
from jaxrl.run.plan import Plan, plan, settle
from jaxrl.storage import folder
from jaxrl.types import Strategy, TrainState

RESUMABLE = {"total_steps", "stop_return", "keep", "checkpoint_replay", "eval_episodes", "device",
             "num_devices", "workers", "address", "quiet", "json", "debug", "profile"}
PLACES = ("device", "num_devices", "workers", "address")


class Launch(NamedTuple):
    """Everything that is decided about a run before anything is allocated.

    config: settled, so every interval is a whole number of updates
    learner: the agent, environment and runner that the config describes
    plan: the updates at which the run logs, evaluates and saves
    layout: block_size, members per block; shards, devices per member, None to choose
    shapes: shapes and dtypes of the state of one member
    need: memory of all members
    """

    config: RunConfig
    learner: Learner
    plan: Plan
    layout: dict[str, Any]
    shapes: TrainState
    need: budget.Need


def prepare(config: RunConfig, *, learner: Learner | None = None,
            layout: Mapping[str, Any] | None = None) -> Launch:
    """Return the launch of a config, after checking devices and memory.

    learner: one that was built for the same static values. layout: the layout of a stored run.
    Raises UserError if devices are missing or the members need more memory than is free.
    """
    backend.prepare(config.settings.device)
    if learner is None:
        learner = build(config)
    config = settle(config, learner.runner.steps_per_update)
    stored = layout or {}
    size = stored.get("block_size") or _block_size(config, learner)
    shapes = budget.member(learner.runner, hypers(config.agent))
    return Launch(
        config=config,
        learner=learner,
        plan=plan(config, learner.runner.steps_per_update),
        layout={"block_size": size, "shards": stored.get("shards")},
        shapes=shapes,
        need=_need(config, learner, shapes, size))


def _block_size(config: RunConfig, learner: Learner) -> int:
    s = config.settings
    if isinstance(learner.agent, Strategy):
        return 1
    limit = None if s.workers else s.num_devices
    return s.block_size or block_size(s.num_seeds, len(backend.devices(limit)))


def _need(config: RunConfig, learner: Learner, shapes: TrainState, size: int) -> budget.Need:
    """Return the memory of the members, checked unless another Ray cluster holds them."""
    s = config.settings
    devices = backend.devices(s.num_devices)
    if isinstance(learner.agent, Strategy):
        size = 1                                 # its members are dealt out one by one
    if s.workers and s.address:
        return budget.need(shapes, s.num_seeds, size)
    return budget.check(learner.runner, shapes, s.num_seeds, devices, size)


# ---------------------------------------------------------------- a resume


def moved(stored: RunConfig, target: RunConfig) -> RunConfig:
    """Return a stored config with the devices and workers of another one."""
    return stored.with_settings(**{name: getattr(target.settings, name) for name in PLACES})


def locked(run: Path) -> folder.Lock:
    """Return the lock on a stored run. Raises UserError if it cannot be written."""
    try:
        return folder.Lock(run)
    except OSError as error:
        raise UserError(f"{folder.shown(run)} cannot be written ({error.strerror}).",
                        "Resume a copy of it in a folder of your own") from None


def resumable(overrides: Iterable[str]) -> list[str]:
    """Return the overrides of a resume. Raises UserError if one of them cannot change."""
    overrides = list(overrides)
    problems = []
    for word in overrides:
        if word.partition("=")[0].lstrip("+") not in RESUMABLE:
            problems.append(f"{word} cannot change on resume. To start a new run from these "
                            f"parameters: jaxrl train ... init_from=RUN {word}")
    if problems:
        raise UserError(problems)
    return overrides


def check_unfinished(run: Path, step: int, total: int, *, reached: float | None) -> None:
    """Raise UserError if nothing is left to train.

    step, total: environment steps per seed, done and asked for. reached: the stop_return that the
    last evaluation reached, None otherwise. A run that was killed between its last checkpoint and
    its summary is not finished: resume writes the summary.
    """
    name = shlex.quote(folder.shown(run))
    if step > total:
        raise UserError(f"{name} has done {step:,} steps, more than total_steps={total:,}.",
                        "Use a larger total_steps, or resume an earlier checkpoint: step=N")
    summary = folder.read_summary(run) or {}
    if (summary.get("status"), summary.get("total_steps")) != ("completed", step):
        return
    if step == total:
        raise UserError(f"{name} is complete: {step:,} of {total:,} steps.",
                        f"To extend it: jaxrl resume {name} total_steps={2 * step}")
    if reached is not None:
        raise UserError(f"{name} is complete: it reached stop_return={reached:g} at step {step:,} "
                        f"of {total:,}.", f"To continue: jaxrl resume {name} stop_return=null")
