"""All pages in a real browser, from a phone's width to a wide screen's, light, dark and printed.

Nothing overflows, nothing that must be seen is missing or clipped, letters can be read, no request leaves. What each looked
like is left as pictures: in LEIA_SCREENSHOTS, or else in the test's folder.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from leia_beam.cli import main
from leia_beam.preview import Segment, ShownArticle
from leia_beam.preview_html import preview_page
from leia_train.metrics import read_metrics
from tests.browser import Browser, find_browser, open_browser

WIDTHS = (360, 768, 1100, 1600)
SCHEMES = ("light", "dark")
HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\"'\u202eevil\u2066 &amp;"
)

# What a page is asked, as functions that a browser runs. Lists that come back are faults.
PRELUDE = """
const seen = e => { const r = e.getBoundingClientRect(), s = getComputedStyle(e);
  return r.width > 0 && r.height > 0 && s.visibility !== 'hidden' && e.checkVisibility(); };
const where = e => e.tagName.toLowerCase() + (e.getAttribute('class') ? '.' + e.getAttribute('class') : '') +
  ' ' + e.textContent.trim().slice(0, 40);
const all = selector => [...document.querySelectorAll(selector)];
"""
OVERFLOWS = """
const room = document.documentElement.clientWidth;  // a phone's innerWidth grows with what overflows
if (document.scrollingElement.scrollWidth > room) faults.push('page: ' + document.scrollingElement.scrollWidth);
for (const e of all('body *')) {
  if (!seen(e) || e.closest('.heard') || e.parentElement.closest('.scroll')) continue;
  const r = e.getBoundingClientRect();
  if (r.right > room + 0.5 || r.left < -0.5) faults.push('outside: ' + where(e));
  const cut = getComputedStyle(e).overflowX !== 'visible' && !e.matches('.scroll');
  if (cut && e.scrollWidth > e.clientWidth + 1) faults.push('cut: ' + where(e));
}
"""
OVERLAPS = """
for (const labels of all('.plot .x, .plot .y')) {
  const boxes = [...labels.children].map(e => e.getBoundingClientRect());
  for (let i = 0; i < boxes.length; i++) for (let j = 0; j < i; j++)
    if (boxes[i].left < boxes[j].right && boxes[j].left < boxes[i].right &&
        boxes[i].top < boxes[j].bottom && boxes[j].top < boxes[i].bottom) faults.push('overlap: ' + where(labels));
}
for (const e of all('.number')) {
  const style = getComputedStyle(e), inner = e.getBoundingClientRect().height - parseFloat(style.paddingTop)
    - parseFloat(style.paddingBottom);
  const range = document.createRange(); range.selectNodeContents(e);
  const text = range.getBoundingClientRect().height;
  if (e.tagName === 'TD' && seen(e) && text > 1.6 * parseFloat(style.lineHeight)) faults.push('broken number: ' + where(e));
}
"""
CONTRAST = """
const parts = colour => (colour.match(/[\\d.]+/g) || []).map(Number);
const light = colour => { const c = parts(colour).slice(0, 3).map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]; };
const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  if (parts(c).length === 3 || parts(c)[3] === 1) return c; } return 'rgb(255, 255, 255)'; };
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const e = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || !seen(e) || e.closest('.heard')) continue;
  const a = light(getComputedStyle(e).color), b = light(behind(e));
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) faults.push('contrast ' + ratio.toFixed(2) + ': ' + where(e));
  if (parseFloat(getComputedStyle(e).fontSize) < 8) faults.push('small: ' + where(e));
}
"""
STRUCTURE = """
if (document.documentElement.lang !== 'en') faults.push('no language');
if (all('h1').length !== 1) faults.push('h1: ' + all('h1').length);
let level = 0;
for (const e of all('h1, h2, h3, h4, h5, h6')) {
  if (+e.tagName[1] > level + 1) faults.push('heading out of order: ' + where(e));
  level = +e.tagName[1];
}
for (const e of all('table')) {
  if (!e.caption || !e.caption.textContent) faults.push('no caption: ' + where(e));
  if (!e.closest('[role=region][tabindex="0"][aria-label]')) faults.push('cannot be scrolled by keys: ' + where(e));
}
for (const e of all('th')) if (!e.scope) faults.push('no scope: ' + where(e));
for (const e of all('svg')) {
  const named = e.getAttribute('role') === 'img' && e.getAttribute('aria-label');
  if (!named && e.getAttribute('aria-hidden') !== 'true') faults.push('drawing without words: ' + where(e.parentElement));
}
const ids = all('[id]').map(e => e.id);
if (new Set(ids).size !== ids.length) faults.push('an id twice');
for (const e of all('a')) {
  const to = e.getAttribute('href');
  if (to.startsWith('#') ? !document.getElementById(to.slice(1)) : /^([a-z]+:|\\/)/.test(to)) faults.push('link: ' + to);
}
for (const e of all('[src], [srcset], [data], [poster], [action], link, script, iframe, object, embed, img, base, form'))
  faults.push('loads: ' + where(e));
