"""From a run's state to checkpoints that are whole or not there, and back.

A checkpoint is written into a folder of a temporary name; `_COMPLETE`, with the SHA-256 of every file, is its last file;
then the folder is renamed. A folder without it, or whose files are not what it says, is passed over. Model and optimizer
are safetensors and the rest is JSON: nothing is unpickled. The model lies in Hugging Face form at the top of the folder,
so every checkpoint is also a model; what only a resume needs is in `training/`. Where adapters are trained, those to resume
from hold the adapter in PEFT's form in the model's place. Processes that hold a model in parts write
its weights and the optimizer's state into `distributed/` instead, in torch's distributed form (sharded_checkpoints.py).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leia_beam.errors import DamagedInput
from leia_train.files import disk_errors, fsync_folder, rename_folder, sha256_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

    from leia_train.markers import CheckpointTokenizer
    from leia_train.tensor_files import TensorFiles

OptimizerState = Mapping[int, Mapping[str, "Tensor"]]
"""An optimizer's tensors by the number of their weight and by name."""
COMPLETE_NAME = "_COMPLETE"
FINAL_NAME = "checkpoint-final"
MARKERS_NAME = "leia_markers.json"
TEMPORARY_PREFIX = ".tmp-checkpoint-"
DISTRIBUTED = "distributed"
_STEP_NAME = re.compile(r"checkpoint-(\d{8})")
TRAINING = "training"
_OPTIMIZER = f"{TRAINING}/optimizer.safetensors"
_STATE = f"{TRAINING}/state.json"
_MORE = f"{TRAINING}/more.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A whole checkpoint to resume from."""

    path: Path
    step: int


