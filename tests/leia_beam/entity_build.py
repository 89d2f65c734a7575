"""Small builds of the stage `entities` from rows: pages, redirects and items as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

from leia_beam.entity_names import NameRules
from leia_beam.finish import MaxRejects, finish_stage
from leia_beam.holdout import Holdout
from leia_beam.lookup import EntityLookup
from leia_beam.plans import StagePlan, claim_folder, identity_of
from leia_beam.schema import ARTICLES, FACTS, REDIRECTS, SITELINKS
from leia_beam.stage_articles import text_hash
from leia_beam.stage_entities import NAME_MISSING, EntitiesStage
from leia_beam.stage_redirects import NO_SECTIONS, OWN_ITEM, RedirectsStage
from leia_beam.stage_shards import ShardsStage
from leia_beam.stage_titles import TitlesStage
from leia_beam.storage import LocalStorage
from leia_beam.tables import read_rows
from leia_beam.units import Unit, run_chain


@dataclass(frozen=True, kw_only=True)
class RowsStage:
    """A stage that writes given rows: `tables` maps a table to (schema, rows)."""

    folder: str
    name: str = "rows"
    options: dict = field(default_factory=dict)
    tables: dict = field(default_factory=dict)
    storage: LocalStorage = field(default_factory=LocalStorage)

    @property
    def plan(self):
        return StagePlan(stage=self.name, identity=identity_of(self.name, [], self.options, ()), unit_count=1)

    def units(self):
        return [Unit(number=0, count=1)]

    def process(self, unit, output):
        for table, (schema, rows) in self.tables.items():
            writer = output.table(table, schema)
            for row in rows:
                writer.write(row, 1)


def run(stage):
    """Run a stage to its manifest."""
    claim_folder(stage.storage, stage.folder, stage.plan, overwrite=False)
    for unit in stage.units():
        assert run_chain(stage, [unit])[0].error is None
    return finish_stage(stage.storage, stage.folder, stage.plan, MaxRejects(count=0))


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the three steps are asked for."""

    names: NameRules = field(default_factory=NameRules)
    holdout: Holdout = field(default_factory=Holdout)
    sections: str = NO_SECTIONS
    redirect_items: str = OWN_ITEM
    missing_pages: str = NAME_MISSING


def article(title, page_id, wiki="jawiki", **fields):
    """A row of the stage `articles`."""
    row = {"wiki": wiki, "page_id": page_id, "revision_id": 1, "title": title, "text": "", "anchors": [], "flags": []}
    row |= fields
    return {"text_hash": text_hash(row["text"]), **row}


def write_stages(folder, pages, redirects, items, wiki="jawiki"):
    """The stages `articles` and `sitelinks`; see `build`."""
    articles = [page if isinstance(page, dict) else article(page, number, wiki) for number, page in enumerate(pages, 1)]
    moved = []
    for n, (title, to) in enumerate(redirects.items(), 1000):
        to, fragment, interwiki = to if isinstance(to, tuple) else (to, None, None)
        row = {"wiki": wiki, "page_id": n, "from": title, "to": to, "fragment": fragment, "to_interwiki": interwiki}
        moved.append(row)
    links, facts = [], []
    for qid, sitelinks, *rest in items:
        more = rest[0] if rest else {}
        labels = [{"language": language, "label": label} for language, label in sorted(more.get("labels", {}).items())]
        links.append(
            {"qid": qid, "sitelinks": [{"wiki": w, "title": t} for w, t in sorted(sitelinks.items())], "labels": labels}
        )
        claims = [{"property": "P31", "item": item} for item in more.get("types", ())]
        aliases = [{"language": "en", "alias": alias} for alias in more.get("aliases", ())]
        if claims or aliases:
            facts.append({"qid": qid, "claims": claims, "aliases": aliases})
    run(
        RowsStage(
            folder=f"{folder}/articles",
            name="articles",
            options={"wiki": wiki, "siteinfo": None},
            tables={"articles": (ARTICLES, articles), "redirects": (REDIRECTS, moved)},
        )
    )
    run(
        RowsStage(
            folder=f"{folder}/sitelinks",
            name="sitelinks",
            tables={"sitelinks": (SITELINKS, links), "facts": (FACTS, facts)},
        )
    )


def build(folder, pages, redirects, items, bucket_count=4, wiki="jawiki", name_wikis=("enwiki",), rules=Rules()):
    """The entity table, the lookup and the manifests.

    `pages` are titles or rows, `redirects` {from: to or (to, fragment, interwiki)}, `items` (qid, {wiki: title}) and
    perhaps {"types": […], "aliases": […], "labels": {language: label}}.
    """
    write_stages(folder, pages, redirects, items, wiki)
    entities = f"{folder}/entities"
    common = {"wiki_code": wiki, "siteinfo": None}
    titles = TitlesStage(
        build_folder=entities,
        articles_folder=f"{folder}/articles",
        sitelinks_folder=f"{folder}/sitelinks",
        name_wikis=name_wikis,
        bucket_count=bucket_count,
        rules=rules.names,
        holdout=rules.holdout,
        **common,
    )
    manifests = [
        run(titles),
        run(RedirectsStage(build_folder=entities, sections=rules.sections, items=rules.redirect_items, **common)),
        run(
            EntitiesStage(
                folder=entities,
                wiki_code=wiki,
                name_wikis=name_wikis,
                bucket_count=bucket_count,
                missing_pages=rules.missing_pages,
            )
        ),
    ]

    def rows_of(step, table):
        where, manifest = (f"{entities}/_titles", f"{entities}/_redirects", entities)[step], manifests[step]
        return [row for file in manifest.files_of(table) for row in read_rows(f"{where}/{file.path}")]

    rows = rows_of(2, "entities")
    return SimpleNamespace(
        rows={row["title"]: row for row in rows},
        lookup=EntityLookup(entities),
        manifests=manifests,
        count=len(rows),
        held_out=rows_of(2, "held-out"),
        duplicates=[*rows_of(0, "duplicates"), *rows_of(1, "duplicates")],
    )


def shards_stage(folder, tokenizer, **options):
    """The stage `shards` over the articles and entities of a build."""
    return ShardsStage(
        folder=f"{folder}/shards",
        articles_folder=f"{folder}/articles",
        entities_folder=f"{folder}/entities",
        wiki_code="jawiki",
        siteinfo=None,
        name_wikis=("enwiki",),
        tokenizer=tokenizer,
        **options,
    )
