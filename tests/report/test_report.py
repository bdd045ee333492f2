"""report.html: one static page with the content of the run's files, escaped."""

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from jaxrl.report import chart
from jaxrl.report import page as report
from jaxrl.storage import folder, metrics

NASTY = "<script>alert('x')</script>\"&"


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    run = Path("runs/x")
    run.mkdir(parents=True)
    return run


def fill(run: Path, text: str = "cartpole") -> None:
    (run / "config.yaml").write_text(f"env: {text}\n")
    with metrics.Rows(run, metrics.METRICS) as rows, metrics.Rows(run, metrics.EVALS) as evals:
        for step in range(0, 100_000, 100):
            rows.append({"step": step,
                         "return_mean": [step / 1e3, None if step < 500 else step / 2e3],
                         "episodes": 3, text: 0.1, "loss_policy": [0.1, -0.2]})
        evals.append({"step": 1000, "returns": [[1.0, 2.0], [None, 4.0]]})
    folder.write_environment(run, ["jaxrl", "train", f"env={text}"], device=text)
    folder.write_summary(run, dict.fromkeys(folder.SUMMARY_KEYS) | {
        "status": "failed", "algo": text, "env": text, "error": text, "num_seeds": 2,
        "total_steps": 100_000,
        "eval_iqm": 498.72, "eval_ci95": [495.1, 500.0], "train_returns": [480.0, None]})


class Page(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags = []
        self.attributes = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.text += data


def test_page_is_static_and_loads_nothing(run):
    fill(run)
    page = Page(report.write(run).read_text())
    assert not {"script", "link", "img", "iframe", "object", "base", "form", "a"} & set(page.tags)
    assert not [name for name,
                _ in page.attributes if name.startswith("on") or name in ("src", "href", "srcset")]
    assert "url(" not in page.text and "@import" not in page.text and "http://" not in page.text
    assert page.tags.count("svg") == 4
    for word in ("498.7", "[495.1, 500]", "100,000", "jaxrl train config=runs/x/config.yaml",
                 "optax", "480"):
        assert word in page.text, word


def test_every_text_is_escaped(run):
    fill(run, NASTY)
    text = (report.write(run)).read_text()
    page = Page(text)
    assert "script" not in page.tags and "<script" not in text
    assert page.text.count(NASTY) >= 6          # title, heading, error, chart, tables, config


@pytest.mark.parametrize("broken", [[], ["metrics.jsonl"], ["summary.json", "environment.json"],
                                    ["config.yaml"],
                                    ["metrics.jsonl", "evals.jsonl", "summary.json",
                                     "environment.json"]])
def test_missing_files_are_left_out(run, broken):
    fill(run)
    for name in broken:
        (run / name).unlink()
    assert "</html>" in report.write(run).read_text()


def test_strange_rows_do_no_harm(run):
    (run / "metrics.jsonl").write_text(
        '{"step": "x", "return_mean": [1]}\n'
        '{"return_mean": 3}\n'
        '{"step": 1, "return_mean": {"a": 1}}\n'
        '{"step": 2, "return_mean": [[1]], "a": "text"}\n'
        '{"step": 3, "return_mean": [1e308, -1e308, true]}\n')
    (run / "evals.jsonl").write_text(
        '{"step": 1, "returns": 3}\n{"step": 2, "returns": [1, [2], []]}\n')
    (run / "summary.json").write_text(
        '{"eval_ci95": 3, "train_returns": "x", "status": [1], "seconds": "now"}')
    assert "</html>" in report.write(run).read_text()


@pytest.mark.parametrize("steps, seeds", [
    ([], []), ([0], [[1.0]]), ([5], [[None]]), (range(10), [[0.0] * 10] * 3),
    ([1, 2], [[1e-12, 2e-12]]),
    (range(10_001), [[float(i % 7) for i in range(10_001)]] * 2),
    ([1, 2, 3], [[None, 1.0, None], [2.0, None, None]]), ([10**12, 2 * 10**12], [[-1e9, 1e9]]),
])
def test_charts_are_xml_and_stay_within_their_frame(steps, seeds):
    for mean_only in (False, True):
        curve = chart.Curve(steps, seeds)
        tree = ElementTree.fromstring(chart.line_chart("t<&", curve, mean_only=mean_only))
        for line in tree.iter("polyline"):
            for x, y in re.findall(r"([-\d.]+),([-\d.]+)", line.get("points")):
                assert 0 <= float(x) <= 560 and 0 <= float(y) <= 300
        assert len(ElementTree.tostring(tree)) < 40_000


def test_ticks_are_round_and_numbers_are_short():
    assert chart.ticks(0, 500_000, 5) == [0, 100_000, 200_000, 300_000, 400_000, 500_000]
    assert [chart.short(value) for value in chart.ticks(-0.31, 0.29, 4)] == ["-0.2", "0", "0.2"]
    labels = [chart.short(value) for value in (1500, 2e6, 1e9, -3000, 0.25)]
    assert labels == ["1.5k", "2M", "1G", "-3k", "0.25"]
    assert [chart.number(value) for value in (498.72, 500.0, None, 1234567.8, 0.01234, 1e-9)] == [
        "498.7", "500", "–", "1,234,568", "0.01234", "1e-09"]


def test_long_curves_keep_their_last_point_and_their_mean():
    steps = list(range(0, 1000))
    thin = chart._thin(chart.Curve(steps, [[2.0 * step for step in steps], [None] * 1000]))
    assert len(thin.steps) <= 241 and thin.steps[-1] == 999 and thin.seeds[0][-1] == 1998
    assert all(value == pytest.approx(2 * step) for step,
               value in zip(thin.steps, thin.seeds[0], strict=True))
    assert thin.seeds[1] == [None] * len(thin.steps)
