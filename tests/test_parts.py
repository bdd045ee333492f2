"""Parts of the slow tests: whose turn it is, what runs beside it, and that each fits its time."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests import parts, uncovered
from tests.parts import Entry, choose

TREE = "0" * 39


def ran(*numbers: int) -> list[Entry]:
    return [Entry(number, "2026-01-01", "abc") for number in numbers]


@pytest.mark.parametrize("entries, part", [
    ([], 1), (ran(1), 2), (ran(1, 2), 3),
    (ran(1, 2, 3, 3, 3, 3), 1),              # two are overdue: the one that ran longest ago
    (ran(2, 1, 3, 3, 3, 3), 2),
    (ran(1, 2, 1, 3, 1, 3), 2)])
def test_a_part_that_is_overdue_runs_first(entries, part):
    assert choose(entries, TREE + "7", 3)[0] == part


def test_otherwise_the_content_of_the_tree_decides():
    assert {choose(ran(1, 2, 3), TREE + digit, 3)[0] for digit in "012345678"} == {1, 2, 3}
    assert choose(ran(1, 2, 3, 1), "f" * 40, 3) == choose(ran(3, 2, 1), "f" * 40, 3)


def test_entries_are_read_and_comments_are_not():
    assert parts.read("# part date commit\n2 2026-01-01 abc\n\n") == ran(2)


def test_changed_files_run_beside_a_part_while_they_are_short():
    durations = {"a.py::x": 100.0, "a.py::y": 200.0, "b.py::x": 290.0, "c.py::x": 400.0}
    taken, left_out = parts.affordable(["c.py", "a.py", "b.py", "new.py"], durations)
    assert taken == ["new.py", "b.py", "a.py"]
    assert left_out == ["c.py"]


def test_there_are_as_many_parts_as_needed(monkeypatch):
    monkeypatch.setattr(parts, "durations", lambda: {"a::x": 1700.0, "b::x": 100.0})
    assert parts.count() == 1
    monkeypatch.setattr(parts, "durations", lambda: {"a::x": 1700.0, "b::x": 101.0})
    assert parts.count() == 2


def test_durations_are_of_tests_that_exist():
    assert len(parts.durations()) > 100
    for test in parts.durations():
        file, _, name = test.partition("::")
        text = (parts.ROOT / file).read_text(encoding="utf-8")
        assert f"def {name.partition('[')[0]}(" in text, test


def test_also_keeps_a_file_of_another_part(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"test_{name}.py").write_text(
            "import pytest\ndef test_x(): pass\n@pytest.mark.slow\ndef test_slow(): pass\n")
    (tmp_path / "conftest.py").write_text(
        "from tests import parts\n"
        "def pytest_addoption(parser): parser.addoption('--also', action='append', default=[])\n"
        "def pytest_configure(config):\n"
        "    config.pluginmanager.register(parts.Also())\n"
        "    config.pluginmanager.register(parts.AlsoAfter())\n")
    words = ["--collect-only", "-q", "-n0", "-m", "slow"]
    words += ["--splits=3", "--group=1", "--also=test_c.py"]
    command = [sys.executable, "-m", "pytest", *words, "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, cwd=parts.ROOT, capture_output=True, text=True, timeout=60)
    found = [line.rpartition("/")[2] for line in done.stdout.splitlines() if "::" in line]
    assert found == ["test_a.py::test_slow", "test_c.py::test_slow"], done.stdout


def test_packages_that_are_missing_are_found(tmp_path):
    file = tmp_path / "test_x.py"
    file.write_text(
        "import pytest\n"
        "@pytest.fixture\ndef far():\n    return pytest.importorskip('no_such.thing')\n"
        "def test_a(far): pass\ndef test_b(): pytest.importorskip('json')\n")
    needs = uncovered.functions_that_need(file)
    assert needs == {"far": "no_such.thing", "test_a": "no_such.thing", "test_b": ""}
    tree = ast.parse("pytest.importorskip('a'); importorskip('b')")
    assert uncovered.packages_asked_for(tree) == {"a"}