for (const e of all('*')) for (const a of e.attributes) if (a.name.startsWith('on')) faults.push('script: ' + where(e));
if (document.title.includes('owned') && !document.title.includes('<')) faults.push('a script ran');
"""


def faults(browser: Browser, *questions: str) -> list[str]:
    """What a page answers to some questions."""
    found = browser.value(
        f"(() => {{ {PRELUDE} const faults = []; {''.join(questions)} return faults.slice(0, 12); }})()"
    )
    assert isinstance(found, list)
    return found


@dataclass(frozen=True)
class Shown:
    """A page, and how many of which elements must be seen on it at any width."""

    path: Path
    seen: Mapping[str, int]


def arabic_articles() -> list[ShownArticle]:
    """Two articles with long English names, links without one, Latin words and numbers; sentences of our own."""

    def link(text: str, name: str | None = None, reason: str | None = None, edge: str = "exact") -> Segment:
        language = None if name is None else "en"
        return Segment(
            text=text, is_link=True, target=text, name=name, name_language=language, qid="Q1", edge=edge, reason=reason
        )

    plain = [
        Segment(text="NASA هي وكالة الفضاء في "),
        link("الولايات المتحدة", "United States of America"),
        Segment(text=" وقد أرسلت عام 1969 ثلاثة رواد إلى "),
        link("القمر", "Moon"),
        Segment(text=" على متن "),
        link("أبولو 11", "Apollo 11"),
        Segment(text=" (2 + 1) من "),
        link(
            "مركز كينيدي للفضاء", "Kennedy Space Center Launch Complex 39, Merritt Island, Florida", edge="end refused"
        ),
        Segment(text="، ثم عادوا إلى "),
        link("المحيط الهادئ", None, "missing page"),
        Segment(text=".\n\nكتب عنها C++ و Python في "),
        link("صفحة أخرى", "Talk\u200e: <i>page</i>"),
        Segment(text=f" 100% و https://example.org/{'Donaudampfschifffahrt' * 6}."),
    ]
    return [
        ShownArticle(
            wiki="arwiki", page_id=number, title=title, qid="Q23548", flags=[], token_count=200 * number, segments=segments
            * number, tokens=[(7, "ال"), (8, "ق"), (9, "مر"), (10, " NASA"), (11, "\n")] * 20,
        )
        for number, title, segments in ((1, "ناسا", plain), (2, f"القمر {HOSTILE}", [*plain, Segment(text=HOSTILE)]))
    ]  # fmt: skip


def nine_runs(run: Path, folder: Path) -> list[str]:
    """Three arms of three seeds, each of many noisy steps with a spike, described as `run` is."""
    described = json.loads((run / "_run.json").read_bytes())
    step = next(record for record in read_metrics(run) if "loss" in record)
    made = []
    for arm, seed in itertools.product(("plain", "leia", "permuted"), (1, 2, 3)):
        noise, path = random.Random(f"{arm} {seed}"), folder / f"{arm}-{seed}"
        path.mkdir()
        identity = {
            **described["identity"],
            "seed": seed,
            "steps": 100_000,
            "model": "some-organisation/Some-Model-7B-v0.1",
        }
        (path / "_run.json").write_text(json.dumps({**described, "identity": identity}), encoding="utf-8")
        records: list[dict[str, object]] = []
        for number in range(400, 100_001, 400):
            loss = 1.8 + 1.3 * 0.97 ** (number / 400) + noise.gauss(0, 0.04) + 4 * (number == 40_000)
            more = {
                "tokens": 4_194_304,
                "seconds": 41.0,
                "gradient_norm": 2.0 ** noise.gauss(0, 1),
                "learning_rate": 5e-6,
            }
            records.append({**step, **more, "step": number, "loss": loss, "waited_s": 0.0})
            if number % 10_000 == 0:
                task = {"metric": "acc", "score": 0.2 + number / 400_000, "n": 1119, "chance": 0.2}
                records.append({"step": number, "tasks": {"leia_jcommonsenseqa": task}})
        (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        made.append(str(path))
    return made


@pytest.fixture(scope="module")
def arabic_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preview of the Arabic articles."""
    path = tmp_path_factory.mktemp("arabic") / "preview-ar.html"
    path.write_text(preview_page(arabic_articles(), f"arwiki {HOSTILE}"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pages(demo: Path, arabic_page: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    """All pages that the three programs make."""
    from leia_train.cli import main as train_main

    find_browser()
    folder = tmp_path_factory.mktemp("pages")
    build = str(demo / "build/jawiki")
    preview = ["preview", build, "--most-covered", "4", "--tokens", "--html", str(folder / "preview-ja.html")]
    assert main(preview) == 0
    assert main(["stats", build, "--html", str(folder / "stats-ja.html")]) == 0
    runs = [str(demo / "training" / f"{arm}-1") for arm in ("plain", "leia")]
    assert train_main(["report", runs[1], "--output", str(folder / "training.html")]) == 0
    assert train_main(["report", *runs, "--output", str(folder / "training-two.html"), "--no-exposures"]) == 0
    nine = ["report", *nine_runs(demo / "training/leia-1", tmp_path_factory.mktemp("runs")), "--no-exposures"]
    assert train_main([*nine, "--output", str(folder / "training-nine.html")]) == 0
    article = {"h1": 1, ".tiles dd": 5, ".key li": 2, ".text .link": 8, ".text .name": 8, "article h2": 2, "summary": 4}
    curves = {"h1": 1, "figure.chart": 6, ".plot svg": 6, ".plot .x span": 12, ".curve": 4, "table": 2}
    scores = {"h1": 1, "table": 1, "svg.interval": 2, ".item": 4, ".choices li": 8, ".said": 8}
    return {
        "demo": Shown(
            demo / "index.html", {"h1": 1, ".bars li": 14, ".read .name": 20, ".curve": 2, "pre": 4, "table": 2}
        ),
        "preview-ja": Shown(folder / "preview-ja.html", article),
        "preview-ar": Shown(arabic_page, {**article, ".text .none": 2, ".text .name.part": 2}),
        "stats-ja": Shown(
            folder / "stats-ja.html", {"h1": 1, ".tiles dd": 6, ".bars li": 20, ".track": 20, "table": 4}
        ),
        "training": Shown(folder / "training.html", {**curves, ".tiles dd": 7, ".bars li": 1}),
        "training-two": Shown(folder / "training-two.html", {**curves, ".legend li": 8}),
        "training-nine": Shown(
            folder / "training-nine.html", {**curves, ".faint": 18, ".notes li": 18, ".legend li": 9}
        ),
        "evaluation": Shown(demo / "evaluation/leia-1/report.html", scores),
        "comparison": Shown(
            demo / "report/comparison.html",
            {"h1": 1, ".callout": 1, "table": 1, "svg.interval": 3, ".notes li": 8},
        ),
    }


NAMES = (
    "demo",
    "preview-ja",
    "preview-ar",
    "stats-ja",
    "training",
    "training-two",
    "training-nine",
    "evaluation",
    "comparison",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all of these tests."""
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures of the pages go."""
    given = os.environ.get("LEIA_SCREENSHOTS")
    return Path(given) if given else tmp_path_factory.mktemp("screenshots")


def unseen(browser: Browser, expected: Mapping[str, int]) -> list[str]:
    """What is expected to be seen and is not, or not as often."""
    counts = {
        selector: browser.value(f"(() => {{ {PRELUDE} return all({selector!r}).filter(seen).length; }})()")
        for selector in expected
    }
    return [
        f"{selector}: {counts[selector]} of {least}" for selector, least in expected.items() if counts[selector] < least
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_whole_at_every_width_in_light_and_dark(
    name: str, pages: Mapping[str, Shown], browser: Browser, pictures: Path
) -> None:
    """Also with everything unfolded; a picture of each is left for eyes."""
    shown = pages[name]
    for scheme in SCHEMES:
        for width in WIDTHS:
            browser.look(width, scheme=scheme)
            browser.open(shown.path)
            assert browser.value("document.documentElement.clientWidth") == width
            assert browser.requests == [shown.path.resolve().as_uri()] and browser.errors == []
            assert unseen(browser, shown.seen) == []
            assert faults(browser, OVERFLOWS, OVERLAPS, CONTRAST, STRUCTURE) == []
            browser.picture(pictures / f"{name}-{width}-{scheme}.png")
            browser.value("document.querySelectorAll('details').forEach(each => { each.open = true; })")
            assert faults(browser, OVERFLOWS, OVERLAPS, CONTRAST) == []
    assert len(list(pictures.glob(f"{name}-[0-9]*.png"))) == len(WIDTHS) * len(SCHEMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_can_be_printed(name: str, pages: Mapping[str, Shown], browser: Browser, pictures: Path) -> None:
    """On paper of A4's width nothing is cut, and it is light whatever the screen is."""
    browser.look(680, scheme="dark", media="print")
    browser.open(pages[name].path)
    assert browser.value("document.scrollingElement.scrollWidth") == 680
    assert browser.value("getComputedStyle(document.body).color") == "rgb(27, 31, 36)"
    assert faults(browser, CONTRAST) == []
    document = browser.pdf()
    assert document.startswith(b"%PDF-") and len(document) > 5_000
    (pictures / f"{name}.pdf").write_bytes(document)


def test_arabic_runs_from_right_to_left_with_names_the_other_way(arabic_page: Path, browser: Browser) -> None:
    """The first link stands to the right of its name, the text begins at the right edge, a name's words run left to right."""
    for width in (360, 1100):
        browser.look(width)
        browser.open(arabic_page)
        boxes = browser.value(
            """(() => { const box = e => { const r = e.getBoundingClientRect(); return [r.left, r.right, r.top, r.bottom]; };
            const text = document.querySelector('.text'), name = text.querySelectorAll('.name')[1];
            const first = document.createRange(); first.setStart(text.firstChild, 0); first.setEnd(text.firstChild, 4);
            const letters = [0, 3].map(at => { const range = document.createRange(); range.setStart(name.firstChild, at);
              range.setEnd(name.firstChild, at + 1); return box(range); });
            return { text: box(text), first: box(first), link: box(text.querySelectorAll('.link')[1]), name: box(name),
              letters: letters }; })()"""
        )
        text, first, link, name, letters = (boxes[part] for part in ("text", "first", "link", "name", "letters"))
        assert text[1] - first[1] < 12, "NASA is the first word, so it is at the right edge"
        assert link[0] >= name[1] - 1 or link[2] < name[2], "the name follows its link: left of it, or a line below"
        assert letters[0][0] < letters[1][0], "M of Moon is left of its n"


def test_hostile_titles_run_nothing(arabic_page: Path, browser: Browser) -> None:
    """A script in a title is text of the heading and of the page's own title."""
    browser.look(768)
    browser.open(arabic_page)
    assert browser.value("document.title").startswith("arwiki <script>document.title='owned'</script><img src=x")
    assert "<img src=x onerror" in browser.value("document.querySelector('h1').textContent")
    assert browser.value("document.querySelectorAll('script, img').length") == 0


PLANTED: Mapping[str, tuple[str, Sequence[str]]] = {
    "outside": ("<div style='width:2000px'>x</div>", ["page: ", "outside: div"]),
    "cut": ("<div style='width:20px;overflow:hidden;white-space:nowrap'>a long line</div>", ["cut: div"]),
    "contrast": ("<p style='color:#999;background:#fff'>grey</p>", ["contrast 2.85: p"]),
    "structure": (
        "<h4>x</h4><table><tr><th>x</th></tr></table><svg></svg><img src='https://example.org/x.png'><a href='#no'>x</a>",
        ["heading out of order", "no caption", "no scope", "drawing without words", "link: #no", "loads: img"],
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_these_tests_can_fail(name: str, browser: Browser, tmp_path: Path) -> None:
    """Each kind of fault, planted in a page, is found; a request that leaves is seen."""
    planted, expected = PLANTED[name]
    path = tmp_path / "page.html"
    path.write_text(
        f"<!doctype html><html lang=en><meta name=viewport content='width=device-width'><title>x</title><body><h1>x</h1>{planted}",
        encoding="utf-8",
    )
    browser.look(360)
    browser.open(path)
    found = faults(browser, OVERFLOWS, OVERLAPS, CONTRAST, STRUCTURE)
    for fault in expected:
        assert any(line.startswith(fault) for line in found), (fault, found)
    assert ("https://example.org/x.png" in browser.requests) == ("img" in planted)
