"""From a finished entity table and all articles to what finds the names that are held out of insertion."""

from __future__ import annotations

from functools import lru_cache

import pyarrow.compute as pc
import pyarrow.parquet as pq

from leia_beam.entity_names import refusal_of
from leia_beam.holdout import LeakFinder
from leia_beam.linking import LinkRules, template_name
from leia_beam.records import INTERLANGUAGE_TEMPLATE
from leia_beam.stage_folders import stage_manifest
from leia_beam.storage import Storage
from leia_beam.tables import read_rows


@lru_cache(maxsize=2)
def open_leak_finder(
    storage: Storage,
    entities_folder: str,
    manifest_sha256: str,
    articles_folder: str,
    name_wikis: tuple[str, ...],
    rules: LinkRules,
) -> LeakFinder:
    """What finds the names that are held out, and their aliases: of titles, and of the templates of all articles."""
    files = stage_manifest(storage, entities_folder).files_of("held-out")
    sources = (storage.table_file(f"{entities_folder}/{file.path}") for file in files)
    rows = (row for source in sources for row in read_rows(source, ["name", "aliases"]))
    names = {name for row in rows for name in (row["name"], *row["aliases"])}
    if rules.holdout.share:
        names |= _held_out_of_templates(storage, articles_folder, name_wikis, rules)
    return LeakFinder(sorted(names))


def _held_out_of_templates(
    storage: Storage, articles_folder: str, name_wikis: tuple[str, ...], rules: LinkRules
) -> set[str]:
    """Names that interlanguage templates give and that are held out, over all articles: two columns of each file."""
    found: set[str] = set()
    for file in stage_manifest(storage, articles_folder).files_of("articles"):
        columns = [f"anchors.list.element.{name}" for name in ("foreign_wiki", "foreign_title", "kind")]
        pairs: set[tuple[str, str]] = set()
        with pq.ParquetFile(storage.table_file(f"{articles_folder}/{file.path}")) as articles:
            for batch in articles.iter_batches(columns=columns):
                anchors = pc.list_flatten(batch.column(0))
                anchors = anchors.filter(pc.equal(anchors.field("kind"), INTERLANGUAGE_TEMPLATE))
                foreign = (anchors.field(name).to_pylist() for name in ("foreign_wiki", "foreign_title"))
                pairs.update(zip(*foreign, strict=True))
        names = (template_name(title, code, rules.names.parentheses) for code, title in pairs if code in name_wikis)
        found |= {
            name for name in names if name and refusal_of(name, rules.names) is None and rules.holdout.holds(name)
        }
    return found
