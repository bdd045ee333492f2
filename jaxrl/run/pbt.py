"""Runs of population-based training: ordinary runs whose members copy from each other.

    RUN/pbt.yaml         the options, and the range of every hyperparameter that is explored
    RUN/lineage.jsonl    a row per round: step, fitness, source and new values of each member

A round happens before the chunk that follows an evaluation. So a checkpoint holds the members as
they were evaluated, and a run that is resumed there takes the same decisions again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from envs_jax.sizes import ceil_div
from jaxrl import config as configs
from jaxrl.config.axes import axis_of, known_settings, options_of
from jaxrl.config.overrides import Item, Several
from jaxrl.config.settings import RunConfig
from jaxrl.declare import Declaration, Range, declarations
from jaxrl.errors import Problem, UserError
from jaxrl.population.pbt import OPTIONS, Options, Values, decide, initial
from jaxrl.population.protocol import Population
from jaxrl.run import learners, loop
from jaxrl.run.launch import Launch
from jaxrl.run.reporter import Reporter
from jaxrl.storage import folder, metrics
from jaxrl.storage.lineage import LINEAGE

ROUNDS = 20                   # of a run, if the interval is left open
NO_EFFECT = {"num_seeds": "population= is the number of members",
             "eval_every": "members are evaluated every interval= steps",
             "stop_return": "all members train to total_steps",
             "schedule": "members find their own schedules"}


class Question(NamedTuple):
    """The question of a run of population-based training.

    ranges: hyperparameter -> the range in which it is explored.
    """

    options: Options
    ranges: dict[str, Range]
    config: RunConfig


def question(items: Iterable[Item], several: Iterable[Several],
             problems: Iterable[Problem] = ()) -> Question:
    """Return the question of parsed words. Raises UserError with all mistakes."""
    items = list(items)
    problems = list(problems)
    options, found = options_of(Options, items, list(several))
    problems += found
    given = {item.key for item in items}
    for key, why in NO_EFFECT.items():
        if key in given:
            problems.append(Problem(_no_effect(key, why)))
    several = [one for one in several if one.key not in OPTIONS]
    known = known_settings(items, several)
    ranges, found = _ranges(several, known)
    problems += found
    config = configs.from_items(_items(items, several, known, options), problems)
    if config.schedule:
        raise UserError(_no_effect("schedule", NO_EFFECT["schedule"]))
    interval = _interval(options, config.settings.total_steps)
    ranges = ranges or _search_ranges(config, given)
    if not ranges:
        raise UserError("there is nothing to explore: no hyperparameter has a range.",
                        "Add one: algo.learning_rate=range(1e-5,1e-2)")
    return Question(options, ranges, config.with_settings(eval_every=interval))


def _no_effect(key: str, why: str) -> str:
    return f"{key}= has no effect in PBT: {why}"


def _ranges(several: list[Several],
            known: Mapping[str, Declaration]) -> tuple[dict[str, Range], list[Problem]]:
    """Return (hyperparameter -> its range, mistakes)."""
    ranges: dict[str, Range] = {}
    problems: list[Problem] = []
    for one in several:
        axis, found = axis_of(one, known)
        if one.key in known and (known[one.key].kind != "hyper" or one.key.count(".") != 1):
            found = [Problem(f"{one.key} shapes the program: it cannot differ between members")]
        elif axis and axis.range:
            ranges[one.key.removeprefix("algo.")] = axis.range
        elif axis:
            low = min(axis.listed())
            high = max(axis.listed())
            found = [Problem(f"{one.key}={one.text} names several values; members explore a range: "
                             f"{one.key}=range({low:g},{high:g})")]
        problems += found
    return ranges, problems


def _items(items: list[Item], several: list[Several], known: Mapping[str, Declaration],
           options: Options) -> list[Item]:
    """Return the items of the config. Unknown keys stay in, so that its reader reports them."""
    found = []
    for item in items:
        if item.key not in OPTIONS and item.key not in ("num_seeds", "eval_every"):
            found.append(item)
    for one in several:
        if one.key not in known:
            found.append(Item(one.key, one.first(), None))
    return [*found, Item("num_seeds", options.population)]


def _interval(options: Options, total: int) -> int:
    """Return the steps between rounds. Raises UserError if there would be no round."""
    interval = options.interval or ceil_div(total, ROUNDS)
    if interval >= total > 1:
        raise UserError(f"interval={interval:,} is not less than total_steps={total:,}: there "
                        "would be no round.", f"Try: interval={ceil_div(total, ROUNDS)}")
    return interval


def _search_ranges(config: RunConfig, given: set[str]) -> dict[str, Range]:
    """Return the declared search ranges of all hyperparameters that are not given."""
    ranges = {}
    for d in declarations(type(config.agent)):
        if d.search and d.kind == "hyper" and f"algo.{d.name}" not in given:
            ranges[d.name] = d.search
    return ranges


def train(asked: Question, reporter: Reporter | None = None,
          command: Sequence[str] | None = None) -> Path:
    """Train a population and return the run folder. Raises as `loop.train` does."""
    return loop.train(asked.config, reporter, command, session=partial(PopulationSession, asked))


def resume(path: str | Path, overrides: Iterable[str] = (), reporter: Reporter | None = None, *,
           step: int | None = None, command: Sequence[str] | None = None) -> Path:
    """Continue a run as if it had not been interrupted. Raises as `loop.train` does."""
    overrides = list(overrides)
    keys = [word.partition("=")[0].lstrip("+") for word in overrides]
    problems = [_no_effect(key, NO_EFFECT[key]) for key in keys if key in NO_EFFECT]
    if problems:
        raise UserError(problems)
    asked = read(folder.open_run(path))
    return loop.resume(path, overrides, reporter, step=step, command=command,
                       session=partial(PopulationSession, asked))


def read(run: Path) -> Question:
    """Return the question of a stored run."""
    plain = configs.load_yaml(run / folder.PBT)
    ranges = {name: Range(*ends) for name, ends in plain.pop("ranges").items()}
    return Question(Options(**plain), ranges, configs.from_file(run / folder.CONFIG))


class PopulationSession(loop.Session):
    """A session whose members are a population.

    Fitness is the greedy return, from the same starts for all members.
    """

    noun = "member"

    def __init__(self, asked: Question, run: Path, launch: Launch, reporter: Reporter, *,
                 members: Population, meta: dict | None = None):
        """Open the files of a run. The other arguments are those of `Session`."""
        super().__init__(run, launch, reporter, members=members, meta=meta)
        self.options = asked.options
        self.ranges = asked.ranges
        self.lineage = metrics.Rows(run, LINEAGE)
        self._open.callback(self.lineage.close)

    def keys(self, stream: int, step: int = 0) -> jax.Array:
        """Return one key for each member to train with, the same key for all to be evaluated."""
        keys = super().keys(stream, step)
        return keys if stream == learners.TRAIN else keys[np.zeros(len(keys), int)]

    def described(self, member: int) -> str:
        """Return the name of a member with the values that it explores."""
        values = [f"{name}={getattr(self.hyper, name)[member]:.3g}" for name in self.ranges]
        return f"{self.who(member)} ({', '.join(values)})"

    def describe(self, command: Sequence[str] | None) -> None:
        """Write pbt.yaml and the files of every run, and show the header."""
        ranges = {name: list(range) for name, range in self.ranges.items()}
        plain = {**vars(self.options), "ranges": ranges}
        folder.write_atomic(self.run / folder.PBT, configs.dump_yaml(plain).encode())
        super().describe(command)

    def changing(self) -> str:
        """Return the part of the header on rounds and explored hyperparameters."""
        rounds = ceil_div(self.plan.total, self.plan.evaluate) - 1
        explored = [f"{name} {x.low:g}..{x.high:g}" for name, x in self.ranges.items()]
        return f"; {rounds} rounds, exploit {self.options.exploit}: {', '.join(explored)}"

    def start(self, agent: Any = None, hyper: Any = None) -> None:
        """Make fresh members with hyperparameters drawn from their ranges."""
        values = initial(self.ranges, self.options.population, self.config.settings.seed)
        shared = jax.tree.map(np.asarray, learners.spread(self.config))
        super().start(agent, self._with(shared, values))
        self._record(0, np.arange(self.members.count), None, values)

    def restore(self, arrays: dict[str, np.ndarray], *, rewind: bool) -> None:
        """Restore a checkpoint. Rounds after it are decided again."""
        super().restore(arrays, rewind=rewind)
        rows = metrics.read(self.run, LINEAGE)
        kept = [row for row in rows if row["step"] < max(self.step, 1)]
        self.lineage.truncate_to(len(kept))

    def before_chunk(self) -> None:
        """Start a round if an interval has just ended."""
        if self.returns is None or self.evaluated != self.update:
            return
        if self.update and self.update % self.plan.evaluate == 0:
            self._round(self.update // self.plan.evaluate, self.returns)

    def _round(self, number: int, returns: np.ndarray) -> None:
        fitness = returns.mean(axis=1)
        fitness[list(self.diverged.messages)] = np.nan
        values = {name: getattr(self.hyper, name) for name in self.ranges}
        seed = self.config.settings.seed
        source, values = decide(self.options, self.ranges, seed, number, fitness, values)
        if (source != np.arange(len(source))).any():
            self.hyper = self._with(jax.tree.map(lambda x: x[source], self.hyper), values)
            self.population = self.members.copy(self.population, source, self.hyper)
            messages = self.diverged.messages
            self.diverged.messages = {m: text for m, text in messages.items() if source[m] == m}
        self._record(self.step, source, fitness, values)

    def _record(self, step: int, source: np.ndarray, fitness: np.ndarray | None,
                values: Values) -> None:
        self.lineage.append({"step": step, "fitness": fitness, "source": source, **values})
        self.lineage.sync()

    def _with(self, hyper: Any, values: Mapping[str, np.ndarray]) -> Any:
        return hyper._replace(**{name: x.astype(np.float32) for name, x in values.items()})
