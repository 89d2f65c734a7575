"""report: the curves are those of the log, warnings those of the guards; one run or several, finished or not, on one page."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from lxml import html

from leia_beam.errors import UsageError
from leia_train.cli import main
from leia_train.command_configs import ReportConfig
from leia_train.exposures import Counts
from leia_train.metrics import read_metrics
from leia_train.report import exposure_bars, report_page, write_report
from leia_train.report_runs import read_folder, warnings_of

HOSTILE = "<script>alert(1)</script>\"'\u202e"


@pytest.fixture(scope="module")
def run(tmp_path_factory, shards) -> Path:
    """A finished run of six steps, evaluated every two."""
    output = tmp_path_factory.mktemp("trained") / "leia-1"
    flags = ["train", "--shards", shards, "--output", output, "--model", "tiny-llama", "--device", "cpu"]
    flags += ["--tiny-hidden-size", 16, "--tiny-intermediate-size", 32, "--tiny-layers", 1, "--tiny-heads", 2]
    flags += ["--tiny-kv-heads", 1, "--max-length", 24, "--batch", 4, "--steps", 6, "--eval-every", 2, "--quiet"]
    flags += ["--validation-share", 0.3, "--probability", 1, "--tracker", "none"]
    assert main([str(flag) for flag in flags]) == 0
    return output


def copied(run: Path, to: Path, change=lambda records: records, **identity) -> Path:
    """The same run's description and log elsewhere, changed; without its store and checkpoints."""
    to.mkdir(parents=True)
    described = json.loads((run / "_run.json").read_text())
    described["identity"].update(identity)
    (to / "_run.json").write_text(json.dumps(described))
    if (run / "_status.json").exists():
        shutil.copy(run / "_status.json", to)
    (to / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in change(read_metrics(run))))
    return to


def page_of(*folders: Path, exposures: bool = False) -> html.HtmlElement:
    """The parsed page of some runs."""
    runs = [read_folder(folder, folder.name) for folder in folders]
    return html.document_fromstring(report_page(runs, exposures=exposures))


def figures(tree: html.HtmlElement, title: str) -> list[list[str]]:
    """The rows of figures beneath a chart."""
    chart = tree.xpath(f"//figure[figcaption/strong='{title}']")[0]
    return [[cell.text_content() for cell in row] for row in chart.iter("tr")][1:]


def test_the_curves_are_those_of_the_log(run):
    """Loss, the loss of names, evaluations, learning rate, gradient norm and speed, step for step."""
    tree, records = page_of(run), read_metrics(run)
    steps = [record for record in records if "loss" in record]
    for title, name in (("Loss", "loss"), ("Loss of inserted names", "name_loss"), ("Gradient norm", "gradient_norm")):
        assert figures(tree, title) == [
            [str(record["step"]), f"{record[name]:#.4g}"] for record in steps if record[name] is not None
        ]
    assert [row[0] for row in figures(tree, "Evaluation: validation")] == ["2", "4", "6"]
    evaluated = [record["evaluation"]["bits_per_byte"] for record in records if "loss" not in record]
    assert [row[1] for row in figures(tree, "Evaluation: validation")] == [f"{value:#.4g}" for value in evaluated]
    assert len(figures(tree, "Evaluation: validation with names")) == 3
    assert {"Learning rate", "Speed", "Inserted tokens"} <= set(tree.xpath("//figcaption/strong/text()"))
    warnings = tree.xpath("//*[contains(@class, 'callout')]")
    assert all("waited for its rows" in each.text_content() for each in warnings), "a busy machine may wait"
    facts = dict(zip(tree.xpath("//dt/text()"), tree.xpath("//dd/text()"), strict=True))
    assert (facts["status"], facts["steps"]) == ("finished", "6")
    assert facts["tokens"] == f"{sum(record['tokens'] for record in steps):,}"


def test_configuration_versions_and_exposures_are_those_of_the_run(run):
    """Every option by its flag's name; as many links seen as `leia-train exposures` counts."""
    tree = page_of(run, exposures=True)
    text = tree.text_content()
    described = json.loads((run / "_run.json").read_text())
    folded = tree.xpath("//section[h2='Configuration']/details")[0]
    chosen, others = (
        {row.xpath("string(th)"): row.xpath("string(td)") for row in part.xpath("div/table/tbody/tr")}
        for part in (folded.getparent(), folded)
    )
    names = {name.replace("_", "-") for name in described["identity"]} - {"code"} | {"code (fingerprint)"}
    assert set(chosen) | set(others) == names and not set(chosen) & set(others)
    assert (chosen["max-length"], chosen["probability"], chosen["model"]) == ("24", "1.0", "tiny-llama")
    assert (others["name-loss"], others["probability-buckets"], others["seed"]) == ("on", "none", "42")
    assert all(version in text for version in described["versions"].values())
    capture = tree.xpath("//section[h2='Exposures']//p/text()")[0]
    found = run / "exposures.jsonl"
    assert main(["exposures", str(run), "--output", str(found)]) == 0
    rows = [json.loads(line) for line in found.read_text().splitlines()]
    assert capture.startswith(f"{sum(row['occurrences'] for row in rows):,} times a link with a name was in a row, ")
    seen = tree.xpath("//section[h2='Exposures']//tbody/tr")
    assert [row.xpath("string(th)") for row in seen] == [row["name"] for row in rows[: len(seen)]] != []