def save_checkpoint(
    output: Path,
    name: str,
    model: PreTrainedModel,
    tokenizer: CheckpointTokenizer,
    training: tuple[OptimizerState, int] | None,
    more: Mapping[str, Tensor] | None = None,
    write: Callable[[Path], None] | None = None,
) -> Path:
    """Write a checkpoint under its name; with `training` (state, step) a run can go on from it, and finds `more`.

    `write` puts model and tokenizer into a folder, where that is not done as transformers does.

    Raises: MissingResource where the disk is full; what was there before is still there then.
    """
    final = output / name
    with disk_errors(final):
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=output))
        try:
            temporary.chmod(0o755)
            if write is None:
                _write_model(temporary, model, tokenizer)
            else:
                write(temporary)
            if training is not None:
                _write_training(temporary, *training)
                write_more(temporary, more or {})
            finish_folder(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return final


def is_distributed(path: Path) -> bool:
    """Whether a checkpoint's weights lie in torch's distributed form."""
    return (path / DISTRIBUTED).is_dir()


def step_name(step: int) -> str:
    """The name of the checkpoint after `step` updates.

    >>> step_name(20)
    'checkpoint-00000020'
    """
    return f"checkpoint-{step:08d}"


def _write_model(folder: Path, model: PreTrainedModel, tokenizer: CheckpointTokenizer) -> None:
    model.save_pretrained(folder)
    write_tokenizer(folder, tokenizer)


def write_tokenizer(folder: Path, tokenizer: CheckpointTokenizer) -> None:
    """The files of a checkpoint's tokenizer."""
    (folder / "tokenizer.json").write_bytes(tokenizer.tokenizer_json)
    (folder / "tokenizer_config.json").write_bytes(tokenizer.config_json)
    (folder / MARKERS_NAME).write_text(
        json.dumps({"kind": tokenizer.kind, "marker_ids": tokenizer.marker_ids, "markers": tokenizer.markers}) + "\n"
    )


def _write_training(folder: Path, state: OptimizerState, step: int) -> None:
    from safetensors.torch import save_file

    (folder / "training").mkdir()
    tensors = {
        f"optimizer.{number}.{key}": value.contiguous()
        for number, values in state.items()
        for key, value in values.items()
    }
    save_file(tensors, folder / _OPTIMIZER)
    write_step(folder, step)


def write_step(folder: Path, step: int) -> None:
    """Note in `training/` after how many updates a checkpoint is."""
    (folder / "training").mkdir(exist_ok=True)
    (folder / _STATE).write_text(json.dumps({"step": step}) + "\n")


def write_more(folder: Path, more: Mapping[str, Tensor]) -> None:
    """What `load_more` gives back."""
    from safetensors.torch import save_file

    if more:
        save_file(dict(more), folder / _MORE)


def load_more(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """What was given to `save_checkpoint` besides the optimizer."""
    from safetensors.torch import load_file

    path = checkpoint.path / _MORE
    return load_file(path) if path.is_file() else {}


def finish_folder(temporary: Path, final: Path) -> None:
    """Put a written folder on the disk, note the sums of its files, and give it its name."""
    fsync_folder(temporary)
    _write_complete(temporary)
    if final.exists():
        shutil.rmtree(final)  # a damaged one: a whole one is never written again
    rename_folder(temporary, final)


def _write_complete(folder: Path) -> None:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    content = {
        name: {"sha256": sha256_of(folder / name), "size_bytes": (folder / name).stat().st_size} for name in names
    }
    (folder / COMPLETE_NAME).write_text(json.dumps({"files": content}, indent=1, sort_keys=True) + "\n")
    fsync_folder(folder)


def verify_checkpoint(path: Path, *, sums: bool = True) -> None:
    """Compare every file with the completion file; without `sums` the sizes alone.

    Raises: DamagedInput with the first that differs.
    """
    complete = path / COMPLETE_NAME
    try:
        files: Mapping[str, Mapping[str, Any]] = json.loads(complete.read_bytes())["files"]
        expected = {name: (entry["size_bytes"], entry["sha256"]) for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedInput(f"{complete}: missing or not readable ({error}); the checkpoint is not whole") from error
    for name, (size_bytes, sha256) in expected.items():
        file = path / name
        if not file.is_file():
            raise DamagedInput(f"{file}: missing, but {COMPLETE_NAME} lists it")
        if file.stat().st_size != size_bytes:
            raise DamagedInput(f"{file}: {file.stat().st_size:,} bytes, {COMPLETE_NAME} says {size_bytes:,}")
        found = sha256_of(file) if sums else sha256
        if found != sha256:
            raise DamagedInput(f"{file}: SHA-256 mismatch, {found[:12]}… instead of {sha256[:12]}…")


def is_whole(path: Path, *, sums: bool = True) -> bool:
    """Whether a checkpoint is there and as it was written; without `sums` it is enough that the sizes are right."""
    try:
        verify_checkpoint(path, sums=sums)
    except DamagedInput:
        return False
    return True


def newest_checkpoint(output: Path, report: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint to resume from; each damaged one that is passed over is reported."""
    for checkpoint in reversed(step_checkpoints(output)):
        try:
            verify_checkpoint(checkpoint.path)
        except DamagedInput as error:
            report(f"passed over a damaged checkpoint: {error}")
            continue
        return checkpoint
    return None


def step_checkpoints(output: Path) -> list[Checkpoint]:
    """The checkpoints of a run by step, damaged ones too."""
    found = []
    for path in output.glob("checkpoint-*"):
        match = _STEP_NAME.fullmatch(path.name)
        if match and path.is_dir():
            found.append(Checkpoint(path=path, step=int(match.group(1))))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def training_tensors(checkpoint: Checkpoint, names: Sequence[str]) -> Iterator[tuple[int, str, TensorFiles, str]]:
    """The optimizer's state: the number of a weight among `names`, the key of one of its tensors, and where that is by name."""
    from leia_train.tensor_files import TensorFiles

    if is_distributed(checkpoint.path):
        files = TensorFiles((checkpoint.path / DISTRIBUTED).glob("*.safetensors"))
        numbers = {f"optimizer.{name}": number for number, name in enumerate(names)}
    else:
        files = TensorFiles([checkpoint.path / _OPTIMIZER])
        numbers = {f"optimizer.{number}": number for number in range(len(names))}
    for name in files.names():
        prefix, _, key = name.rpartition(".")
        if prefix in numbers:
            yield numbers[prefix], key, files, name


def load_training(
    checkpoint: Checkpoint,
    optimizer: Optimizer,
    weights: Sequence[Tensor],
    names: Sequence[str],
    ranges: Sequence[tuple[int, int]] | None = None,
) -> None:
    """Put the state of a checkpoint into an optimizer of some of the weights, which are in its order, with their names.

    `ranges`: the rows (half-open) of the model's weights that `weights` are, where they are not all of them. Not with
    load_state_dict, which casts float32 moments of bfloat16 weights to bfloat16.
    """
    mine = {weight for group in optimizer.param_groups for weight in group["params"]}
    for number, key, files, name in training_tensors(checkpoint, names):
        weight = weights[number]
        if weight not in mine:
            continue
        if ranges is None or not files.shape(name):
            tensor = files.whole(name)
        else:
            tensor = files.rows(name, *ranges[number])
        # A copy: what is mapped from a file is aligned otherwise than new memory, and rounds otherwise on the CPU.
        device = "cpu" if key == "step" and not optimizer.defaults.get("fused") else weight.device
        optimizer.state[weight][key] = tensor.to(device, copy=True)


def remove_old(output: Path, keep: int) -> None:
    """Remove all but the `keep` newest checkpoints to resume from."""
    for checkpoint in step_checkpoints(output)[:-keep]:
        (checkpoint.path / COMPLETE_NAME).unlink(missing_ok=True)
        shutil.rmtree(checkpoint.path)


def remove_temporary(output: Path) -> None:
    """Remove what a killed run left half-written."""
    for path in output.glob(".tmp-*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
