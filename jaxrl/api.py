"""Everything that the command line does, from Python."""

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
from jaxrl.report import sweep as sweep_report
from jaxrl.run import learners, loop
from jaxrl.run import pbt as pbts
from jaxrl.run import sweep as sweeps
from jaxrl.run.reporter import Reporter
from jaxrl.storage import checkpoint, folder, metrics
from jaxrl.types import Runner


class Run:
    """A run on disk."""

    def __init__(self, path: str | Path):
        self.folder = folder.open_run(path)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def config(self) -> RunConfig:
        """What the run is made from."""
        return configs.from_file(self.folder / folder.CONFIG)

    @property
    def summary(self) -> dict[str, Any] | None:
        """summary.json; None while the run has not ended."""
        return folder.read_summary(self.folder)

    @property
    def returns(self) -> np.ndarray:
        """Greedy returns [seeds, episodes] of the last evaluation."""
        evals = self.evals()
        if not evals:
            raise UserError(f"{folder.shown(self.folder)} has no evaluation yet.")
        return np.asarray(evals[-1]["returns"], np.float64)

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl."""
        return metrics.read(self.folder)

    def evals(self) -> list[dict[str, Any]]:
        """The rows of evals.jsonl."""
        return metrics.read(self.folder, metrics.EVALS)

    def restore(self, step: int | str | None = None) -> tuple[Learner, Any]:
        """(the learner, its agent state, leaves [seeds, ...]) of a checkpoint: the last, a step, or "best"."""
        return self._restore(step)[1:]

    def _restore(self, step: int | str | None) -> tuple[RunConfig, Learner, Any]:
        backend.prepare()
        config = self.config
        learner = build(config)
        arrays, _ = checkpoint.load(self.folder, step, only="agent/")
        return config, learner, learners.stored_agent(config, learner, arrays)

    def evaluate(self, episodes: int = 100, step: int | str | None = None, *,
                 num_devices: int | None = None) -> np.ndarray:
        """Greedy returns [seeds, episodes] of a checkpoint (the last, a step, or "best"), on starts that training and
        its evaluations never saw."""
        config, learner, state = self._restore(step)
        config = config.with_settings(num_devices=num_devices)      # not those it was trained on
        members = learners.make_members(config, learner, episodes=episodes)
        keys = learners.member_keys(config.settings.seed, config.settings.num_seeds, learners.FINAL)
        return members.play(state, keys)

    def film(self, step: int | str | None = None, *, seed: int = 0, path: str | Path | None = None) -> Path:
        """A GIF of one greedy episode of member `seed`; -> where it is, by default the run folder."""
        config, learner, state = self._restore(step)
        path = Path(path) if path else self.folder / f"episode-{'last' if step is None else step}.gif"
        film.write(learner, jax.tree.map(lambda x: x[seed], state), config.settings.seed, path)
        return path


def train(algo: str | RunConfig | Any, env: str | None = None, *, reporter: Reporter | None = None,
          **settings: Any) -> Run:
    """Train and return the run: `train("ppo", "cartpole", total_steps=5e5, num_seeds=8, **{"algo.gamma": 0.98})`.

    The first argument may also be a RunConfig (`jaxrl.compose`), or the DictConfig of a user's own `@hydra.main`.
    Raises UserError (bad input), RunError (failed or diverged), Interrupted (a signal, after saving).
    """
    if isinstance(algo, RunConfig):
        config = algo
    elif isinstance(algo, str):
        _prepare(settings)
        config = configs.from_values({"algo": algo, **({"env": env} if env else {}), **settings})
    else:
        config = configs.from_dictconfig(algo)
    return Run(loop.train(config, reporter))


def resume(path: str | Path, *, step: int | None = None, reporter: Reporter | None = None,
           **settings: Any) -> Run:
    """Go on with a run: `resume("runs/x", total_steps=1e6)`."""
    words = [f"{key}={'null' if value is None else value}" for key, value in settings.items()]
    sweep_report.check_alone(path)
    kind = pbts if folder.is_pbt(path) else loop
    return Run(kind.resume(path, words, reporter, step=step))


def pbt(algo: str, env: str, *, reporter: Reporter | None = None, **settings: Any) -> Run:
    """Population-based training: `pbt("ppo", "cartpole", population=8, **{"algo.clip": Range(0.05, 0.4)})`.

    `jaxrl.declare.Range(low, high, log)` says what is explored, and where; without one all that have a search range.
    Raises as `train` does.
    """
    _prepare(settings)
    return Run(pbts.train(pbts.question(*sweeps.items_of({"algo": algo, "env": env, **settings})), reporter))


class Sweep:
    """A sweep on disk."""

    def __init__(self, path: str | Path):
        self.folder = sweeps.open_sweep(path)

    def __repr__(self) -> str:
        return f"Sweep({str(self.folder)!r})"

    @property
    def trials(self) -> list[dict[str, Any]]:
        """The rows of trials.csv."""
        return sweep_report.read_table(self.folder)

    @property
    def best(self) -> RunConfig:
        """The config of the best trial, to train again."""
        return configs.from_file(self.folder / sweep_report.BEST)


def sweep(algo: str, env: str, *, reporter: Reporter | None = None, **settings: Any) -> Sweep:
    """Many trials side by side: `sweep("ppo", "cartpole", num_seeds=8, **{"algo.learning_rate": [1e-4, 1e-3]})`.

    A list names several values, `jaxrl.declare.Range(low, high, log)` the ends of a range; search=, trials= and the
    others are as on the command line. Raises as `train` does.
    """
    _prepare(settings)
    return Sweep(sweeps.sweep(sweeps.ask({"algo": algo, "env": env, **settings}), reporter))


def resume_sweep(path: str | Path, *, reporter: Reporter | None = None) -> Sweep:
    """Go on with a sweep that was interrupted; the result is that of an uninterrupted one."""
    return Sweep(sweeps.resume(path, (), reporter))


def load(path: str | Path) -> Run:
    """A run on disk."""
    return Run(path)


def make_runner(config: RunConfig | Iterable[str] | Mapping[str, Any]) -> Runner:
    """The Runner of one learner: `init(key, hyper, schedule)` and `advance(state, updates)`, pure, to be jitted."""
    return build(_composed(config)).runner


def tune_trainable(config: RunConfig | Iterable[str] | Mapping[str, Any]) -> type:
    """A Trainable for Ray Tune, for its schedulers: `tune.Tuner(jaxrl.tune_trainable(["algo=ppo", "env=cartpole"]),
    param_space={"algo.learning_rate": tune.loguniform(1e-5, 1e-2)}, ...)`.

    A trial reports at every evaluation (eval_every): env_steps, episode_return (greedy, IQM over num_seeds) and
    train_return. Its checkpoints hold the whole state; a trial that takes another's keeps its own hyperparameters.
    Raises UserError: bad input, Ray Tune is not installed (pip install 'jaxrl[tune]').
    """
    from jaxrl.distributed.tune import trainable
    from jaxrl.run.trial import Trial

    return trainable(functools.partial(Trial, configs.to_plain(_composed(config))))


def _composed(config: RunConfig | Iterable[str] | Mapping[str, Any]) -> RunConfig:
    if isinstance(config, RunConfig):
        return config
    return configs.from_values(config) if isinstance(config, Mapping) else configs.compose(config)


def _prepare(settings: Mapping[str, Any]) -> None:
    """The backend for these settings, chosen first: another package's environments may start JAX."""
    device = settings.get("device", "auto")
    backend.prepare(device if device in ("auto", "cpu", "gpu") else "auto")        # what else it is, is said later
