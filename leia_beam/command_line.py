"""From the command line of `leia-beam` to its options.

The commands over a folder say themselves what they do (`run`); the commands that build are run by cli.py, which alone knows
the pipelines.
"""

from __future__ import annotations

import argparse
from functools import partial

from leia_beam import doctor_command, fetch_command, folder_commands, options, plan_command
from leia_beam.arguments import Parser, names, new_command
from leia_beam.completion import PrintCompletion
from leia_beam.configuration import add_recipe_options
from leia_beam.derived import dumps_of_stage, folders_of_build
from leia_beam.recipe import CORPUS
from leia_beam.recipe_use import RecipeUse
from leia_beam.version import ShowVersion

_PACKAGES = ("apache-beam", "pyarrow", "numpy", "tokenizers", "lxml", "ujson")
_EXIT_CODES = """exit codes: 0 done · 2 usage · 3 damaged input · 4 too many rejects · 5 environment ·
            6 output holds another build · 75 interrupted, run again to resume"""
_EXAMPLES = {
    "build": """leia-beam build --pages jawiki-20260101-pages-articles-multistream.xml.bz2 \\
    --wikidata wikidata-20260101-all.json.gz --wiki ja --tokenizer my-model/ --output build/ja
  leia-beam build --dumps dumps --wiki sw --tokenizer my-model/ --output build/sw
  leia-beam build -c recipe.yaml --set language=sw""",
    "sitelinks": "leia-beam sitelinks --wikidata wikidata-20260101-all.json.gz --output build/ja",
    "langlinks": "leia-beam langlinks --langlinks jawiki-20260101-langlinks.sql.gz --wiki ja --output build/ja",
    "articles": """leia-beam articles --pages jawiki-20260101-pages-articles-multistream.xml.bz2 \\
    --wiki ja --output build/ja""",
    "entities": "leia-beam entities --wiki ja --name-languages en --output build/ja",
    "shards": "leia-beam shards --tokenizer my-model/ --output build/ja",
}


_DUMPS = {"sitelinks": ("wikidata",), "langlinks": ("langlinks",), "articles": ("pages",)}
"""The kinds of dumps that a stage reads."""


def make_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="leia-beam",
        description="Wikipedia and Wikidata dumps to tokenized Parquet shards with the English name of each linked entity.",
        epilog=_EXIT_CODES,
    )
    parser.add_argument("--version", action=ShowVersion, packages=_PACKAGES)
    parser.add_argument("--print-completion", action=PrintCompletion)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_build_commands(commands)
    for name, stage in commands.choices.items():
        derive = folders_of_build if name == "build" else partial(dumps_of_stage, kinds=_DUMPS.get(name, ()))
        add_recipe_options(stage, RecipeUse(section=CORPUS, derive=derive))
    folder_commands.add_commands(commands)
    plan_command.add_command(commands)
    fetch_command.add_command(commands)
    doctor_command.add_command(commands)
    return parser


def _add_build_commands(commands: argparse._SubParsersAction[Parser]) -> None:
    """The whole build, and each of its stages."""
    build = new_command(
        commands, "build", "dumps to shards: all four stages, skipping what is finished", _EXAMPLES["build"]
    )
    options.add_dumps(build)
    options.add_pages(build, required=False)
    options.add_wikidata(build, required=False)
    options.add_facts(build)
    options.add_langlinks(build, required=False)
    options.add_sitelinks_from(build)
    options.add_wiki(build)
    options.add_names(build)
    options.add_tokenizer(build)
    options.add_reading(build).add_argument(
        "--strict-dates", action="store_true", help="refuse dumps whose dates lie more than 45 days apart"
    )
    options.add_common(build)
    stage = new_command(commands, "sitelinks", "Wikidata dump to one row an item", _EXAMPLES["sitelinks"])
    options.add_wikidata(stage)
    options.add_facts(stage).add_argument(
        "--label-languages",
        metavar="LANG[,LANG…]",
        type=names,
        default=("en",),
        help="languages whose labels are kept",
    )
    options.add_reading(stage)
    options.add_common(stage)
    stage = new_command(
        commands, "langlinks", "a wiki's table of links between languages to one row a link", _EXAMPLES["langlinks"]
    )
    options.add_langlinks(stage)
    options.add_wiki(stage)
    options.add_reading(stage)
    options.add_common(stage)
    stage = new_command(
        commands, "articles", "wiki dump to articles with anchors, and redirects", _EXAMPLES["articles"]
    )
    options.add_pages(stage)
    options.add_wiki(stage)
    options.add_reading(stage)
    options.add_common(stage)
    stage = new_command(
        commands, "entities", "titles, redirects and sitelinks to the entity table", _EXAMPLES["entities"]
    )
    options.add_sitelinks_from(stage).add_argument(
        "--sitelinks", metavar="DIR", help="a finished sitelinks or langlinks folder (default: the one in OUTPUT)"
    )
    options.add_wiki(stage)
    options.add_names(stage)
    options.add_common(stage)
    stage = new_command(commands, "shards", "articles and entities to tokenized shards", _EXAMPLES["shards"])
    options.add_tokenizer(stage)
    options.add_common(stage)
    for name in ("build", "articles", "entities", "shards"):
        options.add_profile(commands.choices[name])
