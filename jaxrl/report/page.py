"""report.html: one static page of a run, which loads nothing. Every text is escaped."""

from __future__ import annotations

import html
import itertools
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxrl.report import population
from jaxrl.report.chart import Curve, average, line_chart, number
from jaxrl.storage import metrics
from jaxrl.storage.checkpoint import storage_error
from jaxrl.storage.files import shown, write_atomic
from jaxrl.storage.folder import CONFIG, read_environment, read_summary

REPORT = "report.html"
_MAIN = ("step", "seconds", "steps_per_second", "return_mean", "episodes")
_MOST_SMALL = 24

_STYLE = """
:root { --paper: #fff; --panel: #f7f8fa; --ink: #16202c; --soft: #647182; --rule: #e3e7ec;
        --line: #1f6feb; --good: #1a7f4b; --bad: #c0362c; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #12161c; --panel: #1a2029; --ink: #e6eaf0; --soft: #93a0b0; --rule: #2b333e;
          --line: #5aa2ff; --good: #4cc38a; --bad: #ff7b6e; } }
body { margin: 0 auto; max-width: 1180px; padding: 32px 28px 60px; background: var(--paper);
       color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 26px; margin: 0 12px 0 0; display: inline; }
h2 { font-size: 16px; margin: 36px 0 12px; }
.badge { font-size: 13px; padding: 2px 10px; border-radius: 10px; border: 1px solid currentColor;
         vertical-align: 4px; }
.good { color: var(--good); } .bad { color: var(--bad); } .soft { color: var(--soft); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px;
         margin: 22px 0; }
.fact { background: var(--panel); border-radius: 10px; padding: 12px 16px; }
.fact b { display: block; font-size: 24px; font-weight: 600; font-variant-numeric: tabular-nums; }
.fact span { color: var(--soft); font-size: 13px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 16px; }
.small { grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 12px; }
svg { width: 100%; height: auto; background: var(--panel); border-radius: 10px; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
svg .title { font-size: 13px; font-weight: 600; fill: var(--ink); }
svg .last { font-size: 12px; font-weight: 600; fill: var(--line); }
svg .grid { stroke: var(--rule); } svg .axis { stroke: var(--soft); }
svg polyline { fill: none; stroke: var(--line); stroke-linejoin: round; }
svg .seed { stroke-width: 1; opacity: .32; } svg .mean { stroke-width: 2.2; }
svg .copy { stroke-width: 1; opacity: .45; stroke-dasharray: 3 3; }
svg .best { stroke: var(--good); stroke-width: 2.4; }
svg .dot { fill: var(--line); }
svg .faint { fill: var(--line); opacity: .45; } svg .top { fill: var(--good); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--rule);
         vertical-align: top; }
th { font-weight: 500; color: var(--soft); white-space: nowrap; width: 1%; padding-right: 24px; }
td { overflow-wrap: anywhere; }
pre { background: var(--panel); border-radius: 10px; padding: 14px 16px; overflow: auto;
      font-size: 13px; margin: 0; max-height: 560px; }
.wide { overflow-x: auto; }
.wide td, .wide th { white-space: nowrap; width: auto; padding-right: 20px; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr));
           gap: 0 32px; }
.error { border-left: 3px solid var(--bad); padding: 6px 14px; background: var(--panel); }
@media (max-width: 560px) {
  .charts, .columns { grid-template-columns: 1fr; } body { padding: 20px 14px; } }
"""


def write(run: Path | str) -> Path:
    """Write the page from the files of the run and return its path. Missing parts are left out."""
    run = Path(run)
    data = page(run).encode("utf-8", "replace")
    try:
        write_atomic(run / REPORT, data)
    except OSError as error:
        raise storage_error(error, run, run / REPORT, len(data)) from error
    return run / REPORT


def page(run: Path) -> str:
    """Return the page as text."""
    summary = read_summary(run) or {}
    rows = metrics.read(run)
    name = f"{summary.get('algo') or 'run'} on {summary.get('env') or run.absolute().name}"
    quoted = shlex.quote(shown(run))
    return document(name, [
        f"<h1>{html.escape(name)}</h1>", _badge(summary),
        f'<div class="soft">{html.escape(shown(run))}</div>',
        _error(summary), _facts(summary),
        '<h2>Learning curves <span class="soft">over environment steps per seed</span></h2>',
        '<div class="charts">', line_chart("Return in training", _column(rows, "return_mean")),
        line_chart("Return in evaluation (greedy)",
                   _evaluations(metrics.read(run, metrics.EVALS))), "</div>",
        population.section(run), _other_metrics(rows),
        '<div class="columns"><section><h2>Summary</h2>', _table(summary.items()), "</section>",
        "<section><h2>Environment</h2>", _table(_launch(read_environment(run) or {})),
        "</section></div>",
        _config(run), f"<h2>Repeat</h2><pre>{html.escape(_commands(quoted))}</pre>",
    ])


