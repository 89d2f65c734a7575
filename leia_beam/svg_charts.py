"""From numbers to drawings within a page: curves over steps, an interval. They carry their figures as text too.

The drawing of curves is stretched to the page's width while its lines and words keep their size, so that it is readable on a
phone. Long curves are thinned to what a screen can show, with the least and the largest value of each stretch kept.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from leia_beam.chart_axes import log_ticks, needs_log, tick_label, ticks
from leia_beam.html_pages import Html, Number, details, element, table

MAX_POINTS = 400
"""Points of a curve that are drawn: a screen's width has hardly more that differ."""
MAX_ROWS = 12
SMOOTHED_FROM = 200
"""Curves of more points are drawn as medians: single steps are noise, and hide each other."""
_BEYOND_SHARE = 0.005
"""Of the values of long curves so many may be beyond the axis, at each end."""
_MARKED = 15
"""Curves of at most so many points show each of them."""
SERIES, DASHES = 6, 4

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A line through (step, value) points, sorted by step; values that are not finite leave a gap."""

    name: str
    points: Sequence[Point]
    colour: int = 1
    """From 1 to SERIES."""
    dash: int = 1
    """From 1, solid, to DASHES."""


def curves_chart(title: str, unit: str, curves: Sequence[Curve], *, legend: bool = True, zero: bool = False) -> Html:
    """A figure of curves over steps; `zero` begins its axis at 0. Curves without any finite value are left out.

    Of long curves the medians of short stretches are drawn, with the values themselves faint behind them; the axis then is
    that of nearly all values, and it is said how many are beyond it.
    """
    kept = [curve for curve in curves if any(math.isfinite(y) for _, y in curve.points)]
    caption = [element("strong", title), element("span", unit, class_="soft")]
    if not kept:
        nothing = element("p", "no figures", class_="soft")
        return element("figure", element("figcaption", *caption), nothing, class_="chart")
    axis = _axis_of(kept, zero=zero)
    steps = [x for curve in kept for x, _ in curve.points]
    first, last = min(steps), max(steps)

    def place(point: Point) -> Point:
        x = 50.0 if first == last else 100 * (point[0] - first) / (last - first)
        return x, 100 * (1 - axis.position(point[1]))

    svg = element(
        "svg",
        *(_rule(100 * (1 - axis.position(value))) for value in axis.ticks),
        *(part for curve in kept for part in _behind(curve, place)),
        *(part for curve in kept for part in _drawn(curve, place)),
        viewBox="0 0 100 100",
        preserveAspectRatio="none",
        role="img",
        aria_label=_described(title, unit, kept),
    )
    x_labels = element("div", *_x_labels(first, last), class_="x", aria_hidden="true")
    width = f"--y-width:calc({max(len(tick_label(value)) for value in axis.ticks)}ch * .78 + .75rem)"
    plot = element("div", _y_labels(axis), svg, x_labels, class_="plot", style=width)
    remarks = [axis.remark] if axis.remark else []
    caption[1] = element("span", "; ".join([unit, *remarks]), class_="soft")
    return element(
        "figure",
        element("figcaption", *caption),
        *([curves_legend(kept)] if legend and len(kept) > 1 else []),
        plot,
        _figures(title, kept),
        class_="chart",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Axis:
    """The values at an axis's ticks, from its lower end to its upper one, and what must be said of it."""

    ticks: Sequence[float]
    is_log: bool
    remark: str

    def position(self, value: float) -> float:
        """Where a value stands between the ends, from 0 to 1; what is beyond them stands at them."""
        low, high = self.ticks[0], self.ticks[-1]
        value = min(max(value, low), high)
        if self.is_log:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        if high <= low:  # values that differ by less than their ticks do
            return 0.5
        return (value - low) / (high - low)


