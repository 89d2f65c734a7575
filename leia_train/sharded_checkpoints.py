"""From a model and an optimizer in parts to checkpoints that all processes write, and to a model in Hugging Face's form.

Weights and optimizer state go to `distributed/` in torch.distributed.checkpoint's safetensors form: each process writes
what it has, beside where in the whole it begins, so any number of processes can go on from it. The first process writes the
rest, and last the completion file: as ever a checkpoint is whole or not there.
"""

from __future__ import annotations

import errno
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from leia_beam.errors import LeiaError, UsageError
from leia_train import sharding
from leia_train.checkpoints import (
    DISTRIBUTED,
    TEMPORARY_PREFIX,
    finish_folder,
    write_more,
    write_step,
    write_tokenizer,
)
from leia_train.files import disk_errors
from leia_train.markers import CheckpointTokenizer
from leia_train.parallelism import Held
from leia_train.processes import fail_together, on_main, summed
from leia_train.sharding import Parts, like, named_tensors, names_of
from leia_train.tensor_files import MAX_FILE_BYTES, TensorWriter

Result = TypeVar("Result")
_PART_BYTES = 1 << 28
"""Of a file of one process: torch makes each one in memory before it is written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """What a resume needs besides the model."""

    optimizer: Optimizer
    parts: Parts
    step: int
    more: Mapping[str, Tensor]


def save_parts(
    output: Path, name: str, model: Any, tokenizer: CheckpointTokenizer, training: Training, accelerator: Accelerator
) -> Path:
    """Write a checkpoint to go on from: a call that all processes make together.

    Raises: MissingResource where the disk is full; UsageError where processes do not see each other's files.
    """
    state = _state(model, training)

    def write(folder: Path) -> None:
        with _quiet():
            save(state, storage_writer=_writer(folder, state, accelerator.num_processes))

    return save_distributed(output, name, model, tokenizer, (training.step, training.more), accelerator, write)


def save_distributed(
    output: Path,
    name: str,
    model: Any,
    tokenizer: CheckpointTokenizer,
    training: tuple[int, Mapping[str, Tensor]],
    accelerator: Accelerator,
    write: Callable[[Path], None],
    held: Held = sharding,
) -> Path:
    """The same, after `training` (step, what else is kept), where each process writes its files into a folder by `write`."""
    step, more = training

    def finish(folder: Path, final: Path) -> None:
        write_configuration(folder, model, held)
        write_tokenizer(folder, tokenizer)
        write_step(folder, step)
        write_more(folder, more)
        finish_folder(folder, final)

    with _folder(output, name, accelerator) as (temporary, final):
        _together(accelerator, lambda: write(temporary / DISTRIBUTED))
        own = len(list((temporary / DISTRIBUTED).glob(f"shard-{accelerator.process_index + 1:05d}-*")))
        expected = int(summed(accelerator, [own])[0])
        on_main(accelerator, lambda: _check_seen(temporary / DISTRIBUTED, expected))
        on_main(accelerator, lambda: finish(temporary, final))
    return output / name


@dataclass(frozen=True, kw_only=True, slots=True)
class Gathered:
    """A tensor that all processes gather together, on their devices, and let go of."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    sharded: bool
    gather: Callable[[], Tensor]


def write_rows(folder: Path, tensors: Mapping[str, Gathered], accelerator: Accelerator) -> None:
    """Write this process's rows of each tensor, one gathered after the other; of what is not in parts the first process's.

    A process goes on gathering with the others after its writing failed, so that none waits.
    """
    process, processes = accelerator.process_index, accelerator.num_processes
    ranges = {name: _rows(tensor, process, processes) for name, tensor in tensors.items()}
    kinds = {
        name: (tensor.dtype, (last - first, *tensor.shape[1:]) if tensor.shape else ())
        for name, tensor in tensors.items()
        for first, last in (ranges[name],)
        if first < last
    }
    begins = {
        name: (ranges[name][0], *[0] * (len(tensors[name].shape) - 1))[: len(tensors[name].shape)] for name in kinds
    }

    def make() -> TensorWriter:
        folder.mkdir(exist_ok=True)
        return TensorWriter(folder, kinds, process=process, begins=begins)

    writer = _together(accelerator, make)
    failure: BaseException | None = None
    for name in sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize):
        tensor = _gathered(tensors[name].gather)
        if name not in kinds or failure is not None:
            continue
        first, last = ranges[name]
        try:
            writer.put(name, tensor[first:last] if tensor.ndim else tensor)
        except BaseException as error:  # noqa: BLE001, raised below once the others have given their parts
            failure = error
    if failure is not None:
        writer.abandon()
        raise failure
    writer.close()


