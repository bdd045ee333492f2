"""The presets that CI can pay for: `slow`.

What takes minutes more is `full`, run by hand, its figures in `docs/`.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

# Few, but enough to tell right from broken: `python -m tests.mutants --learning` shows it for the
# losses that the cases share. The figures in docs/ are of FULL_SEEDS.
SLOW_SEEDS = 4
FULL_SEEDS = 8


def marked(slow: Iterable[str], full: Iterable[str]) -> list:
    """Names as parameters, each with the mark of its budget."""
    return [
        pytest.param(name, marks=mark, id=name)
        for names, mark in ((slow, pytest.mark.slow), (full, pytest.mark.full))
        for name in names
    ]
