"""From a checkpoint to a model in vLLM, behind lm-eval's own wrapper, where vLLM is installed.

It was written against lm-eval 0.4.13's VLLM and vLLM's documented SamplingParams, and run with a stand-in only: no
machine with vLLM was at hand.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch

from leia_beam.errors import MissingResource
from leia_eval.encoders import RequestEncoder
from leia_eval.scoring_model import Written


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
