"""From this machine, and a run that is wanted, to whether it can be trained here: packages, devices, kernels, memory, disk.

Nothing is downloaded and nothing is changed; no weights and no shards are read. Torch is imported once its version is known
to fit.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leia_beam.errors import LeiaError
from leia_beam.findings import NOTE, OK, PROBLEM, WARNING, Finding, checked
from leia_beam.hub_checks import hub_finding
from leia_beam.machine_checks import disk_finding, memory_finding, output_findings, total_memory_bytes, usable_cores
from leia_beam.package_checks import package_findings
from leia_train.config import TrainConfig
from leia_train.model_config import TINY_LLAMA

if TYPE_CHECKING:
    import torch

_OPTIONAL = ("peft", "flash-attn", "wandb", "trackio")
_GIB = 1 << 30
_IMPORTED = ("torch", "transformers", "accelerate", "pyarrow", "numpy", "tokenizers")
"""Without these there is nothing to look with."""
_WEIGHT_BYTES, _STATE_BYTES = 4, 8
_SLOW_ON_CPU_WEIGHTS = 500_000_000


def examine(config: TrainConfig | None = None) -> Iterator[Finding]:
    """Look at everything; of a run, where one is wanted."""
    extras = ["train"]
    if config is not None and config.run.eval_tasks:
        extras.append("eval")
    if config is not None and config.model.lora:
        extras.append("lora")
    packages = list(package_findings(extras, _OPTIONAL))
    yield from packages
    if any(finding.state == PROBLEM and finding.subject in _IMPORTED for finding in packages):
        yield Finding(state=PROBLEM, subject="the rest", text="was not looked at, because it needs these packages")
        return
    yield from _devices(config)
    yield from _attention(config)
    yield from _machine(config)
    yield from _settings(config)
    if config is not None:
        yield from _run(config)


def _device(config: TrainConfig | None) -> torch.device:
    import torch

    on_gpu = torch.cuda.is_available() and (config is None or config.run.device != "cpu")
    return torch.device("cuda" if on_gpu else "cpu")


def _devices(config: TrainConfig | None) -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        if config is not None and config.run.device == "auto" and config.model.dtype == "bfloat16":
            yield Finding(
                state=WARNING,
                subject="GPU",
                text="none that torch can use, and the run computes in bfloat16, which is slow on the CPU",
                advice="train on a machine with a GPU; --device cpu says that this is meant",
            )
        else:
            yield Finding(state=NOTE, subject="GPU", text="none that torch can use; training runs on the CPU")
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        has_bfloat16 = torch.cuda.is_bf16_supported()
        wants_bfloat16 = config is not None and config.model.dtype == "bfloat16" and config.run.device != "cpu"
        yield Finding(
            state=WARNING if wants_bfloat16 and not has_bfloat16 else OK,
            subject=f"GPU {index}",
            text=f"{properties.name}, {properties.total_memory / _GIB:.0f} GiB, compute capability "
            f"{properties.major}.{properties.minor}, bfloat16 {'yes' if has_bfloat16 else 'no'}",
        )


def _attention(config: TrainConfig | None) -> Iterator[Finding]:
    from leia_train.attention import candidates, flash_hindrance, varlen_hindrance

    device = _device(config)
    if config is not None:
        wanted, dtype = config.model.attention, config.model.dtype

        def chosen() -> Iterator[Finding]:
            choice = candidates(wanted, device, dtype)[0]
            yield Finding(state=OK, subject="attention", text=f"{choice.name} is tried first ({choice.reason})")

        yield from checked("attention", chosen)
        return
    for dtype in ("bfloat16", "float32"):
        choice = candidates("auto", device, dtype)[0]
        text = f"{choice.name} is tried first ({choice.reason})"
        yield Finding(state=OK, subject=f"attention in {dtype}", text=text)
    for name, why in (("flash", flash_hindrance), ("varlen", varlen_hindrance)):
        hindrance = why(device, "bfloat16")
        yield Finding(state=NOTE if hindrance else OK, subject=f"attention {name}", text=hindrance or "can be used")


def _machine(config: TrainConfig | None) -> Iterator[Finding]:
    import torch

    cores, asked = usable_cores(), 1 if config is None else max(config.run.nproc, 1)
    text = f"{cores} cores, {total_memory_bytes() / _GIB:.0f} GiB of memory"
    yield Finding(state=OK, subject="machine", text=text)
    if config is not None:
        if _device(config).type == "cuda":
            there, what = torch.cuda.device_count(), "GPUs"
        else:
            there, what = cores, "cores"
        state = OK if asked <= there else PROBLEM if what == "GPUs" else WARNING
        yield Finding(
            state=state,
            subject="processes",
            text=f"{asked} asked for, {there} {what} can be used",
            advice="" if state == OK else f"--nproc {there}",
        )
        if config.optimization.batch % asked:
            yield Finding(
                state=PROBLEM,
                subject="--batch",
                text=f"{config.optimization.batch} is no multiple of {asked} processes",
                advice="change --batch or --nproc",
            )
    compiler = next((path for name in ("c++", "g++", "clang++", "cl") if (path := shutil.which(name))), None)
    if compiler is not None:
        yield Finding(state=OK, subject="--compile", text=f"C++ compiler {compiler}")
    else:
        wanted = config is not None and config.model.compile and _device(config).type == "cpu"
        yield Finding(
            state=PROBLEM if wanted else NOTE,
            subject="--compile",
            text="no C++ compiler: it will not work on the CPU",
            advice="install one, or leave --compile away" if wanted else "",
        )


def _settings(config: TrainConfig | None) -> Iterator[Finding]:
    from leia_train.tracking import choose_tracker

    offline = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name)]
    yield Finding(
        state=NOTE if offline else OK,
        subject="hub",
        text=f"off by {', '.join(offline)}: models must be folders" if offline else "models may be names on the hub",
    )
    asked = "auto" if config is None else config.run.tracker
    try:
        tracker = choose_tracker(asked)
    except LeiaError as error:
        yield Finding(state=PROBLEM, subject="tracker", text=str(error))
    else:
        text = f"{tracker or 'none'} with --tracker {asked}; metrics.jsonl always"
        yield Finding(state=OK, subject="tracker", text=text)
    if config is not None and config.run.eval_tasks:
        there = importlib.util.find_spec("lm_eval") is not None
        yield Finding(
            state=OK if there else PROBLEM,
            subject="--eval-tasks",
            text="lm-eval is installed" if there else "lm-eval is not installed",
            advice="" if there else "pip install 'leia-lm[eval]'",
        )


def _run(config: TrainConfig) -> Iterator[Finding]:
    """Shards, model, and what the run needs of memory and disk."""
    yield from output_findings(config.run.output)
    for folder in config.data.shards:
        yield from checked("--shards", lambda folder=folder: _shards(folder))  # type: ignore[misc]
    yield from checked("--model", lambda: _model(config))


def _shards(folder: str) -> Iterator[Finding]:
    """The manifest, and the sizes of its files: their sums are read when training begins."""
    from leia_beam.manifest import read_manifest

    manifest = read_manifest(folder)
    if manifest.stage != "shards":
        text = f"{folder}: a build's stage {manifest.stage}, not shards"
        yield Finding(state=PROBLEM, subject="--shards", text=text, advice="give the folder OUTPUT/shards")
        return
    files = manifest.files_of("train")
    wrong = [file for file in files if _size(Path(folder, file.path)) != file.size_bytes]
    if wrong:
        yield Finding(
            state=PROBLEM,
            subject="--shards",
            text=f"{folder}: {wrong[0].path} has {_size(Path(folder, wrong[0].path)):,} bytes, its manifest says "
            f"{wrong[0].size_bytes:,} ({len(wrong)} of {len(files)} files)",
            advice="copy the folder again, or run the same leia-beam build",
        )
    else:
        text = f"{folder}: {manifest.rows_of('train'):,} articles in {len(files):,} files"
        yield Finding(state=OK, subject="--shards", text=text)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _model(config: TrainConfig) -> Iterator[Finding]:
    """Whether the model is there and was made with the shards' tokenizer; then memory and disk."""
    where = config.model.model
    if where != TINY_LLAMA and not Path(where).is_dir():
        if where.count("/") != 1 or where.startswith((".", "~", "/")):
            yield Finding(
                state=PROBLEM, subject="--model", text=f"{where}: no such folder", advice="give a folder, or a hub name"
            )
            return
        found = hub_finding(where, "config.json", "--model")
        yield found
        if found.state != OK:
            return
    elif where != TINY_LLAMA:
        lacking = [name for name in ("config.json", "tokenizer.json") if not Path(where, name).is_file()]
        if lacking or not any(Path(where).glob("*.safetensors")):
            missing = ", ".join(lacking) or "weights (*.safetensors)"
            text = f"{where}: has no {missing}"
            yield Finding(state=PROBLEM, subject="--model", text=text, advice="download the whole model again")
            return
    yield from _fits(config)


