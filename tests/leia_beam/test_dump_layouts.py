"""dump_layouts: which files a wiki, a date and a server's lists come to."""

from __future__ import annotations

import json

import pytest

from leia_beam.dump_layouts import (
    AUTO,
    CLASSIC,
    CONTENT,
    LATEST,
    NEAREST,
    Found,
    Lists,
    find_langlinks,
    find_pages,
    find_wikidata,
)
from leia_beam.dump_mirrors import mirror_at
from leia_beam.errors import DamagedInput, UsageError
from leia_beam.http_requests import NotFound

BASE = "https://dumps.example.org"
SHA1, SHA256, MD5 = "a" * 40, "b" * 64, "c" * 32


class _Server:
    """Texts by path; folders are listed by what lies below them."""

    def __init__(self, texts: dict[str, str]):
        self._texts = texts

    def __call__(self, url: str) -> str:
        path = url.removeprefix(BASE + "/")
        if path in self._texts:
            return self._texts[path]
        below = {name[len(path) :].partition("/")[0] for name in self._texts if name.startswith(path)}
        if not path.endswith("/") or not below:
            raise NotFound(f"{url}: not there (404)")
        # both forms in which servers write links, and a link to the folder above
        links = [f'<a href="{name}/">{name}</a> <a href="/{path}{name}">x</a>' for name in sorted(below)]
        return "\n".join(['<a href="../">..</a>', *links])


def _lists(texts: dict[str, str]) -> Lists:
    return Lists(mirror_at(BASE), _Server(texts))


def _file(size: int = 1, **sums: str) -> dict[str, object]:
    return {"size": size, **(sums or {"sha1": SHA1, "md5": MD5})}


def _status(**jobs: dict[str, dict[str, object]] | str) -> str:
    """Jobs by name: their files where they are done, else their state."""
    described = {
        name: {"status": "done", "files": job} if isinstance(job, dict) else {"status": job, "files": {}}
        for name, job in jobs.items()
    }
    return json.dumps({"version": "0.8", "jobs": described})


def _names(found: Found) -> list[str]:
    return [file.name for file in found.files]


def _parts(date: str, kind: str = "pages-articles-multistream") -> dict[str, dict[str, object]]:
    files = {f"enwiki-{date}-{kind}{n}.xml-p{n}p{n + 1}.bz2": _file() for n in (1, 2, 10)}
    return {**files, f"enwiki-{date}-{kind}-index1.txt-p1p2.bz2": _file()}


def test_one_multistream_file_is_taken_before_its_parts() -> None:
    """The recombined one where it is done, its parts where it is not, never the index; the plain ones at last."""
    whole = {
        "enwiki-20260101-pages-articles-multistream.xml.bz2": _file(7),
        "enwiki-20260101-pages-articles-multistream-index.txt.bz2": _file(),
    }
    parts, plain = _parts("20260101"), _parts("20260101", "pages-articles")
    status = _status(articlesmultistreamdumprecombine=whole, articlesmultistreamdump=parts, articlesdump=plain)
    found = find_pages(_lists({"enwiki/20260101/dumpstatus.json": status}), "enwiki", LATEST, CLASSIC)
    assert _names(found) == ["enwiki-20260101-pages-articles-multistream.xml.bz2"]
    assert (found.files[0].size_bytes, found.files[0].sums) == (7, {"sha1": SHA1, "md5": MD5})
    status = _status(articlesmultistreamdumprecombine="in-progress", articlesmultistreamdump=parts)
    found = find_pages(_lists({"enwiki/20260101/dumpstatus.json": status}), "enwiki", LATEST, CLASSIC)
    assert sorted(_names(found)) == sorted(name for name in parts if "index" not in name)
    status = _status(articlesmultistreamdump="waiting", articlesdump=plain)
    found = find_pages(_lists({"enwiki/20260101/dumpstatus.json": status}), "enwiki", "2026-01-01", CLASSIC)
    assert len(found.files) == 3 and all("multistream" not in name for name in _names(found))


