"""The stages that read what other stages wrote, each made when that is finished: in the launcher, or in a worker.

A value of these classes holds settings alone, so that a job of all stages can carry it to a worker that makes the stage
from the manifests of those before it. A tokenizer, which may be of many megabytes, is carried by its folder.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from leia_beam.entity_names import NameRules
from leia_beam.errors import UsageError
from leia_beam.holdout import Holdout
from leia_beam.linking import LinkRules
from leia_beam.manifest import Manifest
from leia_beam.shard_rows import RowOptions
from leia_beam.siteinfo import SiteInfo, siteinfo_from_json
from leia_beam.sources import is_remote
from leia_beam.stage_entities import EntitiesStage
from leia_beam.stage_folders import stage_manifest
from leia_beam.stage_redirects import SECTIONS_AS_ARTICLES, RedirectsStage
from leia_beam.stage_shards import ShardsStage
from leia_beam.stage_titles import TitlesStage
from leia_beam.storage import Storage
from leia_beam.title_buckets import default_bucket_count
from leia_beam.tokenization import EncodingOptions
from leia_beam.tokenizer_identity import TokenizerFiles, find_tokenizer


def siteinfo_of(articles_manifest: Manifest, code: str) -> SiteInfo | None:
    """The site information that the stage `articles` found.

    Raises: UsageError if those are the articles of another wiki.
    """
    if articles_manifest.options["wiki"] != code:
        raise UsageError(f"--wiki {code}: the articles in this folder are of {articles_manifest.options['wiki']}")
    return siteinfo_from_json(articles_manifest.options["siteinfo"])


@dataclass(frozen=True, kw_only=True)
class EntitySteps:
    """The three steps of `entities`. `buckets` None: by the number of titles."""

    output: str
    sitelinks_folder: str
    wiki_code: str
    name_wikis: tuple[str, ...]
    buckets: int | None
    rules: NameRules
    holdout: Holdout
    sections: str
    redirect_items: str
    missing_pages: str
    storage: Storage

    def titles(self) -> TitlesStage:
        """Step 1, from finished articles and sitelinks."""
        articles = self._articles()
        return TitlesStage(
            build_folder=f"{self.output}/entities",
            articles_folder=f"{self.output}/articles",
            sitelinks_folder=self.sitelinks_folder,
            wiki_code=self.wiki_code,
            siteinfo=siteinfo_of(articles, self.wiki_code),
            name_wikis=self.name_wikis,
            bucket_count=self._bucket_count(articles),
            rules=self.rules,
            holdout=self.holdout,
            storage=self.storage,
        )

    def redirects(self) -> RedirectsStage:
        """Step 2, from step 1."""
        return RedirectsStage(
            build_folder=f"{self.output}/entities",
            wiki_code=self.wiki_code,
            siteinfo=siteinfo_of(self._articles(), self.wiki_code),
            sections=self.sections,
            items=self.redirect_items,
            storage=self.storage,
        )

    def table(self) -> EntitiesStage:
        """Step 3, from both."""
        return EntitiesStage(
            folder=f"{self.output}/entities",
            wiki_code=self.wiki_code,
            name_wikis=self.name_wikis,
            bucket_count=self._bucket_count(self._articles()),
            missing_pages=self.missing_pages,
            storage=self.storage,
        )

    def _articles(self) -> Manifest:
        return stage_manifest(self.storage, f"{self.output}/articles")

    def _bucket_count(self, articles: Manifest) -> int:
        return self.buckets or default_bucket_count(articles.rows_of("articles") + articles.rows_of("redirects"))


@dataclass(frozen=True, kw_only=True)
class ShardsStep:
    """The stage `shards`, from finished articles and entities.

    The tokenizer is given as its files or, by `StoredTokenizer`, as where they lie.
    """

    output: str
    tokenizer: TokenizerFiles | StoredTokenizer
    encoding: EncodingOptions
    rows: RowOptions
    skip_equal: bool
    storage: Storage

    def stage(self) -> ShardsStage:
        """The stage.

        Raises: UsageError where the entities were made by an earlier version.
        """
        folder = f"{self.output}/entities"
        entity_options = stage_manifest(self.storage, folder).options
        if not {"names", "holdout", "sections"} <= set(entity_options):
            raise UsageError(f"{folder}: made by an earlier version; run `leia-beam entities` again, --overwrite")
        articles = stage_manifest(self.storage, f"{self.output}/articles")
        tokenizer = self.tokenizer
        return ShardsStage(
            folder=f"{self.output}/shards",
            articles_folder=f"{self.output}/articles",
            entities_folder=folder,
            wiki_code=entity_options["wiki"],
            siteinfo=siteinfo_of(articles, entity_options["wiki"]),
            name_wikis=tuple(entity_options["name_wikis"]),
            tokenizer=tokenizer if isinstance(tokenizer, TokenizerFiles) else tokenizer.read(self.storage),
            encoding=self.encoding,
            rows=self.rows,
            rules=LinkRules(
                sections=entity_options["sections"] == SECTIONS_AS_ARTICLES,
                skip_equal=self.skip_equal,
                names=NameRules(**entity_options["names"]),
                holdout=Holdout(**entity_options["holdout"]),
            ),
            storage=self.storage,
        )


def find_tokenizer_at(where: str, storage: Storage) -> TokenizerFiles:
    """As `find_tokenizer`, also from an object store.

    Raises: UsageError if there is none.
    """
    if not is_remote(where):
        return find_tokenizer(where)
    path = where if where.endswith(".json") else f"{where.rstrip('/')}/tokenizer.json"
    folder, _, name = path.rpartition("/")
    content = storage.read(path)
    if content is None:
        raise UsageError(f"--tokenizer {where}: no such object, nor a folder with a tokenizer.json")
    with tempfile.TemporaryDirectory(prefix="leia-tokenizer-") as scratch:
        copy = Path(scratch, folder.rpartition("/")[2] or "tokenizer")
        copy.mkdir()
        (copy / name).write_bytes(content)
        config = storage.read(f"{folder}/tokenizer_config.json")
        if config is not None:
            (copy / "tokenizer_config.json").write_bytes(config)
        return find_tokenizer(str(copy / name))


@dataclass(frozen=True, kw_only=True)
class StoredTokenizer:
    """A tokenizer whose files were put into a folder that all workers see."""

    name: str
    folder: str
    has_config: bool = field(default=False)

    @classmethod
    def put(cls, storage: Storage, output: str, files: TokenizerFiles) -> StoredTokenizer:
        """Put a tokenizer's files beside the notes of a build's runs, under their sum."""
        own_sum = hashlib.sha256(files.tokenizer_json + b"\0" + (files.config_json or b"")).hexdigest()
        folder = f"{output}/_run/tokenizer-{own_sum[:16]}"
        storage.write(f"{folder}/tokenizer.json", files.tokenizer_json)
        if files.config_json is not None:
            storage.write(f"{folder}/tokenizer_config.json", files.config_json)
        return cls(name=files.name, folder=folder, has_config=files.config_json is not None)

    def read(self, storage: Storage) -> TokenizerFiles:
        """The files.

        Raises: UsageError if they are gone.
        """
        content = storage.read(f"{self.folder}/tokenizer.json")
        if content is None:
            raise UsageError(f"{self.folder}/tokenizer.json: has gone; run the same command again")
        config = storage.read(f"{self.folder}/tokenizer_config.json") if self.has_config else None
        return TokenizerFiles(name=self.name, tokenizer_json=content, config_json=config)
