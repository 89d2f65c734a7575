"""From a run's checkpoint to a model in Hugging Face form for others: weights, the build's tokenizer.json with the markers.

float32 keeps what was learnt. In a shorter type most of a small update rounds away: then the cosine of the rounded update
with the true one is said, and a warning where it is below 0.95. A sharded checkpoint is put together weight by weight: no
more than one of them is in memory. An adapter's checkpoint is put into the model that it was trained on, and summed with it in
float32; or the adapter is given as it is.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from leia_beam.errors import OtherBuild, UsageError
from leia_train.checkpoints import (
    COMPLETE_NAME,
    DISTRIBUTED,
    FINAL_NAME,
    MARKERS_NAME,
    TRAINING,
    is_distributed,
    newest_checkpoint,
    verify_checkpoint,
)
from leia_train.command_configs import ExportConfig
from leia_train.files import disk_errors, fsync_folder, rename_folder
from leia_train.lora_files import FOLDER as ADAPTER
from leia_train.lora_files import Base, changed_tensors, copy_adapter, is_adapter, products, put_adapter, write_merged
from leia_train.markers import add_markers
from leia_train.model import DTYPES, cast_weights, load_model, load_weights
from leia_train.model_config import TINY_LLAMA, ModelConfig
from leia_train.runs import RUN_NAME, read_run
from leia_train.sharded_checkpoints import converted
from leia_train.store import reopen_store
from leia_train.tensor_files import TensorFiles, TensorWriter

MIN_COSINE = 0.95
_MODEL = "model."
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", MARKERS_NAME)


def export(config: ExportConfig, *, report: Callable[[str], None]) -> Path:
    """Write the model; its folder.

    Raises: UsageError where there is no checkpoint; DamagedInput for a damaged one; OtherBuild for a folder in use.
    """
    checkpoint = find_checkpoint(Path(config.checkpoint), report)
    output = Path(config.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OtherBuild(f"--output {output}: is not empty; give a new folder")
    if config.form == "adapter":
        write: Callable[[Path], None] = partial(_write_adapter, _adapter_of(checkpoint), config, report)
    elif is_adapter(checkpoint):
        adapted = _adapted(config, checkpoint)
        if config.dtype != "float32":
            _say_cosine(changed_tensors(adapted), config, report)
        write = partial(_write_merged, adapted, DTYPES[config.dtype])
    elif is_distributed(checkpoint) and _in_file_order(checkpoint):
        files = TensorFiles((checkpoint / DISTRIBUTED).glob("*.safetensors"))
        if config.dtype != "float32":
            _say_what_rounding_takes(_pairs_of_files(files), config, checkpoint, report)
        write = partial(_write_parts, checkpoint, files, DTYPES[config.dtype])
    else:
        model = load_weights(str(checkpoint))
        if config.dtype != "float32":
            _say_what_rounding_takes(partial(_pairs, model), config, checkpoint, report)
        torch.nn.Module.to(model, DTYPES[config.dtype])
        write = partial(_save, model)
    with disk_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".tmp-export-", dir=output.parent))
        try:
            temporary.chmod(0o755)
            write(temporary)
            for name in _TOKENIZER:
                shutil.copyfile(checkpoint / name, temporary / name)
            fsync_folder(temporary)
            if output.exists():
                output.rmdir()
            rename_folder(temporary, output)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return output


def find_checkpoint(path: Path, report: Callable[[str], None]) -> Path:
    """A checkpoint's own folder, or a run's final or newest whole one; an adapter's.

    Raises: UsageError; DamagedInput.
    """
    if (path / FINAL_NAME).is_dir():
        path = path / FINAL_NAME
    elif (path / RUN_NAME).is_file():
        newest = newest_checkpoint(path, report)
        if newest is None:
            raise UsageError(f"{path}: this run has no whole checkpoint yet")
        path = newest.path
    if not (path / "config.json").is_file() and not is_adapter(path):
        raise UsageError(f"{path}: no checkpoint (no config.json); give a run's folder or a checkpoint's")
    if not is_adapter(path) or (path / COMPLETE_NAME).is_file() or (path / TRAINING).is_dir():
        verify_checkpoint(path)
    elif path.name == ADAPTER and (path.parent / COMPLETE_NAME).is_file():
        verify_checkpoint(path.parent)  # whose sums are of the files in it too; what export wrote has none
    return path


def _save(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)


def _adapter_of(checkpoint: Path) -> Path:
    """The folder of an adapter's files in a checkpoint.

    Raises: UsageError for a checkpoint without one.
    """
    folder = checkpoint if is_adapter(checkpoint) else checkpoint / ADAPTER
    if not is_adapter(folder):
        raise UsageError(f"{checkpoint}: --form adapter: all weights were trained; leave it out for the model")
    return folder


def _write_adapter(adapter: Path, config: ExportConfig, report: Callable[[str], None], folder: Path) -> None:
    copy_adapter(adapter, folder, DTYPES[config.dtype])
    base = Base.noted(adapter)
    if config.dtype != "float32":
        cosine = _cosine_of(products(adapter, DTYPES[config.dtype]))
        report(f"in {config.dtype} what the adapter adds has a cosine of {cosine:.4f} with what was learnt")
    if base.model == TINY_LLAMA:
        report(
            f"warning: it was trained on {TINY_LLAMA}, whose weights are in no file; leave --form out for the whole model"
        )
        return
    report(f"the adapter is for {base.model} with {base.rows:,} rows of embeddings; README.md says how it gets them")


def _adapted(config: ExportConfig, checkpoint: Path) -> Any:
    """The model that an adapter was trained on, with the adapter in it.

    Raises: UsageError where that model is not there; OtherBuild where it is another.
    """
    noted = Base.noted(checkpoint)
    run = next((folder for folder in checkpoint.resolve().parents[:2] if (folder / RUN_NAME).is_file()), None)
    if not config.base and run is not None:
        model: Any = _base_of_run(run)
    elif not config.base and noted.model == TINY_LLAMA:
        raise UsageError(
            f"{checkpoint}: was trained on {TINY_LLAMA}, whose weights are in no file; export its run's checkpoint"
        )
    else:
        model = _noted_base(config, noted)
    cast_weights(model, DTYPES[noted.weights])
    put_adapter(model, checkpoint)
    return model


def _noted_base(config: ExportConfig, noted: Base) -> Any:
    try:
        return load_weights(config.base or noted.model)
    except UsageError as error:
        where = f"--base {config.base}" if config.base else f"the adapter's model {noted.model}"
        said = str(error).removeprefix(f"--model {config.base or noted.model}: ")
        raise UsageError(f"{where}: {said}; give --base the model that training began with") from error


def _write_merged(model: Any, dtype: torch.dtype, folder: Path) -> None:
    write_merged(folder, model, dtype)


def _in_file_order(checkpoint: Path) -> bool:
    """Whether the weights' names and shapes are those that transformers saves."""
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(checkpoint))  # type: ignore[no-untyped-call]
    return not converted(model)


