"""From a checkpoint to a model that scores and writes, in two steps: what tokenizes requests, then the weights.

Requests are encoded and measured against the model's context before gigabytes are read. The tokenizer is the
checkpoint's tokenizer.json as the `tokenizers` library reads it: AutoTokenizer of transformers 5 swaps the backend
and, for a Llama with Mistral's tokenizer, ids (`" x</s>y"`). Remote code is never run, and a weight that the files lack
is an error here (transformers fills it with random numbers and a warning). Numbers come from lm-eval's own wrappers of
transformers and of vLLM.
"""

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import configure_pad_token, resolve_max_length
from transformers import PretrainedConfig, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from leia_beam.errors import DamagedInput, MissingResource, UsageError
from leia_eval import reference
from leia_eval.answers import MARKERS

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


@dataclass(frozen=True, kw_only=True)
class Written:
    """A generated text up to its end. `ended`: the model ended it, by EOS or a stop string, within the length."""

    text: str
    ended: bool


class ScoringModel(Protocol):
    """What answers requests, given as token ids."""

    parameters: int | None
    computed_dtype: str

    def log_likelihoods(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """Of each continuation after its context."""

    def generate(self, contexts: Sequence[list[int]], until: Sequence[str], max_new_tokens: int) -> list[Written]:
        """The greedy text after each context."""


class RequestEncoder(HFLM):  # type: ignore[misc]  # lm-eval has no types
    """The tokenizing half of HFLM, without weights: the same token ids as the model will be given."""

    def __init__(
        self, folder: Path, config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast, profile: str = "standard"
    ):
        LM.__init__(self)  # not HFLM's own, which loads the model
        self.folder = folder
        self.profile = profile
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

    def encode_plain(self, text: str) -> list[int]:
        """Token ids without any special token."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of a request: split where lm-eval splits them, or as the reference encodes them."""
        if self.profile == "reference":
            return reference.encode_pair(self.encode_plain, self.tokenizer.eos_token_id, context, continuation)
        if context == "":
            ids = self.encode_plain(continuation)
            start = self.prefix_token_id
            return (ids[:1], ids[1:]) if ids and ids[0] == start else ([start], ids)
        context_ids, continuation_ids = self._encode_pair(context, continuation)
        return context_ids, continuation_ids

    def encode_prompt(self, context: str) -> list[int]:
        """Token ids of a prompt that the model goes on from."""
        return self.encode_plain(context) if self.profile == "reference" else list(self.tok_encode(context))


def find_checkpoint(model: str) -> Path:
    """The folder of `model`, which is one, or the name of a checkpoint on the hub, which is downloaded.

    Raises: UsageError where it is neither, MissingResource where the hub is not reached.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder
    if model.count("/") != 1 or model.startswith((".", "/")) or os.environ.get("HF_HUB_OFFLINE") == "1":
        raise UsageError(f"--model {model} is not a folder; give a local Hugging Face checkpoint, or a name on the hub")
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(model, allow_patterns=["*.json", "*.safetensors"]))
    except (OSError, ValueError) as error:
        raise MissingResource(f"cannot download --model {model} from the hub: {_one_line(error)}") from error


def identify_model(folder: Path, untrained_seed: int | None = None) -> ModelIdentity:
    """Hashes of the checkpoint's files; reads every weight file once.

    untrained_seed: the weights are random instead, and only their seed and the configuration identify them.

    Raises: UsageError where the folder is no checkpoint, DamagedInput for a weight file that is missing or cut short.
    """
    if not folder.is_dir():
        raise UsageError(f"--model {folder} is not a folder; give a local Hugging Face checkpoint")
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise UsageError(f"--model {folder} has no {name}; give a Hugging Face checkpoint with its tokenizer")
    files = find_weight_files(folder) if untrained_seed is None else []
    hashes = {path.name: _file_sha256(path) for path in files}
    if untrained_seed is not None:
        hashes = {"untrained": str(untrained_seed)}
    return ModelIdentity(
        name=folder.resolve().name + ("" if untrained_seed is None else f" (untrained, seed {untrained_seed})"),
        weights_sha256=hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest(),
        config_sha256=_file_sha256(folder / "config.json"),
        tokenizer_sha256=_file_sha256(folder / "tokenizer.json"),
        weight_files=tuple(path.name for path in files),
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


def load_encoder(folder: Path, profile: str = "standard") -> RequestEncoder:
    """Configuration and tokenizer of the checkpoint.

    Raises: UsageError where they cannot be read, need remote code, or give nothing to begin a text with.
    """
    _refuse_remote_code(folder)
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
    if profile == "reference" and tokenizer.eos_token_id is None:
        raise UsageError(
            f"the tokenizer of --model {folder} names no eos_token, which the reference profile begins with"
        )
    return RequestEncoder(folder, config, tokenizer, profile)


class HuggingFaceModel:
    """A transformers model behind lm-eval's HFLM; log-softmax is always taken in float32."""

    def __init__(self, lm: HFLM, encoder: RequestEncoder):
        self._lm = lm
        self._encoder = encoder
        self.parameters: int | None = sum(parameter.numel() for parameter in lm.model.parameters())
        self.computed_dtype = str(lm.model.dtype).removeprefix("torch.")
        markers = {encoder.tokenizer.convert_tokens_to_ids(marker) for marker in MARKERS}
        self._hidden_ids = set(encoder.tokenizer.all_special_ids) - markers
        self._eos_id = encoder.tokenizer.eos_token_id

    @property
    def model(self) -> torch.nn.Module:
        """The weights."""
        module: torch.nn.Module = self._lm.model
        return module

    def log_likelihoods(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """Of each continuation after its context."""
        with torch.inference_mode():
            found = self._lm._loglikelihood_tokens([(None, *pair) for pair in pairs], disable_tqdm=True)
        return [float(answer[0]) for answer in found]

    def generate(self, contexts: Sequence[list[int]], until: Sequence[str], max_new_tokens: int) -> list[Written]:
        """The greedy text after each context, contexts padded on the left."""
        length = max(map(len, contexts))
        padding = self._encoder.tokenizer.pad_token_id
        ids = torch.tensor([[padding] * (length - len(context)) + list(context) for context in contexts])
        mask = torch.tensor([[0] * (length - len(context)) + [1] * len(context) for context in contexts])
        with torch.inference_mode():
            found = self._lm._model_generate(
                context=ids.to(self._lm.device),
                attention_mask=mask.to(self._lm.device),
                max_length=length + max_new_tokens,
                stop=list(until),
            )
        return [self._written(row[length:], until) for row in found.tolist()]

    def _written(self, ids: list[int], until: Sequence[str]) -> Written:
        ended = self._eos_id in ids
        if ended:
            ids = ids[: ids.index(self._eos_id)]
        text = self._encoder.tokenizer.decode([token for token in ids if token not in self._hidden_ids])
        ends = [place for stop in until if stop and (place := text.find(stop)) >= 0]
        return Written(text=text[: min(ends)] if ends else text, ended=ended or bool(ends))


class VllmModel:
    """The same behind lm-eval's VLLM."""

    def __init__(self, lm: Any, dtype: str):
        self._lm = lm
        self.parameters: int | None = None
        self.computed_dtype = dtype

    def log_likelihoods(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """Of each continuation after its context."""
        found = self._lm._loglikelihood_tokens([(None, *pair) for pair in pairs], disable_tqdm=True)
        return [float(answer[0]) for answer in found]

    def generate(self, contexts: Sequence[list[int]], until: Sequence[str], max_new_tokens: int) -> list[Written]:
        """The greedy text after each context."""
        from vllm import SamplingParams

        sampling = SamplingParams(temperature=0, max_tokens=max_new_tokens, stop=list(until), skip_special_tokens=False)
        found = self._lm._model_generate([list(ids) for ids in contexts], generate=True, sampling_params=sampling)
        outputs = [answer.outputs[0] for answer in found]
        return [Written(text=output.text, ended=output.finish_reason == "stop") for output in outputs]


def load_vllm(encoder: RequestEncoder, *, dtype: str) -> VllmModel:
    """The checkpoint in vLLM.

    Raises: MissingResource where vLLM is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        raise MissingResource("--backend vllm: the package 'vllm' is not installed; pip install vllm, or --backend hf")
    from lm_eval.models.vllm_causallms import VLLM

    tensor_parallel_size = max(1, torch.cuda.device_count())
    lm = VLLM(
        pretrained=str(encoder.folder),
        dtype=dtype,
        trust_remote_code=False,
        tensor_parallel_size=tensor_parallel_size,
        max_model_len=encoder.max_length,
    )
    return VllmModel(lm, dtype)


def load_model(
    encoder: RequestEncoder, *, dtype: str, device: str, batch_size: int, untrained_seed: int | None = None
) -> HuggingFaceModel:
    """The weights in `dtype` on `device`; ``auto`` for the device spreads them over all GPUs (accelerate).

    untrained_seed: random weights of the same configuration instead, for the floor that a task has.
    Raises: DamagedInput for weights that do not fit the configuration, MissingResource for a device that is not there.
    """
    place = None if device == "auto" else check_device(device)
    try:
        if untrained_seed is None:
            model = _load_weights(encoder.folder, dtype, device_map="auto" if place is None else None)
        else:
            torch.manual_seed(untrained_seed)
            model = transformers.AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                encoder._config, dtype=None if dtype == "auto" else getattr(torch, dtype), trust_remote_code=False
            )
        if place is not None:
            model = model.to(place)
        model = model.eval()
    except torch.OutOfMemoryError as error:
        reason = _one_line(error)
        raise MissingResource(f"--model {encoder.folder} does not fit the memory of {device}: {reason}") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise DamagedInput(f"cannot load the weights of --model {encoder.folder}: {_one_line(error)}") from error
    model.config.use_cache = False
    lm = HFLM(
        pretrained=model,
        tokenizer=encoder.tokenizer,
        backend="causal",
        batch_size=batch_size,
        max_length=encoder.max_length,
        softmax_dtype="float32",
    )
    return HuggingFaceModel(lm, encoder)


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


def _load_weights(folder: Path, dtype: str, device_map: str | None) -> Any:
    loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype="auto" if dtype == "auto" else getattr(torch, dtype),
        device_map=device_map,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
    )
    model, report = loaded
    lacking = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if lacking:
        raise DamagedInput(
            f"the weights of --model {folder} lack {lacking[0]} and {len(lacking) - 1} "
            "more, which its config.json asks for; save the checkpoint again"
        )
    return model


def _refuse_remote_code(folder: Path) -> None:
    """A checkpoint that brings its own code is refused with what would be run (fault S2)."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # said by what reads it next
    wanted = config.get("auto_map") if isinstance(config, dict) else None
    if not wanted or config.get("model_type") in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return  # transformers has the model itself, and is told never to take the other one
    names = sorted({str(value) for value in wanted.values()} if isinstance(wanted, dict) else [str(wanted)])
    files = sorted(path.name for path in folder.glob("*.py")) or ["none in the folder"]
    raise UsageError(
        f"--model {folder} wants to run its own code ({', '.join(names)}; files: {', '.join(files)}), which this program "
        "never does; give a checkpoint of an architecture that transformers has"
    )


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
