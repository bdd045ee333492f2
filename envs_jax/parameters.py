"""Parameters of an environment in any container: a NamedTuple, a dataclass, a dict, or ()."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


def fields(params: Any) -> dict[str, Any]:
    """Return a dict from name to value."""
    if hasattr(params, "_asdict"):
        return params._asdict()
    if dataclasses.is_dataclass(params):
        return {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}
    return dict(params) if isinstance(params, Mapping) else {}


def replace(params: Any, **changes: Any) -> Any:
    """Return a copy with some values changed; the names must be those of `fields`."""
    if hasattr(params, "_replace"):
        return params._replace(**changes)
    if dataclasses.is_dataclass(params):
        return dataclasses.replace(params, **changes)
    return {**params, **changes} if changes else params


def numbers(params: Any) -> dict[str, int | float]:
    """Return a dict from name to value of the fields that are single numbers.

    These are the parameters that can be drawn at random or follow a schedule.
    """
    return {name: _as_python(value) for name, value in fields(params).items() if _is_number(value)}


def _as_python(value: Any) -> int | float:
    return value.item() if hasattr(value, "item") else value


def _is_number(value: Any) -> bool:
    if isinstance(value, int | float):
        return not isinstance(value, bool)
    return getattr(value, "shape", None) == () and value.dtype.kind in ("i", "u", "f")
