"""The loss does not depend on how a step is cut into micro-batches."""

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from leia_train.loss import TokenLoss, agrees, is_finite, step_loss

VOCABULARY_SIZE = 40


def make_model(**options):
    """A tiny Llama."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=8,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_hidden_layers=1,
        intermediate_size=8,
        initializer_range=0.5,
        **options,
    )
    return LlamaForCausalLM(config)


def make_batch():
    """Rows of two documents, with a row without labels and one with a few."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCABULARY_SIZE, (4, 9), generator=generator)
    positions = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 4]).expand(4, -1)
    labels = ids.masked_fill(positions == 0, -100)
    labels[0, 2:] = -100
    labels[1] = -100
    return ids, positions, labels


def test_each_label_has_the_loss_of_the_models_own_logits():
    """At the label's place, zero elsewhere; the sum by the global count is transformers' own loss of the whole."""
    model, (ids, positions, labels) = make_model(), make_batch()
    losses = TokenLoss(model)(ids, positions, labels)
    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    expected = torch.zeros(ids.shape)
    for row, column in zip(*torch.where(labels != -100)):
        expected[row, column] = -logits[row, column - 1].log_softmax(-1)[labels[row, column]]
    torch.testing.assert_close(losses, expected)
    count = int((labels != -100).sum())
    whole = model.loss_function(logits=logits, labels=labels, vocab_size=VOCABULARY_SIZE)
    torch.testing.assert_close(step_loss(losses, count), whole)


def test_a_label_on_a_rows_first_token_is_predicted_by_nothing():
    """The reference's rows have one there; no state of another row, or of the row's end, predicts it."""
    model, (ids, positions, labels) = make_model(), make_batch()
    first = labels.clone()
    first[:, 0] = ids[:, 0]
    for chunked in (True, False):
        loss = TokenLoss(model, chunked=chunked)
        torch.testing.assert_close(loss(ids, positions, first), loss(ids, positions, labels))
        assert (loss(ids, positions, first)[:, 0] == 0).all()


@pytest.mark.parametrize("chunk", [1, 2, 5, 1000])
@pytest.mark.parametrize("tied", [True, False])
def test_chunks_change_neither_the_loss_nor_the_gradient(chunk, tied):
    """However many tokens' logits are in memory at once; compared with all logits at once."""
    gradients = {}
    for options in ({"chunk_tokens": chunk}, {"chunked": False}):
        model = make_model(tie_word_embeddings=tied)
        loss = step_loss(TokenLoss(model, **options)(*make_batch()), 7)
        loss.backward()
        gradients[str(options)] = [loss.detach(), *(weight.grad for weight in model.parameters())]
    for one, other in zip(*gradients.values()):
        torch.testing.assert_close(one, other)


def test_no_chunk_holds_more_logits_than_it_may(monkeypatch):
    """The output embeddings see at most two tokens at a time, and no token without a label."""
    model = make_model()
    seen = []
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    ids, positions, labels = make_batch()
    TokenLoss(model, chunk_tokens=2)(ids, positions, labels)
    assert sum(shape[0] for shape in seen) == int((labels != -100).sum())
    assert {tuple(shape[1:]) for shape in seen} == {(VOCABULARY_SIZE,)} and max(shape[0] for shape in seen) == 2


def test_excluded_ids_are_left_out_of_the_softmax():
    """Their logits change nothing, and get no gradient."""
    model, (ids, positions, labels) = make_model(), make_batch()
    ids, labels = ids.clamp_max(37), labels.clamp_max(37)
    losses = TokenLoss(model, excluded_ids=(38, 39))(ids, positions, labels)
    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits[..., :38]
    expected = model.loss_function(logits=logits, labels=labels, vocab_size=38)
    count = int((labels != -100).sum())
    torch.testing.assert_close(step_loss(losses, count), expected)
    losses.sum().backward()
    assert (model.lm_head.weight.grad[38:] == 0).all() and (model.lm_head.weight.grad[:38] != 0).any()


def test_a_model_with_logits_of_its_own_is_noticed():
    """Known forms agree; an unknown one does not, and is then computed whole."""
    assert agrees(make_model(), VOCABULARY_SIZE)
    torch.manual_seed(0)
    tiny = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    tiny |= {"num_key_value_heads": 1, "vocab_size": VOCABULARY_SIZE, "head_dim": 4, "initializer_range": 0.5}
    gemma = Gemma2ForCausalLM(Gemma2Config(**tiny, final_logit_softcapping=3.0, query_pre_attn_scalar=4))
    assert agrees(gemma, VOCABULARY_SIZE)
    odd = make_model()
    forward = odd.lm_head.forward
    odd.lm_head.forward = lambda states: forward(states) * (2 if states.ndim == 3 else 1)
    assert not agrees(odd, VOCABULARY_SIZE)


def test_the_references_loss_is_the_mean_of_the_rows_means():
    """A row with few labels counts as much as one with many; one without counts as zero."""
    losses = torch.tensor([[0.0, 2.0, 4.0], [0.0, 0.0, 5.0], [0.0, 0.0, 0.0]])
    found = step_loss(losses, 3, torch.tensor([2, 1, 0]), rows=3)
    assert found.item() == pytest.approx((3 + 5 + 0) / 3)
    assert step_loss(losses, 3).item() == pytest.approx(11 / 3)


def test_a_step_without_labels_has_loss_zero():
    """Not 0/0; every weight has a gradient, which DistributedDataParallel waits for."""
    model, (ids, positions, labels) = make_model(), make_batch()
    loss = step_loss(TokenLoss(model)(ids, positions, torch.full_like(labels, -100)), 0)
    loss.backward()
    assert loss.item() == 0
    assert all(weight.grad is not None and is_finite(weight.grad) for weight in model.parameters())


def test_finite_is_neither_nan_nor_infinite():
    """Of numbers and tensors."""
    found = [is_finite(value) for value in (1.0, float("nan"), float("inf"), torch.tensor([1.0, float("nan")]))]
    assert found == [True, False, False, False]
