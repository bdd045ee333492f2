"""List the tests that a run of `.ci/run` does not reach, with the reason.

    python -m tests.uncovered          for the part whose turn it is
    python -m tests.uncovered K        for part K

Reasons: marked `full`; skipped because a package is missing here; part of another slow part.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import pytest
from _pytest.skipping import evaluate_skip_marks
from pytest_split.algorithms import Algorithms

from tests import parts


class Collector:
    """A pytest plugin that keeps what is collected: tests, and files that are skipped as a whole."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []
        self.files: dict[str, str] = {}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.files[report.nodeid] = str(report.longrepr[2])

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = list(session.items)


def collect() -> Collector:
    """Every test, whatever its markers."""
    found = Collector()
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        words = ["--collect-only", "-q", "-n0", "-m", "", "-p", "no:cacheprovider"]
        code = pytest.main([*words, str(parts.ROOT / "tests")], plugins=[found])
    if code:
        sys.exit(shown.getvalue())
    return found


def packages_asked_for(tree: ast.AST) -> set[str]:
    """The packages that `pytest.importorskip` names somewhere inside."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    return {ast.literal_eval(call.args[0]) for call in calls
            if ast.unparse(call.func) == "pytest.importorskip"}


def missing(package: str) -> bool:
    """Whether a package, "a.b" included, cannot be imported."""
    try:
        return find_spec(package) is None
    except ModuleNotFoundError:
        return True


def functions_that_need(path: Path) -> dict[str, str]:
    """Test function -> the missing package that its body, or a fixture of its file, asks for."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    needs = {node.name: next(filter(missing, sorted(packages_asked_for(node))), "") for node in nodes}
    arguments = {node.name: [argument.arg for argument in node.args.args] for node in nodes}
    return {name: package or next((needs[a] for a in arguments[name] if needs.get(a)), "")
            for name, package in needs.items()}


def skipped(found: Collector) -> dict[str, str]:
    """Test or file -> why it is skipped here."""
    reasons = dict(found.files)
    needs: dict[Path, dict[str, str]] = {}
    for item in found.items:
        if mark := evaluate_skip_marks(item):
            reasons[item.nodeid] = mark.reason
        elif isinstance(item, pytest.Function):
            functions = needs.setdefault(item.path, functions_that_need(item.path))
            if package := functions.get(item.originalname):
                reasons[item.nodeid] = f"{package} is not installed"
    return reasons


def main(words: list[str]) -> None:
    """Print the list, and the number of tests by marker."""
    found = collect()
    entries = parts.read(parts.RAN.read_text(encoding="utf-8")) if parts.RAN.exists() else []
    part = int(words[0]) if words else parts.choose(entries, parts.git("rev-parse", "HEAD^{tree}") or "0")[0]
    full = [item for item in found.items if item.get_closest_marker("full")]
    slow = [item for item in found.items if item.get_closest_marker("slow") and item not in full]
    durations = json.loads(parts.DURATIONS.read_text(encoding="utf-8"))
    groups = Algorithms["duration_based_chunks"].value(parts.PARTS, slow, durations)
    reasons = skipped(found)
    by_reason = defaultdict(list)
    for test, reason in reasons.items():
        by_reason[reason].append(test)
    lists = [("full: run by hand", [item.nodeid for item in full]),
             *((f"skipped here: {reason}", tests) for reason, tests in sorted(by_reason.items())),
             *((f"slow, in part {i}, not {part}: about {group.duration:.0f} s of one process",
                [item.nodeid for item in group.selected]) for i, group in enumerate(groups, 1) if i != part)]
    for title, tests in lists:
        print(f"\n{title} ({len(tests)} tests)", *(f"  {test}" for test in tests), sep="\n")
    quick = len(found.items) - len(slow) - len(full)
    print(f"\n{quick} quick, {len(slow)} slow, {len(full)} full; {len(reasons)} skipped here. "
          "`.ci/run` runs the environments of other packages in a second step, with the extra `envs`.")


if __name__ == "__main__":
    main(sys.argv[1:])
