"""The words of --mix: what is read, and what is refused with which message."""

from fractions import Fraction

import pytest

from leia_beam.errors import UsageError
from leia_train.config import DataConfig
from leia_train.mix_sources import MixSource, read_source, read_sources


def test_a_source_is_read_with_all_of_its_settings():
    """Paths may have colons, commas and equals signs; conditions their own; percent is a share too."""
    words = (
        "es=s3:x/a,b=c/shards:12.5%,strategy=right,probability=0.3,names=permuted,entities=blocks=prose,list,"
        "entities=ordinals=0-4,validation_share=0"
    )
    assert read_source(words) == MixSource(
        name="es",
        path="s3:x/a,b=c/shards",
        share=Fraction(1, 8),
        strategy="right",
        probability=0.3,
        names="permuted",
        entities=("blocks=prose,list", "ordinals=0-4"),
        validation_share=0.0,
    )
    assert read_source("en=a.txt:1,documents=line,column=body") == MixSource(
        name="en", path="a.txt", share=Fraction(1), documents="line", column="body"
    )


@pytest.mark.parametrize(
    "words", ["en=a.txt:25%", "es=b/shards:0.1234,strategy=run,entities=blocks=prose,list", "a=b:c:0"]
)
def test_the_words_of_a_source_are_read_as_it(words):
    """And do not tell 25% from 0.25."""
    source = read_source(words)
    assert read_source(source.text()) == source
    assert read_source(source.text("-")).path == "-"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["english"], "must be of the form NAME=PATH:SHARE"),
        (["en=a.txt"], "must be of the form"),
        (["en=a.txt:0.25,documents"], "unknown setting 'documents'"),
        (["9=a:0.1"], "cannot be called '9'"),
        (["shards=a:0.1"], "cannot be called 'shards'"),
        (["en=a:0.1", "en=b:0.1"], "two sources have this name"),
        (["en=a:0.7", "es=b:40%"], "the shares add up to 1.1"),
        (["en=a:25"], "the share 25 is above 1; write 25%"),
        (["en=a:0.00001"], "a multiple of 0.0001"),
        (["en=a:1.2.3"], "is no number"),
        (["en=a:0.1,colunm=x"], "unknown setting 'colunm=x'; did you mean 'column'"),
        (["en=a:0.1,column=x,column=y"], "column is given twice"),
        (["en=a:0.1,documents=page"], "none of block, line, file"),
        (["en=a:0.1,probability=high"], "probability 'high' is no number"),
    ],
)
def test_what_is_no_source_is_refused(words, message):
    """With the flag, the source and what to write."""
    with pytest.raises(UsageError, match=message) as error:
        read_sources(words)
    assert str(error.value).startswith("--mix")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"mix": ("es=a:0.1,strategy=rigth",)},
            "--mix es: strategy rigth: must be one of right, left, replace, none, run",
        ),
        ({"mix": ("es=a:0.1,names=other",)}, "--mix es: names other"),
        ({"mix": ("es=a:0.1,probability=2",)}, "--mix es: probability 2.0: must be from 0 to 1"),
        ({"mix": ("es=a:0.1,validation_share=1",)}, "--mix es: validation_share 1.0: must be below 1"),
        ({"mix": ("es=a:0.1",), "compat": "leia"}, "--mix .*: must be left out with --compat leia"),
        ({"mix": ("es=a:1",), "budget": "target_tokens"}, "--budget target_tokens"),
    ],
)
def test_settings_out_of_range_are_refused_with_the_options(options, message):
    """By the dataclass, before any file is looked at."""
    with pytest.raises(UsageError, match=message):
        DataConfig(shards=("-",), **options)


def test_what_a_source_leaves_out_is_the_runs():
    """But for the strategy, which is none; `run` follows the arm."""
    data = DataConfig(
        shards=("-",),
        strategy="left",
        names="anchor",
        probability=0.2,
        entities=("blocks=prose",),
        mix=("a=x:0.1", "b=x:0.1,strategy=run", "c=x:0.1,strategy=right,probability=1,names=true,entities=kinds=link"),
    )
    a, b, c = map(data.of_source, data.sources)
    assert (a.strategy, a.names, a.entities) == ("none", "true", ())
    assert (b.strategy, b.names, b.probability, b.entities) == ("left", "anchor", 0.2, ("blocks=prose",))
    assert (c.strategy, c.names, c.probability, c.entities) == ("right", "true", 1.0, ("kinds=link",))
    doses = DataConfig(shards=("-",), probability_buckets=(0.0, 1.0), mix=data.mix)
    assert [doses.of_source(source).probability_buckets for source in doses.sources] == [(0.0, 1.0), (0.0, 1.0), ()]
    assert "mix" not in DataConfig(shards=("-",)).identity() and data.identity()["mix"][0] == "a=-:0.1"
