"""The steps at which a run logs, evaluates and saves.

They are fixed at launch and stored, so that a resumed run uses the same ones.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from envs_jax.sizes import ceil_div
from jaxrl.config.settings import RunConfig

ROWS = 100                    # rows, evaluations and checkpoints of a run whose config leaves
EVALS = 10                    # the interval open
CHECKPOINTS = 10
MOST_UPDATES = 256            # between rows: a signal waits for one chunk at most


class Plan(NamedTuple):
    """The intervals of a run in updates.

    changes: updates after which the hyperparameters change, ascending.
    """

    total: int
    log: int
    evaluate: int
    checkpoint: int
    changes: tuple[int, ...] = ()

    def next(self, update: int) -> int:
        """Return the end of the chunk that starts at `update`."""
        ends = [self.total]
        for every in (self.log, self.evaluate, self.checkpoint):
            ends.append((update // every + 1) * every)
        ends += [change for change in self.changes if change > update]
        return min(ends)

    def due(self, every: int, update: int) -> bool:
        """Return True if an event with this interval is due after `update`, or the run ends there.
        """
        return update % every == 0 or update == self.total


def updates(steps: int, steps_per_update: int) -> int:
    """Return environment steps as whole updates, rounded up."""
    return ceil_div(steps, steps_per_update)


def chosen(value: int | None) -> int:
    """Return a value that may be left open and is chosen at launch.

    Raises ValueError if it has not been chosen yet.
    """
    if value is None:
        raise ValueError("a setting that is chosen at launch has no value yet")
    return value


def settle(config: RunConfig, steps_per_update: int) -> RunConfig:
    """Return `config` with every open value chosen.

    These are the intervals, in environment steps of whole updates, and the block size of a
    strategy, because the bits of a run depend on it.
    """
    if getattr(config.agent, "block_size", 0) is None:      # of a strategy that has the setting
        agent = dataclasses.replace(config.agent, block_size=config.agent.size)
        config = dataclasses.replace(config, agent=agent)
    s = config.settings
    total = updates(s.total_steps, steps_per_update)

    def interval(steps: int | None, count: int, most: int) -> int:
        if steps:
            return steps_per_update * updates(steps, steps_per_update)
        return steps_per_update * max(1, min(total // count, most))

    return config.with_settings(
        schedule_steps=s.schedule_steps or total * steps_per_update,
        log_every=interval(s.log_every, ROWS, MOST_UPDATES),
        eval_every=interval(s.eval_every, EVALS, total),
        checkpoint_every=interval(s.checkpoint_every, CHECKPOINTS, total))


def plan(config: RunConfig, steps_per_update: int) -> Plan:
    """Return the plan of a settled config."""
    s = config.settings
    changes: set[int] = set()
    if config.schedule:
        changes = {updates(step, steps_per_update) for step in config.schedule.steps[1:]}
    return Plan(
        total=updates(s.total_steps, steps_per_update),
        log=updates(chosen(s.log_every), steps_per_update),
        evaluate=updates(chosen(s.eval_every), steps_per_update),
        checkpoint=updates(chosen(s.checkpoint_every), steps_per_update),
        changes=tuple(sorted(changes)))
