"""Settings that a sweep varies, and the options of its search.

They are read from words (`algo.learning_rate=1e-4,3e-4`) or from Python values.
"""

from __future__ import annotations

import itertools
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxrl import config as configs
from jaxrl.config.check import Wrong, check, convert, quoted, short, strip_optional
from jaxrl.config.overrides import Item, Several
from jaxrl.config.reading import declared, declared_of_env
from jaxrl.config.settings import SETTINGS, RunConfig
from jaxrl.declare import Declaration, Range, declarations, static
from jaxrl.errors import Problem, UserError
from jaxrl.registry import algorithms, environments, searches, unknown


@dataclass(frozen=True)
class Options:
    """The keys of a sweep beside those of a run."""

    search: str = static("grid", choices=searches, help=(
        "search method; grid: every combination; random: random values; asha: random values, "
        "poor trials stop early; optuna: TPE"))
    trials: int = static(64, low=1, high=100_000, help=(
        "number of trials; a grid has one for each combination"))
    eta: int = static(4, low=2, high=1000, help=(
        "reduction factor of asha: one trial in eta continues from each rung"))
    grace: int | None = static(None, low=1, high=10**15, help=(
        "environment steps before asha first stops trials; null: total_steps / eta^3, "
        "more if there are few trials"))
    batch: int = static(8, low=1, high=10_000, help=(
        "number of trials that optuna proposes, and that are trained, at once"))
    block: int | None = static(None, low=1, high=100_000, help=(
        "number of trials that one call of the compiled program trains; null: 1 on a CPU, "
        "more on a GPU"))


OPTIONS = {d.name: d for d in declarations(Options)}
MOST_GROUPS = 200         # combinations of static values that are checked before training
FIXED = {"preset", "config", *SETTINGS}     # keys that are the same for all trials
TABLES: dict[str, Callable[[], dict[str, str]]] = {"algo": algorithms, "env": environments}


class Axis(NamedTuple):
    """A key that differs between trials: one of `choices`, or drawn from `range`.

    hyper: whether the values are data, so that trials which differ in them share a compiled
    program.
    """

    key: str
    hyper: bool
    choices: tuple[Any, ...] | None = None
    range: Range | None = None

    def listed(self) -> tuple[Any, ...]:
        """Return the choices; a range has none."""
        return self.choices or ()

    def first(self) -> Any:
        """Return the first value: a choice, or the low end of the range."""
        return next(iter(self.choices or self.range or ()))

    def text(self) -> str:
        """Return the axis as a person writes it."""
        if self.range is None:
            return f"{self.key}={','.join(map(short, self.listed()))}"
        scale = " (log)" if self.range.log else ""
        return f"{self.key}={short(self.range.low)}..{short(self.range.high)}{scale}"


class Question(NamedTuple):
    """A sweep to be made: options, axes, fixed settings, and the config of the first trial."""

    options: Options
    axes: tuple[Axis, ...]
    fixed: tuple[Item, ...]
    config: RunConfig

    def of(self, values: Mapping[str, Any]) -> RunConfig:
        """Return the config of a trial.

        The static values alone give the config that all trials of one compiled program share.
        """
        varied = [Item(key, value) for key, value in values.items()]
        return configs.from_items([*self.fixed, *varied])


def question(
    items: Iterable[Item], several: Iterable[Several], problems: Iterable[Problem] = ()
) -> Question:
    """Return the sweep that parsed words ask for. Raises UserError with all that is wrong."""
    items = list(items)
    several = list(several)
    problems = list(problems)
    options, bad = options_of(Options, items, several)
    problems += bad
    fixed = [item for item in items if item.key not in OPTIONS]
    several = [one for one in several if one.key not in OPTIONS]
    known = known_settings(fixed, several)
    fixed += [Item(one.key, list(one.listed())) for one in several if _is_value(one, known)]
    several = [one for one in several if not _is_value(one, known)]
    axes = []
    first = []
    for one in several:
        axis, bad = axis_of(one, known)
        problems += bad
        if axis:
            axes.append(axis)
        if one.key not in known or one.key in TABLES:       # the config's reader reports wrong ones
            first.append(Item(one.key, one.first(), None))
        elif axis and one.key not in FIXED:
            first.append(Item(one.key, axis.first()))
    config = configs.from_items([*fixed, *first], problems)
    if not axes and options.search != "grid":
        axes = _all_ranges(config, {item.key for item in fixed})
    _check(options, axes, config)
    asked = Question(options, tuple(axes), tuple(fixed), config)
    _check_groups(asked)
    return asked


