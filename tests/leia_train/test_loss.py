"""The loss does not depend on how a step is cut into micro-batches."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from leia_train.loss import is_finite, step_loss, summed_token_loss


def test_the_loss_is_transformers_own_and_does_not_depend_on_the_cut():
    """The sum over parts by the global count is the model's own loss over the whole."""
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 7, 11), torch.randint(11, (4, 7))
    labels[0, 2:] = -100
    labels[1] = -100
    config = LlamaConfig(vocab_size=11, hidden_size=8, num_attention_heads=1, num_hidden_layers=1, intermediate_size=8)
    expected = LlamaForCausalLM(config).loss_function(logits=logits, labels=labels, vocab_size=11)
    count = int((labels[:, 1:] != -100).sum())
    parts = [step_loss(summed_token_loss(logits[i : i + 3], labels[i : i + 3]), count) for i in range(0, 4, 3)]
    torch.testing.assert_close(sum(parts), expected)


def test_a_step_without_labels_has_loss_zero():
    """Not 0/0."""
    logits, labels = torch.randn(1, 4, 5, requires_grad=True), torch.full((1, 4), -100)
    loss = step_loss(summed_token_loss(logits, labels), 0)
    loss.backward()
    assert loss.item() == 0 and is_finite(logits.grad)


def test_finite_is_neither_nan_nor_infinite():
    """Of numbers and tensors."""
    found = [is_finite(value) for value in (1.0, float("nan"), float("inf"), torch.tensor([1.0, float("nan")]))]
    assert found == [True, False, False, False]