def _axis_of(curves: Sequence[Curve], *, zero: bool) -> _Axis:
    values = sorted(y for curve in curves for _, y in curve.points if math.isfinite(y))
    shown = values
    if any(len(curve.points) > SMOOTHED_FROM for curve in curves):
        beyond = int(len(values) * _BEYOND_SHARE)
        smooth = [y for curve in curves for _, y in smoothed(curve.points)]
        low, high = min(values[beyond], *smooth), max(values[-1 - beyond], *smooth)
        shown = [value for value in values if low <= value <= high]
    is_log = needs_log(shown) and not zero
    found = log_ticks(shown[0], shown[-1]) if is_log else ticks(0.0 if zero else shown[0], shown[-1])
    cut = sum(not found[0] <= value <= found[-1] for value in values)
    remarks = ["logarithmic"] if is_log else []
    remarks += [f"values beyond the axis: {cut:,}, up to {values[-1]:.4g}"] if cut else []
    return _Axis(ticks=found, is_log=is_log, remark="; ".join(remarks))


def _y_labels(axis: _Axis) -> Html:
    labels = (
        element("span", tick_label(value), style=f"inset-block-start:{100 * (1 - axis.position(value)):.2f}%")
        for value in axis.ticks
    )
    return element("div", *labels, class_="y", aria_hidden="true")


def curves_legend(curves: Iterable[Curve]) -> Html:
    """Which line is whose."""
    return element(
        "ul",
        *(
            element(
                "li",
                element(
                    "svg",
                    element("line", x1=2, x2=22, y1=5, y2=5, class_=_dash(curve)),
                    viewBox="0 0 24 10",
                    class_=f"series-{curve.colour}",
                    aria_hidden="true",
                ),
                element("bdi", curve.name),
            )
            for curve in curves
        ),
        class_="legend",
    )


def _dash(curve: Curve) -> str | None:
    return f"dash-{curve.dash}" if curve.dash > 1 else None


def _rule(y: float) -> Html:
    return element("line", x1=0, x2=100, y1=f"{y:.2f}", y2=f"{y:.2f}", class_="rule")


def _behind(curve: Curve, place: Callable[[Point], Point]) -> list[Html]:
    """A long curve's values, faint."""
    if len(curve.points) <= SMOOTHED_FROM:
        return []
    lines = [_line(map(place, thinned(stretch, MAX_POINTS))) for stretch in stretches(curve.points)]
    return [element("path", d=line, class_=f"curve faint series-{curve.colour}") for line in lines]


def _drawn(curve: Curve, place: Callable[[Point], Point]) -> list[Html]:
    """The curve's stretches of finite values, or its medians; its points where they are few."""
    colour = f"series-{curve.colour}"
    dash = f" dash-{curve.dash}" if curve.dash > 1 else ""
    parts = []
    is_long = len(curve.points) > SMOOTHED_FROM
    for stretch in [smoothed(curve.points)] if is_long else stretches(curve.points):
        placed = [place(point) for point in stretch]
        if len(placed) > 1:
            parts.append(element("path", d=_line(placed), class_=f"curve {colour}{dash}"))
        if len(placed) == 1 or len(curve.points) <= _MARKED:
            dots = "".join(f"M{x:.2f},{y:.2f}h0" for x, y in placed)
            parts.append(element("path", d=dots, class_=f"mark {colour}"))
    return parts


def _line(placed: Iterable[Point]) -> str:
    return "M" + " ".join(f"{x:.2f},{y:.2f}" for x, y in placed)


