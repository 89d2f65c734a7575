"""Updates of bfloat16 weights, the markers' own learning rate, and learning rates by step."""

import math

import pytest
import torch
from torch import nn

from leia_train.config import OptimizationConfig
from leia_train.optimizer import MarkerRows, RoundedAdamW, make_optimizer, ordered_weights, rounded_at_random
from leia_train.schedule import learning_rate
from leia_train.shares import owners_of


def make_weights(count, dtype):
    """A layer of weights of typical size."""
    layer = nn.Linear(count, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.01, 0.03, count)[None])
    return layer.to(dtype)


def train(layer, optimizer, steps, rate):
    """Steps with a gradient that is always the same."""
    for _ in range(steps):
        layer.weight.grad = torch.full_like(layer.weight, 0.1)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    return layer.weight.detach().float()


@pytest.mark.parametrize("rounding", ["stochastic", "kahan"])
def test_bfloat16_weights_move_as_far_as_float32_ones(rounding):
    """200 steps at 5e-6: the mean move is that of float32 within 3 %; plainly rounded weights hardly move."""
    count, steps, rate = 2000, 200, 5e-6
    options = OptimizationConfig(weight_decay=0.0, learning_rate=rate)
    exact = make_weights(count, torch.float32)
    start = make_weights(count, torch.bfloat16).weight.detach().float()
    with torch.no_grad():
        exact.weight.copy_(start)
    wanted = train(exact, make_optimizer(exact, options), steps, rate) - start
    layer = make_weights(count, torch.bfloat16)
    optimizer = make_optimizer(layer, options, weights="bfloat16", rounding=rounding)
    assert isinstance(optimizer, RoundedAdamW)
    moved = train(layer, optimizer, steps, rate) - start
    assert moved.mean().item() == pytest.approx(wanted.mean().item(), rel=0.03)
    plain = make_weights(count, torch.bfloat16)
    stuck = train(plain, torch.optim.AdamW(plain.parameters(), weight_decay=0.0), steps, rate) - start
    assert abs(stuck.mean()) < abs(wanted.mean()) / 2


def test_the_rounded_optimizer_is_adamw_on_values_that_bfloat16_holds_exactly():
    """In float32 arithmetic: one step with decay, before any rounding, compared with torch's."""
    torch.manual_seed(0)
    start = torch.randn(64, 8).bfloat16()
    gradient = torch.randn(64, 8).bfloat16()
    config = OptimizationConfig(learning_rate=0.1, weight_decay=0.1)
    results = []
    for weights, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        layer = nn.Linear(8, 64, bias=False).to(dtype)
        with torch.no_grad():
            layer.weight.copy_(start)
        optimizer = make_optimizer(layer, config, weights=weights, rounding="kahan")
        for _ in range(3):
            layer.weight.grad = gradient.to(dtype)
            optimizer.step()
        lost = optimizer.state[layer.weight].get("lost", torch.zeros(1)).float()
        results.append(layer.weight.detach().float() + lost)
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)


def test_random_rounding_is_right_on_average_and_exact_values_stay():
    """Of positive and negative values between two bfloat16 numbers; infinities stay what they are."""
    generator = torch.Generator().manual_seed(0)
    for value in (1.001, -1.001, 3e-5, -0.3):
        values = torch.full((20_000,), value)
        rounded = rounded_at_random(values, generator).float()
        step = float((rounded.max() - rounded.min()).abs())
        assert len(rounded.unique()) == 2
        assert abs(rounded.mean().item() - value) < step * 0.02
    exact = torch.tensor([1.0, -0.5, 0.0, float("inf")])
    assert rounded_at_random(exact, generator).tolist() == exact.tolist()


