"""preview: text, names and reasons as the build has them, on a terminal, as a page, as JSON; hostile text does no harm."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from lxml import html

from leia_beam.cli import main
from leia_beam.errors import UsageError
from leia_beam.manifest import read_manifest
from leia_beam.preview import Choice, Preview, Segment, ShownArticle
from leia_beam.preview_html import preview_page
from leia_beam.preview_text import article_lines
from leia_beam.shard_rows import RowOptions
from leia_beam.terminal_text import json_text
from leia_beam.tokenizer_identity import find_tokenizer
from tests.build_files import rows_of
from tests.conftest import Sample
from tests.leia_beam.entity_build import build as build_entities
from tests.leia_beam.entity_build import run, shards_stage
from tests.leia_beam.test_stage_shards import linked

HOSTILE = "\x1b[31m\x1b]0;owned\x07[/b][red]<script>alert(1)</script>\u202eevil\u2066</s>&amp;\x00 \\x1b"

TITLE = HOSTILE.replace("\x00", "")
"""No title of a table of titles has a NUL."""


@pytest.fixture(scope="module")
def build(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Japanese sample in several shards, later mentions among the names."""
    folder = tmp_path_factory.mktemp("preview") / "build"
    options = ["--range-bytes", "8KiB", "--link-later-mentions", "--quiet"]
    assert main([*sample.build_arguments("jawiki", folder), *options]) == 0
    return folder


