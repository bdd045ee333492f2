"""Facts about a run: the header that is shown at its start, and the summary of its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl import backend
from jaxrl.config.settings import RunConfig
from jaxrl.declare import hypers
from jaxrl.evaluate import bootstrap_ci, iqm
from jaxrl.population.protocol import Population
from jaxrl.run.launch import Launch
from jaxrl.storage import folder
from jaxrl.storage.files import counted, size_text


def device_of(members: Population) -> dict[str, Any]:
    """Return the devices of the members as environment.json holds them."""
    first = members.devices[0]
    return {"kind": first.device_kind, "platform": first.platform, "count": len(members.devices)}


def header(run: Path, launch: Launch, members: Population, *, noun: str,
           changing: str) -> dict[str, str]:
    """Return the header of a run, label -> text.

    noun: the user's word for a member. changing: the hyperparameters that change, or nothing.
    """
    config = launch.config
    learner = launch.learner
    envs = learner.runner.num_envs
    steps = launch.plan.total * members.steps_per_update // envs
    parameters = sum(x.size for x in jax.tree.leaves(launch.shapes.agent.params))
    preset = "no preset"
    if config.settings.preset != "none":
        preset = f"preset {config.settings.preset}"
    device = (f"{len(members.devices)} x {members.devices[0].device_kind}, "
              f"{members.blocks} x {counted(members.size, noun)}")
    if members.shards > 1:
        device += f", its environments on {members.shards} devices"
    return {
        "algorithm": f"{config.algo}, {parameters:,} parameters, {preset}{changing}",
        "environment": f"{config.env.name}, {learner.spec.observation} -> {learner.spec.action}",
        "device": device,
        "training": f"{envs:,} environments x {steps:,} steps x {counted(members.count, noun)}",
        "memory": str(launch.need),
        "run": folder.shown(run)}


def replay_warning(launch: Launch, members: Population) -> str | None:
    """Return a warning if the copy of the replay in a checkpoint may not fit on the host."""
    if not launch.config.settings.checkpoint_replay or not jax.tree.leaves(launch.shapes.replay):
        return None
    on_cpu = members.devices[0].platform == "cpu"
    whole = launch.need.each * launch.need.members
    limit, free = backend.memory()
    if on_cpu and launch.need.free:
        free = launch.need.free - whole          # the members are not allocated yet
    copies = (not on_cpu) + (members.blocks > 1)   # from the device, and into one array
    if not limit or copies * whole <= free:
        return None
    return (f"warning: the replay is part of checkpoints: writing them takes "
            f"{size_text(copies * whole)} more of the host's memory, {size_text(max(free, 0))} "
            "are free. Try: checkpoint_replay=false")


def summary(config: RunConfig, members: Population, *, status: str, error: str | None, step: int,
            history: list[dict], returns: np.ndarray | None,
            best_step: int | None) -> dict[str, Any]:
    """Return the content of summary.json.

    step: environment steps per seed. history: rows of metrics.jsonl. returns: the last evaluation
    [members, episodes], None without one.
    """
    seconds = history[-1]["seconds"] if history else 0.0
    done = step * members.count
    means = None
    score = None
    interval = None
    if returns is not None:
        means = returns.mean(axis=1)
        score = iqm(means)
        interval = bootstrap_ci(returns)
    return {
        "status": status,
        "algo": config.algo,
        "env": config.env.name,
        "num_seeds": config.settings.num_seeds,
        "total_steps": step,
        "env_steps_all": done,
        "seconds": seconds,
        "compile_seconds": members.compile_seconds,
        "steps_per_second": done / seconds if seconds else None,
        "eval_returns": means,
        "eval_iqm": score,
        "eval_ci95": interval,
        "train_returns": recent_returns(history, members.count),
        "best_step": best_step,
        "error": error}


def flat_hypers(config: RunConfig) -> dict[str, float]:
    """Return the hyperparameters by the names of the command line."""
    names = hypers(config.agent)._fields
    return {f"algo.{name}": getattr(config.agent, name) for name in names}


def recent_returns(history: list[dict], seeds: int, episodes: int = 100) -> list[float | None]:
    """Return the mean return of each seed over its last training episodes.

    At least `episodes` episodes count, or all if there were fewer; None without any.
    """
    total = np.zeros(seeds)
    count = np.zeros(seeds)
    for row in reversed(history):
        wanted = (count < episodes) & (np.asarray(row["episodes"]) > 0)
        if not wanted.any() and (count >= episodes).all():
            break
        values = np.asarray([x or 0.0 for x in row["return_mean"]])
        total += np.where(wanted, values * np.asarray(row["episodes"]), 0.0)
        count += np.where(wanted, row["episodes"], 0.0)
    return [float(t / n) if n else None for t, n in zip(total, count)]
