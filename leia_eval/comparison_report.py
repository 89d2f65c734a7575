"""From a comparison to its report: a forest plot with its table for each pair of arms, and the items won and lost."""

from collections.abc import Iterable, Sequence

from leia_beam.html_pages import Html, Number, bullets, callout, details, element, joined, section, table
from leia_beam.svg_charts import interval_svg
from leia_eval.report_parts import (
    ITEMS_SHOWN,
    flags_line,
    interval_text,
    item_html,
    markdown_table,
    metric_name,
    page,
    percent,
    plain_markdown,
    share_text,
)
from leia_eval.run_folder import Json, Samples

_COMPARISON_HEADER = ["task", "run", "against", "items", "metric", "n", "score", "against's", "difference [95 %]",
                      "p", "p (Holm)", "won", "lost", "detectable", "chance", "floor"]  # fmt: skip


def comparison_markdown(comparison: Json) -> str:
    """The primary endpoint, and all paired differences as a Markdown table."""
    rows = [_comparison_cells(row) for row in comparison["rows"]]
    notes = [*comparison["notes"], *_comparison_facts(comparison)]
    lines = [plain_markdown(f"**Primary endpoint.** {line}") for line in _primary_lines(comparison)]
    table = markdown_table(_COMPARISON_HEADER, rows)
    return (
        "".join(f"{line}\n\n" for line in lines)
        + table
        + "\n"
        + "\n".join(f"- {plain_markdown(note)}" for note in notes)
        + "\n"
    )


def comparison_page(comparison: Json, samples: dict[str, Samples]) -> str:
    """The comparison as a page; samples as for `comparison_html`."""
    names = [name for name in comparison["arms"] if name != comparison["base"]]
    return page(f"{', '.join(names)} against {comparison['base']}", comparison_html(comparison, samples))


def comparison_html(comparison: Json, samples: dict[str, Samples]) -> Html:
    """A forest plot with its table for each pair of arms, the primary one first, and the first items won and lost.

    samples: by arm, those of its first run.
    """
    reach = max([abs(row[end]) for row in comparison["rows"] for end in ("low", "high")] + [0.01])
    parts = [callout("Note", "primary endpoint, fixed before: ", line) for line in _primary_lines(comparison)]
    for run, against in _pairs(comparison):
        rows = [row for row in comparison["rows"] if (row["run"], row["against"]) == (run, against)]
        main = [row for row in rows if row["metric"] == comparison["tasks"][row["task"]]["metric"]]
        others = [row for row in rows if row not in main]
        tables = [_forest(comparison, run, against, main, reach)]
        if others:
            same = _forest(comparison, run, against, others, reach, metric=True)
            tables.append(details("The same by other metrics", same))
        parts.append(section(f"{run} minus {against}", *tables))
    parts.append(section("What was compared", bullets([*comparison["notes"], *_comparison_facts(comparison)])))
    for row in comparison["rows"]:
        if (
            row["metric"] in ("acc", "exact_match", "jasquad_match")
            and row["items"] == "all"
            and row["only_base"] is not None
        ):
            parts += _won_and_lost(row, samples)
    return joined(parts)


def _pairs(comparison: Json) -> list[tuple[str, str]]:
    """(run, against) of all rows, the primary endpoint's before the others."""
    found = list(dict.fromkeys((row["run"], row["against"]) for row in comparison["rows"]))
    primary = comparison["primary"]
    first = None if primary is None else (primary["arm"], primary["against"])
    return sorted(found, key=lambda pair: pair != first)


def _forest(
    comparison: Json, run: str, against: str, rows: Sequence[Json], reach: float, *, metric: bool = False
) -> Html:
    """One table: the primary endpoint where it is of these arms, and a row a task (and metric, where that is asked)."""
    columns = [
        "task",
        *(["metric"] if metric else []),
        Number("difference [95 %]"),
        f"−{percent(reach)} to +{percent(reach)}",
        *(
            Number(name)
            for name in (*(against, run, "n", "p"), "Holm's p", "won : lost", "detectable", "chance", "floor")
        ),
    ]
    lines = []
    primary = comparison["primary"]
    if primary is not None and (primary["arm"], primary["against"]) == (run, against) and not metric:
        lines.append(_primary_line(primary, reach))
    lines += [_row_line(row, reach, metric=metric) for row in rows]
    other = " by other metrics" if metric else ""
    return table(f"{run} minus {against}, by task{other}", columns, lines)


def _row_line(row: Json, reach: float, *, metric: bool) -> list[str]:
    english, items = row["language"] == "en", row["items"]
    won = "–" if row["only_other"] is None else f"{row['only_other']} : {row['only_base']}"
    n = str(row["n"]) if row["clusters"] == row["n"] else f"{row['n']} in {row['clusters']}"
    return [
        row["task"] + (" (regression)" if english else "") + ("" if items == "all" else f" ({items} items)"),
        *([metric_name(row["metric"])] if metric else []),
        *_difference_cells(row, reach),
        percent(row["base"]),
        percent(row["other"]),
        n,
        joined([f"{_p_value(row['p'])} ", element("span", row["test"], class_="soft")]),
        _p_value(row["p_holm"]),
        won,
        _detectable(row),
        share_text(row["chance"]),
        share_text(row["floor"]),
    ]


