"""The demo as a newcomer runs it: from the sample's sources to one page, through the commands themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class _Page(HTMLParser):
    """Text of the page, names in it, and what it loads from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.names: list[str] = []
        self.loads: list[str] = []
        self.links: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.loads += [value for name in ("src", "srcset", "data") if (value := values.get(name))]
        if (href := values.get("href")) is not None:
            (self.links if tag == "a" else self.loads).append(href)
        if tag == "span":
            self._open.append(values.get("class") or "")
            if self._open[-1] == "name":
                self.names.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "span":
            self._open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if "name" in self._open and self._open[-1] != "m":
            self.names[-1] += data


def test_the_page_shows_names_beside_links_in_real_tokens(demo: Path) -> None:
    """Funnel, three articles with their inserted names, losses, scores, commands; links beside it, nothing from elsewhere."""
    page = _Page()
    page.feed((demo / "index.html").read_text(encoding="utf-8"))
    text = "".join(page.text)
    names = [name.strip() for name in page.names]
    assert {"Japan", "NASA", "Spain"} <= set(names) and len(names) >= 20
    for word in ("aligned to tokens", "東京", "アポロ11号", "Madrid", "Training", "leia_sample_ja", "leia-beam build"):
        assert word in text
    assert page.loads == []
    assert len(page.links) == 4 and all((demo / link).is_file() for link in page.links)
    assert f"{ROOT}/" not in text.replace(str(demo), "")


def test_both_arms_trained_and_were_scored_on_all_items(demo: Path) -> None:
    """Four steps of each arm, with names only in LEIA's; a score for every item of both tasks."""
    inserted = {}
    for arm in ("plain", "leia"):
        rows = [
            json.loads(line) for line in (demo / "training" / f"{arm}-1" / "metrics.jsonl").read_text().splitlines()
        ]
        steps = [row for row in rows if "loss" in row]
        assert [row["step"] for row in steps] == [1, 2, 3, 4]
        inserted[arm] = sum(row["inserted_tokens"] for row in steps)
        results = json.loads((demo / "evaluation" / f"{arm}-1" / "results.json").read_bytes())
        assert {task["name"]: task["n"] for task in results["tasks"]} == {"leia_sample_ja": 44, "leia_sample_es": 44}
    assert inserted["plain"] == 0 < inserted["leia"]


def test_running_the_demo_again_finds_everything_done(demo: Path) -> None:
    """No stage, step or score is done twice."""
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*.parquet")}
    command = [sys.executable, str(ROOT / "recipes/demo/run.py"), "--output", str(demo), "--steps", "4"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "finished before, skipped" in result.stderr
    assert result.stderr.count("training: finished; scores: finished") == 2
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*.parquet")} == before


def test_the_page_ends_with_the_comparison_and_items_are_looked_for_in_the_shards(demo: Path, tmp_path: Path) -> None:
    """Primary endpoint and rows of the report; `contamination` reads the demo's own shards."""
    text = (demo / "index.html").read_text(encoding="utf-8")
    assert "Primary endpoint." in text and "leia minus plain" in text
    found = tmp_path / "seen.json"
    command = [sys.executable, "-m", "leia_eval", "contamination", "--shards", str(demo / "build/jawiki")]
    command += ["--tasks", "leia_sample_ja", "--data-dir", str(ROOT / "tests/data/sample/eval"), "--output", str(found)]
    result = subprocess.run([*command, "--n", "4"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    seen = json.loads(found.read_bytes())["tasks"]["leia_sample_ja"]
    assert (seen["items"], seen["unit"], seen["n"]) == (44, "characters", 4)
    assert seen["share"]["answer"] > 0.5, "the sample's questions are about its articles"