def _is_value(one: Several, known: Mapping[str, Declaration]) -> bool:
    """Tell whether a list from Python is one value, such as [64, 64], and not a list of values."""
    if one.key not in known or one.text is not None or not one.choices:
        return False
    kind, _ = strip_optional(known[one.key].type)
    nested = any(isinstance(x, list | tuple) for x in one.choices)
    return typing.get_origin(kind) is tuple and not nested


def options_of(
    kind: type, items: list[Item], several: list[Several]
) -> tuple[Any, list[Problem]]:
    """Return (options, problems) of the keys that are fields of the dataclass `kind`."""
    known = {d.name: d for d in declarations(kind)}
    values = {}
    problems = []
    for item in items:
        if item.key in known:
            values[item.key], problem = check(known[item.key], item.key, item.value, item.text)
            if problem:
                problems.append(problem)
    for one in several:
        if one.key in known:
            problems.append(Problem(f"{one.key}={one.text} names several values, "
                                    f"{one.key} takes one"))
    return kind(**values), problems


def known_settings(fixed: list[Item], several: list[Several]) -> dict[str, Declaration]:
    """Return key -> declaration of every setting of the algorithms and environments named."""
    names = _names(fixed, several)
    known = {key: Declaration(key, str, None, "static", "") for key in TABLES}
    algos: list[str | None] = [*_in_table(names["algo"], algorithms())]
    for algo in algos or [None]:
        known = {**declared(algo), **known}
    for env in _in_table(names["env"], environments()):
        known = {**declared_of_env(env), **known}
    return known


def _in_table(names: list[Any], table: Mapping[str, str]) -> list[str]:
    return [name for name in names if isinstance(name, str) and name in table]


def _names(fixed: list[Item], several: list[Several]) -> dict[str, list[Any]]:
    """Return the algorithms and environments that are named, by "algo" and "env"."""
    names: dict[str, list[Any]] = {key: [] for key in TABLES}
    for item in fixed:
        if item.key in names:
            names[item.key].append(item.value)
        if item.key == "config":
            plain = configs.load_yaml(item.value)
            for key, found in names.items():
                value = plain.get(key)
                found.append(value.get("name") if isinstance(value, dict) else value)
    for one in several:
        if one.key in names:
            names[one.key] += one.listed()
    return names


def axis_of(one: Several, known: Mapping[str, Declaration]) -> tuple[Axis | None, list[Problem]]:
    """Return (axis, problems) of a key with several values, which are checked and converted."""
    shown = f"{one.key}={one.text}" if one.text else one.key
    declaration = known.get(one.key)
    if declaration is None:
        return None, []
    if one.key in FIXED:
        more = ""
        if one.key in ("seed", "num_seeds"):
            more = ". Every trial has num_seeds= seeds"
        return None, [Problem(f"{shown}: {one.key} is the same for all trials of a sweep{more}")]
    hyper = declaration.kind == "hyper" and one.key.count(".") == 1
    if one.choices is not None:
        return _choices(one, declaration, hyper, shown)
    if not hyper:
        return None, [Problem(f"{shown}: {one.key} shapes the compiled program, so a sweep takes "
                              f"single values: {one.key}=A,B")]
    return _range(one, declaration, shown)


