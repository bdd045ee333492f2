"""A line chart as an SVG string: thin lines for single seeds, a bold one for their mean. No script, font or link."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

Points = list[tuple[float, float]]

_MOST_POINTS = 240     # per line: more cannot be seen
_MOST_DOTS = 40
_HUGE = 1e100          # beyond it nothing is drawn


class Curve(NamedTuple):
    """Values over environment steps: one list of values per seed, None where there is none."""

    steps: Sequence[float]
    seeds: Sequence[Sequence[float | None]]


class _Frame(NamedTuple):
    """The plotting area and the data it shows."""

    left: float
    right: float
    top: float
    bottom: float
    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        return (self.left + (x - self.x[0]) / (self.x[1] - self.x[0]) * (self.right - self.left),
                self.bottom - (y - self.y[0]) / (self.y[1] - self.y[0]) * (self.bottom - self.top))


def line_chart(title: str, curve: Curve, width: int = 560, height: int = 300, mean_only: bool = False) -> str:
    """The chart of a curve, or of a note that there is nothing to show."""
    curve = _thin(curve)
    lines = [_points(curve.steps, seed) for seed in curve.seeds]
    mean = _points(curve.steps, [average(values) for values in zip(*curve.seeds, strict=True)])
    head = (f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(title)}">'
            f'<text x="14" y="22" class="title">{html.escape(title)}</text>')
    if not mean:
        return f'{head}<text x="{width / 2}" y="{height / 2}" class="tick" text-anchor="middle">no values</text></svg>'
    drawn = [mean] if mean_only else [*lines, mean]
    frame = _frame(drawn, width - (16 if mean_only else 58), height)
    parts = [head, _axes(frame)]
    if not mean_only and len(lines) > 1:
        parts += [_polyline(frame, line, "seed") for line in lines]
    parts.append(_polyline(frame, mean, "mean"))
    parts += _dots(frame, mean)
    if mean_only:      # too narrow for a label behind the line
        parts.append(f'<text x="{width - 14}" y="22" class="last" text-anchor="end">{number(mean[-1][1])}</text>')
        return "".join(parts) + "</svg>"
    x, y = frame.place(*mean[-1])
    parts.append(f'<text x="{x + 7:.1f}" y="{y + 4:.1f}" class="last">{number(mean[-1][1])}</text>')
    if len(lines) > 1:
        parts.append(f'<text x="{frame.right:.0f}" y="22" class="tick" text-anchor="end">mean of {len(lines)} seeds, '
                     'one thin line each</text>')
    return "".join(parts) + "</svg>"


class Trail(NamedTuple):
    """Points that are joined as they stand. kind: "seed" (thin), "copy" (thin and dashed) or "best" (bold)."""

    points: Points
    kind: str = "seed"


def trail_chart(title: str, trails: Sequence[Trail], *, log: bool = False, width: int = 560, height: int = 300) -> str:
    """Lines that are told apart by their kind alone, y by its logarithm if asked; the last one's end is labelled."""
    name = html.escape(title + (" (log)" if log else ""))
    head = (f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{name}">'
            f'<text x="14" y="22" class="title">{name}</text>')
    scale = math.log10 if log else float
    placed = [[(float(x), scale(y)) for x, y in trail.points if abs(y) < _HUGE] for trail in trails]
    if not any(placed):
        return f'{head}<text x="{width / 2}" y="{height / 2}" class="tick" text-anchor="middle">no values</text></svg>'
    frame = _frame([points for points in placed if points], width - 58, height)
    heights = [(y, f"{10.0 ** y:.2g}") for y in ticks(*frame.y, most=5)] if log else None
    parts = [head, _axes(frame, heights=heights)]
    parts += [_polyline(frame, points, trail.kind) for trail, points in zip(trails, placed, strict=True) if points]
    if placed[-1]:
        x, y = frame.place(*placed[-1][-1])
        last = trails[-1].points[-1][1]
        label = number(last) if len(number(last)) < 8 else f"{last:.1e}"       # what there is room for
        parts.append(f'<text x="{x + 7:.1f}" y="{y + 4:.1f}" class="last">{label}</text>')
    return "".join(parts) + "</svg>"


class Dot(NamedTuple):
    """A point of a scatter chart; `text` is shown when it is pointed at."""

    x: float
    y: float
    text: str
    kind: str = "dot"          # "faint" or "top"


