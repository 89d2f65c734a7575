"""Bad input to `leia-beam`: one clear line, the exit code of the contract, nothing under a final name."""

from __future__ import annotations

import bz2
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from leia_beam.cli import main
from tests.conftest import Sample


def _fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and the error line; there is one line with the error and no traceback."""
    code = main(arguments)
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("leia-beam: error: ")]
    assert len(lines) == 1 and "Traceback" not in error, error
    return code, lines[0].removeprefix("leia-beam: error: ")


def _replaced(arguments: list[str], flag: str, value: str) -> list[str]:
    at = arguments.index(flag)
    return [*arguments[: at + 1], value, *arguments[at + 2 :]]


def _manifests(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("_manifest.json"))


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--pages", "nowhere.xml.bz2", "nowhere.xml.bz2: no such file"),
        ("--wikidata", "nowhere.json.bz2", "nowhere.json.bz2: no such file"),
        ("--wiki", "zh-min-nanwiki", "unknown wiki 'zh-min-nanwiki'; did you mean zh_min_nanwiki?"),
        ("--wiki", "jp", "unknown wiki 'jp', which is a country's code; did you mean 'ja' (jawiki)?"),
        ("--wiki", "eswiki", "this is a dump of jawiki, not of eswiki; give --wiki jawiki"),
        ("--tokenizer", "./no/such/tokenizer", "no such file or folder with a tokenizer.json"),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_written(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str, message: str
) -> None:
    """A missing file, an unknown or wrong wiki, a tokenizer that is not there: exit 2 and an untouched disk."""
    arguments = _replaced(sample.build_arguments("jawiki", tmp_path / "out"), flag, value)
    code, line = _fails(arguments, capsys)
    assert code == 2 and message in line
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_file_that_is_none_is_refused(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A JSON file that is no tokenizer: exit 2 with its path."""
    (tmp_path / "tokenizer.json").write_text("{}")
    arguments = _replaced(sample.build_arguments("jawiki", tmp_path / "out"), "--tokenizer", str(tmp_path))
    code, line = _fails(arguments, capsys)
    assert code == 2 and "not a tokenizer.json that `tokenizers` can read" in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>404 Not Found</html>", "an HTML page"),
        (b"hello", "not bz2 data"),
        (bz2.compress(b"hello\n" * 100), "not a MediaWiki dump, it starts with 'hello"),
        (bz2.compress(b"<mediawiki xmlns='http://www.mediawiki.org/xml/export-0.99/'><page></page>"), "export-0.99"),
    ],
)
def test_a_file_that_is_no_dump_is_damaged_input(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    """Exit 3, with the file's name and what it looks like."""
    path = tmp_path / "x-pages-articles.xml.bz2"
    path.write_bytes(content)
    code, line = _fails(_replaced(sample.build_arguments("jawiki", tmp_path / "out"), "--pages", str(path)), capsys)
    assert code == 3 and message in line and path.name in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("flag", ["--pages", "--wikidata"])
def test_a_truncated_dump_is_never_taken_for_a_whole_one(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, share: float
) -> None:
    """A download that stopped: exit 3 with file and byte, and no manifest of the stage or of any after it."""
    whole = Path(sample.pages("jawiki") if flag == "--pages" else sample.wikidata)
    cut = tmp_path / whole.name
    data = whole.read_bytes()
    cut.write_bytes(data[: int(len(data) * share)])
    code, line = _fails(_replaced(sample.build_arguments("jawiki", tmp_path / "out"), flag, str(cut)), capsys)
    assert code == 3 and cut.name in line and "byte" in line
    stage = "articles" if flag == "--pages" else "sitelinks"
    assert all(not name.startswith((stage, "entities", "shards")) for name in _manifests(tmp_path / "out"))


def test_a_dump_cut_at_a_stream_boundary_is_found_by_its_missing_end(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A multistream file without its last streams is whole bzip2; the missing </mediawiki> tells."""
    data = Path(sample.pages("jawiki")).read_bytes()
    at = data.rfind(b"BZh9")
    cut = tmp_path / "jawiki-pages.xml.bz2"
    cut.write_bytes(data[:at])
    assert bz2.decompress(cut.read_bytes())
    code, line = _fails(_replaced(sample.build_arguments("jawiki", tmp_path / "out"), "--pages", str(cut)), capsys)
    assert code == 3 and f"ends early at byte {at:,}: no </mediawiki> after its last record" in line
    assert _manifests(tmp_path / "out") == ["sitelinks/_manifest.json"]


def test_one_damaged_page_is_set_aside_and_counted(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A control character in one page rejects that page alone; with --max-rejects 0 the stage is refused (exit 4)."""
    text = bz2.decompress(Path(sample.pages("jawiki")).read_bytes())
    damaged = tmp_path / "jawiki.xml"
    damaged.write_bytes(text.replace(b'xml:space="preserve">', b'xml:space="preserve">&#1;', 1))
    arguments = _replaced(sample.build_arguments("jawiki", tmp_path / "out"), "--pages", str(damaged))
    assert main(arguments) == 0
    capsys.readouterr()
    rejects = list((tmp_path / "out/articles/rejects").iterdir())
    assert len(rejects) == 1 and '"reason": "not well-formed XML"' in rejects[0].read_text()
    arguments = _replaced(arguments, "--output", str(tmp_path / "strict"))
    code, line = _fails([*arguments, "--max-rejects", "0"], capsys)
    assert code == 4 and "1 of 138 pages rejected (not well-formed XML 1)" in line
    assert not (tmp_path / "strict/articles/_manifest.json").exists()


def test_a_folder_with_another_build_is_refused_with_what_differs(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 6 names the option that differs and touches nothing; --overwrite replaces the stages that differ."""
    output = tmp_path / "out"
    assert main(sample.build_arguments("jawiki", output)) == 0
    before = _manifests(output)
    capsys.readouterr()
    code, line = _fails([*sample.build_arguments("jawiki", output), "--range-bytes", "4KiB"], capsys)
    assert code == 6 and "options.range_bytes: 50331648 there, 4096 here" in line and "--overwrite" in line
    assert _manifests(output) == before
    code, line = _fails([*sample.build_arguments("jawiki", output), "--align", "strict"], capsys)
    assert code == 6 and "options.rows.alignment: edge there, strict here" in line
    assert main([*sample.build_arguments("jawiki", output), "--align", "strict", "--overwrite"]) == 0
    assert capsys.readouterr().err.count("finished before, skipped") == 5


def test_a_folder_with_files_of_somebody_else_is_left_alone(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 6 for a stage's folder that no build wrote."""
    (tmp_path / "out/articles").mkdir(parents=True)
    (tmp_path / "out/articles/thesis.txt").write_text("mine")
    code, line = _fails(sample.build_arguments("jawiki", tmp_path / "out"), capsys)
    assert code == 6 and "thesis.txt" in line
    assert (tmp_path / "out/articles/thesis.txt").read_text() == "mine"


def test_an_output_that_is_a_file_is_refused(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2."""
    (tmp_path / "out").write_text("")
    code, line = _fails(sample.build_arguments("jawiki", tmp_path / "out"), capsys)
    assert code == 2 and "is a file; give a folder" in line


def test_a_full_disk_is_an_environment_error(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 5 with the path and what to do; no manifest, and nothing half-written."""

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", no_space)
    code, line = _fails(sample.build_arguments("jawiki", tmp_path / "out"), capsys)
    assert code == 5 and "No space left on device" in line and "free some space and run the same command again" in line
    assert not list((tmp_path / "out").rglob("*.parquet")) and not list((tmp_path / "out").rglob("*.tmp"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "--tokeniser", "x"], "--tokenizer"),
        (["biuld"], "did you mean 'build'?"),
        (["build", "--range-bytes", "zero"], "'zero' is no size"),
        (["build", "--workers", "0"], "give a whole number of at least 1"),
        (["build"], "--wiki, --tokenizer, --output"),
    ],
)
def test_usage_errors_name_the_nearest_word(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """Exit 2 with what was meant."""
    code, line = _fails(arguments, capsys)
    assert code == 2 and message in line


def test_an_unknown_option_names_the_nearest_one(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt option is an error, never ignored."""
    code, line = _fails([*sample.build_arguments("jawiki", tmp_path / "out"), "--overwite"], capsys)
    assert code == 2 and "unknown argument '--overwite'; did you mean '--overwrite'?" in line


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan with inputs and units, and an untouched disk."""
    assert main([*sample.build_arguments("jawiki", tmp_path / "out"), "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "articles   would read jawiki-20260101-pages-articles-multistream.xml.bz2 in 1 unit" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("module", ["leia_beam", "leia_train", "leia_eval"])
def test_help_imports_nothing_heavy(module: str) -> None:
    """`--help` answers at once because Beam, Arrow and torch are not imported for it."""
    code = (
        f"import sys\nfrom {module}.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'apache_beam', 'pyarrow', 'torch', 'transformers', 'datasets', 'lm_eval', 'numpy', 'tokenizers'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_each_dump_is_told_from_the_other(sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pages given as Wikidata and the other way round: exit 2 with the option to use; text that is neither: exit 3."""
    arguments = sample.build_arguments("jawiki", tmp_path / "out")
    code, line = _fails(_replaced(arguments, "--wikidata", sample.pages("jawiki")), capsys)
    assert code == 2 and line.endswith("a wiki's dump, not Wikidata's; give it with --pages")
    code, line = _fails(_replaced(arguments, "--pages", sample.wikidata), capsys)
    assert code == 2 and line.endswith("JSON, not a MediaWiki dump; give Wikidata's dump with --wikidata")
    (tmp_path / "x.json").write_text("hello")
    code, line = _fails(_replaced(arguments, "--wikidata", str(tmp_path / "x.json")), capsys)
    assert code == 3 and "not a Wikidata JSON dump, it starts with 'hello'" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["[]", "[\n]\n", '[\n{"type":"property","id":"P1"}\n]\n'])
def test_wikidata_that_holds_no_item_is_refused(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    """Else all links would go without a name, and the build would look finished."""
    (tmp_path / "wikidata.json").write_text(content)
    arguments = _replaced(
        sample.build_arguments("jawiki", tmp_path / "out"), "--wikidata", str(tmp_path / "wikidata.json")
    )
    code, line = _fails(arguments, capsys)
    assert code == 3 and line.startswith("wikidata.json: no lines/emitted among what was read (")
    assert _manifests(tmp_path / "out") == []


@pytest.mark.parametrize("where", ["unit", "between"])
def test_ctrl_c_is_one_line_and_exit_75_wherever_it_comes(
    sample: Sample,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    """Also within a unit, where Beam wraps it; the same command then goes on."""
    from leia_beam import stage_articles
    from pipelines import build

    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if where == "unit":
            patch.setattr(stage_articles, "extract", interrupt)
        else:
            patch.setattr(build, "run_entities", interrupt)
        assert main(sample.build_arguments("jawiki", tmp_path / "out")) == 75
    error = capsys.readouterr().err
    kept = {
        "unit": "0 of 1 units of articles are done and kept; the same command goes on from there",
        "between": "finished units are kept, run the same command again to go on",
    }
    assert f"leia-beam: interrupted; {kept[where]}\n" in error and "Traceback" not in error
    assert main(sample.build_arguments("jawiki", tmp_path / "out")) == 0


def test_what_a_build_says_is_in_its_log_and_json_by_option(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line of standard error is one object with --log-json; the log has the same notes; --quiet shows nothing."""
    command = sample.build_arguments("jawiki", tmp_path / "out")
    assert main([*command, "--log-json"]) == 0
    notes = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [note["message"].split()[0] for note in notes if note["event"] == "note"][:2] == ["sitelinks", "articles"]
    assert main([*command, "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    log = (tmp_path / "out" / "build.log").read_text(encoding="utf-8")
    assert all(note["message"] in log for note in notes) and log.count("finished before, skipped") > 2
    assert main([*command, "--log-json", "--tokenizer", "./nowhere"]) == 2
    (error,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (error["level"], error["exit_code"]) == ("error", 2) and "./nowhere" in error["message"]


def test_a_terminal_that_cannot_be_written_to_is_one_line(sample: Sample, tmp_path: Path) -> None:
    """Standard output on a full disk: exit 5."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    command = [sys.executable, "-m", "leia_beam", *sample.build_arguments("jawiki", tmp_path / "out")]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 5 and "Traceback" not in done.stderr and "No space left on device" in done.stderr
