"""The Python API: everything that the command line does."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl import backend
from jaxrl import config as configs
from jaxrl.config.settings import RunConfig
from jaxrl.drivers.build import Learner, build
from jaxrl.errors import UserError
from jaxrl.report import film
from jaxrl.run import learners, loop, questions
from jaxrl.run import pbt as pbts
from jaxrl.run import sweep as sweeps
from jaxrl.run.reporter import Reporter
from jaxrl.storage import checkpoint, folder, metrics
from jaxrl.storage import sweep as sweep_files
from jaxrl.types import Runner


class Run:
    """A run on disk."""

    def __init__(self, path: str | Path):
        self.folder = folder.open_run(path)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def config(self) -> RunConfig:
        """The config of the run."""
        return configs.from_file(self.folder / folder.CONFIG)

    @property
    def summary(self) -> dict[str, Any] | None:
        """The content of summary.json; None while the run has not ended."""
        return folder.read_summary(self.folder)

    @property
    def returns(self) -> np.ndarray:
        """Greedy returns [seeds, episodes] of the last evaluation. Raises UserError without one."""
        evals = self.evals()
        if not evals:
            raise UserError(f"{folder.shown(self.folder)} has no evaluation yet.")
        return np.asarray(evals[-1]["returns"], np.float64)

    def metrics(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl."""
        return metrics.read(self.folder)

    def evals(self) -> list[dict[str, Any]]:
        """Return the rows of evals.jsonl."""
        return metrics.read(self.folder, metrics.EVALS)

    def restore(self, step: int | str | None = None) -> tuple[Learner, Any]:
        """Return (learner, agent state with leaves [seeds, ...]) of a checkpoint.

        step: the step of the checkpoint, "best", or None for the last.
        """
        return self._restore(step)[1:]

    def _restore(self, step: int | str | None) -> tuple[RunConfig, Learner, Any]:
        backend.prepare()
        config = self.config
        learner = build(config)
        arrays, _ = checkpoint.load(self.folder, step, only="agent/")
        return config, learner, learners.stored_agent(config, learner, arrays)

    def evaluate(self, episodes: int = 100, step: int | str | None = None, *,
                 num_devices: int | None = None) -> np.ndarray:
        """Return greedy returns [seeds, episodes] of a checkpoint.

        The episodes start from states that training and its evaluations never used. step: as for
        `restore`. num_devices: devices to use, by default all.
        """
        config, learner, state = self._restore(step)
        config = config.with_settings(num_devices=num_devices)      # not the stored number
        members = learners.make_members(config, learner, episodes=episodes)
        keys = learners.member_keys(config.settings.seed, config.settings.num_seeds, learners.FINAL)
        return members.play(state, keys)

    def film(self, step: int | str | None = None, *, seed: int = 0,
             path: str | Path | None = None) -> Path:
        """Write a GIF of one greedy episode of member `seed` and return its path.

        step: as for `restore`. path: by default a file in the run folder.
        """
        config, learner, state = self._restore(step)
        if path is None:
            name = "last" if step is None else step
            path = self.folder / f"episode-{name}.gif"
        path = Path(path)
        film.write(learner, jax.tree.map(lambda x: x[seed], state), config.settings.seed, path)
        return path


def train(algo: str | RunConfig | Any, env: str | None = None, *, reporter: Reporter | None = None,
          **settings: Any) -> Run:
    """Train and return the run.

    train("ppo", "cartpole", total_steps=5e5, num_seeds=8, **{"algo.gamma": 0.98})

    The first argument may also be a RunConfig (`jaxrl.compose`), or the DictConfig of your own
    `@hydra.main`. Raises UserError (bad input), RunError (failed or diverged) or Interrupted (a
    signal, after saving).
    """
    if isinstance(algo, RunConfig):
        config = algo
    elif isinstance(algo, str):
        _prepare(settings)
        values = {"algo": algo, "env": env} if env else {"algo": algo}
        config = configs.from_values({**values, **settings})
    else:
        config = configs.from_dictconfig(algo)
    return Run(loop.train(config, reporter))


