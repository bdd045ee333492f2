"""The sessions of a sweep: runs whose members are trials x seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.config.check import short
from jaxrl.config.settings import RunConfig
from jaxrl.declare import hypers
from jaxrl.population.protocol import Population
from jaxrl.population.trials import Trial
from jaxrl.report.tensorboard import TensorBoard
from jaxrl.run.launch import Launch
from jaxrl.run.learners import member_keys, stored_state
from jaxrl.run.loop import Session
from jaxrl.run.reporter import Reporter
from jaxrl.storage import sweep as files


def hyper_of(config: RunConfig, trials: list[Trial], seeds: int) -> Any:
    """Return the hyperparameters of every member, leaves [trials x seeds]."""
    hyper = hypers(config.agent)
    columns = []
    for name in hyper._fields:
        shared = getattr(config.agent, name)
        column = [trial.values.get(f"algo.{name}", shared) for trial in trials]
        columns.append(jnp.asarray(np.repeat(column, seeds), jnp.float32))
    return type(hyper)(*columns)


class TrialsSession(Session):
    """A session whose members are trials x seeds.

    Each trial has the keys of an ordinary run of its seeds.
    """

    def __init__(self, run: Path, launch: Launch, reporter: Reporter, *, members: Population,
                 trials: list[Trial], sweep: Path, meta: dict | None = None):
        """Open a run of the folder `sweep` that trains `trials`."""
        self.trials = trials
        self.sweep = sweep
        self.seeds = members.count // len(trials)
        super().__init__(run, launch, reporter, members=members, meta=meta)

    @property
    def resumed_as(self) -> Path:
        return self.sweep

    def keys(self, stream: int, step: int = 0) -> jax.Array:
        """Return the keys of the seeds, the same for every trial."""
        keys = member_keys(self.config.settings.seed, self.seeds, stream, step)
        return keys[np.tile(np.arange(self.seeds), len(self.trials))]

    def who(self, member: int) -> str:
        trial, seed = divmod(member, self.seeds)
        return f"trial {self.trials[trial].number}, seed {seed + 1} of {self.seeds}"

    def described(self, member: int) -> str:
        """Return the name of a member with the values of its trial."""
        values = self.trials[member // self.seeds].values
        settings = ", ".join(f"{key}={short(value)}" for key, value in values.items())
        return f"{self.who(member)} ({settings})"

    def describe(self, command: Sequence[str] | None) -> None:
        """Write the files of every run, and the trials in the order of the members."""
        super().describe(command)
        files.write_trials(self.run, [trial.number for trial in self.trials])

    def continue_from(self, arrays: dict[str, np.ndarray]) -> None:
        """Take the members as they were at the end of an earlier rung."""
        state = stored_state(self.config, self.members, arrays)
        self.hyper = state.hyper
        self.population = self.members.from_host(state)
        self.tensorboard = TensorBoard(self.run)

    def restore(self, arrays: dict[str, np.ndarray], *, rewind: bool) -> None:
        """Restore a checkpoint, and the messages of the members that had diverged by then."""
        super().restore(arrays, rewind=rewind)
        stored = files.read_diverged(self.run)
        messages = self.diverged.messages
        self.diverged.messages = {m: stored.get(m, text) for m, text in messages.items()}

    def save(self, score: float | None) -> None:
        """Save a checkpoint, and the messages of the members that are not alive in it."""
        if self.diverged.messages:
            texts = {m: self._short(m, text) for m, text in self.diverged.messages.items()}
            files.write_diverged(self.run, texts)
        super().save(score)

    def _short(self, member: int, text: str) -> str:
        """Return a message of divergence as it stands in trials.csv."""
        if "training" not in text:
            return text
        what, _, _ = text.removeprefix("training diverged: ").partition(" (")
        return f"{what} (seed {member % self.seeds + 1} of {self.seeds})"
