"""Values against their declarations: conversion, ranges and the texts of what is wrong."""

from __future__ import annotations

import math
import os
import types
import typing
from collections.abc import Mapping
from typing import Any

from jaxrl.declare import Declaration
from jaxrl.errors import Problem
from jaxrl.registry import nearest


class Wrong(ValueError):
    """A value that does not fit; the text goes after "key=value"."""


def short(x: Any) -> str:
    """A value as a person writes it: 2.5e-4, 0.99, null, [64,64], true."""
    if x is None or isinstance(x, bool):
        return {None: "null", True: "true", False: "false"}[x]
    if isinstance(x, float):
        if math.isfinite(x) and x != 0 and not 1e-3 <= abs(x) < 1e6:
            mantissa, exponent = f"{x:.6e}".split("e")
            return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
        return f"{x:g}"
    if isinstance(x, list | tuple):
        return f"[{','.join(map(short, x))}]"
    if isinstance(x, int) and abs(x) >= 10**21:
        return f"{'-' if x < 0 else ''}1e{int(x.bit_length() * math.log10(2))}"     # about; 4300 digits have no text
    return str(x)


def quoted(x: Any) -> str:
    """A value as it stands in a message: text in quotes."""
    return f'"{x}"' if isinstance(x, str) else short(x)


def strip_optional(kind: Any) -> tuple[Any, bool]:
    """(type without None, whether None is allowed)."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        rest = [k for k in typing.get_args(kind) if k is not type(None)]
        return (rest[0] if len(rest) == 1 else typing.Union[tuple(rest)]), len(rest) < len(typing.get_args(kind))  # noqa: UP007
    return kind, kind is Any


def bounds(declaration: Declaration) -> str:
    """"0 <= gamma <= 1", "num_envs >= 1" or ""."""
    name = declaration.name.rpartition(".")[2]
    low, high = declaration.low, declaration.high
    if low is not None and high is not None:
        return f"{short(low)} <= {name} <= {short(high)}"
    return f"{name} >= {short(low)}" if low is not None else f"{name} <= {short(high)}" if high is not None else ""


def convert(declaration: Declaration, value: Any) -> Any:
    """`value` as the declared type, in range; raises Wrong."""
    kind, optional = strip_optional(declaration.type)
    value = plain(value)
    if value is None and optional:
        return None
    if typing.get_origin(kind) is tuple and Ellipsis not in typing.get_args(kind):
        return _pair(declaration, typing.get_args(kind)[0], value)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise Wrong(" is not a list, such as [64,64]")
        return tuple(_scalar(declaration, typing.get_args(kind)[0], item) for item in value)
    return _scalar(declaration, kind, value)


def _pair(declaration: Declaration, kind: Any, value: Any) -> tuple[Any, Any]:
    try:
        if isinstance(value, list | tuple) and len(value) == 2:
            return _scalar(declaration, kind, value[0]), _scalar(declaration, kind, value[1])
    except Wrong:
        pass
    raise Wrong(" is not two whole numbers, such as [2,4]" if kind is int else " is not two numbers, such as [0.4,0.6]")


def _scalar(declaration: Declaration, kind: Any, value: Any) -> Any:
    if declaration.choices is not None and value not in declaration.choices:
        near = nearest(str(value), declaration.choices)
        raise Wrong(f" is not one of: {', '.join(declaration.choices)}." + (f" Did you mean: {near}?" if near else ""))
    if kind is bool and not isinstance(value, bool):
        raise Wrong(" is not true or false")
    if kind is str and not isinstance(value, str):
        raise Wrong(" is not text")
    if kind not in (int, float):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong(" is not a whole number" if kind is int else " is not a number")
    if kind is int and value != int(value):
        raise Wrong(" is not a whole number")
    if kind is int and abs(value) >= 2**63:
        raise Wrong(" is too large")
    low, high = declaration.low, declaration.high
    if (low is not None and value < low) or (high is not None and value > high):
        raise Wrong(f" is out of range: {bounds(declaration)} ({declaration.help})")
    return kind(value)


def plain(value: Any) -> Any:
    """`value` without NumPy scalars and paths, if it is then something that YAML can hold; raises Wrong."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, str) and "${" in value:
        raise Wrong(" holds an interpolation; write the value itself")
    if isinstance(value, float) and not math.isfinite(value):
        raise Wrong(" is not a finite number")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise Wrong(" is too large")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise Wrong(f" is not a number, text or a list of these, but {type(value).__name__}")


def check(declaration: Declaration, key: str, value: Any, text: str | None = None) -> tuple[Any, Problem | None]:
    """(converted value, None) or (the default, what is wrong). `text` is what the user typed, if they did."""
    try:
        return convert(declaration, value), None
    except Wrong as wrong:
        shown = quoted(value) if isinstance(value, str) or text is None else text
        return declaration.default, Problem(f"{key}={shown}{wrong}")
    except OverflowError:
        return declaration.default, Problem(f"{key}={short(value)} is too large")


def unknown_key(key: str, known: Mapping[str, tuple[Any, str]], owner: str = "", where: str = "") -> Problem:
    """`known`: key -> (default, help). Finds typos, and keys written without their prefix."""
    tails = {k.rpartition(".")[2]: k for k in known}
    near = nearest(key, known) or tails.get(nearest(key.rpartition(".")[2], tails))
    text = f'unknown key "{key}"' + (f" for {owner}" if owner else "") + "."
    if near is None:
        return Problem(text + where)
    default, help = known[near]
    return Problem(f"{text} Did you mean: {near} (default {short(default)}{', ' + help if help else ''})?")

