"""Sweeps: trials side by side as members of one compiled program, stored in runs, resumable.

A run <round>-group<n> of a sweep trains the trials of one round that have equal static values. Its
members are trials x seeds. jaxrl/storage/sweep.py lists the files.

The next round follows from the scores so far alone (jaxrl/population/trials.py). So a sweep is
resumed by running it again: runs that have ended are read, the others resumed or made.

Member s of a trial has the keys of seed s of an ordinary run, and blocks hold whole trials. The
result of a trial depends on its values, its seeds and the block size, not on the other trials. On a
CPU, where a block is one trial, it is bit for bit that of
`jaxrl train config=SWEEP/best.yaml num_devices=1`.
"""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from envs_jax.sizes import ceil_div
from jaxrl import backend
from jaxrl import config as configs
from jaxrl.config.axes import Options, Question
from jaxrl.config.check import short
from jaxrl.config.settings import RunConfig, Settings
from jaxrl.distributed.cluster import Cluster, connect
from jaxrl.drivers.build import Learner, build
from jaxrl.errors import Interrupted, RunError, UserError, reason
from jaxrl.evaluate import bootstrap_ci, iqm
from jaxrl.population import trials as search
from jaxrl.population.protocol import Population
from jaxrl.population.trials import Round, Trial
from jaxrl.report import sweep as report
from jaxrl.run import questions
from jaxrl.run.launch import Launch, moved, prepare
from jaxrl.run.learners import make_members, open_remote
from jaxrl.run.plan import chosen, updates
from jaxrl.run.reporter import Reporter, Silent, warnings_as_notes
from jaxrl.run.signals import Signals
from jaxrl.run.sweep_session import TrialsSession, hyper_of
from jaxrl.run.sweep_watch import Watch, header
from jaxrl.storage import checkpoint, folder, metrics
from jaxrl.storage import sweep as files
from jaxrl.storage.sweep import Outcome

MOST_MEMBERS = 256           # of a block on a GPU, if the user does not choose
SHARED = ("seed", "num_seeds", "eval_episodes", "device", "num_devices", "workers", "address")


class Group(NamedTuple):
    """Trials of equal static values, which share a compiled program.

    config: that of the whole sweep with these static values.
    """

    number: int
    config: RunConfig
    learner: Learner


# ---------------------------------------------------------------- the beginning and the end


def sweep(asked: Question, reporter: Reporter | None = None,
          command: Sequence[str] | None = None) -> Path:
    """Train every trial and return the sweep folder.

    Raises UserError, RunError (no trial is left) or Interrupted (saved).
    """
    s = asked.config.settings
    backend.prepare(s.device)
    if asked.options.search == "optuna":
        search.import_optuna()
    block = block_of(asked, backend.devices(s.num_devices))
    with joined(s) as cluster:
        path, lock = folder.create(asked.config.env.name, f"{asked.config.algo}-sweep", s.out)
        with lock:
            asked = asked._replace(options=Options(**{**vars(asked.options), "block": block}))
            content = configs.dump_yaml(questions.to_plain(asked)).encode()
            folder.write_atomic(path / files.SWEEP, content)
            folder.write_environment(path, command)
            Sweep(path, asked, reporter or Silent(), cluster).go()
    return path


def resume(path: str | Path, overrides: Iterable[str] = (), reporter: Reporter | None = None,
           command: Sequence[str] | None = None) -> Path:
    """Continue an interrupted sweep and return its folder.

    The result is that of an uninterrupted one. Raises as `sweep` does.
    """
    path = files.open_sweep(path)
    with folder.Lock(path):
        asked = questions.read(path, overrides)
        backend.prepare(asked.config.settings.device)
        folder.write_environment(path, command)
        if Sweep(path, asked, Silent()).complete():
            name = shlex.quote(folder.shown(path))
            raise UserError(f"{name} is complete.",
                            f"To train its best trial again: jaxrl train config={name}/best.yaml")
        with joined(asked.config.settings) as cluster:
            Sweep(path, asked, reporter or Silent(), cluster).go()
    return path


def joined(settings: Settings) -> contextlib.AbstractContextManager[Cluster | None]:
    """Return the Ray cluster that all groups of a sweep share; None without workers."""
    if settings.workers:
        return connect(settings.workers, settings.address)
    return contextlib.nullcontext()


