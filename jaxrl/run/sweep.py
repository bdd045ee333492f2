"""Sweeps: trials side by side as members of one compiled program, stored in runs of their own, resumable.

    SWEEP/sweep.yaml                what was asked
    SWEEP/<round>-group<n>/         a run whose members are trials x seeds: trials of equal static values, one round
    SWEEP/trials.csv, best.yaml, report.html, tensorboard/      what came of it (jaxrl/report/sweep.py)

Which round comes next follows from the scores so far and from nothing else (jaxrl/population/trials.py). So a sweep
goes on by being run again: runs that have ended are read, the one that was interrupted is resumed, the others are made.

A trial's member s has the keys of seed s of an ordinary run, and blocks hold whole trials. What a trial does depends on
its values, its seeds and the block size, not on the other trials; on a CPU, where a block is one trial, it does bit for
bit what `jaxrl train config=SWEEP/best.yaml num_devices=1` does.
"""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import backend
from jaxrl import config as configs
from jaxrl.config.axes import OPTIONS, Options, Question, question
from jaxrl.config.check import short
from jaxrl.config.overrides import Item, Several, parse_sweep
from jaxrl.config.settings import RunConfig, Settings
from jaxrl.declare import Range, hypers
from jaxrl.distributed.cluster import Cluster, connect
from jaxrl.drivers.build import Learner, build
from jaxrl.errors import Interrupted, Problem, RunError, UserError, reason
from jaxrl.evaluate import bootstrap_ci, iqm
from jaxrl.population import trials as search
from jaxrl.population.protocol import Population
from jaxrl.population.trials import Round, Trial
from jaxrl.report import sweep as sweep_report
from jaxrl.report.sweep import SWEEP, Outcome, is_sweep
from jaxrl.report.tensorboard import TensorBoard
from jaxrl.run.learners import make_members, member_keys, open_remote, stored_state
from jaxrl.run.loop import Session, warnings_as_notes
from jaxrl.run.plan import settle, updates
from jaxrl.run.reporter import Reporter, Silent
from jaxrl.run.signals import Signals
from jaxrl.storage import checkpoint, folder, metrics

TRIALS, DIVERGED = "trials.json", "diverged.json"
FORMAT = 1
MOST_MEMBERS = 256           # of a block on a GPU, where the user does not say
CHANGEABLE = ("device", "num_devices", "workers", "address", "quiet", "json", "debug")      # when a sweep goes on


class Group(NamedTuple):
    """What trials of equal static values share."""

    number: int
    config: RunConfig
    learner: Learner


# ---------------------------------------------------------------- the beginning and the end


def sweep(asked: Question, reporter: Reporter | None = None, command: Sequence[str] | None = None) -> Path:
    """Train every trial; -> the sweep folder. Raises UserError, RunError (no trial is left) or Interrupted (saved)."""
    s = asked.config.settings
    backend.prepare(s.device)
    if asked.options.search == "optuna":
        search.import_optuna()
    block = block_of(asked, backend.devices(s.num_devices))
    with joined(s) as cluster:
        path, lock = folder.create(asked.config.env.name, f"{asked.config.algo}-sweep", s.out)
        with lock:
            asked = asked._replace(options=Options(**{**vars(asked.options), "block": block}))
            folder.write_atomic(path / SWEEP, configs.dump_yaml(to_plain(asked)).encode())
            folder.write_environment(path, command)
            Sweep(path, asked, reporter or Silent(), cluster).go()
    return path


def resume(path: str | Path, overrides: Iterable[str] = (), reporter: Reporter | None = None,
           command: Sequence[str] | None = None) -> Path:
    """Go on with a sweep that was interrupted; -> its folder. The result is that of an uninterrupted one."""
    path = open_sweep(path)
    with folder.Lock(path):
        asked = read(path, overrides)
        backend.prepare(asked.config.settings.device)
        folder.write_environment(path, command)
        if Sweep(path, asked, Silent()).complete():
            quoted = shlex.quote(folder.shown(path))
            raise UserError(f"{quoted} is complete.", f"Its best trial again: jaxrl train config={quoted}/best.yaml")
        with joined(asked.config.settings) as cluster:
            Sweep(path, asked, reporter or Silent(), cluster).go()
    return path


