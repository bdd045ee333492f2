"""Charts as SVG strings, without scripts, fonts or links."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

Points = list[tuple[float, float]]

_MOST_POINTS = 240     # per line: more cannot be seen
_MOST_DOTS = 40
_HUGE = 1e100          # larger values are not drawn


class Curve(NamedTuple):
    """Values over environment steps: one list per seed, None for a missing value."""

    steps: Sequence[float]
    seeds: Sequence[Sequence[float | None]]


class _Frame(NamedTuple):
    """The plotting area, and the ranges of the data that it shows."""

    left: float
    right: float
    top: float
    bottom: float
    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the position of a data point in the image."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (self.left + across * (self.right - self.left),
                self.bottom - up * (self.bottom - self.top))


def line_chart(title: str, curve: Curve, width: int = 560, height: int = 300,
               mean_only: bool = False) -> str:
    """Return the chart of a curve: a thin line for each seed and a bold one for their mean."""
    curve = _thin(curve)
    lines = [_points(curve.steps, seed) for seed in curve.seeds]
    mean = _points(curve.steps, [average(values) for values in zip(*curve.seeds, strict=True)])
    if not mean:
        return _empty(title, width, height)
    if mean_only:
        return _mean_chart(title, mean, width, height)
    frame = _frame([*lines, mean], width - 58, height)
    parts = [_head(title, width, height), _axes(frame)]
    if len(lines) > 1:
        parts += [_polyline(frame, line, "seed") for line in lines]
    parts.append(_polyline(frame, mean, "mean"))
    parts += _dots(frame, mean)
    parts.append(_end_label(frame, mean[-1], number(mean[-1][1])))
    if len(lines) > 1:
        parts.append(f'<text x="{frame.right:.0f}" y="22" class="tick" text-anchor="end">'
                     f'mean of {len(lines)} seeds, one thin line each</text>')
    return "".join(parts) + "</svg>"


def _mean_chart(title: str, mean: Points, width: int, height: int) -> str:
    """Return a narrow chart, without room for a label after the line."""
    frame = _frame([mean], width - 16, height)
    parts = [_head(title, width, height), _axes(frame), _polyline(frame, mean, "mean")]
    parts += _dots(frame, mean)
    parts.append(f'<text x="{width - 14}" y="22" class="last" text-anchor="end">'
                 f'{number(mean[-1][1])}</text>')
    return "".join(parts) + "</svg>"


class Trail(NamedTuple):
    """Points joined by lines. kind: "seed" (thin), "copy" (thin and dashed) or "best" (bold)."""

    points: Points
    kind: str = "seed"


def trail_chart(title: str, trails: Sequence[Trail], *, log: bool = False, width: int = 560,
                height: int = 300) -> str:
    """Return a chart of lines that differ by their kind only. The end of the last has a label.

    log: draw y by its logarithm.
    """
    if log:
        title += " (log)"
    scale = _scale(log)
    placed: list[Points] = []
    for trail in trails:
        placed.append([(float(x), scale(y)) for x, y in trail.points if abs(y) < _HUGE])
    if not any(placed):
        return _empty(title, width, height)
    frame = _frame([points for points in placed if points], width - 58, height)
    heights = None
    if log:
        heights = [(y, f"{10.0 ** y:.2g}") for y in ticks(*frame.y, most=5)]
    parts = [_head(title, width, height), _axes(frame, heights=heights)]
    for trail, points in zip(trails, placed, strict=True):
        if points:
            parts.append(_polyline(frame, points, trail.kind))
    if placed[-1]:
        last = trails[-1].points[-1][1]
        label = number(last)
        if len(label) >= 8:                      # there is no room
            label = f"{last:.1e}"
        parts.append(_end_label(frame, placed[-1][-1], label))
    return "".join(parts) + "</svg>"


class Dot(NamedTuple):
    """A point of a scatter chart, with a text for the pointer. kind: "dot", "faint" or "top"."""

    x: float
    y: float
    text: str
    kind: str = "dot"


def scatter_chart(title: str, dots: Sequence[Dot], *, log: bool = False,
                  names: Sequence[str] | None = None, width: int = 560, height: int = 300) -> str:
    """Return a scatter chart.

    log: draw x by its logarithm. names: labels of x = 0, 1, ...
    """
    if log:
        title += " (log)"
    scale = _scale(log)
    points = [(scale(dot.x), dot.y) for dot in dots]
    if not points:
        return _empty(title, width, height)
    frame = _frame([points], width - 16, height)
    labels: list[tuple[float, str]] | None = None
    if names is not None:
        frame = frame._replace(x=(-0.5, len(names) - 0.5))
        labels = list(enumerate(names))
    else:
        xs = [x for x, _ in points]
        pad = 0.05 * (max(xs) - min(xs)) or 0.5
        frame = frame._replace(x=(min(xs) - pad, max(xs) + pad))
        if log:
            labels = [(x, f"{10.0 ** x:.3g}") for x in ticks(*frame.x, most=6)]
    parts = [_head(title, width, height), _axes(frame, labels)]
    pairs = zip(points, dots, strict=True)
    for point, dot in sorted(pairs, key=lambda pair: pair[1].kind == "top"):
        x, y = frame.place(*point)
        radius = 5 if dot.kind == "top" else 3.5
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{dot.kind}">'
                     f"<title>{html.escape(dot.text)}</title></circle>")
    return "".join(parts) + "</svg>"


def number(value: Any) -> str:
    """Return a number with four significant digits, or a dash for another value."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if 1e-3 <= abs(value) < 1e7:
        digits = max(0, 3 - math.floor(math.log10(abs(value))))
        return f"{value:,.{digits}f}"
    return f"{value:.3g}"


