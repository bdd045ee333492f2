"""Output of a run: header, live line, result. No state of a stream stops a run."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxrl.cli import screen
from jaxrl.cli.screen import Screen, mean_text, progress_line, result_lines
from jaxrl.cli.text import duration, rate, table
from jaxrl.population.budget import size_text as size
from jaxrl.run.reporter import Silent

SUMMARY = {
    "status": "completed", "algo": "ppo", "env": "cartpole", "num_seeds": 8, "total_steps": 500_000,
    "env_steps_all": 4_000_000, "seconds": 6.1, "compile_seconds": 3.9,
    "steps_per_second": 655_123.0, "eval_returns": [498.7] * 8, "eval_iqm": 498.7,
    "eval_ci95": [495.1, 500.0], "train_returns": [400.0] * 8, "best_step": 400_000, "error": None,
}


def play(reporter, run=Path("runs/x")):
    """Call every method of a reporter as a loop does."""
    reporter.header({"algorithm": "ppo", "run": str(run)})
    reporter.progress(1000, 5000, 1e5, None, 1.0)
    reporter.note("total_steps=4,999 is rounded up to 5,000")
    reporter.progress(2000, 5000, 1e5, np.array([1.0, np.nan, 3.0]), 2.0)
    reporter.result(SUMMARY, run)


def test_result_as_in_the_contract():
    assert result_lines(SUMMARY, Path("runs/x"), 128) == [
        "  return 498.7 [495.1, 500.0]  (8 seeds x 128 episodes)   500,000 steps x 8 in 6.1 s  "
        "(655,000 steps/s, compile 3.9 s)",
        "  next:  jaxrl eval runs/x      jaxrl resume runs/x total_steps=1e6"]


def test_result_of_runs_that_ended_otherwise():
    early = {"status": "interrupted", "num_seeds": 1, "eval_returns": None, "eval_ci95": None}
    stopped = result_lines({**SUMMARY, **early}, Path("a b"))
    assert stopped[0].startswith("  interrupted: 500,000 steps in 6.1 s") and stopped[1].endswith(
        "jaxrl resume 'a b'"
    )
    bare = {
        "status": "failed", "num_seeds": 1, "total_steps": 0, "seconds": None,
        "steps_per_second": None, "compile_seconds": None, "eval_returns": None, "eval_ci95": None,
    }
    assert len(result_lines(bare, Path("x"))) == 1
    assert "return -" not in result_lines({**SUMMARY, "eval_ci95": [None, None]}, Path("x"))[0]


def test_mean_and_interval():
    assert mean_text(None) == mean_text(np.array([np.nan])) == "-"
    assert (
        mean_text(np.array([498.74])) == "498.7"
        and mean_text(np.array([498.74, np.nan])) == "498.7"
    )
    x = np.array([1.0, 2.0, 3.0, 4.0])
    half = 3.182 * x.std(ddof=1) / 2
    assert (
        mean_text(x) == f"2.500 ± {half:.3f}"
        and mean_text(x, unicode=False) == f"2.500 +- {half:.3f}"
    )
    assert mean_text(np.array([20.0, 21.0])).split(" ± ")[1] == f"{12.71 / 2:.1f}"


def test_student_quantiles():
    scipy = pytest.importorskip("scipy.stats")
    for freedom in range(1, 200):
        assert screen._student(freedom) == pytest.approx(scipy.t.ppf(0.975, freedom), rel=0.01)


def test_progress_line():
    assert progress_line(1000, 5000, 123_456.0, np.array([2.0]), 10.0) == (
        "  1,000/5,000  20%  123,000 steps/s  return 2.000  10.0 s, ETA 40.0 s")
    assert progress_line(0, 5000, float("nan"), None, 0.0).endswith(
        "0 steps/s  return -  0.0 s, ETA ?"
    )


def test_without_a_terminal_one_plain_line_every_ten_seconds(capsys):
    now = [0.0]
    shown = Screen(clock=lambda: now[0])
    for second in range(25):
        now[0] = float(second)
        shown.progress(second, 25, 1.0, None, second)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == ["0/25", "10/25", "20/25"]


def test_what_goes_where(capsys, tmp_path):
    with Screen(episodes=128) as shown:
        play(shown)
    out, err = capsys.readouterr()
    assert out.splitlines() == result_lines(SUMMARY, Path("runs/x"), 128)
    assert "algorithm  ppo" in err and "rounded up" in err and "1,000/5,000" in err
    with Screen(quiet=True, episodes=128) as shown:
        play(shown)
        shown.note("warning: heed this")
    assert capsys.readouterr() == (out, "warning: heed this\n")
    (tmp_path / "summary.json").write_text('{"status": "as stored"}\n')
    with Screen(json=True) as shown:
        play(shown, tmp_path)
    assert json.loads(capsys.readouterr().out) == {"status": "as stored"}
    with Screen(json=True) as shown:
        play(shown, tmp_path / "gone")
    assert json.loads(capsys.readouterr().out) == SUMMARY
    play(Silent())
    assert capsys.readouterr() == ("", "")


def test_header_has_at_most_six_lines(capsys):
    Screen().header({f"fact {i}": i for i in range(9)})
    assert len(capsys.readouterr().err.splitlines()) == 6


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_a_terminal_gets_one_live_line(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    now = [0.0]
    monkeypatch.setattr(sys, "stderr", stream)
    with Screen(clock=lambda: now[0]) as shown:
        for _ in range(50):
            now[0] += 0.03
            shown.progress(int(now[0] * 100), 150, 1.0, np.array([1.0, 2.0]), now[0])
    text = stream.getvalue()
    assert "\x1b[2K" in text and "±" in text and text.count("ETA") <= 17, (
        "drawn in place, at most ten times a second"
    )
    assert text.endswith("\x1b[2K") or "\x1b[?25h" in text, "the cursor is back"


@pytest.mark.parametrize("term", ["dumb", "unknown", None])
def test_no_control_codes_on_a_dumb_terminal(term, monkeypatch):
    monkeypatch.delenv("TERM", raising=False)
    if term:
        monkeypatch.setenv("TERM", term)
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    play(Screen())
    assert stream.getvalue() and "\x1b" not in stream.getvalue()


class Broken(Terminal):
    def write(self, text):
        raise OSError(5, "gone")


def closed():
    stream = Terminal()
    stream.close()
    return stream


@pytest.mark.parametrize("make", [lambda: None, closed, Broken])
def test_streams_that_cannot_be_written(make, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", make())
    monkeypatch.setattr(sys, "stdout", make())
    with Screen() as shown:
        play(shown)


CHILD = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from tests.cli.test_screen import play
from jaxrl.cli import doctor, main
from jaxrl.cli.screen import Screen
doctor.run = lambda words: play(Screen())
sys.exit(main.main(["doctor"]))
"""


