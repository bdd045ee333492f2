"""The host loop: compiled chunks, and between them rows, evaluations, checkpoints, signals.

Everything that a run is lives in the population's TrainState; the loop only decides when to look at it.
"""

from __future__ import annotations

import contextlib
import shlex
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl import backend
from jaxrl import config as configs
from jaxrl.config.settings import RunConfig
from jaxrl.declare import hypers
from jaxrl.drivers.build import Learner, build
from jaxrl.errors import Interrupted, RunError, UserError, reason
from jaxrl.evaluate import bootstrap_ci, iqm
from jaxrl.population import budget
from jaxrl.population.members import on_host
from jaxrl.population.protocol import Blocks, Population
from jaxrl.report import page
from jaxrl.report.tensorboard import TensorBoard
from jaxrl.run.learners import (
    PERIODIC,
    TRAIN,
    check_memory,
    member_keys,
    open_members,
    spread,
    stored_state,
    warm_start,
)
from jaxrl.run.plan import Plan, plan, settle, updates
from jaxrl.run.reporter import Reporter, Silent
from jaxrl.run.signals import Signals
from jaxrl.storage import checkpoint, folder, metrics

MOST_NAMED = 8                                    # members in one message
EPISODES = ("episodes", "return_mean", "length_mean")      # metrics of the driver; the others are the learner's
RESUMABLE = {"total_steps", "stop_return", "keep", "checkpoint_replay", "eval_episodes", "device", "num_devices",
             "workers", "address", "quiet", "json", "debug", "profile"}      # what may change when a run goes on


def train(config: RunConfig, reporter: Reporter | None = None, command: Sequence[str] | None = None, *,
          session: Callable[..., Session] | None = None) -> Path:
    """Train from the start; -> the run folder. Raises UserError, RunError (failed, diverged) or Interrupted (saved).

    session: what makes the Session, for runs that do more between chunks.
    """
    backend.prepare(config.settings.device)
    learner = build(config)
    settled = settle(config, learner.runner.steps_per_update)
    check_memory(config, learner)                    # what cannot be is said before there is a folder
    agent = warm_start(config, learner)
    with open_members(settled, learner) as members:
        run, lock = folder.create(config.env.name, config.algo, config.settings.out)
        with lock, (session or Session)(run, settled, learner, reporter or Silent(), members=members) as running:
            running.describe(command)
            each = running.members.steps_per_update
            if (total := running.plan.total * each) != config.settings.total_steps:
                running.reporter.note(f"total_steps={config.settings.total_steps:,} is rounded up to {total:,}: "
                                      f"updates take {each:,} steps each")
            running.go(lambda: running.start(agent))
    return run


def resume(path: str | Path, overrides: Iterable[str] = (), reporter: Reporter | None = None, *,
           step: int | None = None, command: Sequence[str] | None = None,
           session: Callable[..., Session] | None = None) -> Path:
    """Go on from a checkpoint (default: the last) to total_steps; -> the run folder. session: as for `train`."""
    run = folder.open_run(path)
    with locked(run):
        config = configs.from_file(run / folder.CONFIG, resumable(overrides))
        backend.prepare(config.settings.device)
        learner = build(config)
        check_memory(config, learner)                # before the arrays are read
        arrays, meta = checkpoint.load(run, step, first=config.settings.checkpoint_every)
        with open_members(config, learner, layout=meta["layout"]) as members, \
                (session or Session)(run, config, learner, reporter or Silent(), meta=meta, members=members) as going:
            going.restore(arrays, rewind=step is not None)
            del arrays                               # as large as the state, replay and all
            going.describe(command)
            going.go()
    return run


def locked(run: Path) -> folder.Lock:
    """The lock on a run that goes on."""
    try:
        return folder.Lock(run)
    except OSError as error:
        raise UserError(f"{folder.shown(run)} cannot be written ({error.strerror}).",
                        "Resume a copy of it, in a folder of your own") from None


