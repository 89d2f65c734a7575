"""The options of the commands that build: each group is added to a parser in one place, so that all commands agree."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

from leia_beam.arguments import Parser, Switch, add_output_of_progress, names, not_negative, positive, share, size_bytes

PROFILES: Mapping[str, Mapping[str, object]] = {
    "default": {},
    "reference": {
        "align": "strict",
        "name_space": "no",
        "lists": False,
        "name_parentheses": "all",
        "label_case": False,
        "name_source": "sitelink",
        "section_links": "refuse",
        "drop_articles": ("no-link",),
        "equal_names": "keep",
    },
}
"""Values of options, by profile: what a command has of them."""


def add_dumps(parser: argparse.ArgumentParser) -> None:
    """A folder of fetched dumps, in place of naming each."""
    parser.add_argument_group("dumps that were fetched").add_argument(
        "--dumps",
        metavar="DIR",
        help="the folder that leia-beam fetch filled: gives --pages, and --wikidata or --langlinks, where they are not given",
    )


def add_pages(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """The dump of a wiki and what is kept of a page."""
    group = parser.add_argument_group("the wiki's dump")
    group.add_argument(
        "--pages",
        metavar="FILE",
        nargs="+",
        required=required,
        help="pages-articles XML: .bz2, .gz, .zst or plain; wildcards too",
    )
    group.add_argument(
        "--max-page-bytes", metavar="SIZE", type=size_bytes, default="64MiB", help="larger pages are rejected"
    )
    group.add_argument("--ignore-siteinfo", action="store_true", help="keep to the package's facts about the wiki")
    group.add_argument("--tables", action="store_true", help="keep the text of tables")
    group.add_argument("--captions", action="store_true", help="keep the captions of files")
    group.add_argument("--lists", action=Switch, default=True, help="keep lists")
    group.add_argument("--headings", action=Switch, default=True, help="keep headings")
    group.add_argument(
        "--end-matter", action="store_true", help="keep references, see also, external links and the like"
    )
    group.add_argument("--as-rendered", action="store_true", help="keep all of it, as the page's reader sees it")


def add_wikidata(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """The dump that says which titles mean the same."""
    group = parser.add_argument_group("Wikidata's dump")
    group.add_argument(
        "--wikidata",
        metavar="FILE",
        nargs="+",
        required=required,
        help="Wikidata JSON dump: .gz, .bz2 or plain; or the folder of a finished sitelinks stage",
    )


def add_langlinks(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """The table that a wiki keeps of its links to other languages."""
    group = parser.add_argument_group("the wiki's own table")
    group.add_argument(
        "--langlinks",
        metavar="FILE",
        nargs="+",
        required=required,
        help="the wiki's own …-langlinks.sql.gz, or the folder of a finished langlinks stage: names without Wikidata",
    )


def add_sitelinks_from(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Which of both the names come from."""
    group = parser.add_argument_group("where names come from")
    group.add_argument(
        "--sitelinks-from",
        choices=("wikidata", "langlinks"),
        default="wikidata",
        help="where names come from: Wikidata, or the wiki's own table, which has no items",
    )
    return group


