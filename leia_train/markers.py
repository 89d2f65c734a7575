"""From the build's tokenizer.json to the one that a checkpoint holds, and the ids that stand around an inserted name.

The two markers are added to the file (`special`), or are tokens that it has and no text uses (`reserved`), or any text
(`text`). The file is edited through the `tokenizers` library and never through AutoTokenizer, which changes the backend of
real tokenizers; the vocabulary, and so the ids of plain text, stay the build's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer

from leia_beam.errors import UsageError
from leia_beam.tokenizer_identity import MARKERS
from leia_train.insertion import Markers
from leia_train.shard_folders import BuildTokenizer

_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")
_UNUSED = re.compile(
    r"<\|reserved_special_token_(\d+)\|>|<unused_?(\d+)>|\[unused(\d+)\]|\[control_(\d+)\]|<\|extra_(\d+)\|>"
    r"|<extra_id_(\d+)>|<\|?dummy_?(\d+)\|?>|<\|?reserved_?(\d+)\|?>|<SPECIAL_(\d+)>|<\|placeholder_?(\d+)\|>"
)
"""What tokenizers call tokens that are kept for others to use."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointTokenizer:
    """The files of a checkpoint's tokenizer, and what the model must know of it."""

    tokenizer_json: bytes
    config_json: bytes
    kind: str  # of data_config.MARKERS
    markers: Markers | None  # the ids around a name
    marker_ids: tuple[int, int] | None  # tokens that are the markers' own, whose embeddings begin as the mean
    real_ids: tuple[int, ...]  # sorted, without the markers' own
    bos_id: int | None
    eos_id: int | None

    @property
    def needed_rows(self) -> int:
        """The rows that embeddings must have."""
        return int(max((*self.real_ids, *(self.marker_ids or ())))) + 1


def add_markers(build: BuildTokenizer, kind: str, texts: Sequence[str] = ()) -> CheckpointTokenizer:
    """The tokenizer of a run's checkpoints; but for `special` markers it is the build's own.

    Raises: UsageError where the tokenizer would give a marker an id that is taken, or has no unused tokens.
    """
    tokenizer = Tokenizer.from_buffer(build.tokenizer_json)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    taken = {token_id for token, token_id in vocabulary.items() if token not in MARKERS}
    markers: Markers | None = None
    marker_ids = None
    content = build.tokenizer_json
    if kind == "special":
        tokenizer.add_special_tokens([AddedToken(marker, special=True, normalized=False) for marker in MARKERS])
        content = tokenizer.to_str().encode()
        marker_ids = _marker_ids(tokenizer)
        if marker_ids is None or set(marker_ids) & taken:
            raise UsageError(
                f"tokenizer {build.name}: cannot add the markers {' '.join(MARKERS)} (ids {marker_ids} are taken); "
                "use --markers none"
            )
    elif kind == "reserved":
        marker_ids = _reserved_ids(build.name, vocabulary, texts)
    elif kind == "text":
        markers = _text_ids(build, texts)
    if marker_ids is not None:
        markers = ((marker_ids[0],), (marker_ids[1],))
    named = _special_tokens(build, tokenizer)
    return CheckpointTokenizer(
        tokenizer_json=content,
        config_json=_config_json(named, kind == "special"),
        kind=kind,
        markers=markers,
        marker_ids=marker_ids,
        real_ids=tuple(sorted(taken - set(marker_ids or ()))),
        bos_id=tokenizer.token_to_id(named["bos_token"]) if "bos_token" in named else None,
        eos_id=build.eos_id,
    )


def _reserved_ids(name: str, vocabulary: dict[str, int], texts: Sequence[str]) -> tuple[int, int]:
    """The ids of the named tokens, or of the two first that are called unused."""
    if texts:
        missing = [text for text in texts if text not in vocabulary]
        if missing:
            raise UsageError(f"--marker-text {missing[0]}: not a token of {name}; give two tokens that it has")
        found = [vocabulary[text] for text in texts]
        if found[0] == found[1]:
            raise UsageError(f"--marker-text {' '.join(texts)}: must be two different tokens")
    else:
        found = sorted(token_id for token, token_id in vocabulary.items() if _UNUSED.fullmatch(token))[:2]
        if len(found) < 2:
            raise UsageError(
                f"--markers reserved: tokenizer {name} has no two tokens that are called unused or reserved; name two "
                "with --marker-text, or use --markers special"
            )
    return found[0], found[1]


def _text_ids(build: BuildTokenizer, texts: Sequence[str]) -> Markers:
    """The ids of two texts as ordinary text: no added token comes from them."""
    content = json.loads(build.tokenizer_json)
    content["added_tokens"] = []
    plain = Tokenizer.from_str(json.dumps(content, ensure_ascii=False))
    before, after = (tuple(plain.encode(text, add_special_tokens=False).ids) for text in texts)
    if not before or not after:
        raise UsageError(f"--marker-text {' '.join(texts)}: the tokenizer makes no token of one of them")
    return before, after


def marker_ids_in(tokenizer_json: bytes) -> tuple[int, int] | None:
    """The ids of the markers in a tokenizer that has both."""
    return _marker_ids(Tokenizer.from_buffer(tokenizer_json))


def _marker_ids(tokenizer: Tokenizer) -> tuple[int, int] | None:
    start, end = (tokenizer.token_to_id(marker) for marker in MARKERS)
    return None if start is None or end is None else (start, end)


def _special_tokens(build: BuildTokenizer, tokenizer: Tokenizer) -> dict[str, str]:
    """The named special tokens of the build's tokenizer_config.json that its vocabulary has; EOS by its id."""
    config: dict[str, Any] = json.loads(build.config_json) if build.config_json else {}
    named: dict[str, str] = {}
    for name in _SPECIAL_NAMES:
        token = config.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and tokenizer.token_to_id(token) is not None:
            named[name] = token
    if build.eos_id is not None:
        named["eos_token"] = str(tokenizer.id_to_token(build.eos_id))
    if "bos_token" not in named and build.document_start_ids and build.document_start_ids[0] != build.eos_id:
        named["bos_token"] = str(tokenizer.id_to_token(build.document_start_ids[0]))
    return named


def _config_json(named: dict[str, str], has_markers: bool) -> bytes:
    """A tokenizer_config.json that makes AutoTokenizer of transformers 5 take tokenizer.json as it is."""
    config: dict[str, Any] = {"tokenizer_class": "TokenizersBackend", "clean_up_tokenization_spaces": False, **named}
    if has_markers:
        config["additional_special_tokens"] = list(MARKERS)
    return (json.dumps(config, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()
