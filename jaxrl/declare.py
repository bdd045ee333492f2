"""Declarations of settings: type, default, range, search range and help on a config's field.

`static` fields shape the compiled program. `hyper` fields are numbers that become arrays in
`TrainState.hyper`, so that changing one never recompiles and the members of a population may hold
different values. Validation, `jaxrl list`, sweeps and PBT read the declaration; YAML never repeats
a default.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple


class Range(NamedTuple):
    """A search range. `log`: whether draws are uniform in the logarithm."""

    low: float
    high: float
    log: bool = False


def log_range(low: float, high: float) -> Range:
    """Return a search range that is uniform in the logarithm."""
    return Range(low, high, True)


class Declaration(NamedTuple):
    """One setting. `kind` is "static" or "hyper"."""

    name: str
    type: Any
    default: Any
    kind: str
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None
    search: Range | None = None


def static(
    default: Any,
    *,
    help: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | Callable[[], Iterable[str]] | None = None,
) -> Any:
    """Declare a field that shapes the program (sizes, structure): a change recompiles.

    choices: the allowed values, or a function that returns them, for a table that packages extend.
    """
    metadata = {"kind": "static", "help": help, "low": low, "high": high, "choices": choices,
                "search": None}
    return dataclasses.field(default=default, metadata=metadata)


def hyper(
    default: float, *, help: str, low: float, high: float, search: Range | None = None
) -> Any:
    """Declare a number that is data: traced, so that a change never recompiles.

    The members of a population may hold different values.
    """
    metadata = {"kind": "hyper", "help": help, "low": low, "high": high, "choices": None,
                "search": search}
    return dataclasses.field(default=float(default), metadata=metadata)


def nested(config_type: type, **changes: Any) -> Any:
    """Declare a field that is itself a config dataclass. `changes` are other defaults."""
    return dataclasses.field(
        default_factory=lambda: config_type(**changes), metadata={"kind": "nested", "help": ""})


def defaults(config_type: type, **changes: Any) -> type:
    """Return a base class with other defaults: `class Config(defaults(Base, num_envs=16)): ...`

    Raises TypeError if `config_type` has no such field.
    """
    hints = typing.get_type_hints(config_type)
    fields = {field.name: field for field in dataclasses.fields(config_type)}
    if unknown := set(changes) - set(fields):
        raise TypeError(f"{config_type.__name__} has no {', '.join(sorted(unknown))}")
    changed = [
        (name, hints[name], dataclasses.field(default=value, metadata=fields[name].metadata))
        for name, value in changes.items()]
    return dataclasses.make_dataclass(
        config_type.__name__, changed, bases=(config_type,), frozen=True)


def declarations(config_type: type, prefix: str = "") -> Iterator[Declaration]:
    """Yield every setting of a config dataclass, in the order of declaration.

    Nested settings have dotted names.
    """
    hints = typing.get_type_hints(config_type)
    for field in dataclasses.fields(config_type):
        if field.metadata.get("kind") == "nested":
            default = field.default_factory()
            for inner in declarations(type(default), f"{prefix}{field.name}."):
                value = default
                for part in inner.name.removeprefix(f"{prefix}{field.name}.").split("."):
                    value = getattr(value, part)
                yield inner._replace(default=value)
        else:
            known = dict(field.metadata)
            if callable(known["choices"]):
                known["choices"] = tuple(known["choices"]())
            yield Declaration(prefix + field.name, hints[field.name], field.default, **known)


@functools.cache
def hyper_type(config_type: type) -> type:
    """Return the NamedTuple type, a pytree, of the hyper fields at the top level of a config."""
    names = [field.name for field in dataclasses.fields(config_type)
             if field.metadata.get("kind") == "hyper"]
    return namedtuple(f"{config_type.__module__.split('.')[-1].capitalize()}Hyper", names)


def hypers(config: Any) -> Any:
    """Return the hyper fields of a config as a tree of float32 scalars.

    This is the `hyper` argument of every agent function.
    """
    import jax.numpy as jnp  # here, so that the command line can list settings without JAX

    kind: Any = hyper_type(type(config))
    return kind(*(jnp.asarray(getattr(config, name), jnp.float32) for name in kind._fields))
