"""From a tokenizer.json to what identifies it: two builds that agree here give the same ids to the same text.

The builder encodes with the `tokenizers` library from a tokenizer.json, never with AutoTokenizer, which changes the
backend of real tokenizers and for Mistral even ids. The builder writes the identity into the manifest of the shards;
the trainer compares it with the tokenizer of the model that it is given.
"""

from __future__ import annotations

import hashlib
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from tokenizers import Tokenizer

from leia_beam.errors import UsageError

MARKERS = ("<translate>", "</translate>")
"""LEIA's two markers around an inserted name; a checkpoint's tokenizer has them, the build's has not."""

PROBES = (
    "Tokyo is the capital of Japan.",
    "  two  spaces\tand a tab\n\nand lines",
    "東京は日本の首都である。",
    "naïve café, Ελλάδα, Москва, القاهرة, हिन्दी, ประเทศไทย, 한국어",
    "1234567890 3.14 x²",
    "e\u0301 and \u00e9, \ufb01, \u200b, \U0001f5fc",
    "don't stop, C++ <b> & </s>",
)
"""Texts whose ids are compared: white space, scripts, digits, composed and decomposed letters, a literal special."""

_EOS_CANDIDATES = ("</s>", "<|end_of_text|>", "<|endoftext|>", "<eos>", "<|eos|>", "<|im_end|>")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerIdentity:
    """`fingerprint` is over the vocabulary, `probe_fingerprint` over the ids of `PROBES`; both SHA-256 in hex."""

    fingerprint: str
    probe_fingerprint: str
    vocabulary_size: int
    document_start_ids: tuple[int, ...]
    eos_id: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerFiles:
    """A tokenizer as found: its tokenizer.json and, where it stands beside it, tokenizer_config.json."""

    name: str
    tokenizer_json: bytes
    config_json: bytes | None


def find_tokenizer(where: str) -> TokenizerFiles:
    """The files of a tokenizer given as a tokenizer.json, a folder that holds one, or a name on the hub.

    Raises: UsageError if there is none.
    """
    path = Path(where)
    if path.is_dir():
        path = path / "tokenizer.json"
    if path.is_file():
        config = path.with_name("tokenizer_config.json")
        config_json = config.read_bytes() if config.is_file() else None
        return TokenizerFiles(
            name=path.resolve().parent.name if path.name == "tokenizer.json" else path.name,
            tokenizer_json=_checked_json(path.read_bytes(), path),
            config_json=config_json,
        )
    if path.parent != Path(".") and (path.is_absolute() or where.startswith((".", "~")) or where.count("/") != 1):
        raise UsageError(f"--tokenizer {where}: no such file or folder with a tokenizer.json")
    return _from_hub(where)


def _checked_json(content: bytes, path: Path) -> bytes:
    try:
        Tokenizer.from_buffer(content)
    except Exception as error:
        raise UsageError(f"--tokenizer {path}: not a tokenizer.json that `tokenizers` can read ({error})") from error
    return content


def _from_hub(name: str) -> TokenizerFiles:
    try:
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        raise UsageError(
            f"--tokenizer {name}: no such file or folder, and huggingface_hub is not installed to look for it on the "
            "hub (pip install huggingface_hub)"
        ) from error
    try:
        _check_reachable(constants.ENDPOINT, constants.HF_HUB_OFFLINE)
        content = Path(hf_hub_download(name, "tokenizer.json")).read_bytes()
        try:
            config = Path(hf_hub_download(name, "tokenizer_config.json")).read_bytes()
        except EntryNotFoundError:
            config = None
    except Exception as error:  # its HTTP library's errors, which change
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UsageError(
            f"--tokenizer {name}: no such file or folder here, and the hub gave no tokenizer.json ({first_line})"
        ) from error
    return TokenizerFiles(name=name, tokenizer_json=content, config_json=config)


def _check_reachable(endpoint: str, offline: bool) -> None:
    """Fail at once where the hub's client would retry for half a minute; what is in its cache needs no network.

    Raises: OSError.
    """
    if offline or getproxies():
        return
    address = urlsplit(endpoint)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=10).close()
    except OSError as error:
        raise OSError(f"{address.hostname} cannot be reached: {error.strerror or error}") from error


def identify(files: TokenizerFiles) -> TokenizerIdentity:
    """What identifies a tokenizer. Markers of LEIA that it may have count for nothing.

    Raises: UsageError if it has ids that do not fit int32.
    """
    tokenizer = Tokenizer.from_buffer(files.tokenizer_json)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    vocabulary = sorted(
        (token, token_id)
        for token, token_id in tokenizer.get_vocab(with_added_tokens=True).items()
        if token not in MARKERS
    )
    special_ids = sorted(
        token_id
        for token_id, token in tokenizer.get_added_tokens_decoder().items()
        if token.special and token.content not in MARKERS
    )
    largest = max((token_id for _, token_id in vocabulary), default=-1)
    if largest >= 2**31:
        raise UsageError(f"--tokenizer {files.name}: token id {largest:,} does not fit the int32 of the shards")
    eos_id = _eos_id(tokenizer, files)
    content = json.dumps([vocabulary, special_ids], ensure_ascii=True, separators=(",", ":")).encode()
    probes = [tokenizer.encode(text, add_special_tokens=False).ids for text in PROBES]
    return TokenizerIdentity(
        fingerprint=hashlib.sha256(content).hexdigest(),
        probe_fingerprint=hashlib.sha256(json.dumps(probes).encode()).hexdigest(),
        vocabulary_size=largest + 1,
        document_start_ids=tuple(_start_ids(tokenizer)),
        eos_id=eos_id,
    )


def _start_ids(tokenizer: Tokenizer) -> list[int]:
    """The ids that the tokenizer's own post-processor puts before a text (none, or BOS)."""
    with_special = tokenizer.encode("a", add_special_tokens=True)
    starts = []
    for token_id, is_special in zip(with_special.ids, with_special.special_tokens_mask, strict=True):
        if not is_special:
            break
        starts.append(token_id)
    return starts


def _eos_id(tokenizer: Tokenizer, files: TokenizerFiles) -> int | None:
    """The end-of-text id: what tokenizer_config.json says, else the first well-known token that is there."""
    named = _config(files).get("eos_token")
    if isinstance(named, dict):
        named = named.get("content")
    for token in (named, *_EOS_CANDIDATES):
        token_id = tokenizer.token_to_id(token) if isinstance(token, str) else None
        if token_id is not None:
            return token_id
    return None


def _config(files: TokenizerFiles) -> dict[str, Any]:
    if files.config_json is None:
        return {}
    try:
        config = json.loads(files.config_json)
        if not isinstance(config, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise UsageError(
            f"--tokenizer {files.name}: its tokenizer_config.json is damaged ({error}); copy it again, or remove it"
        ) from error
    return config