def _primary_line(primary: Json, reach: float) -> list[str]:
    metric = "" if primary["metric"] is None else f", {metric_name(primary['metric'])}"
    seeds = f"{primary['seeds'][1]} and {primary['seeds'][0]} checkpoints"
    name = [element("b", "Primary endpoint."), f" Mean over {len(primary['tasks'])} tasks{metric} "]
    return [
        joined([*name, element("span", seeds, class_="soft")]),
        *_difference_cells(primary, reach),
        percent(primary["base"]),
        percent(primary["other"]),
        "",
        _p_value(primary["p"]),
        *("–", "–", percent(primary["detectable"]), "", ""),
    ]


def _difference_cells(row: Json, reach: float) -> list[str]:
    """The difference in numbers and drawn."""
    return [
        interval_text(row["difference"], row["low"], row["high"], signed=True),
        interval_svg(row["low"], row["difference"], row["high"], mark=0.0, span=(-reach, reach)),
    ]


def _comparison_cells(row: Json) -> list[str]:
    return [
        row["task"] + (" (regression)" if row["language"] == "en" else ""),
        row["run"],
        row["against"],
        row["items"],
        metric_name(row["metric"]),
        str(row["n"]) if row["clusters"] == row["n"] else f"{row['n']} in {row['clusters']}",
        percent(row["other"]),
        percent(row["base"]),
        interval_text(row["difference"], row["low"], row["high"], signed=True),
        f"{_p_value(row['p'])} ({row['test']})",
        _p_value(row["p_holm"]),
        _count(row["only_other"]),
        _count(row["only_base"]),
        _detectable(row),
        share_text(row["chance"]),
        share_text(row["floor"]),
    ]


def _primary_lines(comparison: Json) -> list[str]:
    row = comparison["primary"]
    if row is None:
        return []
    metric = metric_name(row["metric"]) if row["metric"] else "each task's first metric"
    return [
        f"{row['arm']} minus {row['against']}, {metric}, mean over {', '.join(row['tasks'])}: "
        f"{interval_text(row['difference'], row['low'], row['high'], signed=True)} points, p {_p_value(row['p'])}; "
        f"{row['seeds'][1]} and {row['seeds'][0]} checkpoints; detectable {percent(row['detectable'])}."
    ]


def _comparison_facts(comparison: Json) -> list[str]:
    return [
        f"Differences in points, run minus against; paired bootstrap over items, or over clusters of them where there are "
        f"any, {comparison['resamples']:,} resamples, seed {comparison['seed']}, with the variance between an arm's "
        "checkpoints added where it has several (Student's t); exact McNemar test for single pairs, two-sided.",
        "Detectable: the least difference found with 80 % power at this n and spread.",
        *(
            f"{task}, {run}: {flags_line(shares).strip()}"
            for task, of_runs in comparison["flags"].items()
            for run, shares in of_runs.items()
        ),
        *(
            f"{task}: data {facts['data_sha256'][:12]}, prompts {facts['prompts_sha256'][:12]}."
            for task, facts in comparison["tasks"].items()
        ),
        *(
            f"{name}: {run['model']['name']}, weights {run['model']['weights_sha256'][:12]}, computed in "
            f"{run['model']['computed_dtype']}; "
            + ", ".join(f"{package} {version}" for package, version in sorted(run["versions"].items()))
            + "."
            for name, run in comparison["runs"].items()
        ),
        *(f"{task} is made from Wikipedia." for task, facts in comparison["tasks"].items() if facts["from_wikipedia"]),
    ]


def _won_and_lost(row: Json, samples: dict[str, Samples]) -> Iterable[Html]:
    base_name, run_name = row["against"], row["run"]
    base = {sample["id"]: sample for sample in samples[base_name][row["task"]]}
    other = {sample["id"]: sample for sample in samples[run_name][row["task"]]}
    for title, ids in (
        (f"{row['task']}: only {run_name} right", row["only_other_ids"]),
        (f"{row['task']}: only {base_name} right", row["only_base_ids"]),
    ):
        shown = ids[:ITEMS_SHOWN]
        if shown:
            yield section(
                f"{title} ({_how_many(len(ids), len(shown))})",
                *(
                    item_html(base[item], ((base_name, base[item]), (run_name, other[item])), row["language"])
                    for item in shown
                ),
            )


def _how_many(count: int, shown: int) -> str:
    items = "1 item" if count == 1 else f"{count} items"
    return items if count == shown else f"{items}, the first {shown}"


def _count(count: int | None) -> str:
    return "–" if count is None else str(count)


def _p_value(p: float) -> str:
    return f"{p:.1e}" if p < 0.0001 else f"{p:.4f}"


def _detectable(row: Json) -> str:
    return "none" if row["detectable"] is None else percent(row["detectable"])
