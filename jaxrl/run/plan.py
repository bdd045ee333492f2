"""When a run logs, evaluates and saves: fixed at launch and stored, so that a resumed run does so at the same steps."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from jaxrl.config.settings import RunConfig

ROWS, EVALS, CHECKPOINTS = 100, 10, 10       # of a run, where the config leaves it open
LONGEST = 256                                # updates between rows: a signal waits for one chunk at most


class Plan(NamedTuple):
    """Counted in updates. changes: after which the hyperparameters change, ascending."""

    total: int
    log: int
    evaluate: int
    checkpoint: int
    changes: tuple[int, ...] = ()

    def next(self, update: int) -> int:
        """The end of the chunk that starts at `update`."""
        following = (update - update % every + every for every in (self.log, self.evaluate, self.checkpoint))
        return min(self.total, *following, *(change for change in self.changes if change > update))

    def due(self, every: int, update: int) -> bool:
        """Whether what happens every `every` updates happens after `update` updates; all does at the end."""
        return update % every == 0 or update == self.total


def updates(steps: int, steps_per_update: int) -> int:
    """Environment steps as whole updates, rounded up."""
    return -(-steps // steps_per_update)


def settle(config: RunConfig, steps_per_update: int) -> RunConfig:
    """`config` with what was left open filled in: every interval, in environment steps of whole updates, and the size
    of a strategy's blocks, on which the bits of a run depend."""
    if config.algorithm().experience == "evolution" and config.agent.block_size is None:
        config = dataclasses.replace(config, agent=dataclasses.replace(config.agent, block_size=config.agent.size))
    s = config.settings
    total = updates(s.total_steps, steps_per_update)
    every = lambda steps, count, most: steps_per_update * (
        updates(steps, steps_per_update) if steps else max(1, min(total // count, most)))
    return config.with_settings(
        schedule_steps=s.schedule_steps or total * steps_per_update,
        log_every=every(s.log_every, ROWS, LONGEST),
        eval_every=every(s.eval_every, EVALS, total),
        checkpoint_every=every(s.checkpoint_every, CHECKPOINTS, total))


def plan(config: RunConfig, steps_per_update: int) -> Plan:
    """The plan of a settled config."""
    s = config.settings
    whole = lambda steps: updates(steps, steps_per_update)
    changes = sorted({whole(step) for step in config.schedule.steps[1:]}) if config.schedule else ()
    return Plan(*map(whole, (s.total_steps, s.log_every, s.eval_every, s.checkpoint_every)), tuple(changes))