def add_facts(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """What is kept of an item beside its sitelinks."""
    group = parser.add_argument_group("of an item")
    group.add_argument(
        "--claims",
        metavar="P[,P…]",
        type=names,
        help="properties whose items are kept, or none (default: P31, an item's types: lists and the like get no name)",
    )
    group.add_argument("--aliases", action="store_true", help="keep the aliases in the languages of the labels")
    return group


def add_wiki(parser: argparse.ArgumentParser) -> None:
    """Which wiki it is."""
    group = parser.add_argument_group("the wiki")
    group.add_argument("--wiki", metavar="WIKI", required=True, help="database name (jawiki) or language (ja)")


def add_names(parser: argparse.ArgumentParser) -> None:
    """Which names there are, and which are refused or held out."""
    group = parser.add_argument_group("names")
    group.add_argument(
        "--name-languages",
        metavar="LANG[,LANG…]",
        type=names,
        default=("en",),
        help="languages of the names, in order of preference",
    )
    group.add_argument(
        "--name-source",
        choices=("sitelink", "label", "sitelink-then-label"),
        default="sitelink",
        help="the title of the linked article, Wikidata's label, or the label where there is no article",
    )
    group.add_argument(
        "--label-case",
        action=Switch,
        default=True,
        help="write a name as the label has it where the two differ by case alone (Dog, dog)",
    )
    group.add_argument(
        "--name-parentheses",
        choices=("trailing", "all"),
        default="trailing",
        help="which parentheses are taken off a title: the last, where a space stands before it, or all",
    )
    group.add_argument("--refuse-numbers", action="store_true", help="give bare numbers, years and dates no name")
    group.add_argument(
        "--section-links",
        choices=("refuse", "article"),
        default="refuse",
        help="links and redirects to a section: no name, or the article's",
    )
    group.add_argument(
        "--redirect-items",
        choices=("own", "target"),
        default="own",
        help="a redirect that has an item: its own name, or that of where it leads",
    )
    group.add_argument(
        "--missing-pages",
        choices=("name", "refuse"),
        default="name",
        help="titles that an item links to but the dump has no page of: named, or counted as missing pages",
    )
    group.add_argument(
        "--holdout", metavar="SHARE", type=share, default=0.0, help="share of names, 0 to 1, kept from insertion"
    )
    group.add_argument("--seed", metavar="N", type=not_negative, default=0, help="draws the names that are held out")
    group.add_argument(
        "--buckets",
        metavar="N",
        type=positive,
        help="parts of the entity table (default: one for 65,536 titles, at most 256)",
    )


def add_tokenizer(parser: argparse.ArgumentParser) -> None:
    """How texts and names become tokens."""
    group = parser.add_argument_group("tokens")
    group.add_argument(
        "--tokenizer", metavar="DIR|FILE|NAME", required=True, help="a tokenizer.json, its folder, or a name on the hub"
    )
    group.add_argument(
        "--align",
        choices=("edge", "split", "expand", "strict"),
        default="edge",
        help="anchors off token edges: widen a bad start and refuse a bad end; force a token boundary; "
        "take the tokens that cover them; or drop the anchor",
    )
    group.add_argument(
        "--equal-names",
        choices=("keep", "skip"),
        default="keep",
        help="names that are the anchor's own text but for case",
    )
    group.add_argument(
        "--link-later-mentions",
        action="store_true",
        help="treat later mentions of an article's linked texts as links too",
    )
    group.add_argument(
        "--name-space", choices=("auto", "yes", "no"), default="auto", help="encode names with a space before them"
    )
    group.add_argument(
        "--document-start", choices=("auto", "bos", "eos", "none"), default="auto", help="the token before each article"
    )
    group.add_argument("--eos", action="store_true", help="put the end-of-text token behind each article")
    group.add_argument(
        "--drop-articles",
        metavar="KIND[,KIND…]",
        type=names,
        default=("no-link",),
        help="articles left out: no-link, disambiguation, list, duplicate (one before, which stays, has the same text); or none",
    )
    group.add_argument(
        "--min-length", metavar="N", type=not_negative, default=0, help="leave out articles of fewer tokens"
    )
    group.add_argument(
        "--max-length", metavar="N", type=positive, help="cut articles at this many tokens (default: no limit)"
    )


def add_profile(parser: Parser) -> None:
    """A name for the values of many options; an option that is given counts more."""
    parser.profiles = PROFILES
    parser.add_argument(
        "--profile",
        choices=tuple(PROFILES),
        default="default",
        help="reference: strict alignment, names encoded alone, no lists, all parentheses off names, titles in their own "
        "case, no names for section links, articles without any link left out; options given beside it count more",
    )


def add_common(parser: argparse.ArgumentParser) -> None:
    """How a stage runs."""
    group = parser.add_argument_group("the run")
    group.add_argument("--output", metavar="DIR", required=True, help="the build's folder")
    group.add_argument(
        "--workers",
        metavar="N",
        type=positive,
        help=f"processes, parallelism on Flink, machines on Dataflow (default: all cores, {os.cpu_count() or 1}; all free slots)",
    )
    group.add_argument(
        "--runner",
        metavar="NAME",
        default="local",
        help="local, flink, dataflow, or a runner of Beam by name; what follows -- goes to Beam",
    )
    group.add_argument(
        "--range-bytes", metavar="SIZE", type=size_bytes, default="48MiB", help="compressed bytes of a unit of work"
    )
    add_max_rejects(group)
    group.add_argument("--overwrite", action="store_true", help="replace stages of another build in this folder")
    group.add_argument("--dry-run", action="store_true", help="say what would be done")
    add_output_of_progress(group)
    group.add_argument("--beam", metavar="OPTION", nargs="*", default=[], help=argparse.SUPPRESS)  # what follows --
    add_flink(parser)


def add_flink(parser: argparse.ArgumentParser) -> None:
    """Where Flink is, for `--runner flink`."""
    group = parser.add_argument_group("on Flink")
    group.add_argument(
        "--flink-master",
        metavar="HOST:PORT",
        default="[local]",
        help="the REST interface of a cluster; [local] starts Flink on this machine",
    )
    group.add_argument(
        "--flink-job-server-jar",
        metavar="FILE|URL",
        help="Beam's job server for the cluster's Flink version (default: LEIA_FLINK_JOB_SERVER_JAR, else Beam's download)",
    )
    group.add_argument(
        "--flink-worker-command",
        metavar="COMMAND",
        help="what a task manager starts for each of its slots (default: leia-beam-worker)",
    )
    group.add_argument(
        "--flink-worker-pool", metavar="HOST:PORT", help="a worker pool beside each task manager, in place of a command"
    )
    group.add_argument(
        "--flink-probe-seconds",
        metavar="N",
        type=not_negative,
        default=50,
        help="how long a tiny job may take that looks whether the cluster's workers see OUTPUT; 0 for none",
    )


def add_max_rejects(parser: argparse._ActionsContainer) -> None:
    """How many records may be rejected."""
    parser.add_argument(
        "--max-rejects",
        metavar="SHARE|COUNT",
        default="0.1%",
        help="records of a stage that may be rejected; of a share never fewer than 20",
    )


def add_reading(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """What is let pass of a dump that is not whole."""
    group = parser.add_argument_group("reading the dumps")
    add_tolerance(group)
    group.add_argument(
        "--verify-inputs",
        action="store_true",
        help="first compare each dump with the sums in sha1sums.txt beside it, which reads it once more",
    )
    return group


def add_tolerance(parser: argparse._ActionsContainer) -> None:
    """What may be missing of a dump."""
    parser.add_argument(
        "--max-bad-blocks",
        metavar="N",
        type=not_negative,
        default=0,
        help="bzip2 blocks of a dump that may be skipped since they do not decode; the pages in them are lost and listed",
    )
    parser.add_argument(
        "--salvage", action="store_true", help="of a dump that ends early keep what is whole, and mark the manifest"
    )
