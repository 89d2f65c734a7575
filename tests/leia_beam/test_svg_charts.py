"""Bars and curves: what is drawn is where its value is, nothing is lost by thinning, all figures are there as text too."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import html

from leia_beam.chart_axes import log_ticks, tick_label, ticks
from leia_beam.html_bars import Bar, bars, count_bars
from leia_beam.svg_charts import (
    MAX_POINTS,
    SMOOTHED_FROM,
    Curve,
    curves_chart,
    curves_legend,
    group_styles,
    interval_svg,
    smoothed,
    stretches,
    thinned,
)

finite = st.floats(-1e9, 1e9, allow_subnormal=False).filter(lambda value: value == 0 or abs(value) > 1e-9)


def paths(figure: html.HtmlElement, kind: str) -> list[list[tuple[float, float]]]:
    """The points of each drawn path of a class."""
    found = [node.get("d") for node in figure.iter("path") if node.get("class").split()[0] == kind]
    return [[(float(x), float(y)) for x, y in re.findall(r"([-\d.]+),([-\d.]+)", path)] for path in found]


def test_curves_stand_where_their_values_are() -> None:
    """From left to right by step, from the axis's top to its bottom by value, on an axis of round values."""
    figure = html.fragment_fromstring(
        curves_chart("Loss", "nats", [Curve(name="a", points=[(0, 4.0), (5, 1.0), (10, 0.0)])])
    )
    labels = [node.text for node in figure.find(".//div[@class='y']")]
    assert labels == ["0", "1", "2", "3", "4"]
    assert paths(figure, "curve") == [[(0, 0), (50, 75), (100, 100)]]
    assert paths(figure, "mark") == [[(0, 0), (50, 75), (100, 100)]]
    assert figure.find(".//svg").get("aria-label") == "Loss, nats, by step. a: 4 at step 0, 0 at step 10."
    assert [node.text_content() for node in figure.iter("tr")] == ["stepa", "04.000", "51.000", "100.000"]


def test_a_value_that_is_not_finite_leaves_a_gap_and_nothing_else() -> None:
    """Two stretches; the axis is of the finite values."""
    nan, inf = float("nan"), float("inf")
    points = [(1, 1.0), (2, 2.0), (3, nan), (4, inf), (5, 1.5), (6, 1.0)]
    figure = html.fragment_fromstring(curves_chart("Loss", "nats", [Curve(name="a", points=points)]))
    assert [len(path) for path in paths(figure, "curve")] == [2, 2]
    assert "nan" not in html.tostring(figure.find(".//svg")).decode()
    empty = curves_chart("Loss", "nats", [Curve(name="a", points=[(1, nan)]), Curve(name="b", points=[])])
    assert "<svg" not in empty and "no figures" in empty


def test_one_early_spike_does_not_flatten_the_rest() -> None:
    """Positive values far apart are on a logarithmic axis, and it is said."""
    points = [(step, 500.0 if step == 1 else 1.0 + step / 100) for step in range(1, 60)]
    figure = html.fragment_fromstring(curves_chart("Norm", "before clipping", [Curve(name="a", points=points)]))
    assert "logarithmic" in figure.text_content()
    (curve,) = paths(figure, "curve")
    assert curve[0][1] < 20 and curve[-1][1] - curve[1][1] < -3


@given(st.lists(finite, min_size=1, max_size=200))
def test_thinning_keeps_ends_order_and_extremes(values: list[float]) -> None:
    """A curve of few points is itself; of many, no peak is lost."""
    points = list(enumerate(values))
    kept = thinned(points, 8)
    assert set(kept) <= set(points) and kept == sorted(kept)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert {pick(y for _, y in kept) for pick in (min, max)} == {pick(values) for pick in (min, max)}
    assert len(kept) <= 10 and (len(points) > 8 or kept == points)


def test_a_long_curve_is_drawn_with_few_points() -> None:
    """A page of a run of a hundred thousand steps stays small."""
    curve = Curve(name="a", points=[(step, math.sin(step)) for step in range(100_000)])
    figure = curves_chart("x", "y", [curve])
    behind, drawn = paths(html.fragment_fromstring(figure), "curve")
    assert 100 < len(behind) <= MAX_POINTS + 2 and 90 <= len(drawn) <= 110 and len(figure) < 20_000


def test_of_a_long_curve_the_medians_are_drawn_and_a_spike_does_not_flatten_them() -> None:
    """The values stand faint behind; the one beyond the axis is told of, stands at its edge, and is in the words."""
    points = [(step, 2.0 + 0.01 * (step % 3) + 50.0 * (step == 500)) for step in range(1, 1001)]
    figure = html.fragment_fromstring(curves_chart("Loss", "nats", [Curve(name="a", points=points)]))
    assert "nats; values beyond the axis: 1, up to 52.02" in figure.text_content()
    behind, drawn = (dict(path) for path in paths(figure, "curve"))
    assert min(behind.values()) == 0 and min(drawn.values()) > 0 and {0, 100} <= {min(drawn), max(drawn)}
    assert [float(node.text) for node in figure.find(".//div[@class='y']")][-1] < 2.1


