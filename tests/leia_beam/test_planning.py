"""planning: ranges, times, disk and memory from rates; the command that measures them first."""

from __future__ import annotations

import dataclasses
import json

import pytest

from leia_beam.cli import main
from leia_beam.planning import BuildEstimate, DumpSize, Rates, estimate, needs_of
from leia_beam.scheduling import DEALT, PULLED

MB = 10**6
RATES = Rates(
    reading_s={"sitelinks": 0.5 / MB, "articles": 1 / MB, "shards": 2 / MB},
    titles_s=1e-4,
    redirects_s=1e-5,
    entities_s=5e-5,
    titles_a_byte=0.0005,
    written={"sitelinks": 0.02, "articles": 0.8, "titles": 0.05, "redirects": 0.01, "entities": 0.04, "shards": 0.9},
    start_s=3.0,
    peak_bytes=300 * MB,
)
PAGES = DumpSize(kind="pages", name="jawiki.xml.bz2", format="bz2", size_bytes=4_000 * MB)
WIKIDATA = DumpSize(kind="wikidata", name="all.json.bz2", format="bz2", size_bytes=100_000 * MB)


def plan(*dumps: DumpSize, workers: int = 10, dealing: str = PULLED, is_local: bool = False) -> BuildEstimate:
    return estimate(dumps, RATES, workers=workers, range_bytes=50 * MB, dealing=dealing, is_local=is_local)


def test_a_plan_has_ranges_times_and_bytes_by_stage():
    """By hand: 100 GB in ranges of 50 MB are 2,000 units of 25 s, on ten workers 5,000 s and the start."""
    found = plan(WIKIDATA, PAGES)
    by_name = {stage.stage: stage for stage in found.stages}
    assert list(by_name) == ["sitelinks", "articles", "titles", "redirects", "entities", "shards"]
    sitelinks, articles, shards = (by_name[name] for name in ("sitelinks", "articles", "shards"))
    assert (sitelinks.units, sitelinks.unit_s, sitelinks.wall_s) == (2_000, 25, pytest.approx(5_003))
    assert sitelinks.written_bytes == 2_000 * MB and sitelinks.limit == ""
    assert (articles.units, articles.wall_s, shards.wall_s) == (80, pytest.approx(403), pytest.approx(803))
    assert found.titles == 2_000_000
    assert by_name["titles"].units == by_name["entities"].units == 32
    assert by_name["redirects"].units == 1 and by_name["redirects"].wall_s == pytest.approx(23)
    assert by_name["redirects"].limit == "one unit follows all redirects"
    assert found.wall_s == pytest.approx(sum(stage.wall_s for stage in found.stages))
    assert found.worker_bytes == 300 * MB and found.redirects_bytes == 560 * MB


def test_what_does_not_scale_is_named():
    """A gzip dump has one reader, whatever the workers; too few ranges; titles that each local process reads."""
    gzip = dataclasses.replace(WIKIDATA, format="gzip", name="all.json.gz")
    for workers in (1, 10, 1_000):
        sitelinks = plan(gzip, PAGES, workers=workers).stages[0]
        assert sitelinks.units == 1 and sitelinks.wall_s == pytest.approx(50_003)
        assert sitelinks.limit == "all.json.gz is read from its start by one worker"
    articles = plan(PAGES, workers=200).stages[0]
    assert articles.limit == "80 units for 200 workers; lower --range-bytes"
    local, cluster = (plan(PAGES, workers=8, is_local=is_local).stages[1] for is_local in (True, False))
    assert local.wall_s > 7 * (cluster.wall_s - 3) and "each process reads all titles" in local.limit


def test_more_workers_never_take_longer_on_a_cluster():
    """Pulled or dealt."""
    for dealing in (PULLED, DEALT):
        walls = [plan(WIKIDATA, PAGES, workers=2**power, dealing=dealing).wall_s for power in range(12)]
        assert walls == sorted(walls, reverse=True)


def test_a_cluster_has_work_for_each_process():
    """About four units a process, never none, at most 250 machines; disk for the tables, memory for all redirects."""
    workers = [needs_of(units, 10**9, 48 << 20).workers for units in (1, 16, 17, 2_000, 10**6)]
    assert workers == [1, 1, 2, 125, 250]
    small, english, huge = (needs_of(100, size, 48 << 20) for size in (10**8, 25 * 10**9, 250 * 10**9))
    assert (small.disk_gb, english.disk_gb, huge.disk_gb) == (30, 31, 110)
    assert [needs.machine_type for needs in (small, english, huge)] == [
        "e2-standard-4",
        "e2-standard-4",
        "e2-highmem-4",
    ]


def test_the_command_measures_and_prints_a_plan(capsys):
    """Sizes alone; the table has every stage, and JSON has the rates that were measured here."""
    sizes = ["--pages", "4.4GB", "--wikidata", "150GB:gz", "--workers", "4", "--sample", "300KB"]
    assert main(["plan", *sizes, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"rates", "plan"}
    assert all(rate > 0 for rate in found["rates"]["reading_s"].values()) and found["rates"]["peak_bytes"] > 50 * MB
    stages = {stage["stage"]: stage for stage in found["plan"]["stages"]}
    assert stages["sitelinks"]["units"] == 1 and "150GB:gz is read from its start" in stages["sitelinks"]["limit"]
    assert stages["articles"]["units"] == stages["shards"]["units"] == 88


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--wikidata", "10GB"], "give the wiki's dumps, or their sizes, with --pages"),
        (["--pages", "nosuchfile.bz2"], "--pages nosuchfile.bz2: neither a file nor a size; give one such as 24GB"),
        (["--pages", "4GB:rar"], "--pages 4GB:rar: neither a file nor a size"),
    ],
)
def test_what_is_no_dump_is_one_line(capsys, arguments, message):
    """Before anything is measured."""
    assert main(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
