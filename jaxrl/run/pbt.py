"""Runs of population-based training: ordinary runs whose members copy from each other between intervals.

    RUN/pbt.yaml         what was asked: the options, and the range of every hyperparameter that is explored
    RUN/lineage.jsonl    a row per round: step, fitness, whom each member goes on from, its values from there on

A round happens before the chunk that follows an evaluation, so a checkpoint holds the members as they were evaluated,
and a run that is resumed there decides the same again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl import config as configs
from jaxrl.config.axes import axis_of, known_settings, options_of
from jaxrl.config.overrides import Item, Several
from jaxrl.config.settings import RunConfig
from jaxrl.declare import Range, declarations
from jaxrl.errors import Problem, UserError
from jaxrl.population.pbt import OPTIONS, Options, Values, decide, initial
from jaxrl.run import learners, loop
from jaxrl.run.reporter import Reporter
from jaxrl.storage import folder, metrics
from jaxrl.storage.lineage import LINEAGE

ROUNDS = 20                      # of a run, where the interval is left open
NO_EFFECT = {"num_seeds": "population= is the number of members",
             "eval_every": "members are evaluated every interval= steps",
             "stop_return": "members go on to total_steps",
             "schedule": "members find schedules of their own"}


class Question(NamedTuple):
    """What a run of PBT is asked for."""

    options: Options
    ranges: dict[str, Range]     # hyperparameter -> where it may go
    config: RunConfig


def question(items: Iterable[Item], several: Iterable[Several], problems: Iterable[Problem] = ()) -> Question:
    """From parsed words. Raises UserError with all that is wrong."""
    items, several, problems = list(items), list(several), list(problems)
    options, bad = options_of(Options, items, several)
    problems += bad
    several = [one for one in several if one.key not in OPTIONS]
    given = {item.key for item in items}
    problems += [Problem(f"{key}= has no effect in PBT: {why}") for key, why in NO_EFFECT.items() if key in given]
    known = known_settings(items, several)
    ranges: dict[str, Range] = {}
    for one in several:
        axis, bad = axis_of(one, known)
        if one.key in known and (known[one.key].kind != "hyper" or one.key.count(".") != 1):
            bad = [Problem(f"{one.key} shapes the program: it cannot differ between members")]
        elif axis and axis.range is None:
            bad = [Problem(f"{one.key}={one.text} names several values; members explore a range: "
                           f"{one.key}=range({min(axis.choices):g},{max(axis.choices):g})")]
        elif axis:
            ranges[one.key.removeprefix("algo.")] = axis.range
        problems += bad
    unknown = [Item(one.key, one.choices[0] if one.choices else one.ends[0], None) for one in several
               if one.key not in known]
    own = [item for item in items if item.key not in OPTIONS and item.key not in ("num_seeds", "eval_every")]
    config = configs.from_items([*own, *unknown, Item("num_seeds", options.population)], problems)
    if config.schedule:
        raise UserError(f"schedule= has no effect in PBT: {NO_EFFECT['schedule']}")
    every, total = options.interval or -(-config.settings.total_steps // ROUNDS), config.settings.total_steps
    if every >= total > 1:
        raise UserError(f"interval={every:,} is not less than total_steps={total:,}: there would be no round.",
                        f"Try: interval={-(-total // ROUNDS)}")
    ranges = ranges or {d.name: d.search for d in declarations(type(config.agent))
                        if d.search and d.kind == "hyper" and f"algo.{d.name}" not in given}
    if not ranges:
        raise UserError("nothing to explore: no hyperparameter has a range.",
                        "Such as: algo.learning_rate=range(1e-5,1e-2)")
    return Question(options, ranges, config.with_settings(eval_every=every))


def train(asked: Question, reporter: Reporter | None = None, command: Sequence[str] | None = None) -> Path:
    """Train a population; -> the run folder. Raises as `loop.train` does."""
    return loop.train(asked.config, reporter, command, session=partial(PopulationSession, asked))


def resume(path: str | Path, overrides: Iterable[str] = (), reporter: Reporter | None = None, *,
           step: int | None = None, command: Sequence[str] | None = None) -> Path:
    """Go on with a run of PBT, as if it had not been interrupted."""
    overrides = list(overrides)
    keys = [word.partition("=")[0].lstrip("+") for word in overrides]
    if fixed := [f"{key}= has no effect in PBT: {NO_EFFECT[key]}" for key in keys if key in NO_EFFECT]:
        raise UserError(fixed)
    asked = read(folder.open_run(path))
    return loop.resume(path, overrides, reporter, step=step, command=command, session=partial(PopulationSession, asked))


def read(run: Path) -> Question:
    """What a stored run was asked for."""
    plain = configs.load_yaml(run / folder.PBT)
    ranges = {name: Range(*ends) for name, ends in plain.pop("ranges").items()}
    return Question(Options(**plain), ranges, configs.from_file(run / folder.CONFIG))


class PopulationSession(loop.Session):
    """A session whose members are a population: fitness is the greedy return, from the same starts for all."""

    noun = "member"

    def __init__(self, asked: Question, run: Path, config: RunConfig, *args: Any, **more: Any):
        super().__init__(run, config, *args, **more)
        self.options, self.ranges = asked.options, asked.ranges
        self.lineage = metrics.Rows(run, LINEAGE)
        self._open.callback(self.lineage.close)

    def keys(self, stream: int, step: int = 0) -> jax.Array:
        """One for each member to train with; the same for all to be evaluated with."""
        own = super().keys(stream, step)
        return own if stream == learners.TRAIN else own[np.zeros(len(own), int)]

    def described(self, member: int) -> str:
        """Its name, with what it explores."""
        values = ", ".join(f"{name}={getattr(self.hyper, name)[member]:.3g}" for name in self.ranges)
        return f"{self.who(member)} ({values})"

    def describe(self, command: Sequence[str] | None) -> None:
        """Its options and ranges, too."""
        plain = vars(self.options) | {"ranges": {name: list(range) for name, range in self.ranges.items()}}
        folder.write_atomic(self.run / folder.PBT, configs.dump_yaml(plain).encode())
        super().describe(command)

    def changing(self) -> str:
        """For the header: how often who copies, and what is explored."""
        rounds = -(-self.plan.total // self.plan.evaluate) - 1
        explored = ", ".join(f"{name} {range.low:g}..{range.high:g}" for name, range in self.ranges.items())
        return f"; {rounds} rounds, exploit {self.options.exploit}: {explored}"

    def start(self, agent: Any = None, hyper: Any = None) -> None:
        """Members with hyperparameters drawn from their ranges."""
        values = initial(self.ranges, self.options.population, self.config.settings.seed)
        super().start(agent, self._with(jax.tree.map(np.asarray, learners.spread(self.config)), values))
        self._record(0, np.arange(self.members.count), None, values)

    def restore(self, arrays: dict[str, np.ndarray], *, rewind: bool) -> None:
        """Rounds after the checkpoint are decided again."""
        super().restore(arrays, rewind=rewind)
        kept = [row for row in metrics.read(self.run, LINEAGE) if row["step"] < max(self.step, 1)]
        self.lineage.truncate_to(len(kept))

    def before_chunk(self) -> None:
        """A round, where an interval has just ended."""
        if self.update and self.update % self.plan.evaluate == 0 and self.evaluated == self.update:
            self._round(self.update // self.plan.evaluate)

    def _round(self, number: int) -> None:
        fitness = self.returns.mean(axis=1)
        fitness[list(self.diverged)] = np.nan
        values = {name: getattr(self.hyper, name) for name in self.ranges}
        source, values = decide(self.options, self.ranges, self.config.settings.seed, number, fitness, values)
        if (source != np.arange(len(source))).any():
            self.hyper = self._with(jax.tree.map(lambda x: x[source], self.hyper), values)
            self.population = self.members.copy(self.population, source, self.hyper)
            self.diverged = {m: text for m, text in self.diverged.items() if source[m] == m}
        self._record(self.step, source, fitness, values)

    def _record(self, step: int, source: np.ndarray, fitness: np.ndarray | None, values: Values) -> None:
        self.lineage.append({"step": step, "fitness": fitness, "source": source, **values})
        self.lineage.sync()

    def _with(self, hyper: Any, values: Mapping[str, np.ndarray]) -> Any:
        return hyper._replace(**{name: value.astype(np.float32) for name, value in values.items()})
