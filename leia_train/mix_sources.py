"""From the words of `--mix` to sources of rows beside the shards: a name, where it is, its share, settings of its own.

    NAME=PATH:SHARE[,SETTING=VALUE…]
    english=corpora/english-*.jsonl.gz:25%
    spanish=build/es/shards:0.1,strategy=run,probability=0.3

The share is of all tokens of the run. What the settings leave out is the run's own, but for the strategy, which is `none`
(replay) unless it is given; `strategy=run` is the run's, so that it changes with the arms.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from leia_beam.errors import UsageError
from leia_beam.suggestions import nearest

MAIN = "shards"
"""The name of what `--shards` gives among the sources of a run."""
RUN = "run"
DOCUMENTS = ("block", "line", "file")
SHARES_OF = 10_000
"""A share is a multiple of one by this."""
SETTINGS = ("strategy", "probability", "names", "entities", "validation_share", "column", "documents")
_WORDS = re.compile(r"(?P<name>[^=]*)=(?P<path>.+):(?P<share>[0-9.]+%?)(?:,(?P<settings>.+))?", re.DOTALL)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_NEXT_SETTING = re.compile(r",(?=[a-z_]+=)")
_FORM = "NAME=PATH:SHARE[,SETTING=VALUE…], such as english=english.jsonl:0.25"


@dataclass(frozen=True, kw_only=True, slots=True)
class MixSource:
    """A source beside the shards. None stands for the run's own value."""

    name: str
    path: str
    share: Fraction
    strategy: str = "none"
    probability: float | None = None
    names: str | None = None
    entities: tuple[str, ...] | None = None
    validation_share: float | None = None
    column: str = "text"
    documents: str = "block"

    def text(self, path: str | None = None) -> str:
        """The words that are read as this source, with another path by choice.

        >>> read_source("english=a:b.txt:25%,documents=line").text("-")
        'english=-:0.25,documents=line'
        """
        words = f"{self.name}={self.path if path is None else path}:{Decimal(self.parts) / SHARES_OF}"
        for setting in SETTINGS:
            value, default = getattr(self, setting), type(self).__dataclass_fields__[setting].default
            for each in value if isinstance(value, tuple) else (value,):
                if value != default:
                    words += f",{setting}={each}"
        return words

    @property
    def parts(self) -> int:
        """The share by SHARES_OF."""
        return int(self.share * SHARES_OF)


def read_sources(texts: Sequence[str]) -> tuple[MixSource, ...]:
    """The sources of a run.

    Raises: UsageError for what is no source, for a name twice, or for shares above 1 in all.
    """
    sources = tuple(map(read_source, texts))
    seen: set[str] = set()
    for source in sources:
        if source.name in seen:
            raise UsageError(f"--mix {source.name}: two sources have this name; give each its own")
        seen.add(source.name)
    total = sum(source.share for source in sources)
    if total > 1:
        raise UsageError(f"--mix: the shares add up to {float(total):g}; the shards have what is left of 1")
    return sources


def read_source(text: str) -> MixSource:
    """One source.

    >>> read_source("es=build/es/shards:0.1,strategy=right,entities=blocks=prose,list").entities
    ('blocks=prose,list',)

    Raises: UsageError.
    """
    found = _WORDS.fullmatch(text)
    if found is None:
        raise UsageError(f"--mix {text}: must be of the form {_FORM}")
    name = found["name"]
    if not _NAME.fullmatch(name) or name == MAIN:
        raise UsageError(f"--mix {text}: a source cannot be called {name!r}; take letters, digits, - and _")
    values: dict[str, list[str]] = {}
    for words in _NEXT_SETTING.split(found["settings"] or ""):
        setting, equals, value = words.partition("=")
        if not words:
            continue
        if setting not in SETTINGS or not equals or not value:
            hint = nearest(setting, SETTINGS) or f" (there are {', '.join(SETTINGS)})"
            raise UsageError(f"--mix {name}: unknown setting {words!r}{hint}")
        values.setdefault(setting, []).append(value)
    twice = [setting for setting, given in values.items() if len(given) > 1 and setting != "entities"]
    if twice:
        raise UsageError(f"--mix {name}: {twice[0]} is given twice")
    one = {setting: given[0] for setting, given in values.items()}
    documents = one.get("documents", DOCUMENTS[0])
    if documents not in DOCUMENTS:
        raise UsageError(f"--mix {name}: documents {documents!r} is none of {', '.join(DOCUMENTS)}")
    return MixSource(
        name=name,
        path=found["path"],
        share=_share(name, found["share"]),
        strategy=one.get("strategy", "none"),
        probability=_number(name, "probability", one),
        names=one.get("names"),
        entities=tuple(values["entities"]) if "entities" in values else None,
        validation_share=_number(name, "validation_share", one),
        column=one.get("column", "text"),
        documents=documents,
    )


def _share(name: str, text: str) -> Fraction:
    try:
        share = Fraction(Decimal(text.removesuffix("%"))) / (100 if text.endswith("%") else 1)
    except InvalidOperation as error:
        raise UsageError(f"--mix {name}: the share {text!r} is no number") from error
    if share > 1:
        raise UsageError(f"--mix {name}: the share {text} is above 1; write 25% or 0.25 for a quarter")
    if (share * SHARES_OF).denominator != 1:
        raise UsageError(f"--mix {name}: the share {text} must be a multiple of 0.0001")
    return share


def _number(name: str, setting: str, values: dict[str, str]) -> float | None:
    text = values.get(setting)
    if text is None:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"--mix {name}: {setting} {text!r} is no number") from error