def _choices(
    one: Several, declaration: Declaration, hyper: bool, shown: str
) -> tuple[Axis | None, list[Problem]]:
    problems = []
    if one.key in TABLES:
        table = TABLES[one.key]()
        problems += [unknown(one.key, str(name), table, f"jaxrl list {one.key}s")
                     for name in one.listed() if name not in table]
    values: list[Any] = []
    twice = []
    for given in one.listed():
        try:
            value = convert(declaration, given)
        except (Wrong, OverflowError) as wrong:
            problems.append(Problem(f"{one.key}={quoted(given)}{wrong}"))
            continue
        if value in values:
            twice.append(value)
        values.append(value)
    if not values and not problems:
        problems.append(Problem(f"{shown} names no value"))
    if twice:
        problems.append(Problem(f"{shown} names {short(twice[0])} twice"))
    if problems:
        return None, problems
    return Axis(one.key, hyper, choices=tuple(values)), []


def _range(
    one: Several, declaration: Declaration, shown: str
) -> tuple[Axis | None, list[Problem]]:
    ends = []
    problems = []
    for end in one.ends or ():
        value, problem = check(declaration, one.key, end)
        ends.append(value)
        if problem:
            problems.append(problem)
    if problems:
        return None, problems
    low, high = ends
    log = one.log or bool(declaration.search and declaration.search.log)
    if not low < high:
        return None, [Problem(f"{shown} is empty: the first end must be the smaller one")]
    if log and low <= 0:
        why = "" if one.log else f", and {one.key} is searched on a log scale. Give a positive end"
        return None, [Problem(f"{shown} begins at {short(low)}, which has no logarithm{why}")]
    return Axis(one.key, True, range=Range(low, high, log)), []


def _all_ranges(config: RunConfig, given: set[str]) -> list[Axis]:
    """Return every hyperparameter that has a search range and that the user did not fix."""
    axes = []
    for d in declarations(type(config.agent)):
        if d.search and d.kind == "hyper" and "." not in d.name and f"algo.{d.name}" not in given:
            axes.append(Axis(f"algo.{d.name}", True, range=d.search))
    return axes


def _check(options: Options, axes: list[Axis], config: RunConfig) -> None:
    """Raise UserError if a search lacks axes, or if settings do not fit a sweep."""
    problems = []
    if not axes:
        problems.append(_nothing_to_sweep(options, config))
    if options.search == "grid":
        problems += [Problem(f"{axis.key} has a range, but a grid takes values: {axis.key}=A,B,C, "
                             "or search=random") for axis in axes if axis.range]
    settings = config.settings
    total = settings.total_steps
    if options.grace and options.search == "asha" and options.grace > total:
        problems.append(Problem(f"grace={options.grace:,} is more than total_steps={total:,}: "
                                "no trial would be pruned"))
    for key, value, why in (
            ("stop_return", settings.stop_return, "have the same total_steps"),
            ("schedule", config.schedule and "...", "differ in what is swept"),
            ("init_from", settings.init_from, "start afresh"),
            ("profile", settings.profile or None, "are trained together")):
        if value is not None:
            problems.append(Problem(
                f"{key}={short(value)} has no effect in a sweep: all trials {why}"))
    if problems:
        raise UserError(problems)


def _nothing_to_sweep(options: Options, config: RunConfig) -> Problem:
    text = "nothing to sweep: no setting has several values."
    for d in declarations(type(config.agent)):
        if d.search is not None:
            hint = f"Such as: algo.{d.name}={short(d.search.low)},{short(d.search.high)}"
            if options.search == "grid":
                hint += ", or search=random over all search ranges"
            return Problem(text, hint)
    return Problem(text, "Such as: KEY=A,B")


def _check_groups(asked: Question) -> None:
    """Raise UserError if a combination of static values makes no config.

    This is checked before anything is trained.
    """
    axes = [axis for axis in asked.axes if not axis.hyper]
    problems: dict[Problem, None] = {}
    combinations = itertools.product(*(axis.listed() for axis in axes))
    for values in itertools.islice(combinations, MOST_GROUPS):
        chosen = {axis.key: value for axis, value in zip(axes, values)}
        try:
            asked.of(chosen)
        except UserError as error:
            where = " ".join(f"{key}={short(value)}" for key, value in chosen.items())
            for problem in error.problems:
                problems[Problem(f"{problem.message} ({where})", problem.hint)] = None
    if problems:
        raise UserError(list(problems)[:10])
