"""Operations a token and the share of a device's peak."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from leia_train.speed import flops_per_token, peak_tflops, utilisation

SIZES = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": 3,
    "vocab_size": 100,
}


def make(family, **options):
    """A model of a family without memory for its weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SIZES, **options))


@pytest.mark.parametrize("tied", [True, False])
def test_a_token_costs_six_operations_a_weight_that_multiplies_it_and_its_attention(tied):
    """Input embeddings are looked up; tied ones are the output's too, which multiply. Counted by hand."""
    model = make("llama", intermediate_size=32, tie_word_embeddings=tied)
    layer = 16 * 16 + 2 * 16 * 8 + 16 * 16 + 3 * 16 * 32 + 2 * 16
    weights = 3 * layer + 16 + 100 * 16
    assert flops_per_token(model, 50) == 6 * weights + 6 * 3 * 16 * 50


def test_of_experts_those_count_that_a_token_is_sent_to():
    """Two of eight."""
    options = {"moe_intermediate_size": 8, "intermediate_size": 8, "num_experts": 8, "head_dim": 8}
    two, eight = (make("qwen3_moe", num_experts_per_tok=count, **options) for count in (2, 8))
    experts = 3 * 8 * 3 * 16 * 8
    assert flops_per_token(eight, 10) - flops_per_token(two, 10) == 6 * experts * (1 - 2 / 8)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA L40S", 362),
        ("NVIDIA RTX A4000", None),
        ("NVIDIA GeForce RTX 4090", 165),
    ],
)
def test_peaks_go_by_the_whole_name(monkeypatch, name, peak):
    """An A4000 is no A40; what is not known has no share."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    found = peak_tflops(torch.device("cuda"))
    assert found == peak and peak_tflops(torch.device("cpu")) is None
    used = utilisation(1e6, 1e9, 2, found)
    assert used == (None if peak is None else pytest.approx(1e15 / (2 * peak * 1e12)))
