"""vLLM's path as far as it can be followed without vLLM: what lm-eval's wrapper is given, and what is made of its answers."""

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from leia_beam.errors import MissingResource
from leia_eval import encoders, vllm_model


class FakeLm:
    """lm-eval's VLLM in the two calls that are made of it."""

    def __init__(self, outputs=()):
        self.outputs, self.asked = list(outputs), []

    def _loglikelihood_tokens(self, requests, disable_tqdm=False):
        self.asked += requests
        return [(-float(len(continuation)), False) for _, _, continuation in requests]

    def _model_generate(self, requests, generate=False, sampling_params=None):
        self.asked.append((requests, generate, sampling_params))
        return [SimpleNamespace(outputs=[output]) for output in self.outputs]


def test_without_vllm_there_is_a_line(model_dir):
    """Exit code 5, with what to install."""
    if importlib.util.find_spec("vllm"):
        pytest.skip("vLLM is installed")
    with pytest.raises(MissingResource, match="the package 'vllm' is not installed; pip install vllm"):
        vllm_model.load_vllm(encoders.load_encoder(model_dir), dtype="float32")


def test_log_likelihoods_go_by_token_ids():
    """Pairs as given; the first number of each answer."""
    lm = FakeLm()
    model = vllm_model.VllmModel(lm, "bfloat16")
    assert model.log_likelihoods([([1, 2], [3]), ([4], [5, 6])]) == [-1.0, -2.0]
    assert lm.asked == [(None, [1, 2], [3]), (None, [4], [5, 6])]
    assert (model.parameters, model.computed_dtype) == (None, "bfloat16")


def test_texts_are_greedy_with_markers_kept_and_their_end_is_told(monkeypatch):
    """SamplingParams as vLLM documents them: temperature 0, the stop strings, special tokens not skipped."""
    fake = ModuleType("vllm")
    fake.SamplingParams = lambda **options: options
    monkeypatch.setitem(sys.modules, "vllm", fake)
    outputs = [SimpleNamespace(text="a", finish_reason="stop"), SimpleNamespace(text="b c", finish_reason="length")]
    lm = FakeLm(outputs)
    written = vllm_model.VllmModel(lm, "auto").generate([[1], [2, 3]], ("\n",), 7)
    assert [(answer.text, answer.ended) for answer in written] == [("a", True), ("b c", False)]
    sampling = {"temperature": 0, "max_tokens": 7, "stop": ["\n"], "skip_special_tokens": False}
    assert lm.asked == [([[1], [2, 3]], True, sampling)]


def test_the_installed_lm_eval_has_the_calls_that_are_made_of_it():
    """The arguments of lm-eval's VLLM, from its source alone: it cannot be imported without vLLM."""
    spec = importlib.util.find_spec("lm_eval.models.vllm_causallms")
    source = Path(spec.origin).read_text(encoding="utf-8")
    (wrapper,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "VLLM")
    methods = {node.name: node.args for node in wrapper.body if isinstance(node, ast.FunctionDef)}

    def names(method: str) -> list[str]:
        return [argument.arg for argument in methods[method].args]

    made = {"pretrained", "dtype", "trust_remote_code", "tensor_parallel_size", "max_model_len"}
    assert made <= set(names("__init__"))
    assert names("_model_generate")[1:4] == ["requests", "generate", "sampling_params"]
    assert names("_loglikelihood_tokens")[1:3] == ["requests", "disable_tqdm"]
    assert "max_cxt_len = self.max_length - 1" in source, "what longest_pair goes by"


def test_a_pair_that_vllm_would_cut_is_refused(model_dir):
    """lm-eval's wrapper keeps one token free for vLLM, and cuts context and continuation together."""
    assert encoders.load_encoder(model_dir, backend="vllm").longest_pair == 511
    assert encoders.load_encoder(model_dir).longest_pair == 513
