"""Settings declared once: type, default, range, search range and help sit on the field of the config dataclass.

`static` fields shape the compiled program; `hyper` fields are numbers that become arrays in `TrainState.hyper`, so that
changing one never recompiles and a population may hold different ones. Validation, `jaxrl list`, sweeps and PBT read
the declaration; YAML never repeats a default.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple


class Range(NamedTuple):
    """A search range. `log`: uniform in the logarithm."""

    low: float
    high: float
    log: bool = False


def log_range(low: float, high: float) -> Range:
    """A search range, uniform in the logarithm."""
    return Range(low, high, True)


class Declaration(NamedTuple):
    """What is known of one setting. `kind` is "static" or "hyper"."""

    name: str
    type: Any
    default: Any
    kind: str
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None
    search: Range | None = None


def static(default: Any, *, help: str, low=None, high=None,
           choices: tuple[str, ...] | Callable[[], Iterable[str]] | None = None) -> Any:
    """A field that shapes the program (sizes, structure): changing it recompiles.

    choices: what it may be, or a function that names it when asked: the names of a table that packages extend.
    """
    metadata = {"kind": "static", "help": help, "low": low, "high": high, "choices": choices, "search": None}
    return dataclasses.field(default=default, metadata=metadata)


def hyper(default: float, *, help: str, low: float, high: float, search: Range | None = None) -> Any:
    """A number that is data: traced, may differ between members of a population, never recompiles."""
    metadata = {"kind": "hyper", "help": help, "low": low, "high": high, "choices": None, "search": search}
    return dataclasses.field(default=float(default), metadata=metadata)


def nested(config_type: type, **changes: Any) -> Any:
    """A field that is itself a config dataclass."""
    return dataclasses.field(default_factory=lambda: config_type(**changes), metadata={"kind": "nested", "help": ""})


def defaults(config_type: type, **changes: Any) -> type:
    """`config_type` with other defaults, to derive from: `class Config(defaults(Base, num_envs=16)): ...`"""
    hints, fields = typing.get_type_hints(config_type), {f.name: f for f in dataclasses.fields(config_type)}
    if unknown := set(changes) - set(fields):
        raise TypeError(f"{config_type.__name__} has no {', '.join(sorted(unknown))}")
    again = [(name, hints[name], dataclasses.field(default=value, metadata=fields[name].metadata))
             for name, value in changes.items()]
    return dataclasses.make_dataclass(config_type.__name__, again, bases=(config_type,), frozen=True)


def declarations(config_type: type, prefix: str = "") -> Iterator[Declaration]:
    """Every setting of a config dataclass, nested ones with dotted names, in the order of declaration."""
    hints = typing.get_type_hints(config_type)
    for field in dataclasses.fields(config_type):
        if field.metadata.get("kind") == "nested":
            default = field.default_factory()
            for inner in declarations(type(default), f"{prefix}{field.name}."):
                value = default
                for part in inner.name[len(prefix) + len(field.name) + 1:].split("."):
                    value = getattr(value, part)
                yield inner._replace(default=value)
        else:
            known = dict(field.metadata)
            if callable(known["choices"]):
                known["choices"] = tuple(known["choices"]())
            yield Declaration(prefix + field.name, hints[field.name], field.default, **known)


@functools.cache
def hyper_type(config_type: type) -> type:
    """The NamedTuple type that holds the hyper fields of `config_type` (the top level only), as a pytree."""
    names = [f.name for f in dataclasses.fields(config_type) if f.metadata.get("kind") == "hyper"]
    return namedtuple(f"{config_type.__module__.split('.')[-1].capitalize()}Hyper", names)


def hypers(config: Any) -> Any:
    """The hyper fields of a config as a tree of float32 scalars: the `hyper` argument of every agent function."""
    import jax.numpy as jnp  # here, so that the command line can list settings without JAX

    kind = hyper_type(type(config))
    return kind(*(jnp.asarray(getattr(config, name), jnp.float32) for name in kind._fields))