def resumable(overrides: Iterable[str]) -> list[str]:
    """The overrides of a resume, checked: what shapes the run stays as it was."""
    overrides = list(overrides)
    fixed = [o for o in overrides if o.partition("=")[0].lstrip("+") not in RESUMABLE]
    if fixed:
        raise UserError([f"{o} cannot change when a run goes on. A new run from these parameters: "
                         f"jaxrl train ... init_from=RUN {o}" for o in fixed])
    return overrides


class Session:
    """One process's work on one run, from its lock to its summary."""

    noun = "seed"                                # what a member is to the user

    def __init__(self, run: Path, config: RunConfig, learner: Learner, reporter: Reporter, *, members: Population,
                 meta: dict | None = None):
        """meta: that of the checkpoint that the run goes on from."""
        self.run, self.config, self.learner, self.reporter = run, config, learner, reporter
        self.members = members
        self.need, self.shapes = check_memory(config, learner, self.members.size)     # while nothing is allocated
        self.plan: Plan = plan(config, self.members.steps_per_update)
        self.update = (meta or {}).get("update", 0)
        self.meta = meta or {}
        self.population: Blocks = []
        self.hyper: Any = None                   # of the members, NumPy, leaves [members]
        self.metrics, self.evals = metrics.Rows(run, metrics.METRICS), metrics.Rows(run, metrics.EVALS)
        self.tensorboard: TensorBoard | None = None
        self.history: list[dict] = []            # rows of metrics.jsonl
        self.returns: np.ndarray | None = None   # the last evaluation, [seeds, episodes],
        self.evaluated: int | None = None        # and the update it was made at
        self.diverged: dict[int, str] = {}       # seed -> what happened
        self.seconds = 0.0                       # of earlier sessions
        self.known = 0                           # rows of earlier sessions
        self.began = time.perf_counter()
        self._under_way = False                  # described, and not finished
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Session:
        """From here on warnings are notes, and signals end the run in good order."""
        self._open.callback(self._close)
        self._open.enter_context(warnings_as_notes(self.reporter))
        self.signals = self._open.enter_context(Signals(self.reporter.note))
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """A run that was stopped by a signal says so, wherever it was."""
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
    def resumed_as(self) -> Path:
        """What a user resumes: this run, or the folder of what it is a part of."""
        return self.run

    def keys(self, stream: int, step: int = 0) -> jax.Array:
        """One key [members] for each member."""
        s = self.config.settings
        return member_keys(s.seed, s.num_seeds, stream, step)

    def who(self, member: int) -> str:
        """A member's name in messages."""
        return f"{self.noun} {member + 1} of {self.members.count}"

    def described(self, member: int) -> str:
        """Its name, with the settings that are its own."""
        return self.who(member)

    # ---------------------------------------------------------------- the beginning

    def describe(self, command: Sequence[str] | None) -> None:
        """config.yaml, environment.json and the header."""
        content = configs.to_yaml(self.config).encode()
        try:
            folder.write_atomic(self.run / folder.CONFIG, content)
        except OSError as error:
            raise checkpoint.storage_error(error, self.run, self.run / folder.CONFIG, len(content)) from error
        self._under_way = True
        device = {"kind": self.members.devices[0].device_kind, "platform": self.members.devices[0].platform,
                  "count": len(self.members.devices)}
        folder.write_environment(self.run, command, device)
        s, m = self.config.settings, self.members
        envs, parameters = self.learner.runner.num_envs, sum(x.size for x in jax.tree.leaves(self.shapes.agent.params))
        seeds = lambda n: f"{n} {self.noun}{'s' if n > 1 else ''}"
        self.reporter.header({
            "algorithm": f"{self.config.algo}, {parameters:,} parameters, " + (
                f"preset {s.preset}" if s.preset != "none" else "no preset") + self.changing(),
            "environment": f"{self.config.env.name}, {self.learner.spec.observation} -> {self.learner.spec.action}",
            "device": f"{len(m.devices)} x {device['kind']}, {m.blocks} x {seeds(m.size)}" + (
                f", its environments on {m.shards} devices" if m.shards > 1 else ""),
            "training": f"{envs:,} environments x {self.plan.total * m.steps_per_update // envs:,} steps x "
                        f"{seeds(m.count)}",
            "memory": str(self.need),
            "run": folder.shown(self.run)})
        self._foresee_checkpoints()

    def changing(self) -> str:
        """For the header: which hyperparameters change, and how."""
        schedule = self.config.schedule
        return f"; by a schedule: {', '.join(schedule.values)}" if schedule else ""

    def _foresee_checkpoints(self) -> None:
        """A warning if the copy of a replay that is written may not fit on the host."""
        m, whole = self.members, self.need.each * self.need.members
        if not (self.config.settings.checkpoint_replay and jax.tree.leaves(self.shapes.replay)):
            return
        cpu = m.devices[0].platform == "cpu"
        limit, free = backend.memory()
        free = self.need.free - whole if cpu and self.need.free else free      # of a CPU's, with the members there
        copies = (not cpu) + (m.blocks > 1)                      # off the device, and into one array of all blocks
        if limit and copies * whole > free:
            self.reporter.note(f"warning: the replay is part of checkpoints: writing them takes "
                               f"{budget.size_text(copies * whole)} more of the host's memory, "
                               f"{budget.size_text(max(free, 0))} are left. Try: checkpoint_replay=false")

    def start(self, agent: Any = None, hyper: Any = None) -> None:
        """Fresh members, with the agent state [num_seeds, ...] of another run if one is given; hyper: each member's own
        hyperparameters, leaves [num_seeds], where they differ."""
        schedule = updates(self.config.settings.schedule_steps, self.members.steps_per_update)
        self.hyper = on_host(spread(self.config) if hyper is None else hyper)
        self.population = self.members.init(self.keys(TRAIN), self.hyper, schedule)
        if agent is not None:
            state = self.members.to_host(self.population)
            self.population = self.members.from_host(state._replace(agent=agent))
        self.tensorboard = TensorBoard(self.run)

    def restore(self, arrays: dict[str, np.ndarray], *, rewind: bool) -> None:
        """The state, rows and clock of the checkpoint that `meta` belongs to. Raises UserError if all is done."""
        whole = self.meta.get("replay", True)
        state = stored_state(self.config, self.members, arrays, replay=whole)
        evals = metrics.read(self.run, metrics.EVALS)[: self.meta["eval_rows"]]
        if evals:
            self.returns = np.asarray(evals[-1]["returns"], np.float64)      # null becomes nan
            self.evaluated = self.update if evals[-1]["step"] == self.step else None
        for seed in np.flatnonzero(~np.asarray(state.alive)):
            self.diverged[int(seed)] = f"{self.who(int(seed))} diverged before this resume"
        self._check_unfinished()
        self.hyper, self.population = state.hyper, self.members.from_host(state)
        if not whole:
            self._empty_replays()
        if rewind:               # before the rows are cut: no checkpoint may count rows that are gone
            checkpoint.discard_after(self.run, self.meta["step"])
        for rows, name in ((self.metrics, "metric_rows"), (self.evals, "eval_rows")):
            rows.truncate_to(self.meta[name])
        self.history = metrics.read(self.run)
        self.known = len(self.history)
        self.seconds = self.history[-1]["seconds"] if self.history else 0.0
        self.tensorboard = TensorBoard(self.run, resumed_at=self.step)
        if {"shards": 1, **self.meta["layout"]} != self.layout():
            self.reporter.note("this is another layout (device kind, devices per seed or versions) than the run was "
                               "started on: it goes on, but not bit for bit")

    def _empty_replays(self) -> None:
        """Fresh ones for members whose checkpoint came without."""
        self.population = self.members.empty_replays(self.population, self.keys(TRAIN), spread(self.config))
        self.reporter.note("the replay is not in the checkpoint (checkpoint_replay=false): "
                           f"{self.config.agent.warmup:,} steps are collected before learning goes on; this is not bit "
                           "for bit what an uninterrupted run does")

    def _check_unfinished(self) -> None:
        """A run that was killed between its last checkpoint and its summary is not finished: resume writes that."""
        run, summary = shlex.quote(folder.shown(self.run)), folder.read_summary(self.run) or {}
        if len(self.diverged) == self.members.count:
            raise UserError(f"{run} diverged: at step {self.step:,} no seed is left.",
                            f"A new run from its parameters: jaxrl train ... init_from={run} {self._advice()}")
        total = self.plan.total * self.members.steps_per_update
        if self.step > total:
            raise UserError(f"{run} has done {self.step:,} steps, more than total_steps={total:,}.",
                            "Ask for more, or go back to an earlier checkpoint: step=N")
        ended = (summary.get("status"), summary.get("total_steps")) == ("completed", self.step)
        if ended and self.step == total:
            raise UserError(f"{run} is complete: {self.step:,} of {total:,} steps.",
                            f"To extend it: jaxrl resume {run} total_steps={2 * self.step}")
        if ended and self._enough():
            raise UserError(f"{run} is complete: it reached stop_return={self.config.settings.stop_return:g} at step "
                            f"{self.step:,} of {total:,}.", f"To go on: jaxrl resume {run} stop_return=null")

    def layout(self) -> dict[str, Any]:
        """What decides a member's bits, beside the config."""
        m = self.members
        return {"block_size": m.size, "shards": m.shards, "device_kind": m.devices[0].device_kind,
                "versions": {"jax": jax.__version__, "jaxlib": jax.lib.__version__}}

    # ---------------------------------------------------------------- the loop

    def go(self, start: Callable[[], None] | None = None) -> None:
        """Train to the end, a signal, or the death of every member; the summary is written whatever happens."""
        self._under_way = True
        try:
            if start is not None:
                start()
            status = self._chunks()
        except Interrupted:                      # a second signal
            raise
        except (Exception, KeyboardInterrupt) as error:
            with contextlib.suppress(Exception):
                self.finish("failed", reason(error))
            raise
        if status == "interrupted":
            raise Interrupted(self.signals.received)
        self.finish(status, "; ".join(self.diverged.values()) or None)
        if status == "diverged":
            raise RunError(next(iter(self.diverged.values())), f"Try: {self._advice()}" if self._advice() else None)

    def _chunks(self) -> str:
        if self.update < self.plan.total and not self._enough():
            self.members.compile(self.population, self.keys(PERIODIC))
        self.began = time.perf_counter()
        compiled = self.members.compile_seconds
        score = None
        while self.update < self.plan.total and not self._enough():
            if self.signals.received:
                began = time.perf_counter()
                self.save(score)
                self.reporter.note(f"saved step {self.step:,} in {time.perf_counter() - began:.1f} s. "
                                   f"Continue: jaxrl resume {shlex.quote(folder.shown(self.resumed_as))}")
                return "interrupted"
            self.before_chunk()
            end = self.plan.next(self.update)
            with self._profile():
                self.population, values = self.members.advance(self.population, end - self.update)
            self._log(end - self.update, end, values, self.members.compile_seconds - compiled)
            self.update = end
            self._go_on_without()
            score = self.evaluate() if self.plan.due(self.plan.evaluate, end) else None
            if len(self.diverged) == self.members.count:
                self.save(None)
                return "diverged"
            top = score is not None and score > (checkpoint.best(self.run) or (0, -np.inf))[1]
            if top or self._enough() or self.plan.due(self.plan.checkpoint, end):
                self.save(score)
        return "completed"

    def before_chunk(self) -> None:
        """What happens between chunks, on the host: hyperparameters change, where a schedule says so."""
        if self.update in self.plan.changes:
            itself, self.hyper = np.arange(self.members.count), on_host(spread(self.config, self.step))
            self.population = self.members.copy(self.population, itself, self.hyper)

    def _enough(self) -> bool:
        """Whether these very parameters were evaluated, and every seed that is alive reached stop_return."""
        goal = self.config.settings.stop_return
        if goal is None or self.returns is None or self.evaluated != self.update:
            return False
        alive = [seed for seed in range(self.members.count) if seed not in self.diverged]
        return bool((self.returns.mean(axis=1)[alive] >= goal).all())

    def _log(self, count: int, end: int, values: dict[str, np.ndarray], compile_seconds: float) -> None:
        """A row of metrics.jsonl, and what the screen shows."""
        m = self.members
        elapsed = self.seconds + time.perf_counter() - self.began - compile_seconds
        before = self.history[-1]["seconds"] if self.history else 0.0
        rate = count * m.steps_per_update * m.count / max(elapsed - before, 1e-9)
        bad, values["episodes"] = values.pop("nonfinite"), np.nan_to_num(values["episodes"])
        step = end * m.steps_per_update
        row = {"step": step, "seconds": elapsed, "steps_per_second": rate, **values}
        self.metrics.append(row)
        self.history.append(metrics.plain(row))
        self.tensorboard.metrics(row)
        for seed in np.flatnonzero(bad):
            if int(seed) not in self.diverged:
                names = self.learner.runner.watched([n for n in values if n not in EPISODES])
                self._note_divergence(int(seed), names[bad[seed] - 1])
        self.reporter.progress(step, self.plan.total * m.steps_per_update, rate,
                               values["return_mean"] if np.any(values["episodes"]) else None, elapsed)

    def _note_divergence(self, seed: int, what: str) -> None:
        done = self.members.to_host(self.population, replay=False).progress.update[seed]
        at = (int(done) + 1) * self.members.steps_per_update
        going = "; the others go on" if len(self.diverged) + 1 < self.members.count else ""
        self.diverged[seed] = (f"training diverged: {what} is not finite at step {at:,} ({self.who(seed)}{going}). "
                               "State before it is saved.")
        if going:                                # else the run ends, and says so
            self.reporter.note(f"warning: {self.diverged[seed]}")

    def _go_on_without(self) -> None:
        """Where the environment of a block raised, its members are lost: dead ones take their place."""
        if not self.members.raised:
            return
        for member, what in self._note_raised("Lost, with what was learned").items():
            self.diverged[member] = f"{self.who(member)} was lost at step {self.step:,}: {what}"
        self.population = self.members.without(self.population, self.members.raised, self.keys(TRAIN, self.step),
                                               self.hyper)

    def _note_raised(self, consequence: str) -> dict[int, str]:
        """Member that was alive -> what its block just raised, of which a note tells. debug=true: that is raised."""
        m, found = self.members, {}
        for block, error in m.raised.items():
            if self.config.settings.debug:
                raise error
            members = [i for i in range(block * m.size, min((block + 1) * m.size, m.count)) if i not in self.diverged]
            what = reason(error)
            if members:
                more = f" and {len(members) - MOST_NAMED} more" if len(members) > MOST_NAMED else ""
                named = ", ".join(map(self.described, members[:MOST_NAMED])) + more
                self.reporter.note(f"warning: {what}. {consequence}: {named}; the others go on")
            found |= dict.fromkeys(members, what)
        return found

    def _advice(self) -> str:
        return ", ".join(f"algo.{n}" for n in ("max_grad_norm", "learning_rate") if hasattr(self.config.agent, n))

    @contextlib.contextmanager
    def _profile(self):
        """`profile=true`: a trace of the second chunk of this process, when everything is warm."""
        if self.config.settings.profile and len(self.history) == self.known + 1:
            with jax.profiler.trace(str(self.run / "profile")):
                yield
        else:
            yield

    def evaluate(self) -> float:
        """Greedy returns of the parameters as they are now: a row of evals.jsonl; -> their IQM over seeds."""
        self.returns = self.members.evaluate(self.population, self.keys(PERIODIC, self.update)).astype(np.float64)
        self.evaluated = self.update
        self._note_raised("Not evaluated")
        row = {"step": self.step, "returns": self.returns}
        self.evals.append(row)
        self.tensorboard.evaluation(row)
        return iqm(self.returns.mean(axis=1))

    def save(self, score: float | None) -> None:
        """A checkpoint of now. `score`: the evaluation of these very parameters, None if there is none."""
        with self.signals.held():
            self.metrics.sync()
            self.evals.sync()
            left_out = not self.config.settings.checkpoint_replay and bool(jax.tree.leaves(self.shapes.replay))
            arrays = checkpoint.flatten(self.members.to_host(self.population, replay=not left_out))
            meta = {"layout": self.layout(), "update": self.update, "metric_rows": self.metrics.rows,
                    "eval_rows": self.evals.rows, **({"replay": False} if left_out else {})}
            checkpoint.save(self.run, self.step, arrays, meta, keep=self.config.settings.keep, score=score)

    # ---------------------------------------------------------------- the end

    def finish(self, status: str, error: str | None) -> None:
        """summary.json, report.html, TensorBoard's hyperparameters and the result on the screen."""
        with self.signals.held():
            self._under_way = False
            self._finish(status, error)

    def _finish(self, status: str, error: str | None) -> None:
        s, m = self.config.settings, self.members
        seconds = self.history[-1]["seconds"] if self.history else 0.0
        done = self.step * m.count
        returns = None if self.returns is None else self.returns.mean(axis=1)
        summary = {
            "status": status, "algo": self.config.algo, "env": self.config.env.name, "num_seeds": s.num_seeds,
            "total_steps": self.step, "env_steps_all": done, "seconds": seconds,
            "compile_seconds": m.compile_seconds, "steps_per_second": done / seconds if seconds else None,
            "eval_returns": returns, "eval_iqm": None if returns is None else iqm(returns),
            "eval_ci95": None if returns is None else bootstrap_ci(self.returns),
            "train_returns": recent_returns(self.history, m.count),
            "best_step": (checkpoint.best(self.run) or (None,))[0], "error": error}
        folder.write_summary(self.run, summary)
        if self.tensorboard:
            self.tensorboard.finish(flat_hypers(self.config), summary)
        page.write(self.run)
        self.reporter.result(metrics.plain(summary), self.run)


