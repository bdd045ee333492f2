"""What a sweep varies, read from words (`algo.learning_rate=1e-4,3e-4`) or Python values, and how it searches."""

from __future__ import annotations

import itertools
import typing
from collections.abc import Iterable, Mapping
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

    search: str = static("grid", choices=searches, help="grid: every combination; random; asha: random, and the worse "
                         "are pruned early; optuna: TPE")
    trials: int = static(64, low=1, high=100_000, help="how many trials; a grid has as many as combinations")
    eta: int = static(4, low=2, high=1000, help="asha: one trial of eta goes on from a rung")
    grace: int | None = static(None, low=1, high=10**15, help="asha: steps before the first pruning; null: "
                               "total_steps / eta^3, more where trials are few")
    batch: int = static(8, low=1, high=10_000, help="optuna: trials that are asked for, and trained, at once")
    block: int | None = static(None, low=1, high=100_000, help="trials that one call of the compiled program trains; "
                               "null: 1 on a CPU, more on a GPU")


OPTIONS = {d.name: d for d in declarations(Options)}
MOST_GROUPS = 200         # combinations of static values that are tried out before anything is trained
FIXED = {"preset", "config", *SETTINGS}          # what trials share: everything but algo, env and what belongs to them


class Axis(NamedTuple):
    """A key that differs between trials: one of `choices`, or drawn from `range`. hyper: a number that is data, so
    that trials which differ in it share a compiled program."""

    key: str
    hyper: bool
    choices: tuple | None = None
    range: Range | None = None

    def text(self) -> str:
        """As a person writes it."""
        if self.range is None:
            return f"{self.key}={','.join(map(short, self.choices))}"
        return f"{self.key}={short(self.range.low)}..{short(self.range.high)}{' (log)' if self.range.log else ''}"


class Question(NamedTuple):
    """What a sweep is asked: how to search, what differs, what all trials share, and the config of the first one."""

    options: Options
    axes: tuple[Axis, ...]
    fixed: tuple[Item, ...]
    config: RunConfig

    def of(self, values: Mapping[str, Any]) -> RunConfig:
        """The config of a trial, or with the static values alone that of all trials which share a program."""
        return configs.from_items([*self.fixed, *(Item(key, value) for key, value in values.items())])


def question(items: Iterable[Item], several: Iterable[Several], problems: Iterable[Problem] = ()) -> Question:
    """Raises UserError with all that is wrong."""
    items, several, problems = list(items), list(several), list(problems)
    options, bad = options_of(Options, items, several)
    problems += bad
    fixed = [item for item in items if item.key not in OPTIONS]
    several = [one for one in several if one.key not in OPTIONS]
    axes, first = [], []
    known = known_settings(fixed, several)
    fixed += [Item(one.key, list(one.choices)) for one in several if _is_value(one, known)]
    several = [one for one in several if not _is_value(one, known)]
    for one in several:
        axis, bad = axis_of(one, known)
        problems += bad
        axes += [axis] if axis else []
        if one.key not in known or one.key in ("algo", "env"):    # an unknown key is reported by the config's reader
            first.append(Item(one.key, one.choices[0] if one.choices else one.ends[0], None))
        elif axis and one.key not in FIXED:
            first.append(Item(one.key, axis.choices[0] if axis.choices else axis.range.low))
    config = configs.from_items([*fixed, *first], problems)
    if not axes and options.search != "grid":
        axes = _all_ranges(config, {item.key for item in fixed})
    _check(options, axes, config)
    asked = Question(options, tuple(axes), tuple(fixed), config)
    _check_groups(asked)
    return asked


def _is_value(one: Several, known: Mapping[str, Declaration]) -> bool:
    """Whether what came from Python as a list is one value, such as [64, 64], and no list of these."""
    kind = strip_optional(known[one.key].type)[0] if one.key in known else None
    return one.text is None and typing.get_origin(kind) is tuple and bool(one.choices) and not any(
        isinstance(x, list | tuple) for x in one.choices)


def options_of(kind: type, items: list[Item], several: list[Several]) -> tuple[Any, list[Problem]]:
    """The keys of a command that are fields of the dataclass `kind`, checked."""
    known, values, problems = {d.name: d for d in declarations(kind)}, {}, []
    for item in items:
        if item.key in known:
            values[item.key], problem = check(known[item.key], item.key, item.value, item.text)
            problems += [problem] if problem else []
    problems += [Problem(f"{one.key}={one.text} names several values, it takes one")
                 for one in several if one.key in known]
    return kind(**values), problems


def known_settings(fixed: list[Item], several: list[Several]) -> dict[str, Declaration]:
    """Every setting of the algorithms and environments that are named."""
    names: dict[str, list] = {"algo": [], "env": []}
    for one in [*fixed, *several]:
        if one.key in names:
            names[one.key] += one.choices or () if isinstance(one, Several) else [one.value]
        if one.key == "config" and isinstance(one, Item):
            plain = configs.load_yaml(one.value)
            for key, found in names.items():
                found.append(plain[key].get("name") if isinstance(plain.get(key), dict) else plain.get(key))
    known = {key: Declaration(key, str, None, "static", "") for key in names}
    for algo in [name for name in names["algo"] if isinstance(name, str) and name in algorithms()] or [None]:
        known = {**declared(algo), **known}
    for env in [name for name in names["env"] if isinstance(name, str) and name in environments()]:
        known = {**declared_of_env(env), **known}
    return known