@pytest.mark.parametrize(
    "shell, code",
    [
        (">&-", 0), ("2>&-", 0), (">&- 2>&- <&-", 0), ("2>/dev/full", 0),
        (">/dev/full 2>/dev/full", 1),
    ],
)     # 1: the result is lost
def test_processes_with_closed_or_full_streams(shell, code):
    child = CHILD.format(path=[str(Path(__file__).parents[2])])
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -c "$1" {shell}', sys.executable, child], timeout=60,
        env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    )
    assert done.returncode == code


def test_numbers_and_tables(monkeypatch):
    assert [duration(x) for x in (6.12, 59.94, 60, 245, 7389)] == [
        "6.1 s", "59.9 s", "1:00", "4:05", "2:03:09",
    ]
    assert [rate(x) for x in (655_123, 999, 12.3, 0, float("inf"))] == [
        "655,000", "999", "12", "0", "0",
    ]
    assert [size(x) for x in (12, 2048, 3 * 2**20, 21.9 * 2**30, 2**45)] == [
        "12 B", "2.0 KiB", "3.0 MiB", "21.9 GiB", "32768.0 GiB",
    ]
    monkeypatch.setenv("COLUMNS", "40")
    lines = table([("a", "1", "word " * 12), ("bbb", "22", "")], ("key", "v", "help"))
    assert all(len(line) <= 40 for line in lines) and len(lines) > 3
    assert re.match(r"  key  v   help", lines[0]) and table([]) == []