def smoothed(points: Sequence[Point]) -> list[Point]:
    """The medians of about SMOOTHED_FROM / 2 stretches of equal size, each at its middle; the first and last step stay.

    >>> smoothed([(1, 5.0)])
    [(1, 5.0)]
    """
    finite = [point for point in points if math.isfinite(point[1])]
    size = max(1, 2 * len(finite) // SMOOTHED_FROM)
    parts = [finite[start : start + size] for start in range(0, len(finite), size)]
    if len(parts) > 1 and len(parts[-1]) < size:
        parts[-2:] = [parts[-2] + parts[-1]]
    medians = [(part[len(part) // 2][0], statistics.median(y for _, y in part)) for part in parts]
    if len(medians) > 1:
        medians[0], medians[-1] = (finite[0][0], medians[0][1]), (finite[-1][0], medians[-1][1])
    return medians


def stretches(points: Sequence[Point]) -> list[list[Point]]:
    """The points, parted where a value is not finite.

    >>> stretches([(1, 2.0), (2, float("nan")), (3, 4.0)])
    [[(1, 2.0)], [(3, 4.0)]]
    """
    found: list[list[Point]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            found[-1].append(point)
        elif found[-1]:
            found.append([])
    return [stretch for stretch in found if stretch]


def thinned(points: Sequence[Point], limit: int) -> list[Point]:
    """At most about `limit` of the points, in their order: the ends, and the least and the largest of each stretch."""
    if len(points) <= limit:
        return list(points)
    size = math.ceil(2 * len(points) / limit)
    kept = {0, len(points) - 1}
    for start in range(0, len(points), size):
        part = range(start, min(start + size, len(points)))
        kept |= {min(part, key=lambda i: points[i][1]), max(part, key=lambda i: points[i][1])}
    return [points[number] for number in sorted(kept)]


def _x_labels(first: float, last: float) -> list[Html]:
    """The ends of the axis, and round steps between them that do not touch those."""
    if first == last:
        return [element("span", tick_label(first), style="inset-inline-start:50%")]
    room = 0.12 * (last - first)
    between = [value for value in ticks(first, last, 3) if first + room < value < last - 1.5 * room]
    shown = [first, *between, last]
    return [
        element("span", tick_label(value), style=f"inset-inline-start:{100 * (value - first) / (last - first):.2f}%")
        for value in shown
    ]


def _described(title: str, unit: str, curves: Sequence[Curve]) -> str:
    """What a curve says to those who hear the page."""
    said = []
    for curve in curves:
        finite = [point for point in curve.points if math.isfinite(point[1])]
        (first, begin), (last, end) = finite[0], finite[-1]
        said.append(f"{curve.name}: {tick_label(begin)} at step {first:,.0f}, {tick_label(end)} at step {last:,.0f}")
    return f"{title}, {unit}, by step. {'; '.join(said)}."


def _figures(title: str, curves: Sequence[Curve]) -> Html:
    """Some of the points as a table."""
    steps = sorted({x for curve in curves for x, _ in curve.points})
    if len(steps) > MAX_ROWS:
        steps = [steps[round(number * (len(steps) - 1) / (MAX_ROWS - 1))] for number in range(MAX_ROWS)]
    values = [dict(curve.points) for curve in curves]
    rows = [[f"{step:,.0f}", *(_figure(by_step.get(step)) for by_step in values)] for step in steps]
    columns = ["step", *(Number(curve.name) for curve in curves)]
    return details("figures", table(f"{title} by step", columns, rows))


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:#.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def interval_svg(
    low: float, value: float, high: float, *, mark: float, span: tuple[float, float], width: int = 180, height: int = 16
) -> Html:
    """A line from `low` to `high` with a dot at `value`, and a tick at `mark`, on an axis over `span`."""

    def x(at: float) -> float:
        inside = min(max(at, span[0]), span[1])
        return round(4 + (width - 8) * (inside - span[0]) / (span[1] - span[0]), 1)

    middle = height / 2
    return element(
        "svg",
        element("line", x1=x(mark), x2=x(mark), y1=0, y2=height, class_="mark"),
        element("line", x1=x(low), x2=x(high), y1=middle, y2=middle, class_="reach"),
        element("circle", cx=x(value), cy=middle, r=3.5),
        viewBox=f"0 0 {width} {height}",
        class_="interval",
        role="img",
        aria_label=f"{value:.3g}, from {low:.3g} to {high:.3g}; mark at {mark:.3g}",
    )


def group_styles(names: Sequence[str]) -> list[tuple[int, int]]:
    """(colour, dash) by name: runs that differ in a final number alone share a colour.

    >>> group_styles(["plain-1", "plain-2", "leia-1"])
    [(1, 1), (1, 2), (2, 1)]
    """
    groups: dict[str, int] = {}
    counts: dict[str, int] = {}
    styles = []
    for name in names:
        group = name.rstrip("0123456789").rstrip("-_") or name
        colour = groups.setdefault(group, len(groups))
        counts[group] = counts.get(group, 0) + 1
        styles.append((colour % SERIES + 1, (counts[group] - 1 + colour // SERIES) % DASHES + 1))
    return styles
