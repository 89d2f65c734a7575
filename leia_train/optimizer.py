"""From a model and options to what moves its weights: AdamW in float32, or on bfloat16 weights with careful rounding.

bfloat16 has 8 bits: at a learning rate of 5e-6 a plain update rounds to nothing for over nine weights in ten. So bfloat16
weights are either rounded up or down at random in proportion (right on average), or what rounding took is kept beside them
(Kahan). Random bits depend on the seed and the step alone, so a resumed run and every process draw the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from leia_train import sharding
from leia_train.optimization_config import OptimizationConfig
from leia_train.parallelism import Held


def ordered_weights(model: nn.Module, held: Held = sharding) -> list[nn.Parameter]:
    """The weights that are trained, in the optimizer's order: matrices first, then norms and biases."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    return sorted(trained, key=lambda weight: len(held.shape_of(weight)) < 2)


def make_optimizer(
    model: nn.Module,
    config: OptimizationConfig,
    *,
    weights: str = "float32",
    rounding: str = "stochastic",
    mine: Collection[nn.Parameter] | None = None,
    wholes: Mapping[nn.Parameter, tuple[tuple[int, ...], int]] | None = None,
    held: Held = sharding,
) -> Optimizer:
    """AdamW with weight decay on matrices, not on norms and biases; `mine` are those that this process moves, or all.

    `wholes`: of weights that are rows of larger ones, the shape of those and the first row.
    """
    ordered = ordered_weights(model, held)
    kept = ordered if mine is None else [weight for weight in ordered if weight in mine]
    groups = [
        {"params": [weight for weight in kept if len(held.shape_of(weight)) >= 2], "weight_decay": config.weight_decay},
        {"params": [weight for weight in kept if len(held.shape_of(weight)) < 2], "weight_decay": 0.0},
    ]
    betas = (config.beta1, config.beta2)
    if weights == "bfloat16":
        return RoundedAdamW(
            groups,
            lr=config.learning_rate,
            betas=betas,
            eps=config.epsilon,
            rounding=rounding,
            seed=config.seed,
            numbers={weight: number for number, weight in enumerate(ordered)},
            wholes=wholes,
        )
    return AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.epsilon, fused=_is_fused(kept) or None)


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """Of all groups of weights, for the next update."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def _is_fused(weights: Iterable[Tensor]) -> bool:
    """On GPUs, where torch's other ways stand in memory a second time while they move: 21 GiB of 7 billion weights."""
    return all(weight.is_cuda for weight in weights)


class RoundedAdamW(Optimizer):
    """AdamW whose arithmetic and moments are float32 while the weights are bfloat16."""

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        rounding: str,
        seed: int,
        numbers: Mapping[nn.Parameter, int],
        wholes: Mapping[nn.Parameter, tuple[tuple[int, ...], int]] | None = None,
    ):
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self.rounding = rounding
        self.seed = seed
        self.wholes = wholes or {}  # of rows of a weight: its shape, and the first row
        self.numbers = numbers  # of each weight among all: its random bits do not depend on which process moves it

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move the weights."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group, self.numbers[parameter])

    def _move(self, weight: nn.Parameter, group: dict[str, Any], number: int) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(weight, dtype=torch.float32)
            state["exp_avg_sq"] = torch.zeros_like(weight, dtype=torch.float32)
            if self.rounding == "kahan":
                state["lost"] = torch.zeros_like(weight)
        state["step"] += 1
        count, (beta1, beta2) = int(state["step"]), group["betas"]
        gradient = weight.grad.float()  # type: ignore[union-attr]
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        spread = (state["exp_avg_sq"] / (1 - beta2**count)).sqrt_().add_(group["eps"])
        wanted = weight.float() * (1 - group["lr"] * group["weight_decay"])
        wanted.addcdiv_(state["exp_avg"], spread, value=-group["lr"] / (1 - beta1**count))
        if self.rounding == "kahan":
            wanted += state["lost"].float()
            weight.copy_(wanted)
            state["lost"].copy_(wanted - weight.float())
        else:
            generator = torch.Generator(weight.device)
            generator.manual_seed((self.seed * 1_000_003 + count) * 65_537 + number & 2**63 - 1)
            weight.copy_(rounded_at_random(wanted, generator, *self.wholes.get(weight, ())))


