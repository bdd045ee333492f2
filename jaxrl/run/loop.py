"""The host loop: compiled chunks of updates, and between them rows, evaluations and checkpoints.

The TrainState of the population holds everything that a run is. The loop only decides when to look
at it.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from jaxrl import config as configs
from jaxrl.config.settings import RunConfig
from jaxrl.errors import Interrupted, RunError, UserError, reason
from jaxrl.evaluate import iqm
from jaxrl.population.members import on_host
from jaxrl.population.protocol import Blocks, HostMetrics, Population
from jaxrl.report import page
from jaxrl.report.tensorboard import TensorBoard
from jaxrl.run import facts
from jaxrl.run.divergence import Divergence, advice
from jaxrl.run.launch import Launch, check_unfinished, locked, prepare, resumable
from jaxrl.run.learners import (
    PERIODIC,
    TRAIN,
    member_keys,
    open_members,
    spread,
    stored_state,
    warm_start,
)
from jaxrl.run.plan import chosen, updates
from jaxrl.run.reporter import Reporter, Silent, warnings_as_notes
from jaxrl.run.signals import Signals
from jaxrl.storage import checkpoint, folder, metrics

EPISODES = ("episodes", "return_mean", "length_mean")      # of the driver; others are the learner's


def train(config: RunConfig, reporter: Reporter | None = None,
          command: Sequence[str] | None = None, *,
          session: Callable[..., Session] | None = None) -> Path:
    """Train from the start and return the run folder.

    session: the class of the session, for runs that do more between chunks. Raises UserError,
    RunError (failed or diverged) or Interrupted (saved).
    """
    launch = prepare(config)                     # errors come before there is a folder
    agent = warm_start(launch)
    make = session or Session
    with open_members(launch) as members:
        run, lock = folder.create(config.env.name, config.algo, config.settings.out)
        with lock, make(run, launch, reporter or Silent(), members=members) as running:
            running.describe(command)
            running.note_rounding()
            running.go(lambda: running.start(agent))
    return run


def resume(path: str | Path, overrides: Iterable[str] = (), reporter: Reporter | None = None, *,
           step: int | None = None, command: Sequence[str] | None = None,
           session: Callable[..., Session] | None = None) -> Path:
    """Continue from a checkpoint (default: the last) to total_steps and return the run folder.

    session: as for `train`. Raises as `train` does.
    """
    run = folder.open_run(path)
    make = session or Session
    with locked(run):
        config = configs.from_file(run / folder.CONFIG, resumable(overrides))
        first = config.settings.checkpoint_every
        meta = checkpoint.read_meta(run, step, first=first)
        launch = prepare(config, layout=meta["layout"])        # before the arrays are read
        arrays, meta = checkpoint.load(run, step, first=first)
        with open_members(launch) as members, \
                make(run, launch, reporter or Silent(), members=members, meta=meta) as running:
            running.restore(arrays, rewind=step is not None)
            del arrays                           # as large as the state, replay included
            running.describe(command)
            running.go()
    return run


class Session:
    """The work of one process on one run, from its lock to its summary."""

    noun = "seed"                                # the user's word for a member

    def __init__(self, run: Path, launch: Launch, reporter: Reporter, *, members: Population,
                 meta: dict | None = None):
        """Open the files of a run. meta: metadata of the checkpoint from which it continues."""
        self.run = run
        self.launch = launch
        self.config = launch.config
        self.plan = launch.plan
        self.reporter = reporter
        self.members = members
        self.meta = meta or {}
        self.update: int = self.meta.get("update", 0)
        self.population: Blocks = []
        self.hyper: Any = None                   # of the members, NumPy, leaves [members]
        self.metrics = metrics.Rows(run, metrics.METRICS)
        self.evals = metrics.Rows(run, metrics.EVALS)
        self.tensorboard: TensorBoard | None = None
        self.history: list[dict] = []            # rows of metrics.jsonl
        self.returns: np.ndarray | None = None   # the last evaluation, [members, episodes],
        self.evaluated: int | None = None        # and the update at which it was made
        self.diverged = Divergence(members.count, reporter.note)
        self.seconds = 0.0                       # of earlier sessions
        self.known = 0                           # rows of earlier sessions
        self.began = time.perf_counter()
        self._under_way = False                  # described and not finished
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Turn warnings into notes, and let signals end the run in good order."""
        self._open.callback(self._close)
        self._open.enter_context(warnings_as_notes(self.reporter))
        self.signals = self._open.enter_context(Signals(self.reporter.note))
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Write a summary for a run that a signal stopped, wherever it was."""
        with self._open:
            if isinstance(error, Interrupted) and self._under_way:
                self.finish("interrupted", "stopped by a signal")

    def _close(self) -> None:
        self.metrics.close()
        self.evals.close()
        if self.tensorboard:
            self.tensorboard.close()

    @property
    def step(self) -> int:
        """Environment steps done, per seed."""
        return self.update * self.members.steps_per_update

    @property
    def total(self) -> int:
        """Environment steps at the end of the run, per seed."""
        return self.plan.total * self.members.steps_per_update

    @property
    def resumed_as(self) -> Path:
        """The folder to resume: this run, or the sweep that it belongs to."""
        return self.run

    def keys(self, stream: int, step: int = 0) -> jax.Array:
        """Return one key [members] for each member."""
        s = self.config.settings
        return member_keys(s.seed, s.num_seeds, stream, step)

    def who(self, member: int) -> str:
        """Return the name of a member for messages."""
        return f"{self.noun} {member + 1} of {self.members.count}"

    def described(self, member: int) -> str:
        """Return the name of a member with the settings that only it has."""
        return self.who(member)

    # ---------------------------------------------------------------- the beginning

    def describe(self, command: Sequence[str] | None) -> None:
        """Write config.yaml and environment.json, and show the header."""
        content = configs.to_yaml(self.config).encode()
        path = self.run / folder.CONFIG
        try:
            folder.write_atomic(path, content)
        except OSError as error:
            raise checkpoint.storage_error(error, self.run, path, len(content)) from error
        self._under_way = True
        folder.write_environment(self.run, command, facts.device_of(self.members))
        self.reporter.header(facts.header(
            self.run, self.launch, self.members, noun=self.noun, changing=self.changing()))
        warning = facts.replay_warning(self.launch, self.members)
        if warning:
            self.reporter.note(warning)

    def changing(self) -> str:
        """Return the part of the header that lists hyperparameters which change."""
        if not self.config.schedule:
            return ""
        return f"; by a schedule: {', '.join(self.config.schedule.values)}"

    def note_rounding(self) -> None:
        """Note it if total_steps is not a whole number of updates."""
        asked = self.config.settings.total_steps
        if self.total != asked:
            self.reporter.note(f"total_steps={asked:,} is rounded up to {self.total:,}: an update "
                               f"takes {self.members.steps_per_update:,} steps")

    def start(self, agent: Any = None, hyper: Any = None) -> None:
        """Make fresh members.

        agent: the agent state [num_seeds, ...] of another run. hyper: the hyperparameters of each
        member, leaves [num_seeds], if they differ.
        """
        s = self.config.settings
        schedule = updates(chosen(s.schedule_steps), self.members.steps_per_update)
        self.hyper = on_host(spread(self.config) if hyper is None else hyper)
        self.population = self.members.init(self.keys(TRAIN), self.hyper, schedule)
        if agent is not None:
            state = self.members.to_host(self.population)
            self.population = self.members.from_host(state._replace(agent=agent))
        self.tensorboard = TensorBoard(self.run)

    def restore(self, arrays: dict[str, np.ndarray], *, rewind: bool) -> None:
        """Restore the state, rows and clock of a checkpoint. Raises UserError if the run is done.

        rewind: drop the checkpoints after this one.
        """
        whole = self.meta.get("replay", True)
        state = stored_state(self.config, self.members, arrays, replay=whole)
        self._restore_evaluation()
        for member in np.flatnonzero(~np.asarray(state.alive)).tolist():
            self.diverged.messages[member] = f"{self.who(member)} diverged before this resume"
        if self.diverged.complete:
            name = shlex.quote(folder.shown(self.run))
            raise UserError(
                f"{name} diverged: no seed is left at step {self.step:,}.",
                f"To start a new run from its parameters: jaxrl train ... init_from={name} "
                f"{advice(self.config.agent)}")
        goal = self.config.settings.stop_return if self._enough() else None
        check_unfinished(self.run, self.step, self.total, reached=goal)
        self.hyper = state.hyper
        self.population = self.members.from_host(state)
        if not whole:
            self._empty_replays()
        if rewind:               # before the rows are cut: no checkpoint may count missing rows
            checkpoint.discard_after(self.run, self.meta["step"])
        self.metrics.truncate_to(self.meta["metric_rows"])
        self.evals.truncate_to(self.meta["eval_rows"])
        self.history = metrics.read(self.run)
        self.known = len(self.history)
        self.seconds = self._elapsed()
        self.tensorboard = TensorBoard(self.run, resumed_at=self.step)
        if {"shards": 1, **self.meta["layout"]} != self.layout():
            self.reporter.note("the layout (device kind, devices per seed or versions) is not the "
                               "one on which the run started: it continues, but not bit for bit")

    def _restore_evaluation(self) -> None:
        evals = metrics.read(self.run, metrics.EVALS)[: self.meta["eval_rows"]]
        if not evals:
            return
        self.returns = np.asarray(evals[-1]["returns"], np.float64)      # null becomes nan
        if evals[-1]["step"] == self.step:
            self.evaluated = self.update

    def _empty_replays(self) -> None:
        """Make empty replays for members whose checkpoint holds none."""
        self.population = self.members.empty_replays(
            self.population, self.keys(TRAIN), spread(self.config))
        self.reporter.note("the replay is not in the checkpoint (checkpoint_replay=false): "
                           f"{self.config.agent.warmup:,} steps are collected before learning "
                           "continues, so the result is not bit for bit that of an uninterrupted "
                           "run")

    def layout(self) -> dict[str, Any]:
        """Return everything beside the config that decides the bits of a member."""
        m = self.members
        return {"block_size": m.size, "shards": m.shards, "device_kind": m.devices[0].device_kind,
                "versions": {"jax": jax.__version__, "jaxlib": jax.lib.__version__}}

    # ---------------------------------------------------------------- the loop

    def go(self, start: Callable[[], None] | None = None) -> None:
        """Train to the end, a signal, or the divergence of every member; then write the summary."""
        self._under_way = True
        try:
            if start is not None:
                start()
            status = self._chunks()
        except Interrupted:
            raise
        except (Exception, KeyboardInterrupt) as error:
            with contextlib.suppress(Exception):
                self.finish("failed", reason(error))
            raise
        self.finish(status, self.diverged.text())
        if status == "diverged":
            settings = advice(self.config.agent)
            hint = f"Try: {settings}" if settings else None
            raise RunError(next(iter(self.diverged.messages.values())), hint)

    def _chunks(self) -> str:
        """Train chunk by chunk and return the status at the end. Raises Interrupted (saved)."""
        if self.update < self.plan.total and not self._enough():
            self.members.compile(self.population, self.keys(PERIODIC))
        self.began = time.perf_counter()
        compiled = self.members.compile_seconds
        score = None
        while self.update < self.plan.total and not self._enough():
            if self.signals.received:
                self._save_at_signal(score)
                raise Interrupted(self.signals.received)
            self.before_chunk()
            end = self.plan.next(self.update)
            with self._profile():
                self.population, values = self.members.advance(self.population, end - self.update)
            self._log(end - self.update, end, values, self.members.compile_seconds - compiled)
            self.update = end
            self._replace_lost()
            score = self.evaluate() if self.plan.due(self.plan.evaluate, end) else None
            if self.diverged.complete:
                self.save(None)
                return "diverged"
            due = self.plan.due(self.plan.checkpoint, end)
            if self._is_best(score) or self._enough() or due:
                self.save(score)
        return "completed"

    def _is_best(self, score: float | None) -> bool:
        if score is None:
            return False
        _, best = checkpoint.best(self.run) or (0, -np.inf)
        return score > best

    def _save_at_signal(self, score: float | None) -> None:
        began = time.perf_counter()
        self.save(score)
        self.reporter.note(f"saved step {self.step:,} in {time.perf_counter() - began:.1f} s. "
                           f"Continue: jaxrl resume {shlex.quote(folder.shown(self.resumed_as))}")

    def before_chunk(self) -> None:
        """Change the hyperparameters if the schedule asks for it."""
        if self.update in self.plan.changes:
            same = np.arange(self.members.count)
            self.hyper = on_host(spread(self.config, self.step))
            self.population = self.members.copy(self.population, same, self.hyper)

    def _enough(self) -> bool:
        """Return True if these very parameters were evaluated and every alive seed reached
        stop_return."""
        goal = self.config.settings.stop_return
        if goal is None or self.returns is None or self.evaluated != self.update:
            return False
        return bool((self.returns.mean(axis=1)[self.diverged.alive] >= goal).all())

    def _elapsed(self) -> float:
        """Return the seconds of training at the last row."""
        return self.history[-1]["seconds"] if self.history else 0.0

    def _log(self, count: int, end: int, values: HostMetrics, compile_seconds: float) -> None:
        """Write a row of metrics.jsonl and report the progress of `count` updates up to `end`."""
        m = self.members
        elapsed = self.seconds + time.perf_counter() - self.began - compile_seconds
        rate = count * m.steps_per_update * m.count / max(elapsed - self._elapsed(), 1e-9)
        bad = values.pop("nonfinite")
        values["episodes"] = np.nan_to_num(values["episodes"])
        step = end * m.steps_per_update
        row = {"step": step, "seconds": elapsed, "steps_per_second": rate, **values}
        self.metrics.append(row)
        self.history.append(metrics.plain(row))
        if self.tensorboard:
            self.tensorboard.metrics(row)
        for member in np.flatnonzero(bad).tolist():
            if member not in self.diverged.messages:
                self._note_divergence(member, int(bad[member]), list(values))
        returns = values["return_mean"] if np.any(values["episodes"]) else None
        self.reporter.progress(step, self.total, rate, returns, elapsed)

    def _note_divergence(self, member: int, code: int, names: list[str]) -> None:
        """Record a member whose metric number `code`, counted from 1, was not finite."""
        learned = [name for name in names if name not in EPISODES]
        watched = self.launch.learner.runner.watched(learned)
        done = self.members.to_host(self.population, replay=False).progress.update[member]
        step = (int(done) + 1) * self.members.steps_per_update
        self.diverged.not_finite(member, self.who(member), watched[code - 1], step)

    def _replace_lost(self) -> None:
        """Put dead members in the place of those whose environment or program raised."""
        if not self.members.raised:
            return
        for member, what in self._note_raised("Lost, with what was learned").items():
            self.diverged.lost(member, self.who(member), what, self.step)
        self.population = self.members.without(
            self.population, self.members.raised, self.keys(TRAIN, self.step), self.hyper)

    def _note_raised(self, consequence: str) -> dict[int, str]:
        """Note the blocks that just raised, or raise with debug=true. Return member -> message."""
        for error in self.members.raised.values():
            if self.config.settings.debug:
                raise error
        return self.diverged.note_raised(self.members.raised, self.members.size, consequence,
                                         self.described)

    @contextlib.contextmanager
    def _profile(self) -> Iterator[None]:
        """Record the second chunk of this process, when everything is warm, with profile=true."""
        if self.config.settings.profile and len(self.history) == self.known + 1:
            with jax.profiler.trace(str(self.run / "profile")):
                yield
        else:
            yield

    def evaluate(self) -> float:
        """Write a row of evals.jsonl for the current parameters. Return the IQM over seeds."""
        keys = self.keys(PERIODIC, self.update)
        self.returns = self.members.evaluate(self.population, keys).astype(np.float64)
        self.evaluated = self.update
        self._note_raised("Not evaluated")
        row = {"step": self.step, "returns": self.returns}
        self.evals.append(row)
        if self.tensorboard:
            self.tensorboard.evaluation(row)
        return iqm(self.returns.mean(axis=1))

    def save(self, score: float | None) -> None:
        """Save a checkpoint. score: the evaluation of these very parameters, None without one."""
        s = self.config.settings
        with self.signals.held():
            self.metrics.sync()
            self.evals.sync()
            has_replay = bool(jax.tree.leaves(self.launch.shapes.replay))
            left_out = has_replay and not s.checkpoint_replay
            arrays = checkpoint.flatten(self.members.to_host(self.population, replay=not left_out))
            meta = {"layout": self.layout(), "update": self.update,
                    "metric_rows": self.metrics.rows, "eval_rows": self.evals.rows}
            if left_out:
                meta["replay"] = False
            checkpoint.save(self.run, self.step, arrays, meta, keep=s.keep, score=score)

    # ---------------------------------------------------------------- the end

    def finish(self, status: str, error: str | None) -> None:
        """Write summary.json, report.html and TensorBoard's hyperparameters; report the result."""
        with self.signals.held():
            self._under_way = False
            best, _ = checkpoint.best(self.run) or (None, None)
            summary = facts.summary(
                self.config, self.members, status=status, error=error, step=self.step,
                history=self.history, returns=self.returns, best_step=best)
            folder.write_summary(self.run, summary)
            if self.tensorboard:
                self.tensorboard.finish(facts.flat_hypers(self.config), summary)
            page.write(self.run)
            self.reporter.result(metrics.plain(summary), self.run)