def document(name: str, parts: Iterable[str]) -> str:
    """Return a page in this style, from escaped parts of HTML."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return "".join([
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(name)}</title><style>{_STYLE}</style></head><body>", *parts,
        "</body></html>\n"])


def _error(summary: Mapping[str, Any]) -> str:
    if not summary.get("error"):
        return ""
    return f'<p class="error">{html.escape(str(summary["error"]))}</p>'


def _other_metrics(rows: list[dict[str, Any]]) -> str:
    """Return small charts of the metrics beside the main ones, in the order of the rows."""
    keys = dict.fromkeys(key for row in rows[:3] + rows[-3:] for key in row if key not in _MAIN)
    charts = [line_chart(key, _column(rows, key), 300, 170, mean_only=True)
              for key in list(keys)[:_MOST_SMALL]]
    if not charts:
        return ""
    return f'<h2>Other metrics</h2><div class="charts small">{"".join(charts)}</div>'


def _config(run: Path) -> str:
    try:
        text = (run / CONFIG).read_text(errors="replace")
    except OSError:
        return ""
    if not text:
        return ""
    return f"<h2>Config</h2><pre>{html.escape(text)}</pre>"


def _commands(quoted: str) -> str:
    return (f"jaxrl train config={quoted}/{CONFIG}\njaxrl eval {quoted}\n"
            f"jaxrl resume {quoted} total_steps=…")


def _badge(summary: Mapping[str, Any]) -> str:
    status = str(summary.get("status") or "unfinished")
    kind = {"completed": "good", "interrupted": "soft", "unfinished": "soft"}.get(status, "bad")
    return f'<span class="badge {kind}">{html.escape(status)}</span>'


def _facts(summary: Mapping[str, Any]) -> str:
    """Return the few numbers that a reader looks for first."""
    if not summary:
        return ""
    low, high = [*_list(summary.get("eval_ci95")), None, None][:2]
    seeds = summary.get("num_seeds")
    plural = "" if seeds == 1 else "s"
    trained = average(map(_number, _list(summary.get("train_returns"))))
    return facts([
        (number(summary.get("eval_iqm")),
         f"evaluation, IQM · 95 % [{number(low)}, {number(high)}]"),
        (number(trained), "training return, last episodes"),
        (number(summary.get("total_steps")), f"steps × {number(seeds)} seed{plural}"),
        (number(summary.get("steps_per_second")), "steps per second"),
        (f"{number(summary.get('seconds'))} s",
         f"of which compiling {number(summary.get('compile_seconds'))} s"),
    ])


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return (number, description) pairs as a row of boxes."""
    cells = (f'<div class="fact"><b>{html.escape(big)}</b><span>{html.escape(small)}</span></div>'
             for big, small in pairs)
    return f'<div class="facts">{"".join(cells)}</div>'


def _column(rows: list[dict[str, Any]], key: str) -> Curve:
    """Return one metric as a curve. A number is one seed, a list has one value per seed."""
    steps: list[float] = []
    columns: list[list[Any]] = []
    for row in rows:
        if key in row and isinstance(row.get("step"), (int, float)):
            steps.append(row["step"])
            columns.append(_listed(row[key]))
    seeds = itertools.zip_longest(*columns)      # filled up with None
    return Curve(steps, [[_number(value) for value in seed] for seed in seeds])


def _evaluations(evals: list[dict[str, Any]]) -> Curve:
    """Return the evaluations as a curve of each seed's mean over its episodes."""
    rows = []
    for row in evals:
        returns = row.get("returns")
        if isinstance(returns, list):
            means = [average(map(_number, _listed(episodes))) for episodes in returns]
            rows.append({"step": row.get("step"), "mean": means})
    return _column(rows, "mean")


def _list(value: Any) -> list[Any]:
    """Return a list as it is, and [] for another value."""
    return value if isinstance(value, list) else []


def _listed(value: Any) -> list[Any]:
    """Return a list as it is, and another value as its only item."""
    return value if isinstance(value, list) else [value]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _launch(environment: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Yield environment.json as rows: versions on one line, later launches counted."""
    for key, value in environment.items():
        if key == "versions" and isinstance(value, dict):
            value = " · ".join(f"{name} {version}" for name, version in value.items())
        elif key == "git" and isinstance(value, dict):
            changed = " with changes" if value.get("changed") else ""
            value = f"{value.get('commit')}{changed}"
        elif key == "resumed" and isinstance(value, list):
            value = f"{len(value)} times"
        yield key, value


def _table(items: Iterable[tuple[str, Any]]) -> str:
    rows = (f"<tr><th>{html.escape(str(key))}</th><td>{html.escape(_text(value))}</td></tr>"
            for key, value in items)
    return f"<table>{''.join(rows)}</table>"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if value is None or value == []:
        return "–"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        return " · ".join(f"{key} {_text(item)}" for key, item in value.items())
    if type(value) is int:
        return f"{value:,}"
    return str(value)
