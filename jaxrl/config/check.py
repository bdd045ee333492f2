"""Checks of values against their declarations: types, ranges and the texts of mistakes."""

from __future__ import annotations

import math
import os
import types
import typing
from collections.abc import Mapping
from typing import Any

from jaxrl.declare import Declaration
from jaxrl.errors import Problem
from jaxrl.registry import did_you_mean, nearest


class Wrong(ValueError):
    """A value that its declaration does not allow. The text follows "key=value"."""


def short(x: Any) -> str:
    """Return a value as a person writes it: 2.5e-4, 0.99, null, [64,64], true."""
    if x is None:
        return "null"
    if isinstance(x, bool):
        return str(x).lower()
    if isinstance(x, float):
        return _short_float(x)
    if isinstance(x, list | tuple):
        return f"[{','.join(map(short, x))}]"
    if isinstance(x, int) and abs(x) >= 10**21:
        sign = "-" if x < 0 else ""
        exponent = int(x.bit_length() * math.log10(2))     # approximate: 4300 digits have no text
        return f"{sign}1e{exponent}"
    return str(x)


def _short_float(x: float) -> str:
    if x == 0 or not math.isfinite(x) or 1e-3 <= abs(x) < 1e6:
        return f"{x:g}"
    mantissa, exponent = f"{x:.6e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def quoted(x: Any) -> str:
    """Return a value as messages show it: text in quotes, anything else as `short` writes it."""
    return f'"{x}"' if isinstance(x, str) else short(x)


def strip_optional(kind: Any) -> tuple[Any, bool]:
    """Return (type without None, whether None is allowed)."""
    if typing.get_origin(kind) not in (types.UnionType, typing.Union):
        return kind, kind is Any
    members = typing.get_args(kind)
    rest = [member for member in members if member is not type(None)]
    allowed = len(rest) < len(members)
    if len(rest) == 1:
        return rest[0], allowed
    return typing.Union[tuple(rest)], allowed  # noqa: UP007


def bounds(declaration: Declaration, name: str | None = None) -> str:
    """Return "0 <= gamma <= 1", "num_envs >= 1" or "". `name` replaces the setting's own name."""
    name = name or declaration.name.rpartition(".")[2]
    low = declaration.low
    high = declaration.high
    if low is not None and high is not None:
        return f"{short(low)} <= {name} <= {short(high)}"
    if low is not None:
        return f"{name} >= {short(low)}"
    if high is not None:
        return f"{name} <= {short(high)}"
    return ""


def convert(declaration: Declaration, value: Any) -> Any:
    """Return `value` as the declared type. Raises Wrong if the type or the range does not fit."""
    kind, optional = strip_optional(declaration.type)
    value = plain(value)
    if value is None and optional:
        return None
    if typing.get_origin(kind) is not tuple:
        return _scalar(declaration, kind, value)
    inner = typing.get_args(kind)
    if Ellipsis not in inner:
        return _pair(declaration, inner[0], value)
    if not isinstance(value, list | tuple):
        raise Wrong(" is not a list, such as [64,64]")
    return tuple(_scalar(declaration, inner[0], item) for item in value)


def _pair(declaration: Declaration, kind: Any, value: Any) -> tuple[Any, Any]:
    try:
        if isinstance(value, list | tuple) and len(value) == 2:
            return _scalar(declaration, kind, value[0]), _scalar(declaration, kind, value[1])
    except Wrong:
        pass
    if kind is int:
        raise Wrong(" is not two whole numbers, such as [2,4]")
    raise Wrong(" is not two numbers, such as [0.4,0.6]")


def _scalar(declaration: Declaration, kind: Any, value: Any) -> Any:
    choices = declaration.choices
    if choices is not None and value not in choices:
        raise Wrong(f" is not one of: {', '.join(choices)}.{did_you_mean(str(value), choices)}")
    if kind is bool and not isinstance(value, bool):
        raise Wrong(" is not true or false")
    if kind is str and not isinstance(value, str):
        raise Wrong(" is not text")
    if kind not in (int, float):
        return value
    noun = "whole number" if kind is int else "number"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong(f" is not a {noun}")
    if kind is int and value != int(value):
        raise Wrong(f" is not a {noun}")
    if kind is int and abs(value) >= 2**63:
        raise Wrong(" is too large")
    low = declaration.low
    high = declaration.high
    if (low is not None and value < low) or (high is not None and value > high):
        raise Wrong(f" is out of range: {bounds(declaration)} ({declaration.help})")
    return kind(value)


def plain(value: Any) -> Any:
    """Return `value` with NumPy scalars and paths as plain Python values.

    Raises Wrong if YAML cannot hold the result.
    """
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


def check(declaration: Declaration, key: str, value: Any, text: str | None = None
          ) -> tuple[Any, Problem | None]:
    """Return (converted value, None), or (default, problem) if the value is not allowed.

    text: the value as the user typed it, None if the value came from Python.
    """
    try:
        return convert(declaration, value), None
    except Wrong as wrong:
        shown = text
        if text is None or isinstance(value, str):
            shown = quoted(value)
        return declaration.default, Problem(f"{key}={shown}{wrong}")
    except OverflowError:
        return declaration.default, Problem(f"{key}={short(value)} is too large")


def describe(known: Mapping[str, Declaration]) -> dict[str, tuple[Any, str]]:
    """Return key -> (default, help), the form that `unknown_key` takes."""
    return {key: (declaration.default, declaration.help) for key, declaration in known.items()}


def unknown_key(key: str, known: Mapping[str, tuple[Any, str]], owner: str = "", where: str = ""
                ) -> Problem:
    """Return the problem of an unknown key, with the most similar known key if there is one.

    Finds misspelled keys and keys without their prefix. known: key -> (default, help).
    owner: whose keys these are. where: text that says where the keys are listed.
    """
    near = nearest(key, known) or _nearest_tail(key, known)
    text = f'unknown key "{key}" for {owner}.' if owner else f'unknown key "{key}".'
    if near is None:
        return Problem(text + where)
    default, help = known[near]
    about = f"default {short(default)}"
    if help:
        about += f", {help}"
    return Problem(f"{text} Did you mean: {near} ({about})?")


def _nearest_tail(key: str, known: Mapping[str, Any]) -> str | None:
    """Return the known key whose last part is most like the last part of `key`."""
    tails = {name.rpartition(".")[2]: name for name in known}
    near = nearest(key.rpartition(".")[2], tails)
    return None if near is None else tails[near]
