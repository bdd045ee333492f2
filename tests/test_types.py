"""Types of the layers that hold state and configs, checked by mypy (`[tool.mypy]`, pyproject.toml).

mypy takes about 15 s without a cache and 2 s with one, so its cache is kept in the user's cache
folder, one for each checkout. It stays quick: one run serves all packages.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.source import ROOT

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]


def run_mypy(*words: str) -> str:
    """Return the output of mypy, run in the repository root."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    checkout = hashlib.sha256(str(ROOT).encode()).hexdigest()[:12]
    cache = home / "jaxrl-mypy" / checkout
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(cache), "--no-error-summary", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stdout + done.stderr       # 2: mypy itself failed
    return done.stdout


@pytest.fixture(scope="module")
def errors() -> list[str]:
    """The lines of errors in all packages."""
    return [line for line in run_mypy().splitlines() if ": error: " in line]


@pytest.mark.parametrize("package", SETTINGS["packages"])
def test_the_type_checker_is_content(package, errors):
    place = package.replace(".", "/")
    found = [line for line in errors if line.startswith((f"{place}/", f"{place}.py:"))]
    assert not found, "\n".join(["", *found])


def test_nothing_else_is_wrong(errors):
    places = tuple(package.replace(".", "/") for package in SETTINGS["packages"])
    assert not [line for line in errors if not line.startswith(places)]


def test_the_type_checker_sees(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def f(x: int):\n    return x\n\n\ndef g():\n    return f('text')\n")
    assert "wrong.py:6: error: Argument 1" in run_mypy("--config-file=", "--check-untyped-defs",
                                                       str(wrong))


def test_the_packages_are_typed():
    assert all((ROOT / name / "py.typed").exists() for name in ("jaxrl", "envs_jax", "algos"))