@contextlib.contextmanager
def warnings_as_notes(reporter: Reporter):
    """What jaxrl itself warns of goes to the reporter, unless that one says nothing."""
    if isinstance(reporter, Silent):
        yield
        return
    home, show = str(Path(__file__).parents[1]), warnings.showwarning

    def note(message, category, filename, *rest, **more):
        if str(filename).startswith(home):
            reporter.note(f"warning: {message}")
        else:
            show(message, category, filename, *rest, **more)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning, module="jaxrl")
        warnings.showwarning = note
        yield


def flat_hypers(config: RunConfig) -> dict[str, float]:
    """Name -> number of the hyperparameters, as one types them."""
    return {f"algo.{name}": getattr(config.agent, name) for name in hypers(config.agent)._fields}


def recent_returns(history: list[dict], seeds: int, episodes: int = 100) -> list[float | None]:
    """Mean return per seed of the last completed training episodes, at least `episodes` of them if there were."""
    total, count = np.zeros(seeds), np.zeros(seeds)
    for row in reversed(history):
        wanted = (count < episodes) & (np.asarray(row["episodes"]) > 0)
        if not wanted.any() and (count >= episodes).all():
            break
        values = np.asarray([x or 0.0 for x in row["return_mean"]])
        total += np.where(wanted, values * np.asarray(row["episodes"]), 0.0)
        count += np.where(wanted, row["episodes"], 0.0)
    return [float(t / n) if n else None for t, n in zip(total, count)]
