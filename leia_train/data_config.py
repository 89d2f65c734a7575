"""From options to which rows a model sees: shards, names, markers, packing, other sources."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from leia_train.mix_sources import RUN, MixSource, read_sources
from leia_train.option_fields import check, check_choice, option

STRATEGIES = ("right", "left", "replace", "none")
MARKERS = ("special", "reserved", "text", "none")
NAMES = ("true", "permuted", "anchor")
BUDGETS = ("tokens", "target_tokens")
COMPATS = ("none", "leia")
_MAX_DOSES = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which rows the model sees."""

    shards: tuple[str, ...] = option("folders of finished shards (one a wiki)", required=True, metavar="DIR")
    strategy: str = option(
        "where the name goes: after the entity, before it, in its place", default="right", choices=STRATEGIES
    )
    probability: float = option("probability of inserting a name, per entity and epoch (0 to 1)", default=0.5)
    probability_buckets: tuple[float, ...] = option(
        "probabilities by hash of the name instead, each for an equal share of the names (a dose, like 0 0.25 0.5 1)",
        default=(),
        metavar="X",
    )
    names: str = option(
        "what is inserted: the entity's name, another's of its length, or the anchor's own tokens again (control arms)",
        default="true",
        choices=NAMES,
    )
    entities: tuple[str, ...] = option(
        "only entities of which this holds, like blocks=prose kinds!=mention qids!=Q17 ordinals=0-9",
        default=(),
        metavar="CONDITION",
    )
    markers: str = option(
        "around a name: two new tokens, two unused ones of the tokenizer, --marker-text, or nothing",
        default="special",
        choices=MARKERS,
    )
    marker_text: tuple[str, ...] = option(
        "two texts: around a name with --markers text, the unused tokens themselves with --markers reserved",
        default=(),
        metavar="TEXT",
    )
    name_loss: bool = option("names count in the loss (markers never do)", default=True)
    max_length: int = option("length of a packed row (tokens)", default=2048)
    cross_document: bool = option(
        "documents of a row see each other and end without EOS, as in the reference", default=False
    )
    document_end: bool = option("an EOS, with loss, after each document where they are kept apart", default=True)
    budget: str = option(
        "--steps counts all tokens, or the articles' own alone (insertion takes up 4 to 8 % of the rows)",
        default="tokens",
        choices=BUDGETS,
    )
    compat: str = option(
        "leia: the reference's stream row for row; sets --cross-document and --validation-share 0",
        default="none",
        choices=COMPATS,
    )
    validation_share: float = option(
        "share of articles kept out of training for the evaluation loss (0 to 1)", default=0.001
    )
    mix: tuple[str, ...] = option(
        "other sources with their shares of the run's tokens: NAME=PATH:SHARE, like english=english.jsonl.gz:25%; PATH is "
        "a file of text (.txt, .jsonl, .parquet), a pattern, a folder of them, or a folder of shards; settings after a "
        "comma (strategy=run, column=text, documents=line, …); the shards have the rest",
        default=(),
        metavar="SOURCE",
        repeated=True,
    )
    mix_store: str = option(
        "folder of the sources' tokens, for several runs to share; empty for the run's own", default=""
    )

    def __post_init__(self) -> None:
        check(len(self.shards) > 0, "shards", "", "at least one folder")
        check_choice("strategy", self.strategy, STRATEGIES)
        check_choice("markers", self.markers, MARKERS)
        check(0 <= self.probability <= 1, "probability", self.probability, "from 0 to 1")
        check_choice("names", self.names, NAMES)
        check_choice("budget", self.budget, BUDGETS)
        check_choice("compat", self.compat, COMPATS)
        doses = len(self.probability_buckets)
        check(doses <= _MAX_DOSES, "probability-buckets", f"with {doses} values", f"at most {_MAX_DOSES} of them")
        for value in self.probability_buckets:
            check(0 <= value <= 1, "probability-buckets", value, "from 0 to 1")
        check(self.max_length >= 2, "max-length", self.max_length, "at least 2 tokens")
        check(0 <= self.validation_share < 1, "validation-share", self.validation_share, "from 0 to below 1")
        texts = len(self.marker_text)
        if self.markers == "text":
            check(texts == 2 and all(self.marker_text), "marker-text", list(self.marker_text), "two texts")
        elif self.markers == "reserved":
            check(texts in (0, 2), "marker-text", list(self.marker_text), "two tokens, or none to take the first two")
        else:
            check(texts == 0, "marker-text", list(self.marker_text), "given with --markers text or reserved alone")
        self._check_mix()
        if self.compat == "leia":
            self._follow_the_reference()

    @property
    def sources(self) -> tuple[MixSource, ...]:
        """What `mix` says."""
        return read_sources(self.mix)

    def of_source(self, source: MixSource) -> DataConfig:
        """The options of a source's own rows: what it leaves out is the run's."""
        strategy = self.strategy if source.strategy == RUN else source.strategy
        entities = self.entities if source.entities is None else source.entities
        share = self.validation_share if source.validation_share is None else source.validation_share
        return replace(
            self,
            mix=(),
            budget="tokens",
            strategy=strategy,
            probability=self.probability if source.probability is None else source.probability,
            probability_buckets=self.probability_buckets if source.probability is None else (),
            names=(source.names or self.names) if strategy != "none" else "true",
            entities=entities if strategy != "none" else (),
            validation_share=share,
        )

    def identity(self) -> dict[str, Any]:
        """What the rows depend on besides the content of shards and sources: no paths."""
        content = {**asdict(self), "mix": [source.text("-") for source in self.sources]}
        del content["shards"], content["mix_store"]
        if not self.mix:
            del content["mix"]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in content.items()}

    def _check_mix(self) -> None:
        for source in self.sources:
            name = f"mix {source.name}:"
            check_choice(f"{name} strategy", source.strategy, (*STRATEGIES, RUN))
            check_choice(f"{name} names", source.names or NAMES[0], NAMES)
            for setting in ("probability", "validation_share"):
                value = getattr(source, setting)
                check(value is None or 0 <= value <= 1, f"{name} {setting}", value, "from 0 to 1")
            check((source.validation_share or 0) < 1, f"{name} validation_share", source.validation_share, "below 1")
        main = 1 - sum(source.share for source in self.sources)
        check(
            main > 0 or self.budget == "tokens", "budget", self.budget, "tokens where --mix leaves the shards nothing"
        )

    def _follow_the_reference(self) -> None:
        """Set what `--compat leia` implies, and refuse what the reference does not have."""
        for name, wanted in (("names", "true"), ("markers", "special"), ("budget", "tokens")):
            check(getattr(self, name) == wanted, name, getattr(self, name), f"{wanted} with --compat leia")
        for name in ("probability_buckets", "entities", "mix"):
            given = list(getattr(self, name))
            check(not given, name.replace("_", "-"), given, "left out with --compat leia")
        object.__setattr__(self, "cross_document", True)
        object.__setattr__(self, "validation_share", 0.0)
