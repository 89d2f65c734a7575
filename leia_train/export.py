"""From a run's checkpoint to a model in Hugging Face form for others: weights, the build's tokenizer.json with the markers.

float32 keeps what was learnt. In a shorter type most of a small update rounds away: then the cosine of the rounded update
with the true one is said, and a warning where it is below 0.95.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from leia_beam.errors import OtherBuild, UsageError
from leia_train.checkpoints import FINAL_NAME, MARKERS_NAME, newest_checkpoint, verify_checkpoint
from leia_train.config import TINY_LLAMA, ExportConfig, ModelConfig
from leia_train.files import disk_errors, fsync_folder, rename_folder
from leia_train.markers import add_markers
from leia_train.model import DTYPES, load_model, load_weights
from leia_train.runs import RUN_NAME, read_run
from leia_train.store import reopen_store

MIN_COSINE = 0.95
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", MARKERS_NAME)


def export(config: ExportConfig, *, report: Callable[[str], None]) -> Path:
    """Write the model; its folder.

    Raises: UsageError where there is no checkpoint; DamagedInput for a damaged one; OtherBuild for a folder in use.
    """
    checkpoint = find_checkpoint(Path(config.checkpoint), report)
    output = Path(config.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OtherBuild(f"--output {output}: is not empty; give a new folder")
    model = load_weights(str(checkpoint))
    if config.dtype != "float32":
        _say_what_rounding_takes(model, config, checkpoint, report)
    torch.nn.Module.to(model, DTYPES[config.dtype])
    with disk_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".tmp-export-", dir=output.parent))
        try:
            temporary.chmod(0o755)
            model.save_pretrained(temporary)
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
    """A checkpoint's own folder, or a run's final or newest whole one.

    Raises: UsageError; DamagedInput.
    """
    if (path / FINAL_NAME).is_dir():
        path = path / FINAL_NAME
    elif (path / RUN_NAME).is_file():
        newest = newest_checkpoint(path, report)
        if newest is None:
            raise UsageError(f"{path}: this run has no whole checkpoint yet")
        path = newest.path
    if not (path / "config.json").is_file():
        raise UsageError(f"{path}: no checkpoint (no config.json); give a run's folder or a checkpoint's")
    verify_checkpoint(path)
    return path


def _say_what_rounding_takes(model: Any, config: ExportConfig, checkpoint: Path, report: Callable[[str], None]) -> None:
    base = _load_base(config, checkpoint, report)
    if base is None:
        return
    cosine = update_cosine(model, base, DTYPES[config.dtype])
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
    identity = read_run(run)
    if identity["model"] != TINY_LLAMA:
        return load_weights(identity["model"], trust_remote_code=False)
    build = reopen_store(run, identity["data_fingerprint"]).tokenizer
    names = {field for field in ModelConfig.__dataclass_fields__ if field in identity}
    tokenizer = add_markers(build, identity["markers"], identity["marker_text"])
    options = ModelConfig(**{name: identity[name] for name in names})
    return load_model(options, build, tokenizer, identity["max_length"], identity["seed"]).model


def update_cosine(model: Any, base: Any, dtype: torch.dtype) -> float:
    """The cosine of the angle between the rounded update and the true one, over all weights that both models have.

    Where rounding takes the whole update it is 0; without any update 1.
    """
    before = dict(base.named_parameters())
    products = torch.zeros(3, dtype=torch.float64)
    for name, weight in model.named_parameters():
        rows = min(len(weight), len(before[name])) if name in before else 0
        if not rows:
            continue
        old = before[name].detach()[:rows].double()
        true = weight.detach()[:rows].double() - old
        kept = weight.detach()[:rows].to(dtype).double() - old.to(dtype).double()
        products += torch.stack([(true * kept).sum(), (true * true).sum(), (kept * kept).sum()])
    both, true_square, kept_square = products.tolist()
    if true_square == 0:
        return 1.0
    return both / math.sqrt(true_square * kept_square) if kept_square else 0.0