@given(st.lists(finite, min_size=1, max_size=2000))
def test_medians_lie_within_the_values_and_reach_from_the_first_step_to_the_last(values: list[float]) -> None:
    """At most about half as many as are drawn without; of few values themselves."""
    found = smoothed(list(enumerate(values)))
    assert (
        [x for x, _ in found] == sorted({x for x, _ in found}) and found[0][0] == 0 and found[-1][0] == len(values) - 1
    )
    assert min(values) <= min(y for _, y in found) and max(y for _, y in found) <= max(values)
    assert len(found) <= SMOOTHED_FROM and (len(values) >= SMOOTHED_FROM or found == list(enumerate(values)))


@given(finite, finite)
def test_ticks_are_round_and_around_all_values(first: float, second: float) -> None:
    """Both ends are within them; they are few and rising."""
    low, high = sorted((first, second))
    found = ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), high - low)
    assert found[0] <= low + slack and found[-1] >= high - slack
    assert 2 <= len(found) <= 8 and found == sorted(set(found))


@given(st.floats(1e-8, 1e8), st.floats(1, 1e6))
def test_logarithmic_ticks_are_around_all_values(low: float, factor: float) -> None:
    """Powers of ten, at most a handful."""
    found = log_ticks(low, low * factor)
    assert found[0] <= low * (1 + 1e-9) and found[-1] >= low * factor * (1 - 1e-9) and len(found) <= 8


def test_stretches_are_parted_at_gaps() -> None:
    """Leading, doubled and trailing gaps make no empty stretch."""
    nan = float("nan")
    assert stretches([(1, nan), (2, 1.0), (3, nan), (4, nan), (5, 2.0), (6, nan)]) == [[(2, 1.0)], [(5, 2.0)]]


def test_runs_of_one_arm_share_a_colour_and_all_styles_differ() -> None:
    """Seeds by dashes; six groups have six colours."""
    names = [f"{arm}-{seed}" for arm in ("plain", "leia", "permuted") for seed in (1, 2, 3)]
    styles = group_styles(names)
    assert len(set(styles)) == 9 and len({colour for colour, _ in styles[:3]}) == 1
    assert [colour for colour, _ in group_styles(list("abcdef"))] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("value", "label"),
    [(0, "0"), (-0.5, "-0.5"), (1e-4, "1e-4"), (2.5e-6, "2.5e-6"), (9999, "9,999"), (12_500, "12.5k"), (2e6, "2M")],
)
def test_labels_of_axes_are_short(value: float, label: str) -> None:
    """Room on a phone is scarce."""
    assert tick_label(value) == label


def test_bars_are_as_long_as_their_share_and_say_their_count() -> None:
    """Of the largest the whole track; nothing divides by nothing; names are escaped."""
    tree = html.fragment_fromstring(count_bars([("en", 30), ("<b>", 10), ("none", 0)]))
    widths = [node.get("style") for node in tree.iterfind(".//span[@class='track']/span")]
    assert widths == ["inline-size:100.00%", "inline-size:33.33%"]
    assert [node.text_content() for node in tree.iterfind(".//span[@class='count']")] == [
        "3075.0 %",
        "1025.0 %",
        "00 %",
    ]
    assert [node.text_content() for node in tree.iterfind(".//bdi")] == ["en", "<b>", "none"]
    assert "<li" not in count_bars([]) and "100.00%" in count_bars([("a", 1)])
    assert "inline-size:100.00%" in bars([Bar(label="a", count="1", length=7.0)])


def test_a_legend_shows_each_curve_as_it_is_drawn() -> None:
    """Colour and dash are those of the curve."""
    curves = [Curve(name="a-1", points=[(1, 1.0), (2, 2.0)], colour=2, dash=3)] * 2
    assert curves_legend(curves).count('class="series-2"') == 2 and curves_legend(curves).count("dash-3") == 2
    assert 'class="curve series-2 dash-3"' in curves_chart("t", "u", curves)
    assert 'class="legend"' in curves_chart("t", "u", curves)
    assert 'class="legend"' not in curves_chart("t", "u", curves, legend=False)


def test_an_interval_says_its_ends() -> None:
    """For those who do not see it."""
    svg = interval_svg(0.1, 0.5, 0.9, mark=0.2, span=(0.0, 1.0))
    assert 'aria-label="0.5, from 0.1 to 0.9; mark at 0.2"' in svg and 'role="img"' in svg


def test_values_that_differ_by_less_than_their_ticks_are_drawn() -> None:
    """Two neighbours among the floating-point numbers: their ticks are one."""
    value = 123456.789
    points = [(0.0, value), (1.0, math.nextafter(value, math.inf))]
    assert "<svg" in curves_chart("Loss", "nats", [Curve(name="a", points=points)])
