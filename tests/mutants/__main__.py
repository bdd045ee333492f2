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


def run(mutant: Mutant, root: Path) -> tuple[bool, str]:
    """(whether a test failed, pytest's last line) of a copy with the mutant in it."""
    file = root / mutant.file
    right = file.read_text(encoding="utf-8")
    file.write_text(mutant.apply(right), encoding="utf-8")
    words = ["-p", "no:cacheprovider", "-n0", "-x", "-q", "-m", "not full", *mutant.tests]
    if any("learning" in word for word in mutant.tests):
        words.append("--compile=full")
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=root, env=environment,
                              capture_output=True, text=True)
    finally:
        file.write_text(right, encoding="utf-8")
    lines = done.stdout.splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    if done.returncode not in (0, 1):
        sys.exit(f"{mutant.name}: pytest ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.returncode == 1, (failed or lines or [""])[0][:90]


def main(words: list[str]) -> None:
    """Run the chosen mutants; exit with 1 if one survives."""
    learning = "--learning" in words
    names = tuple(word for word in words if not word.startswith("--"))
    chosen = [m for m in (LEARNING if learning else QUICK) if not names or m.name.startswith(names)]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        copy(Path(folder))
        for mutant in chosen:
            began = time.monotonic()
            killed, by = run(mutant, Path(folder))
            verdict = "killed  " if killed else "SURVIVED"
            seconds = time.monotonic() - began
            print(f"{verdict} {mutant.name:32s} {seconds:5.0f} s  {by}", flush=True)
            if not killed:
                survivors.append(mutant.name)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
