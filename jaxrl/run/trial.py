"""A learner that somebody else drives, Ray Tune say: trained from evaluation to evaluation, stored and restored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl import backend
from jaxrl import config as configs
from jaxrl.config.overrides import Item
from jaxrl.drivers.build import build
from jaxrl.evaluate import iqm
from jaxrl.run.learners import PERIODIC, TRAIN, make_members, member_keys, spread, stored_state
from jaxrl.run.plan import plan, settle, updates
from jaxrl.storage import checkpoint


class Trial:
    """`num_seeds` learners of one config. Not a run: nothing is written but what `save` is asked for."""

    def __init__(self, base: Mapping[str, Any], values: Mapping[str, Any]):
        """base: a config as `jaxrl.config.to_plain` gives it; values: what this trial has in place of that, by the keys
        of the command line. Raises UserError."""
        self._base, self._built = dict(base), None
        self.reset(values)

    def reset(self, values: Mapping[str, Any]) -> None:
        """Starts afresh with other values. What is compiled is kept where these are numbers that may change."""
        items = [Item(key, value) for key, value in {**configs.flatten(self._base), **values}.items()]
        config = configs.from_items(items)
        backend.prepare(config.settings.device)
        if self._built is None or self._built[0] != _static(config):
            learner = build(config)
            members = make_members(config, learner, episodes=config.settings.eval_episodes)
            self._built = _static(config), learner, members
        _, self.learner, self.members = self._built
        self.config = settle(config, self.members.steps_per_update)
        self._plan = plan(self.config, self.members.steps_per_update)
        self._update = 0
        self._population = self.members.init(self._keys(TRAIN), spread(self.config), updates(
            self.config.settings.schedule_steps, self.members.steps_per_update))

    @property
    def step(self) -> int:
        """Environment steps done, per seed."""
        return self._update * self.members.steps_per_update

    def train(self) -> dict[str, Any]:
        """To the next evaluation. -> env_steps (per seed), episode_return (IQM over seeds of greedy returns),
        train_return (mean of episodes since), done. A learner that diverged has NaN."""
        end = min(self._update - self._update % self._plan.evaluate + self._plan.evaluate, self._plan.total)
        self._population, metrics = self.members.advance(self._population, end - self._update)
        self._update = end
        returns = self.members.evaluate(self._population, self._keys(PERIODIC, end)).mean(axis=1)
        alive = np.asarray(self.members.to_host(self._population, replay=False).alive).all()
        return {"env_steps": self.step, "episode_return": float(iqm(returns)) if alive else float("nan"),
                "train_return": float(np.mean(metrics["return_mean"])), "done": end >= self._plan.total}

    def save(self, folder: str | Path) -> None:
        """The whole state, replay included, into an empty folder."""
        arrays = checkpoint.flatten(self.members.to_host(self._population))
        checkpoint.save(folder, self.step, arrays, {"update": self._update})

    def load(self, folder: str | Path) -> None:
        """A state that `save` wrote, of any trial of the same program. The hyperparameters stay this trial's own."""
        arrays, meta = checkpoint.load(folder)
        state = stored_state(self.config, self.members, arrays)
        own = jax.tree.map(np.asarray, spread(self.config))
        self._population, self._update = self.members.from_host(state._replace(hyper=own)), meta["update"]

    def hyper(self) -> dict[str, float]:
        """The hyperparameters that are in use, from the state."""
        hyper = self.members.to_host(self._population, replay=False).hyper
        return {name: float(value[0]) for name, value in hyper._asdict().items()}

    def _keys(self, stream: int, step: int = 0) -> jax.Array:
        s = self.config.settings
        return member_keys(s.seed, s.num_seeds, stream, step)


def _static(config: Any) -> tuple:
    """All of a config that compiled programs depend on."""
    numbers = spread(config)._fields
    agent = {name: value for name, value in vars(config.agent).items() if name not in numbers}
    settings = [getattr(config.settings, name) for name in (
        "num_seeds", "eval_episodes", "device", "num_devices", "block_size")]
    return repr(agent), config.algo, repr(config.env), *settings
