"""A learner that another program drives, such as Ray Tune: trained from evaluation to evaluation,
stored and restored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl import config as configs
from jaxrl.config.overrides import Item
from jaxrl.config.settings import RunConfig
from jaxrl.evaluate import iqm
from jaxrl.run.launch import Launch, prepare
from jaxrl.run.learners import PERIODIC, TRAIN, make_members, member_keys, spread, stored_state
from jaxrl.run.plan import chosen, updates
from jaxrl.storage import checkpoint


class Trial:
    """`num_seeds` learners of one config. Only `save` writes anything: a trial is not a run."""

    def __init__(self, base: Mapping[str, Any], values: Mapping[str, Any]):
        """Make the learners. Raises UserError.

        base: a config as `jaxrl.config.to_plain` returns it. values: the settings of this trial
        that replace those of `base`, by the keys of the command line.
        """
        self._base = dict(base)
        self._static: tuple | None = None
        self._launch: Launch | None = None
        self.reset(values)

    def reset(self, values: Mapping[str, Any]) -> None:
        """Start afresh with other values. Compiled programs are kept if only numbers differ."""
        settings = {**configs.flatten(self._base), **values}
        config = configs.from_items([Item(key, value) for key, value in settings.items()])
        self._population: Any = None             # frees its memory
        if self._launch is not None and self._static == _static(config):
            self._launch = prepare(config, learner=self._launch.learner)
        else:
            self._launch = prepare(config)
            self._static = _static(config)
            self.members = make_members(
                self._launch.config, self._launch.learner, layout=self._launch.layout,
                episodes=config.settings.eval_episodes)
        self.config = self._launch.config
        self._plan = self._launch.plan
        self._update = 0
        schedule_steps = chosen(self.config.settings.schedule_steps)
        schedule = updates(schedule_steps, self.members.steps_per_update)
        self._population = self.members.init(self._keys(TRAIN), spread(self.config), schedule)

    @property
    def step(self) -> int:
        """Environment steps done, per seed."""
        return self._update * self.members.steps_per_update

    def train(self) -> dict[str, Any]:
        """Train to the next evaluation and return its result.

        Keys: env_steps (per seed), episode_return (IQM over seeds of greedy returns; NaN if a seed
        diverged), train_return (mean over the episodes since the last evaluation), done.
        """
        every = self._plan.evaluate
        end = min((self._update // every + 1) * every, self._plan.total)
        self._population, metrics = self.members.advance(self._population, end - self._update)
        self._update = end
        returns = self.members.evaluate(self._population, self._keys(PERIODIC, end)).mean(axis=1)
        alive = np.asarray(self.members.to_host(self._population, replay=False).alive).all()
        return {"env_steps": self.step,
                "episode_return": float(iqm(returns)) if alive else float("nan"),
                "train_return": float(np.mean(metrics["return_mean"])),
                "done": end >= self._plan.total}

    def save(self, folder: str | Path) -> None:
        """Write the whole state, replay included, into an empty folder."""
        arrays = checkpoint.flatten(self.members.to_host(self._population))
        checkpoint.save(folder, self.step, arrays, {"update": self._update})

    def load(self, folder: str | Path) -> None:
        """Read a state that `save` wrote, of any trial of the same program.

        The hyperparameters stay those of this trial.
        """
        arrays, meta = checkpoint.load(folder)
        state = stored_state(self.config, self.members, arrays)
        hyper = jax.tree.map(np.asarray, spread(self.config))
        self._population = self.members.from_host(state._replace(hyper=hyper))
        self._update = meta["update"]

    def hyper(self) -> dict[str, float]:
        """Return the hyperparameters in use, from the state."""
        hyper = self.members.to_host(self._population, replay=False).hyper
        return {name: float(value[0]) for name, value in hyper._asdict().items()}

    def _keys(self, stream: int, step: int = 0) -> jax.Array:
        s = self.config.settings
        return member_keys(s.seed, s.num_seeds, stream, step)


def _static(config: RunConfig) -> tuple:
    """Return everything of a config that compiled programs depend on."""
    numbers = spread(config)._fields
    agent = {name: value for name, value in vars(config.agent).items() if name not in numbers}
    names = ("num_seeds", "eval_episodes", "device", "num_devices", "block_size")
    settings = [getattr(config.settings, name) for name in names]
    return repr(agent), config.algo, repr(config.env), *settings