def _rows(tensor: Gathered, process: int, processes: int) -> tuple[int, int]:
    """Which rows a process writes (half-open); of a scalar 0 to 1."""
    rows = tensor.shape[0] if tensor.shape else 1
    if not tensor.sharded or not tensor.shape:
        return (0, rows) if process == 0 else (0, 0)
    size = -(-rows // processes)
    return min(process * size, rows), min((process + 1) * size, rows)


def save_model(
    output: Path,
    name: str,
    model: Any,
    tokenizer: CheckpointTokenizer,
    accelerator: Accelerator,
    max_bytes: int = MAX_FILE_BYTES,
    held: Held = sharding,
) -> Path:
    """Write a model in Hugging Face's form, weight by weight: a call that all processes make together."""
    with _folder(output, name, accelerator) as (temporary, final):
        _together(accelerator, lambda: _write_whole(temporary, model, accelerator, max_bytes, held))

        def finish() -> None:
            write_configuration(temporary, model, held)
            write_tokenizer(temporary, tokenizer)
            finish_folder(temporary, final)

        on_main(accelerator, finish)
    return output / name


def converted(model: Any, held: Held = sharding) -> bool:
    """Whether transformers saves a model's weights under other names, or in other shapes, than they have in memory."""
    return stores_otherwise(model, {name: held.shape_of(tensor) for name, tensor in named_tensors(model).items()})


def stores_otherwise(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """The same of weights of a model by their names and shapes."""
    from transformers.core_model_loading import revert_weight_conversion

    empty = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return set(revert_weight_conversion(model, dict(empty))) != set(empty)


def _write_whole(folder: Path, model: Any, accelerator: Accelerator, max_bytes: int, held: Held) -> None:
    """The weights' files. The first process goes on gathering with the others after its writing failed, so that none waits."""
    tensors = named_tensors(model)
    kinds = {name: (held.numbers(tensor).dtype, held.shape_of(tensor)) for name, tensor in tensors.items()}
    writer = TensorWriter(folder, kinds, max_bytes)
    stacked = converted(model, held)
    kept: dict[str, Tensor] = {}
    failure: BaseException | None = None
    for name in writer.order:
        tensor = _gathered(partial(held.whole, tensors[name]))
        if not accelerator.is_main_process or failure is not None:
            continue
        try:
            if stacked:
                kept[name] = tensor.to("cpu", copy=True)
            else:
                writer.put(name, tensor)
        except BaseException as error:  # noqa: BLE001, raised below once the others have given their parts
            failure = error
    if failure is not None:
        writer.abandon()
        raise failure
    if accelerator.is_main_process:
        if stacked:
            model.save_pretrained(folder, state_dict=kept, max_shard_size=max_bytes)
        else:
            writer.close()


def _state(model: Any, training: Training) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name; those in parts as such."""
    state = {f"model.{name}": tensor.detach() for name, tensor in named_tensors(model).items()}
    weights = training.parts.whole
    for weight, rows, name in zip(weights, training.parts.rows, names_of(model, weights), strict=True):
        for key, value in training.optimizer.state.get(rows, {}).items():
            state[f"optimizer.{name}.{key}"] = like(weight, value)
    return state


def _writer(folder: Path, state: Mapping[str, Tensor], processes: int) -> HuggingFaceStorageWriter:
    """Which puts about `_PART_BYTES` of a process into a file."""
    files, size = {}, 0
    for name in sorted(state):
        size += state[name].numel() * state[name].element_size() // processes
        files[name] = 1 + size // _PART_BYTES
    return HuggingFaceStorageWriter(str(folder), fqn_to_index_mapping=files, save_distributed=True)


def write_configuration(folder: Path, model: Any, held: Held = sharding, dtype: torch.dtype | None = None) -> None:
    """config.json and generation_config.json as save_pretrained writes them, and the code of a model that brings its own.

    `dtype`: the type that config.json names, where it is not that of the model's weights.
    """
    config = model.config
    config.dtype = str(dtype or held.numbers(next(model.parameters())).dtype).removeprefix("torch.")
    config.architectures = [type(model).__name__]
    if model.is_remote_code():
        from transformers.dynamic_module_utils import custom_object_save

        custom_object_save(model, folder, config=config)
    config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)


def _check_seen(folder: Path, expected: int) -> None:
    found = len(list(folder.glob("*.safetensors")))
    if found != expected:
        raise UsageError(
            f"{folder.parent}: {found} of the processes' {expected} files are here; --output must be on a disk that all "
            "of the run's machines share"
        )


@contextmanager
def _folder(output: Path, name: str, accelerator: Accelerator) -> Iterator[tuple[Path, Path]]:
    """A folder of a temporary name that all processes know, and the name that it is to get."""

    def make() -> str:
        with disk_errors(output):
            path = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=output))
            path.chmod(0o755)
            return str(path)

    made = [on_main(accelerator, make)]
    torch.distributed.broadcast_object_list(made, src=0)
    temporary = Path(str(made[0]))
    try:
        with disk_errors(output / name):
            yield temporary, output / name
    finally:
        if accelerator.is_main_process:
            shutil.rmtree(temporary, ignore_errors=True)


class _Alone(Exception):
    """Around what one process raised while the others gather with it: they wait for that, so it cannot tell them."""


def _gathered(gather: Callable[[], Tensor]) -> Tensor:
    try:
        return gather()
    except BaseException as error:
        raise _Alone from error


def _together(accelerator: Accelerator, write: Callable[[], Result]) -> Result:
    """Write on all processes, and fail on all where one fails.

    Raises: what this process's writing raised; on others LeiaError.
    """
    result, failure = None, None
    try:
        result = write()
    except _Alone as alone:  # the process ends, and its launcher ends the others
        cause = alone.__cause__
        assert cause is not None
        raise cause from None
    except CheckpointException as error:  # on all processes, with what each of those that failed raised
        failure = _cause(error)
    except BaseException as error:  # noqa: BLE001, raised again once the others know
        failure = error
    fail_together(accelerator, failure, "another process could not write its part; its message says why")
    return cast(Result, result)


def _cause(error: CheckpointException) -> BaseException:
    """What the first failure of torch's checkpoint was; a full disk as such."""
    causes = [failure[0] for failure in error.failures.values()]
    for cause in causes:
        found: BaseException | None = cause
        while found is not None:
            if isinstance(found, OSError):
                return found
            found = found.__cause__ or found.__context__
    full = next((cause for cause in causes if "No space left" in str(cause)), None)
    return OSError(errno.ENOSPC, "No space left on device") if full is not None else LeiaError(str(causes[0]))


@contextmanager
def _quiet() -> Iterator[None]:
    """No notes of torch's checkpoint between our lines."""
    logger = logging.getLogger("torch.distributed.checkpoint")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
