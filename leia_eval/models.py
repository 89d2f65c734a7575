"""From a local checkpoint folder to lm-eval's HFLM, in two steps: what tokenizes requests, then the weights.

Requests are encoded and measured against the model's context before gigabytes are read. The tokenizer is the
checkpoint's tokenizer.json as the `tokenizers` library reads it: AutoTokenizer of transformers 5 swaps the backend
and, for a Llama with Mistral's tokenizer, ids (`" x</s>y"`). Remote code is never run, nothing is looked for on the
hub, and a weight that the files lack is an error here (transformers fills it with random numbers and a warning).
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import configure_pad_token, resolve_max_length
from transformers import PretrainedConfig, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from leia_beam.errors import DamagedInput, MissingResource, UsageError

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_READ_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """What was evaluated: hashes of the files that decide the scores, not the folder's place."""

    name: str
    weights_sha256: str
    config_sha256: str
    tokenizer_sha256: str
    weight_files: tuple[str, ...]
    stored_dtypes: tuple[str, ...]


class RequestEncoder(HFLM):  # type: ignore[misc]  # lm-eval has no types
    """The tokenizing half of HFLM, without weights: the same token ids as the model will be given."""

    def __init__(self, folder: Path, config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast):
        LM.__init__(self)  # not HFLM's own, which loads the model
        self.folder = folder
        self._config = config
        self.tokenizer = configure_pad_token(tokenizer, model_config=config)
        self.add_bos_token = None
        self.custom_prefix_token_id = None

    @property
    def max_length(self) -> int:
        """The longest input in tokens."""
        return int(resolve_max_length(self._config, self.tokenizer))

    @property
    def vocabulary_size(self) -> int:
        """The number of rows of the embedding."""
        return int(self._config.get_text_config().vocab_size)

    def encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of a request, split where lm-eval splits them."""
        context_ids, continuation_ids = self._encode_pair(context, continuation)
        return context_ids, continuation_ids


def identify_model(folder: Path) -> ModelIdentity:
    """Hashes of the checkpoint's files; reads every weight file once.

    Raises: UsageError where the folder is no checkpoint, DamagedInput for a weight file that is missing or cut short.
    """
    if not folder.is_dir():
        raise UsageError(f"--model {folder} is not a folder; give a local Hugging Face checkpoint")
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise UsageError(f"--model {folder} has no {name}; give a Hugging Face checkpoint with its tokenizer")
    files = find_weight_files(folder)
    hashes = {path.name: _file_sha256(path) for path in files}
    return ModelIdentity(
        name=folder.resolve().name,
        weights_sha256=hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest(),
        config_sha256=_file_sha256(folder / "config.json"),
        tokenizer_sha256=_file_sha256(folder / "tokenizer.json"),
        weight_files=tuple(hashes),
        stored_dtypes=tuple(sorted({dtype for path in files for dtype in _stored_dtypes(path)})),
    )


def find_weight_files(folder: Path) -> list[Path]:
    """The files that transformers would load: a single one or all of an index, safetensors first."""
    for name in _WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            try:
                names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DamagedInput(f"{index} is no index of weight files ({error})") from error
            missing = [name for name in names if not (folder / name).is_file()]
            if missing:
                raise DamagedInput(f"{index} names {missing[0]}, which is not in the folder; copy the checkpoint again")
            return [folder / name for name in names]
    raise UsageError(f"--model {folder} holds no weights; looked for {' and '.join(_WEIGHTS)}, whole or with an index")


def load_encoder(folder: Path) -> RequestEncoder:
    """Configuration and tokenizer of the checkpoint.

    Raises: UsageError where they cannot be read, need remote code, or give nothing to begin a text with.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        reason = _one_line(error)
        raise UsageError(f"cannot read the configuration or tokenizer of --model {folder}: {reason}") from error
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UsageError(f"--model {folder} is a '{config.model_type}', which is no causal language model")
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise UsageError(
            f"the tokenizer of --model {folder} names neither bos_token nor eos_token in "
            "tokenizer_config.json; lm-eval needs one of them"
        )
    return RequestEncoder(folder, config, tokenizer)


def load_model(encoder: RequestEncoder, *, dtype: str, device: str, batch_size: int) -> HFLM:
    """The weights in `dtype` on `device`, behind lm-eval's interface; log-softmax is always taken in float32.

    Raises: DamagedInput for weights that do not fit the configuration, MissingResource for a device that is not there.
    """
    place = check_device(device)
    try:
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            str(encoder.folder),
            dtype="auto" if dtype == "auto" else getattr(torch, dtype),
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
        model, report = loaded
        lacking = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
        if lacking:
            raise DamagedInput(
                f"the weights of --model {encoder.folder} lack {lacking[0]} and {len(lacking) - 1} "
                "more, which its config.json asks for; save the checkpoint again"
            )
        model = model.to(place)
    except torch.OutOfMemoryError as error:
        reason = _one_line(error)
        raise MissingResource(f"--model {encoder.folder} does not fit the memory of {device}: {reason}") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise DamagedInput(f"cannot load the weights of --model {encoder.folder}: {_one_line(error)}") from error
    model.config.use_cache = False
    return HFLM(
        pretrained=model,
        tokenizer=encoder.tokenizer,
        backend="causal",
        batch_size=batch_size,
        max_length=encoder.max_length,
        softmax_dtype="float32",
    )


def check_device(device: str) -> torch.device:
    """`device` as torch names it.

    Raises: UsageError for a name that is none, MissingResource for a device that this machine lacks.
    """
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"--device {device} is no device; give cpu, cuda, cuda:N or mps") from error
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise MissingResource(f"--device {device}: this machine has {torch.cuda.device_count()} CUDA devices")
    if place.type == "mps" and not torch.backends.mps.is_available():
        raise MissingResource("--device mps: this machine has none")
    return place


def _stored_dtypes(path: Path) -> Iterator[str]:
    if path.suffix != ".safetensors":
        return
    import safetensors

    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield from {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118, not a mapping
    except safetensors.SafetensorError as error:
        reason = _one_line(error)
        raise DamagedInput(f"the weight file {path} is damaged ({reason}); copy the checkpoint again") from error


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