def test_sums_that_a_status_lacks_are_read_from_the_lists() -> None:
    """Some servers' dumpstatus.json has sizes alone; md5 may be absent everywhere."""
    name = "swwiki-20260101-pages-articles-multistream.xml.bz2"
    texts = {
        "swwiki/20260101/dumpstatus.json": _status(articlesmultistreamdump={name: {"size": 5}}),
        "swwiki/20260101/swwiki-20260101-sha1sums.txt": f"{SHA1}  {name}\n{SHA1}  other.bz2\n",
    }
    (file,) = find_pages(_lists(texts), "swwiki", LATEST, CLASSIC).files
    assert file.sums == {"sha1": SHA1} and file.strongest_sum == ("sha1", SHA1)


def test_the_newest_date_that_is_complete_is_the_latest() -> None:
    """One in progress, one that has not begun, and folders that are no dates are passed over."""
    name = "swwiki-20260101-pages-articles-multistream.xml.bz2"
    texts = {
        "swwiki/20260101/dumpstatus.json": _status(articlesmultistreamdump={name: _file()}),
        "swwiki/20260120/dumpstatus.json": _status(articlesmultistreamdump="in-progress"),
        "swwiki/20260201/other.txt": "",
        "swwiki/latest/x": "",
        "swwiki/20269999/x": "",
    }
    assert find_pages(_lists(texts), "swwiki", LATEST, CLASSIC).date == "2026-01-01"


def test_files_of_a_job_that_is_not_done_are_not_taken() -> None:
    """A status lists the first parts while the others are written."""
    name = "swwiki-20260101-pages-articles-multistream.xml.bz2"
    job = {"status": "in-progress", "files": {name: _file(), "swwiki-20260101-langlinks.sql.gz": _file()}}
    jobs = {"articlesmultistreamdump": job, "langlinkstable": job}
    lists = _lists({"swwiki/20260101/dumpstatus.json": json.dumps({"jobs": jobs})})
    with pytest.raises(UsageError, match=r"its articles are not ready \(in-progress\)"):
        find_pages(lists, "swwiki", "2026-01-01", CLASSIC)
    with pytest.raises(UsageError, match="is complete on"):
        find_langlinks(lists, "swwiki", "2026-01-01")


def test_names_that_leave_the_folder_are_no_dumps() -> None:
    """A status is data: only names of the wiki, the date and the form are taken."""
    evil = {"../../etc/passwd": _file(), "swwiki-20260101-pages-articles-multistream.xml.bz2/../x": _file()}
    texts = {"swwiki/20260101/dumpstatus.json": _status(articlesmultistreamdump=evil)}
    with pytest.raises(UsageError, match="no dump of swwiki is complete"):
        find_pages(_lists(texts), "swwiki", LATEST, CLASSIC)


def test_a_status_that_is_none_is_damaged() -> None:
    """A proxy's page in its place."""
    with pytest.raises(DamagedInput, match="not a dump's status, it starts with '<html>"):
        find_pages(_lists({"swwiki/20260101/dumpstatus.json": "<html>"}), "swwiki", LATEST, CLASSIC)


def _content(date: str, sums: str | None = None) -> dict[str, str]:
    folder = f"other/mediawiki_content_current/swwiki/{date}/xml/bzip2"
    names = [f"swwiki-{date}-p1p9.xml.bz2", f"swwiki-{date}-p10r5r9.xml.bz2"]
    listed = "".join(f"{SHA256}  {name}\n" for name in [*names, "notes.txt", f"../swwiki-{date}-p1p2.xml.bz2.evil"])
    return {f"{folder}/{names[0]}": "", f"{folder}/SHA256SUMS": listed if sums is None else sums}


def test_content_exports_are_complete_once_their_sums_are_there() -> None:
    """A date without SHA256SUMS, or with an empty one, is passed over; all ranges that are listed are taken."""
    texts = {**_content("2026-01-01"), **_content("2026-02-01", sums="")}
    found = find_pages(_lists(texts), "swwiki", LATEST, CONTENT)
    assert (found.date, found.layout) == ("2026-01-01", CONTENT)
    assert sorted(_names(found)) == ["swwiki-2026-01-01-p10r5r9.xml.bz2", "swwiki-2026-01-01-p1p9.xml.bz2"]
    assert all(file.sums == {"sha256": SHA256} for file in found.files)
    with pytest.raises(UsageError, match=r"is not complete \(no SHA256SUMS\); dates that are there: 20260101"):
        find_pages(_lists(texts), "swwiki", "2026-02-01", CONTENT)