@pytest.fixture(scope="module")
def hostile(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build whose page, link and name try everything."""
    folder = tmp_path_factory.mktemp("hostile")
    text = f"{HOSTILE} and Tokyo, {HOSTILE}, Nowhere."
    page = linked(TITLE, 1, text, "Tokyo", "Nowhere")
    build_entities(folder, [page], {}, [("Q1", {"jawiki": "Tokyo", "enwiki": "<script>alert(2)</script>[/b]"})])
    run(shards_stage(folder, find_tokenizer(sample.tokenizer)))
    tokenizer = folder / "shards/tokenizer"
    shutil.copytree(sample.tokenizer, tokenizer)
    return folder


def test_segments_are_the_article_with_its_names_and_reasons(build: Path) -> None:
    """Together they are the text; names and edges are the shards', in their order; every link without one has a reason."""
    texts = {row["page_id"]: row["text"] for row in rows_of(build, "articles", "articles")}
    shards = {row["page_id"]: row for row in rows_of(build, "shards", "train")}
    shown = list(Preview(build).articles(Choice(random=10**6)))
    assert {article.page_id for article in shown} == set(shards)
    kinds = set()
    for article in shown:
        row = shards[article.page_id]
        assert "".join(segment.text for segment in article.segments) == texts[article.page_id]
        named = [segment for segment in article.segments if segment.name is not None]
        assert [(s.qid, s.edge, s.name_language) for s in named] == list(
            zip(row["entity_qids"], row["entity_edges"], row["entity_name_languages"], strict=True)
        )
        assert all(segment.reason for segment in article.unnamed)
        assert article.token_count == len(row["input_ids"])
        kinds |= set(row["entity_kinds"])
    assert "later mention" in kinds and any(article.unnamed for article in shown)


def test_shards_alone_show_the_same_text_and_names(build: Path, tmp_path: Path) -> None:
    """Decoded from the tokens, but for links without a name."""
    shutil.copytree(build / "shards", tmp_path / "away")
    compared = 0
    for whole, alone in zip(
        Preview(build).articles(Choice(random=30, seed=1)),
        Preview(tmp_path / "away").articles(Choice(random=30, seed=1)),
        strict=True,
    ):
        assert (whole.title, whole.names) == (alone.title, alone.names)
        assert "".join(s.text for s in alone.segments) == "".join(s.text for s in whole.segments)
        assert [s.name for s in alone.segments if s.name] == [s.name for s in whole.segments if s.name]
        compared += whole.names
    assert compared > 100


@pytest.mark.parametrize("alignment", ["edge", "split"])
def test_an_article_that_was_cut_is_shown_as_far_as_the_shards_hold_it(
    sample: Sample, tmp_path: Path, alignment: str
) -> None:
    """As the tokens have it: text, names, and no link that lies beyond; how much is left out is said."""
    options = ["--max-length", "40", "--align", alignment, "--link-later-mentions", "--eos", "--quiet"]
    assert main([*sample.build_arguments("jawiki", tmp_path / "build"), *options]) == 0
    texts = {row["page_id"]: row["text"] for row in rows_of(tmp_path / "build", "articles", "articles")}
    shutil.copytree(tmp_path / "build/shards", tmp_path / "away")
    everything, cut = Choice(random=10**6), 0
    pairs = zip(Preview(tmp_path / "build").articles(everything), Preview(tmp_path / "away").articles(everything))
    for whole, alone in pairs:
        shown = "".join(segment.text for segment in whole.segments)
        assert shown == "".join(segment.text for segment in alone.segments)
        assert len(shown) + whole.characters_cut == len(texts[whole.page_id])
        assert [s.name for s in whole.segments if s.name] == [s.name for s in alone.segments if s.name]
        cut += whole.characters_cut > 0
        said = "\n".join(article_lines(whole, False, None))
        assert (f"{whole.characters_cut:,} characters more are beyond" in said) == (whole.characters_cut > 0)
    assert cut > 50


def test_articles_are_chosen_by_title_by_chance_and_by_coverage(build: Path) -> None:
    """The same ones for a seed; the most and the fewest names a token."""
    preview = Preview(build)
    rows = rows_of(build, "shards", "train")
    titles = [rows[5]["title"], rows[2]["title"]]
    assert [each.title for each in preview.articles(Choice(titles=titles))] == titles
    drawn = [[each.title for each in preview.articles(Choice(random=4, seed=seed))] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and len(set(drawn[0])) == 4
    shares = {row["title"]: len(row["entity_ordinals"]) / len(row["input_ids"]) for row in rows}
    most = [shares[each.title] for each in preview.articles(Choice(most_covered=3))]
    least = [shares[each.title] for each in preview.articles(Choice(least_covered=3))]
    assert most == sorted(shares.values(), reverse=True)[:3] and least == sorted(shares.values())[:3]


def test_a_title_that_is_in_no_shard_is_an_error_that_helps(build: Path) -> None:
    """Titles that hold it; why an article was left out."""
    title = rows_of(build, "shards", "train")[0]["title"]
    with pytest.raises(UsageError, match=f"no article of the shards has this title; there is .*{title}"):
        list(Preview(build).articles(Choice(titles=[title[:-1]])))
    kept = {row["page_id"] for row in rows_of(build, "shards", "train")}
    lost = next(row for row in rows_of(build, "articles", "articles") if row["page_id"] not in kept)
    with pytest.raises(UsageError, match="is in no shard: no link"):
        list(Preview(build).articles(Choice(titles=[lost["title"]])))


def test_tokens_are_shown_where_they_are_asked_for(build: Path) -> None:
    """One piece for each id."""
    article = next(Preview(build).articles(Choice(random=1), with_tokens=True))
    assert article.tokens is not None and len(article.tokens) == article.token_count
    assert all(piece and "\ufffd" not in piece for _, piece in article.tokens)
    assert "tokens:" in list(article_lines(article, False, None))


def test_text_on_a_terminal_moves_no_cursor(hostile: Path) -> None:
    """No control or direction character of the dump comes through, with colours and without."""
    (article,) = Preview(hostile).articles(Choice(random=1), with_tokens=True)
    for is_coloured in (False, True):
        text = "\n".join(article_lines(article, is_coloured, None))
        if is_coloured:
            text = re.sub("\x1b\\[[0-9;]*m", "", text)
        assert all(each.isprintable() or each == "\n" for each in text)
        assert "\\x1b[31m" in text and "<script>" in text and "Nowhere  (missing page)" in text


def test_a_page_holds_no_markup_of_the_dump(hostile: Path) -> None:
    """Parsed as a browser does: no script, no element that the page did not make, the words as they were."""
    (article,) = Preview(hostile).articles(Choice(random=1), with_tokens=True)
    page = preview_page([article, article], f"x {HOSTILE}")
    assert not set("\x1b\u202e\u2066\x00") & set(page)
    tree = html.document_fromstring(page)
    assert {element.tag for element in tree.iter()} <= set(
        "html head meta title style body header main h1 h2 p span bdi nav a article div details summary dl dt dd ul li table "
        "caption thead tbody tr th td".split()
    )
    assert "<script>alert(1)</script>" in tree.text_content() and "<script>alert(2)</script>[/b]" in tree.text_content()
    assert not re.search(r"<[^>]*\s(?:src|href)=\"(?!#)", page)
    (policy,) = tree.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline';")


def segment(text: str, **more: str | None) -> Segment:
    """A link."""
    return Segment(text=text, is_link=True, **more)


def test_each_wiki_is_read_in_its_own_direction_and_names_in_theirs() -> None:
    """Arabic runs from right to left also where it begins with Latin letters; a name is isolated and says its language."""
    segments = [
        Segment(text="NASA هي وكالة في "),
        segment("الولايات المتحدة", name="United States", name_language="en", qid="Q30", edge="exact", target="x"),
        Segment(text=" و"),
        segment("مكان", target="مكان بعيد", reason="missing page"),
    ]
    articles = [
        ShownArticle(
            wiki=wiki,
            page_id=1,
            title=title,
            qid="Q1",
            flags=["stub"],
            token_count=1234,
            segments=segments,
            tokens=None,
        )
        for wiki, title in (("arwiki", "ناسا"), ("jawiki", "東京"))
    ]
    tree = html.document_fromstring(preview_page(articles, "x"))
    texts = tree.findall(".//div[@class='text']")
    assert [(node.get("lang"), node.get("dir")) for node in texts] == [("ar", "rtl"), ("ja", "ltr")]
    assert [(node.get("lang"), node.get("dir")) for node in tree.iter("h2")] == [("ar", "rtl"), ("ja", "ltr")]
    names = list(texts[0].iter("bdi"))
    assert [(node.text, node.get("lang"), node.get("title")) for node in names] == [
        ("United States", "en", "Q30 · en · exact")
    ]
    assert texts[0].find("span[@class='none']").get("title") == "missing page"
    facts = tree.find(".//article/p").text
    assert facts == "arwiki · page 1 · Q1 · 1,234 tokens · 1 of 2 links with a name · stub"
    rows = [[cell.text_content() for cell in row] for row in tree.find(".//article").iter("tr")]
    assert ["الولايات المتحدة", "United States", "en", "Q30", "exact", "1"] in rows
    assert ["مكان", "مكان بعيد", "missing page", "1"] in rows
    assert [link.get("href") for link in tree.iter("a")] == ["#a0", "#a1"]
    assert all(tree.get_element_by_id(f"a{number}").tag == "article" for number in (0, 1))


def test_the_key_explains_what_stands_on_the_page_alone() -> None:
    """Names that some strategies leave out, and links without a name, where there are any."""
    whole, part, none = segment("a", name="A", edge="exact"), segment("b", name="B", edge="end refused"), segment("c")
    for segments, lines in (([whole], 1), ([whole, part], 2), ([whole, part, none], 3)):
        article = ShownArticle(
            wiki="jawiki", page_id=1, title="t", qid=None, flags=[], token_count=9, segments=segments, tokens=[(5, "a")]
        )
        tree = html.document_fromstring(preview_page([article], "x"))
        assert len(tree.findall(".//ul[@aria-label='Key']/li")) == lines
        assert tree.find(".//div[@class='tokens']/span").get("title") == "5"


def test_json_is_plain_and_whole(hostile: Path) -> None:
    """What was shown comes back; nothing in it can move a cursor."""
    articles = list(Preview(hostile).articles(Choice(random=1)))
    text = json_text([article.as_json() for article in articles])
    assert all(each.isprintable() or each == "\n" for each in text)
    (loaded,) = json.loads(text)
    assert loaded["title"] == TITLE and loaded["segments"][0]["text"].startswith(HOSTILE)


def test_the_command_prints_and_writes(build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A terminal's text by default, cut; a page and JSON where they are asked for."""
    assert main(["preview", str(build), "--random", "2", "--characters", "50"]) == 0
    output = capsys.readouterr().out
    assert output.count("(jawiki, page ") == 2 and "<translate>" in output and "…" in output and "\x1b" not in output
    files = (str(tmp_path / "p.html"), str(tmp_path / "p.json"))
    assert main(["preview", str(build), "--least-covered", "3", "--html", files[0], "--json", files[1]]) == 0
    assert capsys.readouterr().out == ""
    assert Path(files[0]).read_text().count("<article") == len(json.loads(Path(files[1]).read_text())) == 3
    assert main(["preview", str(build), "--json", "-"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert main(["preview", str(build / "articles")]) == 2
    assert "holds the stage articles, not shards" in capsys.readouterr().err


def test_shards_with_eos_are_decoded_without_it(sample: Sample, build: Path, tmp_path: Path) -> None:
    """Neither what stands before nor what stands behind the text is shown."""
    shutil.copytree(build, tmp_path / "build")
    tokenizer = ("--tokenizer", sample.tokenizer, "--output", str(tmp_path / "build"))
    assert main(["shards", *tokenizer, "--eos", "--overwrite", "--quiet"]) == 0
    shutil.copytree(tmp_path / "build/shards", tmp_path / "away")
    details = read_manifest(tmp_path / "away").details["tokenizer"]
    assert details["document_end_ids"] == [details["eos_id"]]
    for article in Preview(tmp_path / "away").articles(Choice(random=5)):
        text = "".join(segment.text for segment in article.segments)
        assert not text.startswith("</s>") and not text.endswith("</s>")


def test_rows_options_are_checked() -> None:
    """Too short a maximal length is no row at all."""
    with pytest.raises(UsageError, match="--max-length 3: give at least 16 tokens"):
        RowOptions(max_length=3)