def test_two_runs_are_drawn_over_each_other_and_what_differs_is_said(run, tmp_path):
    """A curve a run in each chart, of one colour where the seed alone differs; the option that differs first."""
    other = copied(run, tmp_path / "leia-2", seed=7)
    tree = page_of(run, other)
    loss = tree.xpath("//figure[figcaption/strong='Loss']")[0]
    curves = [node.get("class") for node in loss.iter("path") if "curve" in node.get("class")]
    assert curves == ["curve series-1", "curve series-1 dash-2"]
    assert loss.xpath(".//ul[@class='legend']//bdi/text()") == ["leia-1", "leia-2"]
    differing = tree.xpath("//section[h2='Configuration']//table[caption='What differs']/tbody/tr")
    assert [[cell.text_content() for cell in row] for row in differing] == [["seed", "42", "7"]]
    assert len(tree.xpath("//section[h2='Runs']//tbody/tr")) == 2
    same = page_of(run, copied(run, tmp_path / "leia-3")).text_content()
    assert "These are runs of one configuration." in same


def test_a_run_of_several_sources_has_curves_of_each(run, tmp_path):
    """Loss and share of the tokens by source; a step without any token of a source leaves it out."""

    def mixed(records):
        for record in records:
            if "loss" in record:
                record["source_tokens"] = {"jawiki": 60, "<b>web": record["tokens"] // 4}
                record["source_losses"] = {"jawiki": 2.5, "<b>web": None if record["step"] == 2 else 1.25}
        return records

    tree = page_of(copied(run, tmp_path / "mixed", mixed))
    assert figures(tree, "Loss: jawiki") == [[str(step), "2.500"] for step in range(1, 7)]
    assert figures(tree, "Loss: <b>web") == [[str(step), "1.250"] for step in (1, 3, 4, 5, 6)]
    assert {row[1] for row in figures(tree, "Tokens: <b>web")} == {"0.2500"}
    assert "Loss: jawiki" not in page_of(run).text_content()


def test_of_many_runs_one_legend_stands_above_all_curves(run, tmp_path):
    """Nine runs are nine styles, told once."""
    runs = [copied(run, tmp_path / f"{arm}-{seed}") for arm in ("plain", "leia", "permuted") for seed in (1, 2, 3)]
    tree = page_of(*runs)
    legends = tree.xpath("//ul[@class='legend']")
    assert len(legends) == 1 and len(legends[0]) == 9
    loss = tree.xpath("//figure[figcaption/strong='Loss']")[0]
    assert len({node.get("class") for node in loss.iter("path") if "curve" in node.get("class")}) == 9


def test_guards_are_heard_again_on_the_page(run, tmp_path):
    """Spikes, kept rows of a loss that was no number, waiting, a run that was interrupted or never ended."""

    def spiky(records):
        steps = [record for record in records if "loss" in record]
        more = [{**steps[-1], "step": step, "loss": 2.0, "seconds": 1.0, "waited_s": 0.5} for step in range(7, 40)]
        more[20]["loss"] = 9.0
        return [*steps, *more]

    folder = copied(run, tmp_path / "a", spiky)
    (folder / "bad-rows-step-00000041-process-0.safetensors").touch()
    lines = warnings_of(read_folder(folder, "a"))
    assert lines[0].startswith("step 27: loss 9.0000 is 4.5 times the median of the last 20 steps")
    assert lines[1] == "a loss or gradient was not finite: its rows are in bad-rows-step-00000041-process-0.safetensors"
    assert re.fullmatch(r"training waited for its rows \d+\.\d % of the time", lines[2]) and len(lines) == 3
    (folder / "_status.json").write_text('{"status": "interrupted", "step": 39, "checkpoint": "x"}')
    (folder / "_run.json").write_text((folder / "_run.json").read_text().replace('"steps": 6', '"steps": 50'))
    assert warnings_of(read_folder(folder, "a"))[0].startswith("the run was interrupted: 39 of 50 steps are done")
    (folder / "_status.json").unlink()
    assert warnings_of(read_folder(folder, "a"))[0].startswith("the run is not finished: 39 of 50 steps are done")
    text = page_of(folder).text_content()
    assert "Warning: the run is not finished" in text and "39 of 50" in text
    many = page_of(folder, copied(folder, tmp_path / "b"))
    assert len(many.xpath("//section[h2='7 warnings']//li")) == 7 and not many.xpath("//p[contains(@class, 'callout')]")


def test_what_a_run_warned_of_is_told_again(run, tmp_path):
    """Warnings of its log file that nothing else tells; its own lines folded, and none of the libraries'."""
    folder = copied(run, tmp_path / "said")
    (folder / "train.log").write_text(
        "2026-11-26 06:06:43,894 INFO leia: 94 articles <b>\n"
        "2026-11-26 06:06:43,895 WARNING leia: the model's vocabulary is larger\n"
        "2026-11-26 06:06:43,895 WARNING leia: the model's vocabulary is larger\n"
        "2026-11-26 06:06:44,000 WARNING transformers: something of its own\nWriting model shards: 100%\n"
        "2026-11-26 06:06:45,000 WARNING leia: SIGTERM after step 3 of 6; saved x; the same command goes on from there\n"
    )
    assert "the model's vocabulary is larger" in warnings_of(read_folder(folder, "a"))
    tree = page_of(folder)
    assert tree.xpath("//section[h2='What the run said']//li/text()") == [
        "94 articles <b>",
        "warning: the model's vocabulary is larger",
        "warning: SIGTERM after step 3 of 6; saved x; the same command goes on from there",
    ]
    callouts = [each.text_content() for each in tree.xpath("//p[contains(@class, 'callout')]")]
    assert sum("vocabulary" in each for each in callouts) == 1 and not any("SIGTERM" in each for each in callouts)


def test_a_run_that_has_done_no_step_yet_has_a_page(run, tmp_path):
    """Nothing to draw, nothing to divide by; the store is gone, and that is said."""
    folder = copied(run, tmp_path / "new", lambda records: [])
    (folder / "_status.json").unlink()
    text = page_of(folder, exposures=True).text_content()
    assert "No step is done yet." in text and "Note: not counted: " in text


def test_names_of_data_do_not_become_markup(run, tmp_path):
    """A folder, a text, a task and an option that try."""

    def hostile(records):
        records[-1]["evaluations"] = {HOSTILE: records[-1]["evaluation"]}
        records[-1]["tasks"] = {HOSTILE: {"metric": HOSTILE, "score": 0.5, "n": 4, "chance": 0.2}}
        return records

    folder = copied(run, tmp_path / "x", hostile, model=HOSTILE)
    named = read_folder(folder, HOSTILE)
    for runs in ([named], [named, read_folder(run, "b")]):
        content = report_page(runs, exposures=False)
        tree = html.document_fromstring(content)
        assert not tree.xpath("//script") and "\u202e" not in content
        heads = tree.xpath("//table[caption='Evaluations']//th/bdi/text()")
        assert heads.count("<script>alert(1)</script>\"'") == 2, "the text's row and the task's"
        assert "0.5000" in tree.text_content() and "chance 0.2000" in tree.text_content()


def test_links_are_counted_by_how_often_they_were_seen():
    """Never, once, and by powers of two."""
    seen = np.array([0, 0, 1, 2, 3, 4, 9], np.int32)
    bars = html.fragment_fromstring(exposure_bars(Counts(occurrences=seen, insertions=seen, inserted_tokens=seen)))
    shown = [(bar.xpath("string(.//bdi)"), bar.xpath("span[@class='count']/text()")[0]) for bar in bars.iter("li")]
    assert shown == [
        ("never", "2"),
        ("once", "1"),
        ("2 to 3 times", "2"),
        ("4 to 7 times", "1"),
        ("8 to 15 times", "1"),
    ]
    none = np.zeros(0, np.int32)
    assert "<li" not in exposure_bars(Counts(occurrences=none, insertions=none, inserted_tokens=none))


def test_the_command_says_where_the_page_is(run, tmp_path, capsys):
    """In the folder of a single run by default; for several it must be said."""
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    other, page = copied(run, tmp_path / "b" / run.name), tmp_path / "new" / "runs.html"
    assert main(["report", str(run), str(other), "--output", str(page), "--no-exposures"]) == 0
    assert f"b/{run.name}" in page.read_text() and "Exposures" not in page.read_text()
    assert main(["report", str(run), str(other)]) == 2
    assert "--output is needed for a page of 2 runs" in capsys.readouterr().err
    with pytest.raises(UsageError, match="the same run is given twice"):
        write_report(ReportConfig(runs=(str(run), str(run)), output=str(page)))
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_a_study_of_adapters_says_what_is_trained_and_which_names(run, tmp_path):
    """In the table of runs, where arms differ; a page of runs without adapters has no such column."""
    sources = {"english": "0123456789abcdef" * 4}
    adapters = copied(run, tmp_path / "leia", lora=8, names="permuted", sources=sources, mix=["english=-:0.25"])
    plain = copied(run, tmp_path / "plain", strategy="none", names="permuted")

    def table(*folders):
        rows = [[cell.text_content() for cell in row] for row in page_of(*folders).xpath("//table")[0].iter("tr")]
        return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]

    found = [(row["run"], row["trained"], row["strategy"]) for row in table(adapters, plain)]
    assert found == [("leia", "adapters, rank 8", "right, names permuted"), ("plain", "all weights", "none")]
    assert "trained" not in table(plain, copied(run, tmp_path / "more", seed=2))[0]
    alone = page_of(adapters)
    assert (
        dict(zip(alone.xpath("//dt/text()"), alone.xpath("//dd/text()"), strict=True))["trained"] == "adapters, rank 8"
    )
    assert "english 0123456789ab…" in alone.text_content() and "{'english'" not in alone.text_content()