def axis_of(one: Several, known: Mapping[str, Declaration]) -> tuple[Axis | None, list[Problem]]:
    """What a word varies, its values checked and converted."""
    shown = f"{one.key}={one.text}" if one.text else one.key
    declaration = known.get(one.key)
    if declaration is None:
        return None, []
    if one.key in FIXED:
        more = ". Every trial has num_seeds= seeds" if one.key in ("seed", "num_seeds") else ""
        return None, [Problem(f"{shown}: {one.key} is the same for all trials of a sweep{more}")]
    hyper = declaration.kind == "hyper" and one.key.count(".") == 1
    if one.choices is None:
        return _range(one, declaration, hyper, shown)
    values, problems = [], []
    tables = {"algo": algorithms, "env": environments}
    if one.key in tables:
        problems += [unknown(one.key, str(name), tables[one.key](), f"jaxrl list {one.key}s")
                     for name in one.choices if name not in tables[one.key]()]
    for value in one.choices:
        try:
            values.append(convert(declaration, value))
        except (Wrong, OverflowError) as wrong:
            problems.append(Problem(f"{one.key}={quoted(value)}{wrong}"))
    if not one.choices:
        problems.append(Problem(f"{shown} names no value"))
    twice = [value for i, value in enumerate(values) if value in values[:i]]
    problems += [Problem(f"{shown} names {short(value)} twice") for value in twice[:1]]
    return (None if problems else Axis(one.key, hyper, choices=tuple(values))), problems


def _range(one: Several, declaration: Declaration, hyper: bool, shown: str) -> tuple[Axis | None, list[Problem]]:
    if not hyper:
        return None, [Problem(f"{shown}: {one.key} shapes the compiled program, a sweep takes a few values of it: "
                              f"{one.key}=A,B")]
    ends, problems = [], []
    for end in one.ends:
        value, problem = check(declaration, one.key, end)
        ends.append(value)
        problems += [problem] if problem else []
    if problems:
        return None, problems
    log = one.log or bool(declaration.search and declaration.search.log)
    if not ends[0] < ends[1]:
        problems.append(Problem(f"{shown} is empty: the first end is to be the smaller one"))
    elif log and ends[0] <= 0:
        why = "" if one.log else f", by which {one.key} is compared. Give a positive end"
        problems.append(Problem(f"{shown} begins at {short(ends[0])}, which has no logarithm{why}"))
    return (None if problems else Axis(one.key, True, range=Range(*ends, log))), problems


def _all_ranges(config: RunConfig, given: set[str]) -> list[Axis]:
    """Every hyperparameter with a declared search range that the user did not fix."""
    return [Axis(f"algo.{d.name}", True, range=d.search) for d in declarations(type(config.agent))
            if d.search and d.kind == "hyper" and "." not in d.name and f"algo.{d.name}" not in given]


def _check(options: Options, axes: list[Axis], config: RunConfig) -> None:
    """What a search needs."""
    problems = []
    if not axes:
        example = next((d for d in declarations(type(config.agent)) if d.search), None)
        text = f"algo.{example.name}={short(example.search.low)},{short(example.search.high)}" if example else "KEY=A,B"
        problems.append(Problem("nothing to sweep: no setting has several values.", f"Such as: {text}" + (
            ", or search=random over all search ranges" if options.search == "grid" and example else "")))
    if options.search == "grid":
        problems += [Problem(f"{axis.key} has a range, a grid takes values: {axis.key}=A,B,C, or search=random")
                     for axis in axes if axis.range]
    if options.grace and options.search == "asha" and options.grace > config.settings.total_steps:
        problems.append(Problem(f"grace={options.grace:,} is more than total_steps="
                                f"{config.settings.total_steps:,}: nothing would be pruned"))
    problems += [Problem(f"{key}={short(value)} has no effect in a sweep: all trials {why}") for key, value, why in (
        ("stop_return", config.settings.stop_return, "have the same total_steps"),
        ("schedule", config.schedule and "...", "differ in what is swept"),
        ("init_from", config.settings.init_from, "start afresh"),
        ("profile", config.settings.profile or None, "are trained together")) if value is not None]
    if problems:
        raise UserError(problems)


def _check_groups(asked: Question) -> None:
    """That every combination of static values makes a config: said before anything is trained."""
    axes = [axis for axis in asked.axes if not axis.hyper]
    problems: dict[Problem, None] = {}
    for values in itertools.islice(itertools.product(*(axis.choices for axis in axes)), MOST_GROUPS):
        try:
            asked.of(dict(zip((axis.key for axis in axes), values)))
        except UserError as error:
            where = " ".join(f"{axis.key}={short(value)}" for axis, value in zip(axes, values))
            problems |= {Problem(f"{problem.message} ({where})", problem.hint): None for problem in error.problems}
    if problems:
        raise UserError(list(problems)[:10])