def short(value: float) -> str:
    """Return a number as the label of an axis: 50k, 1.5M, 0.02."""
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:g}{unit}"
    return f"{value:.6g}"


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers within [low, high], in steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [(first + index) * step for index in range(math.floor(high / step + 1e-9) - first + 1)]


def _thin(curve: Curve) -> Curve:
    """Return a long curve averaged in bins of rows, the last row alone; a short one as it is."""
    width = math.ceil(len(curve.steps) / _MOST_POINTS)
    if width <= 1:
        return curve
    last = len(curve.steps) - 1
    bins = [slice(start, min(start + width, last)) for start in range(0, last, width)]
    bins.append(slice(last, None))
    return Curve([average(curve.steps[part]) for part in bins],
                 [[average(seed[part]) for part in bins] for seed in curve.seeds])


def average(values: Iterable[float | None]) -> float | None:
    """Return the mean of the known values; None without any."""
    found = [value for value in values if value is not None and abs(value) < _HUGE]
    if not found:
        return None
    return sum(found) / len(found)


def _points(steps: Sequence[float], values: Sequence[float | None]) -> Points:
    known = [(x, y) for x, y in zip(steps, values, strict=True) if y is not None]
    return [(float(x), float(y)) for x, y in known if abs(y) < _HUGE]


def _scale(log: bool) -> Callable[[float], float]:
    return math.log10 if log else float


def _head(title: str, width: int, height: int) -> str:
    name = html.escape(title)
    return (f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{name}">'
            f'<text x="14" y="22" class="title">{name}</text>')


def _empty(title: str, width: int, height: int) -> str:
    return (f'{_head(title, width, height)}<text x="{width / 2}" y="{height / 2}" class="tick" '
            'text-anchor="middle">no values</text></svg>')


def _end_label(frame: _Frame, point: tuple[float, float], label: str) -> str:
    x, y = frame.place(*point)
    return f'<text x="{x + 7:.1f}" y="{y + 4:.1f}" class="last">{label}</text>'


def _frame(lines: list[Points], width: float, height: float) -> _Frame:
    """Return a frame with room for all lines."""
    xs, ys = zip(*(point for line in lines for point in line), strict=True)
    low, high = min(ys), max(ys)
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    right = max(xs) if max(xs) > 0 else 1.0
    return _Frame(left=52, right=width, top=38, bottom=height - 28,
                  x=(min(0.0, min(xs)), right), y=(low - pad, high + pad))


def _axes(frame: _Frame, labels: Sequence[tuple[float, str]] | None = None,
          heights: Sequence[tuple[float, str]] | None = None) -> str:
    """Return both axes. labels: of x; heights: labels of y. By default they are round numbers."""
    parts = []
    if labels is None:
        most = 6 if frame.right > 400 else 4
        labels = [(value, short(value)) for value in ticks(*frame.x, most=most)]
    for value, label in heights or [(value, short(value)) for value in ticks(*frame.y, most=5)]:
        _, y = frame.place(frame.x[0], value)
        parts.append(f'<line x1="{frame.left}" x2="{frame.right}" y1="{y:.1f}" y2="{y:.1f}" '
                     f'class="grid"/><text x="{frame.left - 8}" y="{y + 4:.1f}" class="tick" '
                     f'text-anchor="end">{label}</text>')
    for value, label in labels:
        x, _ = frame.place(value, frame.y[0])
        parts.append(f'<text x="{x:.1f}" y="{frame.bottom + 18}" class="tick" '
                     f'text-anchor="middle">{html.escape(label)}</text>')
    parts.append(f'<line x1="{frame.left}" x2="{frame.right}" y1="{frame.bottom}" '
                 f'y2="{frame.bottom}" class="axis"/>')
    return "".join(parts)


def _polyline(frame: _Frame, points: Points, kind: str) -> str:
    placed = " ".join("{:.1f},{:.1f}".format(*frame.place(x, y)) for x, y in points)
    return f'<polyline points="{placed}" class="{kind}"/>'


def _dots(frame: _Frame, points: Points) -> list[str]:
    """Return dots with their values for the pointer, if there are few points."""
    if len(points) > _MOST_DOTS:
        return []
    parts = []
    for step, value in points:
        x, y = frame.place(step, value)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" class="dot">'
                     f"<title>step {step:,.0f}: {number(value)}</title></circle>")
    return parts