def joined(settings: Settings) -> contextlib.AbstractContextManager[Cluster | None]:
    """The Ray that all groups of a sweep share; None without workers."""
    return connect(settings.workers, settings.address) if settings.workers else contextlib.nullcontext()


def block_of(asked: Question, devices: list[jax.Device]) -> int:
    """Trials per block. On a CPU one: cores take blocks in turn. A GPU gains by many members, so all that it gets, up
    to MOST_MEMBERS; of a halving, those of the second rung, because fewer would leave places empty."""
    options, seeds = asked.options, asked.config.settings.num_seeds
    if options.block:
        return options.block
    if devices[0].platform == "cpu":
        return 1
    trials, _ = search.size(options, asked.axes, asked.config.settings.total_steps)
    if options.search == "asha":
        trials = -(-trials // options.eta)
    if options.search == "optuna":
        trials = min(trials, options.batch)
    return max(1, min(-(-trials // len(devices)), MOST_MEMBERS // seeds))


# ---------------------------------------------------------------- sweep.yaml


def open_sweep(path: str | Path) -> Path:
    """The folder of a sweep. Raises UserError."""
    if not is_sweep(path):
        raise UserError(f"{folder.shown(path)} is not a sweep (no {SWEEP}).", "jaxrl sweep makes one.")
    return Path(path)


def to_plain(asked: Question) -> dict[str, Any]:
    """What sweep.yaml holds: options, axes, and what all trials share as it was typed."""
    axes = {axis.key: list(map(_listed, axis.choices)) if axis.range is None else axis.range._asdict()
            for axis in asked.axes}
    fixed = {item.key: str(Path(item.value).absolute()) if item.key == "config" else _listed(item.value)
             for item in asked.fixed if item.key != "out"}
    return {"format": FORMAT, **vars(asked.options), "axes": axes, "fixed": fixed}


def read(path: Path, overrides: Iterable[str] = ()) -> Question:
    """The question of a sweep folder; `overrides` may change where it goes on."""
    items, several, problems = parse_sweep(overrides)
    problems += [Problem(f"{one.key}={one.text} cannot change when a sweep goes on") for one in [*items, *several]
                 if one.key not in CHANGEABLE]
    if problems:
        raise UserError(problems)
    plain = configs.load_yaml(path / SWEEP)
    try:
        if plain["format"] != FORMAT:
            raise UserError(f"{folder.shown(path)} was written by format {plain['format']}; this jaxrl reads {FORMAT}.")
        fixed = {**plain["fixed"], **{item.key: item.value for item in items}}
        several = [Several(key, None, (x["low"], x["high"]), x["log"]) if isinstance(x, dict) else
                   Several(key, tuple(x), None, False) for key, x in plain["axes"].items()]
        given = {key: plain[key] for key in OPTIONS}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder.shown(path / SWEEP)} is damaged ({error}).") from None
    asked = question([Item(key, value) for key, value in {**fixed, **given}.items()], several)
    stored = {key: Range(**x) for key, x in plain["axes"].items() if isinstance(x, dict)}      # log as it was decided
    return asked._replace(axes=tuple(axis._replace(range=stored.get(axis.key)) for axis in asked.axes))


def ask(values: Mapping[str, Any]) -> Question:
    """A question in Python values."""
    return question(*items_of(values))


def items_of(values: Mapping[str, Any]) -> tuple[list[Item], list[Several]]:
    """Python values as words would give them: a list names several values, a `Range` the ends of one."""
    items, several = [], []
    for key, value in values.items():
        if isinstance(value, Range):
            several.append(Several(key, None, (value.low, value.high), value.log))
        elif isinstance(value, list):
            several.append(Several(key, tuple(value), None, False))
        else:
            items.append(Item(key, value))
    return items, several


def _listed(value: Any) -> Any:
    return list(map(_listed, value)) if isinstance(value, list | tuple) else value


# ---------------------------------------------------------------- rounds


class Sweep:
    """One process's work on one sweep."""

    def __init__(self, path: Path, asked: Question, reporter: Reporter, cluster: Cluster | None = None):
        self.path, self.asked, self.reporter, self.cluster = path, asked, reporter, cluster
        s = asked.config.settings
        self.seeds, self.seed, self.total = s.num_seeds, s.seed, s.total_steps
        self.groups: dict[str, Group] = {}          # by their static values, as JSON
        self.members: dict[int, Population] = {}    # of a group's first round, later ones are `resized`; by its number
        self.open = contextlib.ExitStack()          # of the group whose members workers hold
        self.numbers: list[str] = []                # of groups, the first is number 1
        self.trials: dict[int, Trial] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.received: int | None = None            # a signal, in the last chunk of a run, which ended nevertheless
        self.runs: dict[int, Path] = {}             # trial -> the run it was in last
        self.watch = Watch(reporter, self.seeds, search.size(asked.options, asked.axes, self.total)[1] * self.seeds)

    def complete(self) -> bool:
        """Whether nothing is left to train."""
        rounds = search.rounds(self.asked.options, self.asked.axes, self.total, self.seed)
        scores = None
        while (round := _next(rounds, scores)) is not None:
            for key, trials in self._by_group(round):
                run = self._run(round, self._number(key))
                if not ended(run):
                    return False
                self._collect(run, round, trials)
            scores = self._scores(round)
        return sweep_report.written(self.path)

    def go(self) -> None:
        """Every round, then the report. Raises RunError where every trial diverged."""
        rounds = search.rounds(self.asked.options, self.asked.axes, self.total, self.seed)
        self._header()
        scores = None
        with warnings_as_notes(self.reporter), self.open, Signals(self.reporter.note) as signals:
            try:
                while (round := _next(rounds, scores)) is not None:
                    self._prune(round.pruned)
                    self.trials |= {trial.number: trial for trial in round.trials}
                    for key, trials in self._by_group(round):
                        if received := signals.received or self.received:
                            self.reporter.note(f"Continue: jaxrl resume {shlex.quote(folder.shown(self.path))}")
                            raise Interrupted(received)
                        self._try(round, key, trials)
                        self._write()
                    scores = self._scores(round)
            finally:
                self._write()
            with signals.held():
                sweep_report.write(self.path, self.asked, self.trials, self.outcomes, self.best())
        self._result()

    def best(self) -> int | None:
        """The trial of the highest score of those that were trained to the end: what the sweep is for."""
        done = {number: x.iqm for number, x in self.outcomes.items() if x.status == "completed"}
        return max(done, key=lambda number: (done[number], -number)) if done else None

    # ---------------------------------------------------------------- a round

    def _by_group(self, round: Round) -> list[tuple[str, list[Trial]]]:
        """Trials of equal static values, which share a program."""
        found: dict[str, list[Trial]] = {}
        for trial in round.trials:
            found.setdefault(json.dumps(self._static(trial)), []).append(trial)
        return list(found.items())

    def _static(self, trial: Trial) -> dict[str, Any]:
        return {axis.key: trial.values[axis.key] for axis in self.asked.axes if not axis.hyper}

    def _number(self, key: str) -> int:
        """Groups are counted as they appear."""
        if key not in self.numbers:
            self.numbers.append(key)
        return self.numbers.index(key) + 1

    def _run(self, round: Round, group: int) -> Path:
        return self.path / "-".join(filter(None, [round.name, f"group{group}"]))

    def _group(self, key: str, trials: list[Trial]) -> Group:
        if key not in self.groups:
            same = {name: getattr(self.asked.config.settings, name)
                    for name in ("seed", "num_seeds", "eval_episodes", "device", "num_devices", "workers", "address")}
            config = self.asked.of(self._static(trials[0])).with_settings(out=None, keep=0, **same)
            self.groups[key] = Group(self._number(key), config, build(config))
        return self.groups[key]

    def members_of(self, group: Group, trials: int) -> Population:
        """Those of so many trials of a group. Workers hold one group at a time: they were made for its program."""
        size, count = self.asked.options.block * self.seeds, trials * self.seeds
        if group.number not in self.members:
            config = group.config.with_settings(num_seeds=count)
            if self.cluster:
                self.open.close()
                self.members = {group.number: self.open.enter_context(
                    open_remote(config, group.learner, size, self.cluster))}
            else:
                self.members[group.number] = make_members(config, group.learner, layout={
                    "block_size": size, "shards": 1}, episodes=config.settings.eval_episodes)
        return self.members[group.number].resized(count)

    def _try(self, round: Round, key: str, trials: list[Trial]) -> None:
        """Trains trials; where their environment or program raises, they have failed, and the others go on."""
        try:
            self._train(round, key, trials)
        except (Interrupted, UserError):
            raise
        except Exception as error:
            cause = error.__cause__ if isinstance(error, RunError) else error
            if self.asked.config.settings.debug or cause is None or isinstance(cause, OSError):
                raise                            # of workers that are lost again and again, or of the disk
            self._fail(round, key, trials, error)

    def _fail(self, round: Round, key: str, trials: list[Trial], error: Exception) -> None:
        """What is known of trials that raised, and a warning that names them and what they have in common."""
        what, none = reason(error), (math.nan,) * self.seeds
        for trial in trials:
            before = self.outcomes.get(trial.number)
            self.outcomes[trial.number] = Outcome(
                "failed", none, math.nan, (math.nan, math.nan), before.steps if before else 0,
                before.seconds if before else 0.0, what, self._run(round, self._number(key)).name)
        shown = " ".join(f"{axis}={short(value)}" for axis, value in self._static(trials[0]).items())
        numbers = ", ".join(str(trial.number) for trial in trials)
        self.reporter.note(f"warning: trial{'s' if len(trials) > 1 else ''} {numbers}{f' ({shown})' if shown else ''} "
                           f"failed: {what}. The others go on; jaxrl resume tries again")

    def _train(self, round: Round, key: str, trials: list[Trial]) -> None:
        """One run: read if it has ended, resumed if it was interrupted, else made."""
        run = self._run(round, self._number(key))
        if not ended(run):
            self.watch.begin(trials, {n: self.outcomes[n].steps for n in self.runs if n in self.outcomes})
            group = self._group(key, trials)
            if checkpoint.last(run) is not None:
                self._continue(run, group, trials)
            else:
                self._make(run, group, trials, round.steps)
        self._collect(run, round, trials)
        self.watch.end(len(trials) * self.seeds * self.outcomes[trials[0].number].steps)

    def _make(self, run: Path, group: Group, trials: list[Trial], steps: int) -> None:
        if run.exists():
            shutil.rmtree(run)                       # it was killed before its first checkpoint
        run.mkdir()
        per = group.learner.runner.steps_per_update
        count = len(trials) * self.seeds
        config = settle(group.config.with_settings(
            total_steps=steps, num_seeds=count,
            schedule_steps=group.config.settings.schedule_steps or updates(self.total, per) * per), per)
        before = self._before(trials)
        meta = None if before is None else {"update": before[1]}
        with TrialsSession(self, run, config, group, trials, meta) as session:
            session.describe(None)
            if before is None:
                start = lambda: session.start(hyper=hyper_of(config, trials, self.seeds))
            else:
                start = lambda: session.go_on(before[0])
            self._end(session, start)

    def _before(self, trials: list[Trial]) -> tuple[dict[str, np.ndarray], int] | None:
        """(arrays [members, ...], update) of trials that go on from an earlier rung; None at their first."""
        if trials[0].number not in self.runs:
            return None
        earlier = self.runs[trials[0].number]
        arrays, meta = checkpoint.load(earlier)
        order = json.loads((earlier / TRIALS).read_text())
        rows = np.concatenate([order.index(t.number) * self.seeds + np.arange(self.seeds) for t in trials])
        return {name: x[rows] for name, x in arrays.items()}, meta["update"]

    def _continue(self, run: Path, group: Group, trials: list[Trial]) -> None:
        config = configs.from_file(run / folder.CONFIG)
        arrays, meta = checkpoint.load(run)
        with TrialsSession(self, run, config, group, trials, meta) as session:
            if np.any(arrays["alive"]):
                session.restore(arrays, rewind=False)
                self._end(session)
            else:                                    # killed between its last checkpoint and its summary
                session.finish("diverged", "; ".join(read_diverged(run).values()))

    def _end(self, session: TrialsSession, start: Any = None) -> None:
        try:
            session.go(start)
        except RunError:                             # of this run no trial is left; the others go on
            if len(session.diverged) < session.members.count:
                raise
        self.received = session.signals.received

    # ---------------------------------------------------------------- what came of it

    def _collect(self, run: Path, round: Round, trials: list[Trial]) -> None:
        """The outcomes of a run, from its files."""
        alive, meta = checkpoint.load(run, only="alive")
        rows, evals = metrics.read(run), metrics.read(run, metrics.EVALS)
        seconds = rows[-1]["seconds"] if rows else 0.0
        played = np.asarray(evals[-1]["returns"], np.float64) if evals else np.full((len(trials) * self.seeds, 1),
                                                                                     np.nan)
        told = read_diverged(run)
        for i, trial in enumerate(trials):
            mine = slice(i * self.seeds, (i + 1) * self.seeds)
            dead = [m for m in range(mine.start, mine.stop) if not alive["alive"][m]]
            what = "; ".join(told.get(m, f"seed {m - mine.start + 1} diverged") for m in dead)
            earlier = self.outcomes[trial.number].seconds if trial.number in self.runs else 0.0
            status = "diverged" if dead else "completed" if round.steps == self.total else "going on"
            means = played[mine].mean(axis=1)
            self.outcomes[trial.number] = Outcome(
                status, tuple(map(float, means)), iqm(means), bootstrap_ci(played[mine]), meta["step"],
                seconds + earlier, what, run.name)
            self.runs[trial.number] = run
            self.trials[trial.number] = trial

    def _scores(self, round: Round) -> dict[int, float]:
        return {t.number: x.iqm if x.status not in ("diverged", "failed") else math.nan
                for t in round.trials for x in [self.outcomes[t.number]]}

    def _prune(self, pruned: Mapping[int, str]) -> None:
        for number, why in pruned.items():
            self.outcomes[number] = self.outcomes[number]._replace(status="pruned", what=why)

    def _write(self) -> None:
        sweep_report.write_table(self.path, self.asked.axes, self.trials, self.outcomes)

    # ---------------------------------------------------------------- what the screen shows

    def _header(self) -> None:
        asked, devices = self.asked, backend.devices(self.asked.config.settings.num_devices)
        o, trials = asked.options, search.size(asked.options, asked.axes, self.total)[0]
        how, many = o.search, lambda n, what: f"{n} {what}{'s' if n > 1 else ''}"
        if o.search == "asha":
            rungs = search.rungs(trials, self.total, o.eta, o.grace)
            how += ", rungs " + ", ".join(f"{count} to {steps:,}" for count, steps in rungs)
        if o.search == "optuna":
            how += f", {o.batch} at once"
        self.reporter.header({
            "algorithm": f"{asked.config.algo} in {asked.config.env.name}",
            "search": how, "over": "  ".join(axis.text() for axis in asked.axes),
            "trials": f"{trials} x {many(self.seeds, 'seed')} x {self.total:,} steps",
            "device": f"{len(devices)} x {devices[0].device_kind}, blocks of {many(o.block, 'trial')}" + (
                f", on {many(workers, 'worker')}" if (workers := asked.config.settings.workers) else ""),
            "sweep": folder.shown(self.path)})

    def _result(self) -> None:
        if self.best() is None:
            first = next((x for x in self.outcomes.values() if x.what), None)
            if first and first.status == "failed":
                raise RunError(f"every trial failed: {first.what}", "To see where: debug=true")
            raise RunError(f"every trial diverged: {first.what if first else ''}",
                           "Try: smaller values of algo.learning_rate")


def _next(rounds: search.Rounds, scores: search.Scores | None) -> Round | None:
    """The next round of a search; None at its end."""
    try:
        return rounds.send(scores)
    except StopIteration:
        return None


def ended(run: Path) -> bool:
    """Whether a run of the sweep needs no more training."""
    return (folder.read_summary(run) or {}).get("status") in ("completed", "diverged")


def read_diverged(run: Path) -> dict[int, str]:
    """Member -> what happened to it."""
    try:
        return {int(member): text for member, text in json.loads((run / DIVERGED).read_text()).items()}
    except FileNotFoundError:
        return {}


def hyper_of(config: RunConfig, trials: list[Trial], seeds: int) -> Any:
    """The hyperparameters of every member, leaves [trials x seeds]."""
    own = hypers(config.agent)
    column = lambda name: np.repeat([t.values.get(f"algo.{name}", getattr(config.agent, name)) for t in trials], seeds)
    return type(own)(*(jnp.asarray(column(name), jnp.float32) for name in own._fields))


class TrialsSession(Session):
    """A session whose members are trials x seeds: each trial has the keys of an ordinary run of its seeds."""

    def __init__(self, sweep: Sweep, run: Path, config: RunConfig, group: Group, trials: list[Trial],
                 meta: dict | None):
        self.sweep, self.trials = sweep, trials
        members = sweep.members_of(group, len(trials))
        super().__init__(run, config, group.learner, sweep.watch.seen(), members=members, meta=meta)

    @property
    def resumed_as(self) -> Path:
        return self.sweep.path

    def keys(self, stream: int, step: int = 0) -> jax.Array:
        own = member_keys(self.config.settings.seed, self.sweep.seeds, stream, step)
        return own[np.tile(np.arange(self.sweep.seeds), len(self.trials))]

    def who(self, member: int) -> str:
        trial, seed = divmod(member, self.sweep.seeds)
        return f"trial {self.trials[trial].number}, seed {seed + 1} of {self.sweep.seeds}"

    def described(self, member: int) -> str:
        """Its name, with the values of its trial."""
        values = self.trials[member // self.sweep.seeds].values
        return f"{self.who(member)} ({', '.join(f'{axis}={short(value)}' for axis, value in values.items())})"

    def describe(self, command: Sequence[str] | None) -> None:
        """Its trials, too, in the order of the members."""
        super().describe(command)
        numbers = json.dumps([trial.number for trial in self.trials])
        folder.write_atomic(self.run / TRIALS, numbers.encode())

    def go_on(self, arrays: dict[str, np.ndarray]) -> None:
        """Members as they were at the end of an earlier rung."""
        state = stored_state(self.config, self.members, arrays)
        self.hyper, self.population = state.hyper, self.members.from_host(state)
        self.tensorboard = TensorBoard(self.run)

    def restore(self, arrays: dict[str, np.ndarray], *, rewind: bool) -> None:
        """With what was told of the members that had diverged by then."""
        super().restore(arrays, rewind=rewind)
        told = read_diverged(self.run)
        self.diverged = {member: told.get(member, text) for member, text in self.diverged.items()}

    def save(self, score: float | None) -> None:
        """With what happened to the members that it holds as not alive."""
        texts = {member: text.removeprefix("training diverged: ").partition(" (")[0] +
                 f" (seed {member % self.sweep.seeds + 1} of {self.sweep.seeds})" if "training" in text else text
                 for member, text in self.diverged.items()}
        if texts:
            folder.write_atomic(self.run / DIVERGED, json.dumps(texts).encode())
        super().save(score)


class Watch:
    """The reporter of a sweep's runs: their progress becomes that of the sweep, in steps of all members; the return is
    that of the trial that is best at the time."""

    def __init__(self, reporter: Reporter, seeds: int, total: int):
        self.reporter, self.seeds, self.total = reporter, seeds, total
        self.done, self.before, self.count = 0, 0, 0
        self.began = time.perf_counter()

    def seen(self) -> Reporter:
        """What a session reports to; nobody, where nobody listens."""
        return self.reporter if isinstance(self.reporter, Silent) else self

    def begin(self, trials: list[Trial], steps: Mapping[int, int]) -> None:
        """A run begins, of trials that have done `steps` before."""
        self.before, self.count = steps.get(trials[0].number, 0), len(trials) * self.seeds

    def end(self, steps: int) -> None:
        """A run has ended, after which its members have done `steps`."""
        self.done += steps - self.before * self.count

    def header(self, facts: Mapping[str, Any]) -> None:
        """The sweep has one of its own."""

    def progress(self, step: int, total: int, steps_per_second: float, returns: np.ndarray | None,
                 elapsed: float) -> None:
        """Of the sweep."""
        best = None
        if returns is not None:
            trials = np.asarray(returns, np.float64).reshape(-1, self.seeds)
            known = np.isfinite(trials).all(axis=1)
            best = trials[known][trials[known].mean(axis=1).argmax()] if known.any() else None
        self.reporter.progress(min(self.done + (step - self.before) * self.count, self.total), self.total,
                               steps_per_second, best, time.perf_counter() - self.began)

    def note(self, text: str) -> None:
        """As it comes."""
        self.reporter.note(text)

    def result(self, summary: Mapping[str, Any], run_folder: Path) -> None:
        """The sweep has one of its own."""