def scatter_chart(title: str, dots: Sequence[Dot], *, log: bool = False, names: Sequence[str] | None = None,
                  width: int = 560, height: int = 300) -> str:
    """Dots, x by its logarithm or, with `names`, x counting these."""
    head = (f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(title)}">'
            f'<text x="14" y="22" class="title">{html.escape(title)}</text>')
    scale = math.log10 if log else float
    points = [(scale(dot.x), dot.y) for dot in dots]
    if not points:
        return f'{head}<text x="{width / 2}" y="{height / 2}" class="tick" text-anchor="middle">no values</text></svg>'
    xs = [x for x, _ in points] if names is None else [-0.5, len(names) - 0.5]
    pad = 0.0 if names else 0.05 * (max(xs) - min(xs)) or 0.5
    frame = _frame([points], width - 16, height)._replace(x=(min(xs) - pad, max(xs) + pad))
    if names is not None:
        labels = list(enumerate(names))
    elif log:
        labels = [(x, f"{10.0 ** x:.3g}") for x in ticks(*frame.x, most=6)]
    else:
        labels = None
    parts = [head, _axes(frame, labels)]
    for (px, py), dot in sorted(zip(points, dots, strict=True), key=lambda pair: pair[1].kind == "top"):
        x, y = frame.place(px, py)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{5 if dot.kind == "top" else 3.5}" class="{dot.kind}">'
                     f"<title>{html.escape(dot.text)}</title></circle>")
    return "".join(parts) + "</svg>"


def number(value: Any) -> str:
    """Four significant digits, thousands separated; a dash for what is no number."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if 1e-3 <= abs(value) < 1e7:
        digits = max(0, 3 - math.floor(math.log10(abs(value))))
        return f"{value:,.{digits}f}"
    return f"{value:.3g}"


def short(value: float) -> str:
    """An axis label: 50k, 1.5M, 0.02."""
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:g}{unit}"
    return f"{value:.6g}"


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers within [low, high], steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [(first + index) * step for index in range(math.floor(high / step + 1e-9) - first + 1)]


def _thin(curve: Curve) -> Curve:
    """A curve averaged in bins of rows, the same for all seeds, when it is long; the last row stays as it is."""
    width = -(-len(curve.steps) // _MOST_POINTS)
    if width <= 1:
        return curve
    bins = [slice(start, min(start + width, len(curve.steps) - 1)) for start in range(0, len(curve.steps) - 1, width)]
    bins.append(slice(len(curve.steps) - 1, None))
    return Curve([average(curve.steps[part]) for part in bins],
                 [[average(seed[part]) for part in bins] for seed in curve.seeds])


def average(values: Iterable[float | None]) -> float | None:
    """The mean of the values there are."""
    found = [value for value in values if value is not None and abs(value) < _HUGE]
    return sum(found) / len(found) if found else None


def _points(steps: Sequence[float], values: Sequence[float | None]) -> Points:
    return [(float(x), float(y)) for x, y in zip(steps, values, strict=True) if y is not None and abs(y) < _HUGE]


def _frame(lines: list[Points], width: float, height: float) -> _Frame:
    xs, ys = zip(*(point for line in lines for point in line), strict=True)
    low, high = min(ys), max(ys)
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    right = max(xs) if max(xs) > 0 else 1.0
    return _Frame(52, width, 38, height - 28, (min(0.0, min(xs)), right), (low - pad, high + pad))


def _axes(frame: _Frame, labels: Sequence[tuple[float, str]] | None = None,
          heights: Sequence[tuple[float, str]] | None = None) -> str:
    """Both axes; `labels` at places of x, `heights` at places of y, round numbers where there are none."""
    parts = []
    if labels is None:
        labels = [(value, short(value)) for value in ticks(*frame.x, most=6 if frame.right > 400 else 4)]
    for value, label in heights or [(value, short(value)) for value in ticks(*frame.y, most=5)]:
        _, y = frame.place(frame.x[0], value)
        parts.append(f'<line x1="{frame.left}" x2="{frame.right}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
                     f'<text x="{frame.left - 8}" y="{y + 4:.1f}" class="tick" text-anchor="end">{label}</text>')
    for value, label in labels:
        x, _ = frame.place(value, frame.y[0])
        parts.append(f'<text x="{x:.1f}" y="{frame.bottom + 18}" class="tick" text-anchor="middle">'
                     f"{html.escape(label)}</text>")
    parts.append(f'<line x1="{frame.left}" x2="{frame.right}" y1="{frame.bottom}" y2="{frame.bottom}" class="axis"/>')
    return "".join(parts)


def _polyline(frame: _Frame, points: Points, kind: str) -> str:
    placed = " ".join("{:.1f},{:.1f}".format(*frame.place(x, y)) for x, y in points)
    return f'<polyline points="{placed}" class="{kind}"/>'


def _dots(frame: _Frame, points: Points) -> list[str]:
    """Dots that name their value when pointed at, where there are few; a single point needs one to be seen."""
    if len(points) > _MOST_DOTS:
        return []
    parts = []
    for step, value in points:
        x, y = frame.place(step, value)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" class="dot"><title>step {step:,.0f}: {number(value)}'
                     "</title></circle>")
    return parts
