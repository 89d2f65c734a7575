"""From the manifests of a build to a dataset card: what the shards are, what they were made from, how to load them.

The card begins with the metadata that the Hugging Face hub reads. It is a function of the manifests alone, so the same
build has the same card. Shards that were copied away have a card too, which says less of where they come from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from leia_beam.dump_dates import dump_date
from leia_beam.errors import UsageError
from leia_beam.funnel import funnel, funnel_lines
from leia_beam.manifest import MANIFEST_NAME, Manifest, read_manifest
from leia_beam.schema import SHARDS
from leia_beam.shard_statistics import total
from leia_beam.stage_titles import LINKS_FROM
from leia_beam.wikis import label_language

LICENSES = ("cc-by-sa-4.0", "gfdl", "cc0-1.0")
"""Wikipedia's texts have the first two, Wikidata's the third."""
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_COLUMNS = {
    "wiki": "database name of the wiki",
    "page_id": "the page's id, unique within the wiki",
    "revision_id": "the revision that was read",
    "title": "the page's title",
    "qid": "the page's item on Wikidata",
    "flags": "what the page is marked as",
    "input_ids": "the article's tokens",
    "entity_start_positions": "first token of each link that has a name",
    "entity_end_positions": "the token behind its last one",
    "alternative_entity_input_ids": "the tokens of each name, without markers",
    "entity_qids": "the linked page's item",
    "entity_ordinals": "the link's number in the article; later mentions count on behind the links",
    "entity_kinds": "link, interlanguage template, later mention",
    "entity_blocks": "prose, list, heading, table, caption",
    "entity_edges": "how the link's text falls on token edges",
    "entity_name_languages": "language of the name",
    "entity_name_sources": "where the name comes from",
}


def card(folder: str | Path) -> str:
    """The card of a build's shards, as Markdown with its metadata before it.

    Raises: UsageError if there are no finished shards.
    """
    root = Path(folder)
    shards_folder = root if (root / MANIFEST_NAME).is_file() else root / "shards"
    shards = read_manifest(shards_folder)
    if shards.stage != "shards":
        raise UsageError(f"{folder}: holds the stage {shards.stage}, not shards; give a build's folder")
    titles = _titles_beside(root, shards)
    others = _stages_beside(root, shards, titles)
    links = titles.details.get(LINKS_FROM, {}) if titles is not None else {}
    manifest_sha256 = hashlib.sha256((shards_folder / MANIFEST_NAME).read_bytes()).hexdigest()
    return "\n".join([*_metadata(shards), *_text(shards, others, links, manifest_sha256)]) + "\n"


def _titles_beside(root: Path, shards: Manifest) -> Manifest | None:
    """The titles beside the shards, where the entities that these were made from lie there."""
    entities, titles = root / "entities" / MANIFEST_NAME, root / "entities/_titles"
    made_from = {entry["manifest_sha256"] for entry in shards.inputs}
    if not (titles / MANIFEST_NAME).is_file() or not entities.is_file():
        return None
    return read_manifest(titles) if hashlib.sha256(entities.read_bytes()).hexdigest() in made_from else None


def _stages_beside(root: Path, shards: Manifest, titles: Manifest | None) -> dict[str, Manifest]:
    """Of the stages that read dumps those that lie beside the shards and that they were made from."""
    inputs = (*shards.inputs, *(titles.inputs if titles is not None else ()))
    made_from = {entry["manifest_sha256"] for entry in inputs}
    found = {}
    for stage in ("articles", "sitelinks", "langlinks"):
        path = root / stage / MANIFEST_NAME
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() in made_from:
            found[stage] = read_manifest(root / stage)
    return found


def _metadata(shards: Manifest) -> Iterator[str]:
    """YAML; its strings are written as JSON has them, which YAML reads."""
    rows = shards.rows_of("train")
    language = _hub_language(shards.options["wiki"])
    names = [_hub_language(code) for code in shards.options["name_wikis"]]
    yield "---"
    yield "license:"
    yield from (f"- {license_}" for license_ in LICENSES)
    yield "language:"
    yield from (f"- {json.dumps(code)}" for code in dict.fromkeys([language, *names]))
    yield f"pretty_name: {json.dumps(_title(shards), ensure_ascii=False)}"
    yield "size_categories:"
    yield f"- {next((name for limit, name in _SIZES if rows < limit), 'n>10M')}"
    yield "task_categories:"
    yield "- text-generation"
    yield "tags:"
    yield from (f"- {tag}" for tag in ("wikipedia", "wikidata", "leia", "cross-lingual", "tokenized"))
    yield "configs:"
    yield "- config_name: default"
    yield "  data_files:"
    yield "  - split: train"
    yield f"    path: {json.dumps(_pattern(shards))}"
    yield "---"


def _hub_language(wiki: str) -> str:
    """A code of ISO 639: 'en' for simplewiki, 'nan' for zh_min_nanwiki.

    >>> _hub_language("simplewiki"), _hub_language("zh_min_nanwiki"), _hub_language("jawiki")
    ('en', 'nan', 'ja')
    """
    return label_language(wiki).partition("-")[0]


def _title(shards: Manifest) -> str:
    return (
        f"{shards.options['wiki']} with {', '.join(shards.options['name_wikis'])} names, {_tokenizer(shards)['name']}"
    )


def _tokenizer(shards: Manifest) -> Mapping[str, Any]:
    tokenizer: Mapping[str, Any] = shards.details["tokenizer"]
    return tokenizer


def _pattern(shards: Manifest) -> str:
    return f"data/train-*-{shards.fingerprint[:8]}.parquet"


def _text(
    shards: Manifest, others: Mapping[str, Manifest], links: Mapping[str, Any], manifest_sha256: str
) -> Iterator[str]:
    sums = total(shards.details.get("statistics", []))
    wiki = shards.options["wiki"]
    yield ""
    yield f"# {_title(shards)}"
    yield ""
    yield (
        f"Articles of {wiki} as token ids, with the place of each link and the tokens of the linked entity's name, so that "
        "a trainer can insert the names beside the links: 東京`<translate>`Tokyo`</translate>`. Made by LEIA's corpus "
        f"builder (`leia-lm` {shards.versions['leia-lm']})."
    )
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| articles | {sums['articles']:,} |"
    yield f"| tokens | {sums['tokens']:,} ({sums['tokens_per_character']:.3f} a character) |"
    yield f"| names | {sums['names']:,}, {sums['name_tokens']:,} tokens |"
    yield f"| names that would be cut otherwise alone | {sums['share_of_names_cut_otherwise_alone']:.1%} |"
    for probability, share in sums["inserted_token_share"].items():
        yield f"| inserted tokens, if each name is inserted with probability {probability} between two markers | {share:.2%} |"
    yield f"| tokens an article | {sums['shortest']:,} to {sums['longest']:,} |"
    for line in shards.details.get("partial", ()):
        yield f"| **not whole** | {line} |"
    yield ""
    yield from _provenance(shards, others, links, manifest_sha256)
    yield from _loading(shards)
    yield from _columns()
    yield "## Licence"
    yield ""
    yield (
        "Wikipedia's texts are under CC BY-SA 4.0 and the GNU Free Documentation License; each article's authors are in the "
        f"history of its page, `https://{_host(wiki)}/?curid=PAGE_ID`. Names are titles of Wikipedia and labels of "
        "Wikidata; Wikidata's data are under CC0 1.0. What is made from the texts is shared under the same terms."
    )


def _host(wiki: str) -> str:
    return f"{wiki.removesuffix('wiki').replace('_', '-')}.wikipedia.org"


def _dumps(stage: str, inputs: Sequence[Mapping[str, Any]], details: Mapping[str, Any]) -> Iterator[str]:
    """A row for each dump that a stage was made from; `details` has their sums."""
    for entry in inputs:
        made = dump_date(str(entry["name"]))
        facts = [f"{entry['size_bytes']:,} bytes", *([f"of {made}"] if made else [])]
        verified = details.get("verified_sums", {}).get(entry["name"])
        fetched = details.get("fetched", {}).get(entry["name"], {})
        facts += [f"{name}:{fetched[name]}, as fetched" for name in ("sha256",) if name in fetched]
        facts += [f"{verified}, verified"] if verified else []
        yield f"| dump of {stage} | `{entry['name']}`, {', '.join(facts)} |"


def _provenance(
    shards: Manifest, others: Mapping[str, Manifest], links: Mapping[str, Any], manifest_sha256: str
) -> Iterator[str]:
    yield "## Where it comes from"
    yield ""
    yield "| | |"
    yield "|---|---|"
    for stage, manifest in others.items():
        yield from _dumps(stage, manifest.inputs, manifest.details)
    if links and links["stage"] not in others:
        yield from _dumps(links["stage"], links["inputs"], links)
    for entry in shards.inputs:
        yield f"| stage {entry['name']} | manifest SHA-256 `{entry['manifest_sha256']}` |"
    tokenizer = _tokenizer(shards)
    yield f"| tokenizer | {tokenizer['name']}, `tokenizer.json` SHA-256 `{tokenizer['sha256']}` |"
    yield f"| these shards | fingerprint `{shards.fingerprint}`, manifest SHA-256 `{manifest_sha256}` |"
    yield f"| made with | {', '.join(f'{name} {version}' for name, version in shards.versions.items())} |"
    yield ""
    if "articles" in others:
        yield "What became of the pages and of their links:"
        yield ""
        yield "```"
        yield from funnel_lines(funnel(others["articles"].counters, shards.counters))
        yield "```"
        yield ""
    yield "Options of the stage `shards`:"
    yield ""
    yield "```json"
    shown = {name: value for name, value in shards.options.items() if not name.endswith("_sha256")}
    yield json.dumps(shown, ensure_ascii=False, indent=1, sort_keys=True)
    yield "```"
    yield ""


def _loading(shards: Manifest) -> Iterator[str]:
    pattern = _pattern(shards)
    yield "## How to load it, from its folder"
    yield ""
    yield "```python"
    yield "from datasets import load_dataset"
    yield ""
    yield f'rows = load_dataset("parquet", data_files="{pattern}", split="train", streaming=True)'
    yield "```"
    yield ""
    yield "```python"
    yield "import polars"
    yield ""
    yield f'frame = polars.scan_parquet("{pattern}")'
    yield "```"
    yield ""
    yield "```sql"
    yield f"SELECT title, len(input_ids) AS tokens FROM read_parquet('{pattern}') ORDER BY tokens DESC LIMIT 10;"
    yield "```"
    yield ""
    yield "`leia-train train` takes the folder as it is; `leia-beam validate` looks at every file and row of it."
    yield ""


def _columns() -> Iterator[str]:
    yield "## Columns"
    yield ""
    yield "| column | type | what it holds |"
    yield "|---|---|---|"
    for field in SHARDS:
        kind = str(field.type).replace("element: ", "").replace(" not null", "")
        yield f"| `{field.name}` | `{kind}` | {_COLUMNS[field.name]} |"
    yield ""
    yield (
        "Positions are half-open and count tokens of `input_ids`, with what stands before the text. The lists about entities "
        "have the same length in a row and the same order, that of the text; spans do not overlap."
    )
    yield ""