def resume(path: str | Path, *, step: int | None = None, reporter: Reporter | None = None,
           **settings: Any) -> Run:
    """Continue a run and return it: `resume("runs/x", total_steps=1e6)`.

    step: go back to the checkpoint of this step. Raises as `train` does.
    """
    words = []
    for key, value in settings.items():
        words.append(f"{key}=null" if value is None else f"{key}={value}")
    sweep_files.check_alone(path)
    kind = pbts if folder.is_pbt(path) else loop
    return Run(kind.resume(path, words, reporter, step=step))


def pbt(algo: str, env: str, *, reporter: Reporter | None = None, **settings: Any) -> Run:
    """Train a population and return the run.

    pbt("ppo", "cartpole", population=8, **{"algo.clip": Range(0.05, 0.4)})

    A `jaxrl.declare.Range(low, high, log)` is a range in which a hyperparameter is explored.
    Without any, all declared search ranges are explored. Raises as `train` does.
    """
    _prepare(settings)
    items, several = questions.items_of({"algo": algo, "env": env, **settings})
    return Run(pbts.train(pbts.question(items, several), reporter))


class Sweep:
    """A sweep on disk."""

    def __init__(self, path: str | Path):
        self.folder = sweep_files.open_sweep(path)

    def __repr__(self) -> str:
        return f"Sweep({str(self.folder)!r})"

    @property
    def trials(self) -> list[dict[str, Any]]:
        """The rows of trials.csv."""
        return sweep_files.read_table(self.folder)

    @property
    def best(self) -> RunConfig:
        """The config of the best trial, to train again."""
        return configs.from_file(self.folder / sweep_files.BEST)


def sweep(algo: str, env: str, *, reporter: Reporter | None = None, **settings: Any) -> Sweep:
    """Train many trials side by side and return the sweep.

    sweep("ppo", "cartpole", num_seeds=8, **{"algo.learning_rate": [1e-4, 1e-3]})

    A list names several values, a `jaxrl.declare.Range(low, high, log)` a range. Options such as
    search= and trials= are those of the command line. Raises as `train` does.
    """
    _prepare(settings)
    asked = questions.ask({"algo": algo, "env": env, **settings})
    return Sweep(sweeps.sweep(asked, reporter))


def resume_sweep(path: str | Path, *, reporter: Reporter | None = None) -> Sweep:
    """Continue an interrupted sweep and return it.

    The result is that of an uninterrupted one. Raises as `train` does.
    """
    return Sweep(sweeps.resume(path, (), reporter))


def load(path: str | Path) -> Run:
    """Return a run on disk. Raises UserError if there is none."""
    return Run(path)


def make_runner(config: RunConfig | Iterable[str] | Mapping[str, Any]) -> Runner:
    """Return the Runner of one learner.

    Its pure functions `init(key, hyper, schedule)` and `advance(state, updates)` can be jitted.
    """
    return build(_composed(config)).runner


def tune_trainable(config: RunConfig | Iterable[str] | Mapping[str, Any]) -> type:
    """Return a Trainable for the schedulers of Ray Tune.

    tune.Tuner(jaxrl.tune_trainable(["algo=ppo", "env=cartpole"]),
               param_space={"algo.learning_rate": tune.loguniform(1e-5, 1e-2)}, ...)

    A trial reports at every evaluation (eval_every): env_steps, episode_return (greedy, IQM over
    num_seeds) and train_return. Its checkpoints hold the whole state; a trial that loads the
    checkpoint of another keeps its own hyperparameters. Raises UserError for bad input, or if Ray
    Tune is not installed (pip install 'jaxrl[tune]').
    """
    from jaxrl.distributed.tune import trainable
    from jaxrl.run.trial import Trial

    return trainable(functools.partial(Trial, configs.to_plain(_composed(config))))


def _composed(config: RunConfig | Iterable[str] | Mapping[str, Any]) -> RunConfig:
    if isinstance(config, RunConfig):
        return config
    if isinstance(config, Mapping):
        return configs.from_values(config)
    return configs.compose(config)


def _prepare(settings: Mapping[str, Any]) -> None:
    """Prepare the backend before the config is read, which may start JAX.

    Environments of other packages do that.
    """
    device = settings.get("device", "auto")
    if device not in ("auto", "cpu", "gpu"):
        device = "auto"                          # the reader of the config reports it
    backend.prepare(device)