def test_the_same_step_rounds_the_same_way():
    """Random bits depend on seed and step alone."""
    runs = []
    for seed in (1, 1, 2):
        layer = make_weights(500, torch.bfloat16)
        config = OptimizationConfig(weight_decay=0.0, seed=seed)
        runs.append(train(layer, make_optimizer(layer, config, weights="bfloat16"), 5, 5e-6))
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_marker_rows_move_by_their_own_rate_and_nothing_else_does():
    """A step ten times as long on their rows; the movement is told by a typical weight."""
    torch.manual_seed(0)
    table = nn.Embedding(10, 4)
    optimizer = torch.optim.AdamW(table.parameters(), lr=0.01)
    rows = MarkerRows([table.weight], (8, 9))
    start = table.weight.detach().clone()
    table.weight.grad = torch.ones_like(table.weight)
    before = rows.copies()
    optimizer.step()
    plain = table.weight.detach().clone()
    rows.stretch_step(before, 10.0)
    assert torch.equal(table.weight[:8], plain[:8])
    torch.testing.assert_close(table.weight[8:] - start[8:], (plain[8:] - start[8:]) * 10)
    typical = table.weight.std().item()
    assert rows.movement() == pytest.approx((table.weight[8:] - start[8:]).abs().max().item() / typical, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"schedule": "cosine"}, [0.5, 1, 1, 0.75, 0.25]),
        ({"schedule": "linear"}, [0.5, 1, 1, 2 / 3, 1 / 3]),
        ({"schedule": "constant"}, [0.5, 1, 1, 1, 1]),
        ({"schedule": "wsd", "decay_share": 0.4}, [0.5, 1, 1, 2 / 3, 1 / 3]),
        ({"schedule": "wsd", "decay_share": 0.0}, [0.5, 1, 1, 1, 1]),
    ],
)
def test_schedules(options, expected):
    """Five steps with a warmup of two."""
    config = OptimizationConfig(steps=5, warmup=2, learning_rate=1.0, **options)
    assert [learning_rate(config, step) for step in range(5)] == pytest.approx(expected)


def test_the_cosine_is_transformers_own():
    """Compared over a run without warmup, as the paper's."""
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=3.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, 0, 50)
    config = OptimizationConfig(steps=50, learning_rate=3.0)
    for step in range(50):
        assert math.isclose(schedule.get_last_lr()[0], learning_rate(config, step), abs_tol=1e-12)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(
    "options", [{}, {"weights": "bfloat16"}, {"weights": "bfloat16", "rounding": "kahan"}], ids=str
)
def test_parts_of_the_weights_move_as_they_do_among_all(options):
    """Two optimizers with half of the weights each, and one with all: the same bits, random rounding among them."""
    config = OptimizationConfig(learning_rate=1e-3)
    moved = []
    for parts in (1, 2):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 4))
        model = model.to(torch.bfloat16 if options else torch.float32)
        weights = ordered_weights(model)
        owners = owners_of([weight.numel() for weight in weights], parts)
        optimizers = [
            make_optimizer(model, config, mine={w for w, owner in zip(weights, owners) if owner == part}, **options)
            for part in range(parts)
        ]
        for step in range(3):
            for weight in weights:
                weight.grad = torch.full_like(weight, 0.1 * (step + 1))
            for optimizer in optimizers:
                optimizer.step()
        moved.append([weight.detach().clone() for weight in weights])
        assert sum(len(optimizer.state) for optimizer in optimizers) == len(weights)
    assert all(torch.equal(one, other) for one, other in zip(*moved))


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_the_optimizers_numbers_are_the_options(weights):
    """Decay on matrices alone; each number in its place."""
    config = OptimizationConfig(learning_rate=3e-3, beta1=0.8, beta2=0.97, epsilon=1e-5, weight_decay=0.2)
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)).to(getattr(torch, weights))
    optimizer = make_optimizer(model, config, weights=weights)
    decay = {weight: group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    assert [decay[weight] for weight in model.parameters()] == [0.2, 0, 0, 0]
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (3e-3, (0.8, 0.97), 1e-5)


def test_each_weight_has_random_bits_of_its_own():
    """Two equal ones with equal gradients are rounded otherwise: the same bits would move layers together."""
    model = nn.ModuleList([make_weights(500, torch.bfloat16) for _ in range(2)])
    optimizer = make_optimizer(model, OptimizationConfig(weight_decay=0.0, learning_rate=5e-6), weights="bfloat16")
    for weight in model.parameters():
        weight.grad = torch.full_like(weight, 0.1)
    optimizer.step()
    first, second = model.parameters()
    assert not torch.equal(first, second)


@pytest.mark.parametrize("rounding", ["stochastic", "kahan"])
def test_rows_of_a_weight_are_rounded_as_in_all_of_it(rounding):
    """Three steps of a matrix, and of its rows in two parts: the same bits."""
    torch.manual_seed(0)
    start, gradients = torch.randn(7, 5).to(torch.bfloat16), torch.randn(3, 7, 5).to(torch.bfloat16)
    config = OptimizationConfig(learning_rate=1e-3, seed=5)

    def moved(first, last):
        module = torch.nn.ParameterList([torch.nn.Parameter(start[first:last].clone())])
        wholes = {module[0]: ((7, 5), first)}
        optimizer = make_optimizer(module, config, weights="bfloat16", rounding=rounding, wholes=wholes)
        for gradient in gradients:
            module[0].grad = gradient[first:last].clone()
            optimizer.step()
        return module[0].detach()

    whole = moved(0, 7)
    assert torch.equal(torch.cat([moved(0, 4), moved(4, 7)]), whole) and not torch.equal(whole, start)