@pytest.mark.parametrize(
    ("classic", "content", "chosen"),
    [
        ("20260101", "2026-01-01", (CLASSIC, "2026-01-01")),
        ("20260101", "2026-02-01", (CLASSIC, "2026-01-01")),
        ("20260101", "2026-03-01", (CONTENT, "2026-03-01")),
        ("20260101", "", (CLASSIC, "2026-01-01")),
        ("", "2026-03-01", (CONTENT, "2026-03-01")),
    ],
)
def test_auto_takes_the_classic_layout_until_it_lags(classic: str, content: str, chosen: tuple[str, str]) -> None:
    """It has half the bytes; 45 days behind, or gone, the content exports are taken."""
    texts = {}
    if classic:
        name = f"swwiki-{classic}-pages-articles-multistream.xml.bz2"
        texts[f"swwiki/{classic}/dumpstatus.json"] = _status(articlesmultistreamdump={name: _file()})
    if content:
        texts |= _content(content)
    found = find_pages(_lists(texts), "swwiki", LATEST, AUTO)
    assert (found.layout, found.date) == chosen


def _wikidata(folder: str, date: str, listed: str) -> dict[str, str]:
    base = f"wikidatawiki/entities/{folder}"
    names = [f"wikidata-{date}-all.json.gz", f"wikidata-{date}-all.json.bz2", f"wikidata-{date}-all-BETA.nt.bz2"]
    sums = "".join(f"{SHA1}  {name}\n" for name in names if listed in name)
    return {f"{base}/{name}": "" for name in names} | {f"{base}/wikidata-{date}-sha1sums.txt": sums}


def test_wikidata_nearest_to_the_wikis_date_that_is_listed() -> None:
    """A file that no list of sums names is still being made; its name may have another date than its folder."""
    texts = {
        **_wikidata("20260105", "20260106", "all.json"),
        **_wikidata("20260112", "20260112", "nothing"),
        **_wikidata("20260202", "20260202", "all.json.bz2"),
    }
    lists = _lists(texts)
    found = find_wikidata(lists, NEAREST, "2026-01-11", "gz")
    assert (found.date, _names(found)) == ("2026-01-05", ["wikidata-20260106-all.json.gz"])
    assert find_wikidata(lists, LATEST, "2026-01-11", "bz2").date == "2026-02-02"
    assert find_wikidata(lists, NEAREST, "2026-02-01", "gz").date == "2026-01-05"
    with pytest.raises(UsageError, match=r"of 20260112 is not complete; dates .*: 20260202, 20260112, 20260105"):
        find_wikidata(lists, "2026-01-12", "2026-01-11", "gz")
    with pytest.raises(UsageError, match="of 20260113 is not there"):
        find_wikidata(lists, "2026-01-13", "2026-01-11", "gz")


def test_wikidata_where_a_mirror_keeps_it_among_the_others() -> None:
    """Some have no folder of entities among the dumps."""
    texts = {
        path.replace("wikidatawiki/entities", "other/wikibase/wikidatawiki"): text
        for path, text in _wikidata("20260105", "20260105", "all.json").items()
    }
    assert find_wikidata(_lists(texts), LATEST, "2026-01-01", "gz").date == "2026-01-05"


def test_the_table_of_links_nearest_to_the_pages() -> None:
    """Of the classic dumps alone, where its job is done."""
    texts = {
        f"swwiki/{date}/dumpstatus.json": _status(
            langlinkstable={f"swwiki-{date}-langlinks.sql.gz": _file()} if done else "waiting"
        )
        for date, done in (("20251220", True), ("20260101", False), ("20260120", True))
    }
    found = find_langlinks(_lists(texts), "swwiki", "2026-01-01")
    assert (found.date, _names(found)) == ("2025-12-20", ["swwiki-20251220-langlinks.sql.gz"])
