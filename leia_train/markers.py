"""From the build's tokenizer.json to the one that a checkpoint holds: the same, with LEIA's two markers added.

The file is edited through the `tokenizers` library and never through AutoTokenizer, which changes the backend of real
tokenizers; the vocabulary, and so the ids of plain text, stay the build's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer

from leia_beam.errors import UsageError
from leia_beam.tokenizer_identity import MARKERS
from leia_train.store import BuildTokenizer

_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointTokenizer:
    """The files of a checkpoint's tokenizer, and what the model must know of it."""

    tokenizer_json: bytes
    config_json: bytes
    marker_ids: tuple[int, int] | None
    real_ids: tuple[int, ...]  # sorted, without the markers
    bos_id: int | None
    eos_id: int | None

    @property
    def needed_rows(self) -> int:
        """The rows that embeddings must have."""
        return max((*self.real_ids, *(self.marker_ids or ()))) + 1


def add_markers(build: BuildTokenizer, markers: str) -> CheckpointTokenizer:
    """The tokenizer of a run's checkpoints; with `markers` none it is the build's own.

    Raises: UsageError where the tokenizer would give a marker an id that is taken.
    """
    tokenizer = Tokenizer.from_buffer(build.tokenizer_json)
    taken = {
        token_id for token, token_id in tokenizer.get_vocab(with_added_tokens=True).items() if token not in MARKERS
    }
    marker_ids = None
    content = build.tokenizer_json
    if markers == "special":
        tokenizer.add_special_tokens([AddedToken(marker, special=True, normalized=False) for marker in MARKERS])
        content = tokenizer.to_str().encode()
        marker_ids = _marker_ids(tokenizer)
        if marker_ids is None or set(marker_ids) & taken:
            raise UsageError(
                f"tokenizer {build.name}: cannot add the markers {' '.join(MARKERS)} (ids {marker_ids} are taken); "
                "use --markers none"
            )
    named = _special_tokens(build, tokenizer)
    return CheckpointTokenizer(
        tokenizer_json=content,
        config_json=_config_json(named, marker_ids),
        marker_ids=marker_ids,
        real_ids=tuple(sorted(taken)),
        bos_id=tokenizer.token_to_id(named["bos_token"]) if "bos_token" in named else None,
        eos_id=build.eos_id,
    )


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
        named["eos_token"] = tokenizer.id_to_token(build.eos_id)
    if "bos_token" not in named and build.document_start_ids and build.document_start_ids[0] != build.eos_id:
        named["bos_token"] = tokenizer.id_to_token(build.document_start_ids[0])
    return named


def _config_json(named: dict[str, str], marker_ids: tuple[int, int] | None) -> bytes:
    """A tokenizer_config.json that makes AutoTokenizer of transformers 5 take tokenizer.json as it is."""
    config: dict[str, Any] = {"tokenizer_class": "TokenizersBackend", "clean_up_tokenization_spaces": False, **named}
    if marker_ids is not None:
        config["additional_special_tokens"] = list(MARKERS)
    return (json.dumps(config, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()
