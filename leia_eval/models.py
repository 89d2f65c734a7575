"""From a checkpoint's weights to a model of transformers that scores and writes, behind lm-eval's own wrapper.

Remote code is never run, and a weight that the files lack is an error here (transformers fills it with random numbers
and a warning).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from lm_eval.models.huggingface import HFLM

from leia_beam.errors import DamagedInput, MissingResource, UsageError
from leia_eval.answers import MARKERS
from leia_eval.checkpoints import one_line
from leia_eval.encoders import RequestEncoder
from leia_eval.scoring_model import Written


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
                encoder.config, dtype=None if dtype == "auto" else getattr(torch, dtype), trust_remote_code=False
            )
        if place is not None:
            model = model.to(place)
        model = model.eval()
    except torch.OutOfMemoryError as error:
        reason = one_line(error)
        raise MissingResource(f"--model {encoder.folder} does not fit the memory of {device}: {reason}") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise DamagedInput(f"cannot load the weights of --model {encoder.folder}: {one_line(error)}") from error
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
