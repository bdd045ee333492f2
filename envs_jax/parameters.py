"""The numbers of an environment's dynamics, whatever holds them: a NamedTuple, a dataclass, a dict, or () for none."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


def fields(params: Any) -> dict[str, Any]:
    """Name -> value."""
    if hasattr(params, "_asdict"):
        return params._asdict()
    if dataclasses.is_dataclass(params):
        return {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}
    return dict(params) if isinstance(params, Mapping) else {}


def replace(params: Any, **changes: Any) -> Any:
    """A copy with some values changed; the names must be those of `fields`."""
    if hasattr(params, "_replace"):
        return params._replace(**changes)
    if dataclasses.is_dataclass(params):
        return dataclasses.replace(params, **changes)
    return {**params, **changes} if changes else params


def numbers(params: Any) -> dict[str, int | float]:
    """Name -> value of the fields that are single numbers: what may be drawn anew, or follow a schedule."""
    return {name: value.item() if hasattr(value, "item") else value
            for name, value in fields(params).items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    if isinstance(value, int | float):
        return not isinstance(value, bool)
    return getattr(value, "shape", None) == () and value.dtype.kind in ("i", "u", "f")
