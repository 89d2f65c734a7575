"""Liger's kernels are refused where they cannot run or would change what a model computes; a stub stands in for them."""

import sys
import types

import pytest
import torch
from test_attention import VOCABULARY_SIZE, make_causal_lm

from leia_beam.errors import MissingResource
from leia_train import liger
from leia_train.attention import nullcontext
from leia_train.cli import main

CPU = torch.device("cpu")


@pytest.fixture
def stub(monkeypatch):
    """liger-kernel for Llamas, whose kernels scale the final norm by a factor; what it was called with."""
    calls = []

    def install(factor):
        def apply(model, options):
            calls.append(options)
            with torch.no_grad():
                model.model.norm.weight.mul_(factor)

        patch = types.ModuleType("liger_kernel.transformers.monkey_patch")
        patch.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": None}
        monkeypatch.setitem(sys.modules, "liger_kernel", types.ModuleType("liger_kernel"))
        monkeypatch.setitem(sys.modules, "liger_kernel.transformers", types.ModuleType("liger_kernel.transformers"))
        monkeypatch.setitem(sys.modules, "liger_kernel.transformers.monkey_patch", patch)
        monkeypatch.setattr(liger, "liger_hindrance", lambda device: None)
        monkeypatch.setattr("transformers.integrations.liger.apply_liger_kernel", apply)
        return calls

    return install


def apply(model, said):
    """With the tests' settings."""
    liger.apply_liger(model, CPU, VOCABULARY_SIZE, nullcontext, "float32", said.append)


def test_kernels_are_taken_but_not_their_losses_and_what_they_change_is_said(stub):
    """The loss is ours."""
    said, calls = [], stub(1.0)
    apply(make_causal_lm("llama"), said)
    assert calls == [{"cross_entropy": False, "fused_linear_cross_entropy": False}]
    assert said == ["liger: fused norms, rotary positions and feed-forward (logits differ by 0.0e+00)"]


def test_kernels_that_change_what_a_model_computes_are_refused(stub):
    """By more than rounding."""
    stub(1.01)
    with pytest.raises(MissingResource, match="--liger: its kernels change what LlamaForCausalLM computes"):
        apply(make_causal_lm("llama"), [])


def test_a_type_without_kernels_is_refused(stub):
    """It would be trained without them, and nobody told."""
    stub(1.0)
    with pytest.raises(MissingResource, match="--liger: liger-kernel has no kernels for models of type gpt2"):
        apply(make_causal_lm("gpt2"), [])


def test_without_a_gpu_they_are_refused(arguments, capsys):
    """Exit 5."""
    assert main(arguments("--liger")) == 5
    assert "--liger: it needs CUDA, this is cpu" in capsys.readouterr().err
    assert "not installed" in str(liger.liger_hindrance(torch.device("cuda")))