def rounded_at_random(
    values: Tensor, generator: torch.Generator, shape: tuple[int, ...] = (), first: int = 0
) -> Tensor:
    """float32 values as bfloat16, up with the probability of how far they are on the way up: right on average.

    Of rows of a weight the `shape` of all of it is given, and the first row: they are rounded as in all of it.
    """
    bits = values.view(torch.int32)
    size = shape or tuple(values.shape)
    noise = torch.randint(0, 1 << 16, size, generator=generator, device=values.device, dtype=torch.int32)
    if size != tuple(values.shape):
        noise = noise[first : first + len(values)]
    rounded = ((bits + noise) & -65536).view(torch.float32).to(torch.bfloat16)
    return torch.where(torch.isfinite(values), rounded, values.to(torch.bfloat16))


class MarkerRows:
    """The markers' rows of the embeddings: a learning rate of their own, and how far they have moved.

    Adam divides a gradient by its size, so a larger one changes nothing; the rows' own rate stretches their step instead.
    """

    def __init__(
        self,
        weights: Iterable[Tensor],
        marker_ids: tuple[int, ...],
        held: Held = sharding,
        *,
        beside: Iterable[Tensor] | None = None,
    ):
        """`beside`: where the weights are the markers' rows alone, the tables in whose place they stand."""
        self.held = held
        self.weights = [weight for weight in weights if len(held.shape_of(weight)) == 2]
        self.beside = self.weights if beside is None else list(beside)
        self.ids = marker_ids
        self.start = self._now()

    def _pieces(self, weight: Tensor) -> list[tuple[int, Tensor]]:
        """What this process has of each row, and the column in which that begins."""
        return [self.held.row_piece(weight, row) for row in self.ids]

    def _now(self) -> Tensor:
        """The rows of all matrices, one after the other, in float32 on the CPU; of those in parts, on every process."""
        found = []
        for weight in self.weights:
            pieces = self._pieces(weight)
            table = torch.zeros((len(self.ids), self.held.shape_of(weight)[1]), device=pieces[0][1].device)
            for row, (first, piece) in zip(table, pieces, strict=True):
                row[first : first + len(piece)] = piece.float()
            if self.held.is_sharded(weight):
                torch.distributed.all_reduce(table)
            found.append(table.cpu())
        return torch.cat(found)

    def stretch_step(self, before: list[list[Tensor]], factor: float) -> None:
        """Make the rows' step from `before` longer by a factor."""
        with torch.no_grad():
            for weight, olds in zip(self.weights, before, strict=True):
                for (_, piece), old in zip(self._pieces(weight), olds, strict=True):
                    piece.copy_(old + (piece.float() - old) * factor)
        self.held.written(self.weights)

    def copies(self) -> list[list[Tensor]]:
        """What this process has of the rows, to stretch a step from."""
        return [[piece.to(torch.float32, copy=True) for _, piece in self._pieces(weight)] for weight in self.weights]

    def movement(self) -> float:
        """The largest move of a coordinate since training began, by the standard deviation of the weights beside it."""
        typical = torch.stack([self._spread(weight) for weight in self.beside])
        moved = (self._now() - self.start).abs().amax(dim=1).view(len(self.weights), -1).amax(dim=1)
        return float((moved / typical.clamp_min(1e-12)).max())

    def _spread(self, weight: Tensor) -> Tensor:
        """The standard deviation of a weight's numbers, on the CPU."""
        part = self.held.numbers(weight).float()
        if not self.held.is_sharded(weight):
            return part.std().cpu()
        sums = torch.stack([part.sum(dtype=torch.float64), (part.double() ** 2).sum()])
        torch.distributed.all_reduce(sums)
        total, squares = sums.tolist()
        count = math.prod(self.held.shape_of(weight))
        return torch.tensor(max((squares - total**2 / count) / (count - 1), 0.0) ** 0.5)
