"""report.html: one static page of a run, with nothing loaded from elsewhere. Every text is escaped."""

from __future__ import annotations

import html
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
:root { --paper: #fff; --panel: #f7f8fa; --ink: #16202c; --soft: #647182; --rule: #e3e7ec; --line: #1f6feb;
        --good: #1a7f4b; --bad: #c0362c; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #12161c; --panel: #1a2029; --ink: #e6eaf0; --soft: #93a0b0; --rule: #2b333e; --line: #5aa2ff;
          --good: #4cc38a; --bad: #ff7b6e; } }
body { margin: 0 auto; max-width: 1180px; padding: 32px 28px 60px; background: var(--paper); color: var(--ink);
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 26px; margin: 0 12px 0 0; display: inline; }
h2 { font-size: 16px; margin: 36px 0 12px; }
.badge { font-size: 13px; padding: 2px 10px; border-radius: 10px; border: 1px solid currentColor; vertical-align: 4px; }
.good { color: var(--good); } .bad { color: var(--bad); } .soft { color: var(--soft); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; margin: 22px 0; }
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
th, td { text-align: left; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { font-weight: 500; color: var(--soft); white-space: nowrap; width: 1%; padding-right: 24px; }
td { overflow-wrap: anywhere; }
pre { background: var(--panel); border-radius: 10px; padding: 14px 16px; overflow: auto; font-size: 13px; margin: 0;
      max-height: 560px; }
.wide { overflow-x: auto; } .wide td, .wide th { white-space: nowrap; width: auto; padding-right: 20px; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 0 32px; }
.error { border-left: 3px solid var(--bad); padding: 6px 14px; background: var(--panel); }
@media (max-width: 560px) { .charts, .columns { grid-template-columns: 1fr; } body { padding: 20px 14px; } }
"""


def write(run: Path | str) -> Path:
    """Writes the page from the files of the run; what is missing is left out. Returns its path."""
    run = Path(run)
    data = page(run).encode("utf-8", "replace")
    try:
        write_atomic(run / REPORT, data)
    except OSError as error:
        raise storage_error(error, run, run / REPORT, len(data)) from error
    return run / REPORT


def page(run: Path) -> str:
    """The page as text."""
    summary, environment = read_summary(run) or {}, read_environment(run) or {}
    rows, evals = metrics.read(run), metrics.read(run, metrics.EVALS)
    try:
        config = (run / CONFIG).read_text(errors="replace")
    except OSError:
        config = ""
    name = f"{summary.get('algo') or 'run'} on {summary.get('env') or run.absolute().name}"
    small = [line_chart(key, _column(rows, key), 300, 170, mean_only=True) for key in _other(rows)[:_MOST_SMALL]]
    quoted = shlex.quote(shown(run))
    return document(name, [
        f"<h1>{html.escape(name)}</h1>", _badge(summary), f'<div class="soft">{html.escape(shown(run))}</div>',
        f'<p class="error">{html.escape(str(summary["error"]))}</p>' if summary.get("error") else "",
        _facts(summary), '<h2>Learning curves <span class="soft">over environment steps per seed</span></h2>',
        '<div class="charts">', line_chart("Return in training", _column(rows, "return_mean")),
        line_chart("Return in evaluation (greedy)", _evaluations(evals)), "</div>", population.section(run),
        f'<h2>Other metrics</h2><div class="charts small">{"".join(small)}</div>' if small else "",
        '<div class="columns"><section><h2>Summary</h2>', _table(summary.items()), "</section>",
        "<section><h2>Environment</h2>", _table(_launch(environment)), "</section></div>",
        f"<h2>Config</h2><pre>{html.escape(config)}</pre>" if config else "",
        f"<h2>Repeat</h2><pre>{html.escape(_commands(quoted))}</pre>",
    ])


def document(name: str, parts: Iterable[str]) -> str:
    """A page in this style, from escaped parts of HTML."""
    return "".join([
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src \'unsafe-inline\'">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(name)}</title><style>{_STYLE}</style></head><body>", *parts, "</body></html>\n"])


def _commands(quoted: str) -> str:
    return f"jaxrl train config={quoted}/{CONFIG}\njaxrl eval {quoted}\njaxrl resume {quoted} total_steps=…"


def _badge(summary: Mapping[str, Any]) -> str:
    status = str(summary.get("status") or "unfinished")
    kind = {"completed": "good", "interrupted": "soft", "unfinished": "soft"}.get(status, "bad")
    return f'<span class="badge {kind}">{html.escape(status)}</span>'


def _facts(summary: Mapping[str, Any]) -> str:
    """The few numbers that a reader looks for first."""
    if not summary:
        return ""
    low, high = [*_list(summary.get("eval_ci95")), None, None][:2]
    steps, seeds = summary.get("total_steps"), summary.get("num_seeds")
    trained = average(map(_number, _list(summary.get("train_returns"))))
    facts = [
        (number(summary.get("eval_iqm")), f"evaluation, IQM · 95 % [{number(low)}, {number(high)}]"),
        (number(trained), "training return, last episodes"),
        (number(steps), f"steps × {number(seeds)} seed{'' if seeds == 1 else 's'}"),
        (number(summary.get("steps_per_second")), "steps per second"),
        (f"{number(summary.get('seconds'))} s", f"of which compiling {number(summary.get('compile_seconds'))} s"),
    ]
    cells = (f'<div class="fact"><b>{html.escape(big)}</b><span>{html.escape(small)}</span></div>'
             for big, small in facts)
    return f'<div class="facts">{"".join(cells)}</div>'


def _column(rows: list[dict[str, Any]], key: str) -> Curve:
    """One metric as a curve: numbers are one seed, lists one value per seed."""
    found = [(row["step"], row[key] if isinstance(row[key], list) else [row[key]]) for row in rows
             if key in row and isinstance(row.get("step"), (int, float))]
    count = max((len(values) for _, values in found), default=0)
    seeds = [[_number(values[seed]) if seed < len(values) else None for _, values in found] for seed in range(count)]
    return Curve([step for step, _ in found], seeds)


def _evaluations(evals: list[dict[str, Any]]) -> Curve:
    """Evaluations as a curve: each seed's mean over its episodes."""
    rows = []
    for row in evals:
        returns = row.get("returns")
        if isinstance(returns, list):
            seeds = (map(_number, seed if isinstance(seed, list) else [seed]) for seed in returns)
            rows.append({"step": row.get("step"), "mean": [average(episodes) for episodes in seeds]})
    return _column(rows, "mean")


def _other(rows: list[dict[str, Any]]) -> list[str]:
    """The metrics beside the main ones, in order of appearance."""
    return list(dict.fromkeys(key for row in rows[:3] + rows[-3:] for key in row if key not in _MAIN))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _launch(environment: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """environment.json as rows: versions in one line, later launches counted."""
    for key, value in environment.items():
        if key == "versions" and isinstance(value, dict):
            value = " · ".join(f"{name} {version}" for name, version in value.items())
        elif key == "git" and isinstance(value, dict):
            value = f"{value.get('commit')}{' with changes' if value.get('changed') else ''}"
        elif key == "resumed" and isinstance(value, list):
            value = f"{len(value)} times"
        yield key, value


def _table(items: Iterable[tuple[str, Any]]) -> str:
    rows = (f"<tr><th>{html.escape(str(key))}</th><td>{html.escape(_text(value))}</td></tr>" for key, value in items)
    return f"<table>{''.join(rows)}</table>"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        return ", ".join(map(_text, value)) if value else "–"
    if isinstance(value, dict):
        return " · ".join(f"{key} {_text(item)}" for key, item in value.items())
    return "–" if value is None else f"{value:,}" if type(value) is int else str(value)
