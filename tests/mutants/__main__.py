"""Break one line of the source and see that its tests fail.

    python -m tests.mutants               all mutants of the quick tests
    python -m tests.mutants ppo-clip      those whose names begin so
    python -m tests.mutants --learning    those of the learning tests, minutes each

A mutant that survives is a missing test. Each works on a copy; the checkout stays as it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.table import LEARNING, QUICK, Mutant

ROOT = Path(__file__).parents[2]
TIMEOUT = 1800                   # seconds
COPIED = ("envs_jax", "jaxrl", "algos", "configs", "tests", "docs", "README.md", "pyproject.toml")


def copy(target: Path) -> None:
    """Copy the checkout to `target`, with the configs under their installed name as well."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)
    (target / "jaxrl_configs").symlink_to("configs")


def failure(tests: tuple[str, ...], root: Path) -> str:
    """Return the first line of a failure of these tests in a copy, "" if they pass."""
    words = ["-p", "no:cacheprovider", "-n0", "-x", "-q", "-m", "not full", *tests]
    if any("learning" in word for word in tests):
        words.append("--compile=full")
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", *words]
    try:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True,
                              timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return f"no end within {TIMEOUT} s"
    if done.returncode not in (0, 1):
        sys.exit(f"pytest ended with {done.returncode}\n{done.stdout}{done.stderr}")
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return (failed or ["failed"])[0][:90] if done.returncode else ""


def run(mutant: Mutant, root: Path) -> str:
    """Return the failure of a copy with the mutant in it, "" if the mutant survives."""
    file = root / mutant.file
    right = file.read_text(encoding="utf-8")
    file.write_text(mutant.apply(right), encoding="utf-8")
    try:
        return failure(mutant.tests, root)
    finally:
        file.write_text(right, encoding="utf-8")


def main(words: list[str]) -> None:
    """Run the chosen mutants; exit with 1 if one survives."""
    learning = "--learning" in words
    names = tuple(word for word in words if not word.startswith("--"))
    chosen = [m for m in (LEARNING if learning else QUICK) if not names or m.name.startswith(names)]
    if not chosen:
        sys.exit(f"no mutant begins with {' or '.join(names)}")
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        copy(Path(folder))
        for tests in dict.fromkeys(mutant.tests for mutant in chosen):
            if by := failure(tests, Path(folder)):
                sys.exit(f"without a mutant: {by}")
        for mutant in chosen:
            began = time.monotonic()
            by = run(mutant, Path(folder))
            verdict = "killed  " if by else "SURVIVED"
            seconds = time.monotonic() - began
            print(f"{verdict} {mutant.name:32s} {seconds:5.0f} s  {by}", flush=True)
            if not by:
                survivors.append(mutant.name)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