def block_of(asked: Question, devices: list[jax.Device]) -> int:
    """Return the number of trials per block.

    It is 1 on a CPU, whose cores take blocks in turn. A GPU gains by many members, so it gets all
    its trials in one block of at most MOST_MEMBERS. Successive halving counts the trials of its
    second rung, because blocks for the first one would stay partly empty.
    """
    options = asked.options
    s = asked.config.settings
    if options.block:
        return options.block
    if devices[0].platform == "cpu":
        return 1
    trials, _ = search.size(options, asked.axes, s.total_steps)
    if options.search == "asha":
        trials = ceil_div(trials, options.eta)
    if options.search == "optuna":
        trials = min(trials, options.batch)
    return max(1, min(ceil_div(trials, len(devices)), MOST_MEMBERS // s.num_seeds))


# ---------------------------------------------------------------- rounds


class Sweep:
    """The work of one process on one sweep."""

    def __init__(self, path: Path, asked: Question, reporter: Reporter,
                 cluster: Cluster | None = None):
        """Prepare a sweep in the folder `path`. cluster: the Ray that holds its members, if any."""
        s = asked.config.settings
        _, steps = search.size(asked.options, asked.axes, s.total_steps)
        self.path = path
        self.asked = asked
        self.reporter = reporter
        self.cluster = cluster
        self.seeds = s.num_seeds
        self.total = s.total_steps
        self.groups: dict[str, Group] = {}       # by their static values as JSON
        self.numbers: list[str] = []             # static values of the groups, number 1 first
        self.members: dict[int, Population] = {}    # of a group's first round
        self.open = contextlib.ExitStack()       # the group whose members workers hold
        self.trials: dict[int, Trial] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.runs: dict[int, Path] = {}          # trial -> the run that trained it last
        self.received: int | None = None         # a signal in the last chunk of a completed run
        self.watch = Watch(reporter, self.seeds, steps * self.seeds)

    def complete(self) -> bool:
        """Return True if nothing is left to train."""
        rounds = self._rounds()
        round = next(rounds, None)
        while round is not None:
            for key, trials in self._by_group(round):
                run = self._run(round, self._number(key))
                if not files.ended(run):
                    return False
                self._collect(run, round, trials)
            round = _next(rounds, self._scores(round))
        return report.written(self.path)

    def go(self) -> None:
        """Train every round, then write the report. Raises RunError if every trial diverged."""
        self.reporter.header(header(self.path, self.asked))
        with warnings_as_notes(self.reporter), self.open, Signals(self.reporter.note) as signals:
            try:
                self._train_rounds(signals)
            finally:
                self._write()
            with signals.held():
                report.write(self.path, self.asked, self.trials, self.outcomes, self.best())
        if self.best() is None:
            raise self._failure()

    def _train_rounds(self, signals: Signals) -> None:
        rounds = self._rounds()
        round = next(rounds, None)
        while round is not None:
            self._prune(round.pruned)
            self.trials |= {trial.number: trial for trial in round.trials}
            for key, trials in self._by_group(round):
                received = signals.received or self.received
                if received:
                    name = shlex.quote(folder.shown(self.path))
                    self.reporter.note(f"Continue: jaxrl resume {name}")
                    raise Interrupted(received)
                self._try(round, key, trials)
                self._write()
            round = _next(rounds, self._scores(round))

    def best(self) -> int | None:
        """Return the trial of the highest score among those trained to the end."""
        done = {n: x.iqm for n, x in self.outcomes.items() if x.status == "completed"}
        return max(done, key=lambda number: (done[number], -number)) if done else None

    def _failure(self) -> RunError:
        """Return the error of a sweep in which no trial was trained to the end."""
        first = next((x for x in self.outcomes.values() if x.what), None)
        what = first.what if first else ""
        if first and first.status == "failed":
            return RunError(f"every trial failed: {what}", "To see where: debug=true")
        return RunError(f"every trial diverged: {what}",
                        "Try: smaller values of algo.learning_rate")

    # ---------------------------------------------------------------- a round

    def _rounds(self) -> search.Rounds:
        seed = self.asked.config.settings.seed
        return search.rounds(self.asked.options, self.asked.axes, self.total, seed)

    def _by_group(self, round: Round) -> list[tuple[str, list[Trial]]]:
        """Return the trials of a round by their static values."""
        found: dict[str, list[Trial]] = {}
        for trial in round.trials:
            found.setdefault(json.dumps(self._static(trial)), []).append(trial)
        return list(found.items())

    def _static(self, trial: Trial) -> dict[str, Any]:
        return {axis.key: trial.values[axis.key] for axis in self.asked.axes if not axis.hyper}

    def _number(self, key: str) -> int:
        """Return the number of a group. Groups are counted as they appear."""
        if key not in self.numbers:
            self.numbers.append(key)
        return self.numbers.index(key) + 1

    def _run(self, round: Round, group: int) -> Path:
        return self.path / "-".join(filter(None, [round.name, f"group{group}"]))

    def _group(self, key: str, trials: list[Trial]) -> Group:
        if key not in self.groups:
            s = self.asked.config.settings
            config = self.asked.of(self._static(trials[0])).with_settings(
                out=None, keep=0, **{name: getattr(s, name) for name in SHARED})
            self.groups[key] = Group(self._number(key), config, build(config))
        return self.groups[key]

    def _prepare(self, group: Group, config: RunConfig) -> Launch:
        """Return the launch of a run, in blocks that hold whole trials."""
        if self.cluster and group.number not in self.members:
            self.open.close()                    # before free memory is measured
            self.members = {}
        layout = {"block_size": chosen(self.asked.options.block) * self.seeds, "shards": 1}
        return prepare(config, learner=group.learner, layout=layout)

    def _members(self, group: Group, launch: Launch) -> Population:
        """Return members for a run of a group. Workers hold one group at a time."""
        count = launch.config.settings.num_seeds
        if group.number not in self.members:
            launch = launch._replace(config=group.config.with_settings(num_seeds=count))
            members: Population
            if self.cluster:
                members = self.open.enter_context(open_remote(launch, self.cluster))
            else:
                members = make_members(
                    launch.config, group.learner, layout=launch.layout,
                    episodes=launch.config.settings.eval_episodes)
            self.members[group.number] = members
        return self.members[group.number].resized(count)

    def _try(self, round: Round, key: str, trials: list[Trial]) -> None:
        """Train trials. If their environment or program raises they fail and others continue."""
        try:
            self._train(round, key, trials)
        except (Interrupted, UserError):
            raise
        except Exception as error:
            cause = error.__cause__ if isinstance(error, RunError) else error
            lost = cause is None                 # workers, again and again
            if self.asked.config.settings.debug or lost or isinstance(cause, OSError):
                raise
            self._fail(round, key, trials, error)

    def _fail(self, round: Round, key: str, trials: list[Trial], error: Exception) -> None:
        """Record trials that raised, and warn with their numbers and common settings."""
        what = reason(error)
        run = self._run(round, self._number(key)).name
        nothing = Outcome("failed", (math.nan,) * self.seeds, math.nan, (math.nan, math.nan),
                          steps=0, seconds=0.0, what=what, run=run)
        for trial in trials:
            before = self.outcomes.get(trial.number, nothing)
            self.outcomes[trial.number] = nothing._replace(
                steps=before.steps, seconds=before.seconds)
        plural = "s" if len(trials) > 1 else ""
        numbers = ", ".join(str(trial.number) for trial in trials)
        static = self._static(trials[0])
        settings = " ".join(f"{key}={short(value)}" for key, value in static.items())
        if settings:
            settings = f" ({settings})"
        self.reporter.note(f"warning: trial{plural} {numbers}{settings} failed: {what}. "
                           "The others continue; jaxrl resume tries again")

    def _train(self, round: Round, key: str, trials: list[Trial]) -> None:
        """Train one run: read it if it has ended, resume it if it was interrupted, or make it."""
        run = self._run(round, self._number(key))
        if not files.ended(run):
            steps = {n: self.outcomes[n].steps for n in self.runs if n in self.outcomes}
            self.watch.begin(trials, steps)
            group = self._group(key, trials)
            if checkpoint.last(run) is not None:
                self._continue(run, group, trials)
            else:
                self._make(run, group, trials, round.steps)
        self._collect(run, round, trials)
        self.watch.end(len(trials) * self.seeds * self.outcomes[trials[0].number].steps)

    def _make(self, run: Path, group: Group, trials: list[Trial], steps: int) -> None:
        if run.exists():
            shutil.rmtree(run)                   # it was killed before its first checkpoint
        run.mkdir()
        each = group.learner.runner.steps_per_update
        whole = updates(self.total, each) * each
        launch = self._prepare(group, group.config.with_settings(
            total_steps=steps, num_seeds=len(trials) * self.seeds,
            schedule_steps=group.config.settings.schedule_steps or whole))
        before = self._before(trials)
        meta = None if before is None else {"update": before[1]}
        with self._session(run, group, launch, trials, meta) as session:
            session.describe(None)
            if before is None:
                hyper = hyper_of(launch.config, trials, self.seeds)
                self._end(session, lambda: session.start(hyper=hyper))
            else:
                self._end(session, lambda: session.continue_from(before[0]))

    def _session(self, run: Path, group: Group, launch: Launch, trials: list[Trial],
                 meta: dict | None) -> TrialsSession:
        members = self._members(group, launch)
        return TrialsSession(run, launch, self.watch.for_session(), members=members,
                             trials=trials, sweep=self.path, meta=meta)

    def _before(self, trials: list[Trial]) -> tuple[dict[str, np.ndarray], int] | None:
        """Return (arrays [members, ...], update) at the end of the rung before; None without."""
        if trials[0].number not in self.runs:
            return None
        earlier = self.runs[trials[0].number]
        arrays, meta = checkpoint.load(earlier)
        order = files.read_trials(earlier)
        seeds = np.arange(self.seeds)
        rows = np.concatenate([order.index(t.number) * self.seeds + seeds for t in trials])
        return {name: x[rows] for name, x in arrays.items()}, meta["update"]

    def _continue(self, run: Path, group: Group, trials: list[Trial]) -> None:
        stored = configs.from_file(run / folder.CONFIG)
        launch = self._prepare(group, moved(stored, group.config))
        arrays, meta = checkpoint.load(run)
        with self._session(run, group, launch, trials, meta) as session:
            if np.any(arrays["alive"]):
                session.restore(arrays, rewind=False)
                self._end(session)
            else:                                # killed between last checkpoint and summary
                session.finish("diverged", "; ".join(files.read_diverged(run).values()))

    def _end(self, session: TrialsSession, start: Callable[[], None] | None = None) -> None:
        try:
            session.go(start)
        except RunError:
            if not session.diverged.complete:    # otherwise only this run has no trial left
                raise
        self.received = session.signals.received

    # ---------------------------------------------------------------- outcomes

    def _collect(self, run: Path, round: Round, trials: list[Trial]) -> None:
        """Record the outcomes of a run, from its files."""
        alive, meta = checkpoint.load(run, only="alive")
        rows = metrics.read(run)
        evals = metrics.read(run, metrics.EVALS)
        returns = np.full((len(trials) * self.seeds, 1), np.nan)
        if evals:
            returns = np.asarray(evals[-1]["returns"], np.float64)
        seconds = rows[-1]["seconds"] if rows else 0.0
        messages = files.read_diverged(run)
        for i, trial in enumerate(trials):
            members = range(i * self.seeds, (i + 1) * self.seeds)
            dead = [m for m in members if not alive["alive"][m]]
            what = [messages.get(m, f"seed {m - members.start + 1} diverged") for m in dead]
            status = "completed" if round.steps == self.total else "going on"
            earlier = 0.0
            if trial.number in self.runs:
                earlier = self.outcomes[trial.number].seconds
            played = returns[members.start: members.stop]
            means = played.mean(axis=1)
            self.outcomes[trial.number] = Outcome(
                status="diverged" if dead else status,
                returns=tuple(map(float, means)),
                iqm=iqm(means),
                ci=bootstrap_ci(played),
                steps=meta["step"],
                seconds=seconds + earlier,
                what="; ".join(what),
                run=run.name)
            self.runs[trial.number] = run
            self.trials[trial.number] = trial

    def _scores(self, round: Round) -> dict[int, float]:
        """Return trial -> score; nan for those that diverged or failed."""
        scores = {}
        for trial in round.trials:
            outcome = self.outcomes[trial.number]
            lost = outcome.status in ("diverged", "failed")
            scores[trial.number] = math.nan if lost else outcome.iqm
        return scores

    def _prune(self, pruned: Mapping[int, str]) -> None:
        for number, why in pruned.items():
            self.outcomes[number] = self.outcomes[number]._replace(status="pruned", what=why)

    def _write(self) -> None:
        """Write trials.csv."""
        keys = [axis.key for axis in self.asked.axes]
        rows = []
        for trial in sorted(self.trials.values()):
            values = [_text(trial.values[key]) for key in keys]
            rows.append(files.Row(trial.number, values, self.outcomes.get(trial.number)))
        files.write_table(self.path, keys, rows)


def _text(value: Any) -> str:
    """Return a setting as trials.csv holds it, numbers with every digit."""
    return files.exact(value) if isinstance(value, float) else short(value)


def _next(rounds: search.Rounds, scores: search.Scores) -> Round | None:
    """Return the round of a search after these scores; None at its end."""
    try:
        return rounds.send(scores)
    except StopIteration:
        return None