def _fits(config: TrainConfig) -> Iterator[Finding]:
    from leia_beam.manifest import read_manifest
    from leia_train.markers import add_markers
    from leia_train.model import check_model
    from leia_train.planning import planned_model
    from leia_train.shard_folders import read_build_tokenizer

    folder = Path(config.data.shards[0])
    try:
        build = read_build_tokenizer(folder, read_manifest(folder))
    except LeiaError:
        return  # which was said of the shards
    tokenizer = add_markers(build, config.data.markers, config.data.marker_text)
    if config.model.model != TINY_LLAMA:
        warnings, _ = check_model(config.model.model, build, tokenizer)
        for warning in warnings:
            yield Finding(state=WARNING, subject="--model", text=warning)
    model: Any = planned_model(config, build, tokenizer)
    weights = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    among = "" if trained == weights else f", {trained:,} of them trained"
    text = f"{config.model.model}: {type(model).__name__}, {weights:,} weights{among}"
    yield Finding(state=OK, subject="--model", text=text)
    yield from _memory(config, model, weights)
    to_write = _WEIGHT_BYTES * weights + (_WEIGHT_BYTES + _STATE_BYTES) * trained * (config.run.keep + 1)
    # The whole model that tasks are scored on between is gone before the final one is written, and is no larger.
    scored = ", or the one that tasks are scored on" if config.run.eval_tasks and config.run.eval_tasks_every else ""
    what = f"{config.run.keep} checkpoints, one more while it is written, and the final model{scored}"
    yield disk_finding(config.run.output, to_write, what, "give another --output, or --keep 1")


def _memory(config: TrainConfig, model: Any, weights: int) -> Iterator[Finding]:
    """Of a process on a GPU, or of all of them in this machine's memory."""
    import torch

    from leia_train.memory import memory_bytes

    advice = "lower --micro-batch or --max-length, or give --activation-checkpointing full"
    if _device(config).type == "cpu":
        processes = max(config.run.nproc, 1)
        needed = sum(memory_bytes(config, model, 0).values())
        yield memory_finding(needed * processes, f"{processes} processes of training", advice)
        if weights > _SLOW_ON_CPU_WEIGHTS and config.run.device != "cpu":
            text = f"{weights / 1e9:.1f} billion weights would be trained on the CPU, which takes days"
            yield Finding(state=WARNING, subject="GPU", text=text, advice="train on a machine with a GPU")
        return
    smallest = min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))
    needed = sum(memory_bytes(config, model, smallest).values())
    text = f"about {needed / _GIB:.1f} GiB a process; the smallest GPU has {smallest / _GIB:.0f} GiB"
    is_enough = needed <= smallest
    yield Finding(
        state=OK if is_enough else PROBLEM, subject="GPU memory", text=text, advice="" if is_enough else advice
    )
