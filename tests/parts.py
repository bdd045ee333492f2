"""Slow tests in parts, of which one run of `.ci/run` runs one.

    python -m tests.parts              print the part whose turn it is, and why on stderr
    python -m tests.parts all          print all parts
    python -m tests.parts check K      print K if there is such a part, else fail
    python -m tests.parts args K       print pytest's arguments for part K
    python -m tests.parts passed K     record in .ci/ran that part K passed at this commit

Parts are of equal length by tests/durations.json, which `pytest -m slow --store-durations` writes,
and as many as are needed. `.ci/ran` is committed. A part that is missing from its last lines runs
first; otherwise the content of the tree decides, so that nobody chooses. Files that differ from the
commit in the last line run with any part.
"""

from __future__ import annotations

import datetime
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
RAN = ROOT / ".ci" / "ran"
DURATIONS = ROOT / "tests" / "durations.json"
LEARNING = ROOT / "tests" / "learning"     # .ci/run divides these tests by themselves
PART_SECONDS = 15 * 60.0     # of two processes; machines differ by a factor of two
PROCESSES = 2
ALSO_SECONDS = 600.0         # of changed files that run beside the part


class Entry(NamedTuple):
    """A line of .ci/ran: a part that passed."""

    part: int
    date: str
    commit: str


def read(text: str) -> list[Entry]:
    """The entries of .ci/ran, oldest first."""
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return [Entry(int(part), date, commit) for part, date, commit in rows]


def durations() -> dict[str, float]:
    """The recorded seconds of each slow test, of one process."""
    return json.loads(DURATIONS.read_text(encoding="utf-8"))


def count() -> int:
    """The number of parts."""
    return max(1, math.ceil(sum(durations().values()) / PROCESSES / PART_SECONDS))


def choose(entries: list[Entry], tree: str, parts: int) -> tuple[int, str]:
    """The part to run, and the reason. tree: the hexadecimal name of the tree that is tested."""
    lines = parts + 1
    recent = {entry.part for entry in entries[-lines:]}
    last = {entry.part: i for i, entry in enumerate(entries)}
    missing = [part for part in range(1, parts + 1) if part not in recent]
    if missing:
        part = min(missing, key=lambda part: last.get(part, -1))
        return part, f"not among the last {lines} lines of .ci/ran"
    return int(tree, 16) % parts + 1, "by the content of the tree"


def affordable(files: list[str], durations: dict[str, float]) -> tuple[list[str], list[str]]:
    """Divide changed files into those that run beside a part and those too long for that."""
    seconds = dict.fromkeys(files, 0.0)
    for test, duration in durations.items():
        file = test.partition("::")[0]
        if file in seconds:
            seconds[file] += duration
    taken: list[str] = []
    total = 0.0
    for file in sorted(files, key=lambda file: (seconds[file], file)):
        total += seconds[file]
        if total > ALSO_SECONDS:
            break
        taken.append(file)
    return taken, [file for file in files if file not in taken]


def recorded() -> list[Entry]:
    """The entries of .ci/ran in this checkout."""
    return read(RAN.read_text(encoding="utf-8")) if RAN.exists() else []


def next_part() -> tuple[int, str]:
    """The part to run in this checkout, and the reason."""
    return choose(recorded(), git("rev-parse", "HEAD^{tree}") or "0", count())


def changed() -> list[str]:
    """Test files that differ from the commit of the last line of .ci/ran, uncommitted ones too."""
    entries = recorded()
    if not entries:
        return []
    since = entries[-1].commit
    if not git("rev-parse", "--verify", "--quiet", f"{since}^{{commit}}"):
        print(f"git does not know {since} (a shallow clone?): changed files do not run beside "
              "the part", file=sys.stderr)
        return []
    names = git("diff", "--name-only", since, "--", "tests").splitlines()
    names += git("ls-files", "--others", "--exclude-standard", "--", "tests").splitlines()
    tests = [name for name in names if Path(name).name.startswith("test_")]
    return [name for name in tests if (ROOT / name).exists()]


def git(*words: str) -> str:
    """Return the output of git, "" if it fails."""
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


# ---------------------------------------------------------------- with pytest

KEPT = pytest.StashKey[list[pytest.Item]]()


class Also:
    """Keep the tests of the files named by --also when pytest-split takes the other parts away."""

    @pytest.hookimpl(trylast=True)           # markers have selected, pytest-split has not
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        files = {config.rootpath / name for name in config.getoption("also")}
        config.stash[KEPT] = [item for item in items if item.path in files]


class AlsoAfter:
    """The second half of `Also`: after pytest-split."""

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> Iterator[None]:
        yield
        chosen = set(items)
        items += [item for item in config.stash.get(KEPT, []) if item not in chosen]


# ---------------------------------------------------------------- the command


def main(words: list[str]) -> None:
    """Run one of the commands of the module's docstring."""
    if not words:
        part, why = next_part()
        print(f"part {part} of {count()}: {why}", file=sys.stderr)
        print(part)
    elif words[0] == "all":
        print(*range(1, count() + 1))
    elif words[0] == "check":
        if words[1] not in map(str, range(1, count() + 1)):
            sys.exit(f"there is no part {words[1]}: 1 to {count()}")
        print(words[1])
    elif words[0] == "args":
        files, left_out = affordable(changed(), durations())
        if left_out:
            print(f"changed, too long to run beside a part: {' '.join(left_out)}", file=sys.stderr)
        also = "".join(f" --also={file}" for file in files)
        print(f"--splits={count()} --group={words[1]} --durations-path=tests/durations.json{also}")
    elif words[0] == "passed":
        commit = git("rev-parse", "--short=12", "HEAD") or "-"
        line = f"{words[1]} {datetime.date.today()} {commit}\n"
        with RAN.open("a", encoding="utf-8") as file:
            file.write(line)
        print(f"recorded in .ci/ran, to be committed: {line}", end="")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
