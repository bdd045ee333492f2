"""The presets that CI can pay for: `slow`.

What takes minutes more is `full`, run by hand, its figures in `docs/`.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def marked(slow: Iterable[str], full: Iterable[str]) -> list:
    """Names as parameters, each with the mark of its budget."""
    return [
        pytest.param(name, marks=mark, id=name)
        for names, mark in ((slow, pytest.mark.slow), (full, pytest.mark.full))
        for name in names
    ]
