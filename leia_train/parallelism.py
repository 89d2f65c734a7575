"""What the trainer asks of the way in which processes share a model: one protocol, of which each way is a file.

`replicated`: every process has all weights (one process alone, or DistributedDataParallel). `fully_sharded`: each has a part
of every weight, by FSDP2; `zero3`: the same by DeepSpeed. The loop, the evaluation and the checkpoints know nothing else of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

    from leia_train.checkpoints import Checkpoint
    from leia_train.loss import TokenLoss
    from leia_train.markers import CheckpointTokenizer
    from leia_train.shard_folders import BuildTokenizer


class Held(Protocol):
    """What a process has of a model's tensors: the modules `sharding` (all of them, or rows) and `zero3_parts`."""

    def is_sharded(self, tensor: Tensor, /) -> bool:
        """Whether each process has a part of it."""

    def shape_of(self, tensor: Tensor, /) -> tuple[int, ...]:
        """Of the whole tensor."""

    def numbers(self, tensor: Tensor, /) -> Tensor:
        """What this process has of it, without a copy."""

    def row_piece(self, weight: Tensor, row: int, /) -> tuple[int, Tensor]:
        """What this process has of a row of a matrix, without a copy, and the column in which that begins."""

    def whole(self, tensor: Tensor, /) -> Tensor:
        """All numbers, on every process: a call that all make together."""

    def fill(self, tensor: Tensor, read: Callable[[int, int], Tensor], /) -> None:
        """Set what this process has to what is read of the whole tensor's rows (half-open; those of a scalar are 0 to 1)."""

    def written(self, weights: Iterable[Tensor], /) -> None:
        """Say that what this process has was changed: a call that all make together."""


class Parallelism(Protocol):
    """A model with its optimizer as the processes hold it: `load`, then `begin`, then updates, in all processes alike.

    But for `local_weights` every method is a call that all processes make together.
    """

    @property
    def sharded(self) -> bool:
        """Whether each process has a part of the weights: also forward passes are calls of all together then."""

    @property
    def described(self) -> Mapping[str, Any]:
        """What the run's description says of the model besides the options, once it is loaded."""

    @property
    def held(self) -> Held:
        """What this process has of the model's tensors."""

    @property
    def token_loss(self) -> TokenLoss:
        """The model with its loss, not wrapped: for forward passes without a backward pass."""

    @property
    def model(self) -> Any:
        """What forward passes of the training call: the same, as it is wrapped once training began."""

    def load(
        self,
        build: BuildTokenizer,
        tokenizer: CheckpointTokenizer,
        checkpoint: Checkpoint | None,
        report: Callable[[str], None],
    ) -> TokenLoss:
        """The model with its weights on the processes' devices, as training begins with them or as a checkpoint has them.

        Raises: what leia_train.model.load_model raises.
        """

    def without_backward(self) -> AbstractContextManager[None]:
        """Around forward passes that no backward pass follows: what they gathered is let go of afterwards."""

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Make the optimizer of the weights that require a gradient, new or as a checkpoint has it.

        After the first forward passes, which settle the attention: what is compiled then is wrapped here.
        """

    def accumulating(self, *, last: bool) -> AbstractContextManager[Any]:
        """Around forward and backward pass of a micro-batch; after the `last` one of a step the gradients are the whole step's."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a part of a step's loss, of which each process has its own: they are summed over processes."""

    def clip(self, limit: float) -> float:
        """Shorten the step's gradient to a norm, which may be infinite; the norm that it had over all processes."""

    def update(self, learning_rate: float) -> None:
        """Move the weights, and drop the gradients."""

    def local_weights(self) -> Sequence[Tensor]:
        """What this process has of each trained weight, without a copy: of all processes' each number is there once if
        the model is sharded, in every process if not."""

    def save_checkpoint(
        self, output: Path, name: str, tokenizer: CheckpointTokenizer, step: int, more: Mapping[str, Tensor]
    ) -> None:
        """Write a checkpoint to go on from, in any form that `load` and `begin` of every way read.

        Raises: MissingResource where the disk is full; UsageError where processes do not see each other's files.
        """

    def save_model(self, output: Path, name: str, tokenizer: CheckpointTokenizer) -> None:
        """Write the model in Hugging Face's form.

        Raises: MissingResource where the disk is full.
        """
