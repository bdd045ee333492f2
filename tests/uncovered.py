"""List the tests that a run of `.ci/run` does not reach, with the reason.

    python -m tests.uncovered          for the part whose turn it is
    python -m tests.uncovered K        for part K

Reasons: marked `full`; skipped because a package is missing here; part of another slow part.
"""

from __future__ import annotations

import ast
import contextlib
import io
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import pytest
from _pytest.skipping import evaluate_skip_marks
from pytest_split.algorithms import Algorithms

from tests import parts


class Collector:
    """A pytest plugin that keeps the collected tests, and the files skipped as a whole."""

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
    """Return True if a package, such as "a.b", cannot be imported."""
    try:
        return find_spec(package) is None
    except ModuleNotFoundError:
        return True


def functions_that_need(path: Path) -> dict[str, str]:
    """Test function -> the missing package that its body, or a fixture of its file, asks for."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    needs: dict[str, str] = {}
    for node in nodes:
        needs[node.name] = next(filter(missing, sorted(packages_asked_for(node))), "")
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


def report(found: Collector, part: int) -> list[tuple[str, list[str]]]:
    """Return (reason, tests) for each reason why a run of `part` does not reach tests."""
    full = [item for item in found.items if item.get_closest_marker("full")]
    slow = [item for item in found.items if item.get_closest_marker("slow") and item not in full]
    lists = [("full: run by hand", [item.nodeid for item in full])]
    by_reason = defaultdict(list)
    for test, reason in skipped(found).items():
        by_reason[reason].append(test)
    lists += [(f"skipped here: {reason}", tests) for reason, tests in sorted(by_reason.items())]
    learning = [item for item in slow if item.path.is_relative_to(parts.LEARNING)]
    others = [item for item in slow if item not in learning]
    durations = parts.durations()
    split = Algorithms["duration_based_chunks"].value
    groups = zip(split(parts.count(), others, durations), split(parts.count(), learning, durations))
    for i, pair in enumerate(groups, 1):
        if i != part:
            tests = [item.nodeid for half in pair for item in half.selected]
            lists.append((f"slow, part {i}", tests))
    return lists


def main(words: list[str]) -> None:
    """Print the list, and the number of tests by marker."""
    found = collect()
    part = int(words[0]) if words else parts.next_part()[0]
    for reason, tests in report(found, part):
        print(f"\n{reason} ({len(tests)} tests)", *(f"  {test}" for test in tests), sep="\n")
    marks = [{mark.name for mark in item.iter_markers()} for item in found.items]
    full = sum("full" in names for names in marks)
    slow = sum(names & {"slow", "full"} == {"slow"} for names in marks)
    print(f"\n{len(marks) - slow - full} quick, {slow} slow, {full} full. `.ci/run` has a second "
          "environment\nwith the extra `envs`, for the environments of other packages.")


if __name__ == "__main__":
    main(sys.argv[1:])