def _write_parts(checkpoint: Path, files: TensorFiles, dtype: torch.dtype, folder: Path) -> None:
    """The model of a sharded checkpoint in a type."""
    names = [name for name in files.names() if name.startswith(_MODEL)]

    def typed(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    kinds = {
        name.removeprefix(_MODEL): (typed(torch.empty(0, dtype=files.dtype(name))).dtype, files.shape(name))
        for name in names
    }
    writer = TensorWriter(folder, kinds)
    try:
        for name in writer.order:
            writer.put(name, typed(files.whole(_MODEL + name)))
        writer.close()
    finally:
        writer.abandon()
    content = json.loads((checkpoint / "config.json").read_bytes())
    content["dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    if (checkpoint / "generation_config.json").is_file():
        shutil.copyfile(checkpoint / "generation_config.json", folder / "generation_config.json")
    for path in checkpoint.glob("*.py"):
        shutil.copyfile(path, folder / path.name)


def _say_what_rounding_takes(
    pairs: Callable[[Any], Iterable[tuple[Tensor, Tensor]]],
    config: ExportConfig,
    checkpoint: Path,
    report: Callable[[str], None],
) -> None:
    base = _load_base(config, checkpoint, report)
    if base is None:
        return
    _say_cosine(pairs(base), config, report)


def _say_cosine(pairs: Iterable[tuple[Tensor, Tensor]], config: ExportConfig, report: Callable[[str], None]) -> None:
    cosine = _cosine(pairs, DTYPES[config.dtype])
    line = f"in {config.dtype} the update has a cosine of {cosine:.4f} with the one that was learnt"
    report(line if cosine >= MIN_COSINE else f"warning: {line}: much of it rounds away; --dtype float32 keeps it")


def _load_base(config: ExportConfig, checkpoint: Path, report: Callable[[str], None]) -> Any | None:
    """The model that training began with; None, and said, where it cannot be known."""
    if config.base:
        return load_weights(config.base)
    run = checkpoint.parent
    if not (run / RUN_NAME).is_file():
        report(
            "warning: no run beside this checkpoint says what it began with; give --base to learn what rounding takes"
        )
        return None
    return _base_of_run(run)


def _base_of_run(run: Path) -> Any:
    """The model that a run began with, with the type of frozen weights but in float32."""
    identity = read_run(run)
    if identity["model"] != TINY_LLAMA:
        model = load_weights(identity["model"], trust_remote_code=False)
        if identity.get("lora") and identity["weights"] != "float32":
            cast_weights(model, DTYPES[identity["weights"]])
            cast_weights(model, torch.float32)
        return model
    build = reopen_store(run, identity["data_fingerprint"]).tokenizer
    names = {field for field in ModelConfig.__dataclass_fields__ if field in identity}
    tokenizer = add_markers(build, identity["markers"], identity["marker_text"])
    options = ModelConfig(**{name: identity[name] for name in names})
    return load_model(options, build, tokenizer, identity["max_length"], identity["seed"]).model


def update_cosine(model: Any, base: Any, dtype: torch.dtype) -> float:
    """The cosine of the angle between the rounded update and the true one, over all weights that both models have.

    Where rounding takes the whole update it is 0; without any update 1.
    """
    return _cosine(_pairs(model, base), dtype)


def _pairs(model: Any, base: Any) -> Iterable[tuple[Tensor, Tensor]]:
    """Each weight that both models have, as it is and as it was."""
    before = dict(base.named_parameters())
    return ((weight, before[name]) for name, weight in model.named_parameters() if name in before)


def _pairs_of_files(files: TensorFiles) -> Callable[[Any], Iterable[tuple[Tensor, Tensor]]]:
    def pairs(base: Any) -> Iterable[tuple[Tensor, Tensor]]:
        for name, old in base.named_parameters():
            if _MODEL + name in files.names():
                yield files.whole(_MODEL + name), old

    return pairs


def _cosine(pairs: Iterable[tuple[Tensor, Tensor]], dtype: torch.dtype) -> float:
    def updates() -> Iterator[tuple[Tensor, Tensor]]:
        for weight, was in pairs:
            rows = min(len(weight), len(was))
            if rows:
                old = was.detach()[:rows].double()
                kept = weight.detach()[:rows].to(dtype).double() - old.to(dtype).double()
                yield kept, weight.detach()[:rows].double() - old

    return _cosine_of(updates())


def _cosine_of(updates: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Of the angle between what is kept and what was learnt."""
    sums = torch.zeros(3, dtype=torch.float64)
    for kept, true in ((kept.double(), true.double()) for kept, true in updates):
        sums += torch.stack([(true * kept).sum(), (true * true).sum(), (kept * kept).sum()])
    both, true_square, kept_square = sums.tolist()
    if true_square == 0:
        return 1.0
    return both / math.sqrt(true_square * kept_square) if kept_square else 0.0
