"""arguments: a wrong command line is one line that says which word is wrong and which one was meant."""

from __future__ import annotations

import pytest

from leia_beam.arguments import Parser, Switch, names, positive, size_bytes
from leia_beam.configuration import parse
from leia_beam.errors import UsageError
from leia_beam.suggestions import nearest


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("1000", 1000),
        ("1B", 1),
        ("1K", 1000),
        ("1kB", 1000),
        ("1KiB", 1024),
        ("1Ki", 1024),
        ("48MiB", 48 << 20),
        ("48mib", 48 << 20),
        ("10 MB", 10**7),
        (" 10MB ", 10**7),
        ("1.5K", 1500),
        ("0.5KiB", 512),
        ("2GiB", 2 << 30),
        ("2G", 2 * 10**9),
    ],
)
def test_a_size_has_a_unit_of_a_thousand_or_of_1024(text, size):
    """Upper or lower case, with or without a space."""
    assert size_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "x", "MiB", "-1", "0", "0.2", "1T", "1 2", "1MiBB", "1e3", "1,000", "i", "1i", "inf", "nan", "9" * 400]
)
def test_what_is_no_size_is_a_usage_error(text):
    """At least one byte, in a unit that is known."""
    with pytest.raises(UsageError, match=r"is no size; give one such as 48MiB$"):
        size_bytes(text)


def test_a_positive_number_is_at_least_one():
    """Whole, without a sign."""
    assert [positive(text) for text in ("1", "12", "007")] == [1, 12, 7]


@pytest.mark.parametrize("text", ["", "0", "-1", "+1", "1.0", "x", "²", " 1"])
def test_what_is_not_positive_is_a_usage_error(text):
    """The message has the text that was given."""
    with pytest.raises(UsageError, match=r": give a whole number of at least 1$"):
        positive(text)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("--tokeniser", "; did you mean '--tokenizer'?"),
        ("--outputs", "; did you mean '--output'?"),
        ("--zzz", ""),
        ("", ""),
    ],
)
def test_the_nearest_name_is_a_hint(name, hint):
    """Nothing where no name is near."""
    assert nearest(name, ["--tokenizer", "--output", "--align"]) == hint


def parser() -> Parser:
    made = Parser(prog="leia-x")
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
    shards = commands.add_parser("shards")
    shards.add_argument("--tokenizer", required=True, help="a tokenizer")
    shards.add_argument("--align", choices=("edge", "strict"), default="edge", help="alignment")
    shards.add_argument("--workers", type=positive, default=3, help="processes")
    shards.add_argument("--size", type=size_bytes, default="1KiB")
    shards.add_argument("--quiet", action="store_true", help="say nothing")
    shards.add_argument("--lists", action=Switch, default=True, help="lists")
    shards.add_argument("--languages", type=names, default=("en", "de"), help="languages")
    commands.add_parser("finish").add_argument("output")
    return made


def test_a_command_line_is_parsed():
    """Defaults given as text are converted too."""
    options = parse(parser(), ["shards", "--tokenizer", "x", "--workers=5"])
    wanted = {"command": "shards", "tokenizer": "x", "align": "edge", "workers": 5, "size": 1024, "quiet": False}
    assert {name: getattr(options, name) for name in wanted} == wanted
    assert (options.origins["workers"], options.origins["align"]) == ("--workers", "default")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["shards", "--tokenizer", "x", "--alignn", "edge"],
            r"^unknown argument '--alignn'; did you mean '--align'\? \(see leia-x shards --help\)$",
        ),
        (["shards", "--tokenizer", "x", "--worker=5"], r"^unknown argument '--worker'; did you mean '--workers'\?"),
        (["shards", "--tokenizer", "x", "--zzzzzz"], r"^unknown argument '--zzzzzz' \(see leia-x shards --help\)$"),
        (["shards", "--tokenizer", "x", "more"], r"^unknown argument 'more' \(see leia-x shards --help\)$"),
        (["shards", "--tokenizer", "x", "--tok", "y"], r"^unknown argument '--tok'"),
        (
            ["shards", "--tokenizer", "x", "--align", "edgy"],
            r"^--align: 'edgy' is none of edge, strict; did you mean 'edge'\?",
        ),
        (["shard"], r"^unknown command 'shard'; did you mean 'shards'\? \(see leia-x --help\)$"),
        ([], r"arguments are required: COMMAND \(see leia-x --help\)$"),
        (["shards"], r"arguments are required: --tokenizer \(see leia-x shards --help\)$"),
        (["shards", "--tokenizer"], r"expected one argument \(see leia-x shards --help\)$"),
        (["shards", "--tokenizer", "x", "--workers", "0"], "^--workers: '0': give a whole number of at least 1"),
        (["shards", "--tokenizer", "x", "--size", "big"], "^--size: 'big' is no size"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments, message):
    """Unknown options and values with the nearest name; no abbreviations."""
    with pytest.raises(UsageError, match=message) as caught:
        parse(parser(), arguments)
    assert "\n" not in str(caught.value)


def test_a_misspelt_required_option_is_answered_with_its_name():
    """The most common mistake: the hint must not be hidden by "the following arguments are required"."""
    with pytest.raises(UsageError, match=r"did you mean '--tokenizer'\?"):
        parse(parser(), ["shards", "--tokeniser", "x"])


def test_help_prints_the_defaults_that_say_something(capsys):
    """Not of flags, nor of what must be given."""
    with pytest.raises(SystemExit) as ended:
        parse(parser(), ["shards", "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert "processes (default: 3)" in text and "alignment (default: edge)" in text
    assert "lists (default: on)" in text and "languages (default: en,de)" in text
    assert "None" not in text and "False" not in text
