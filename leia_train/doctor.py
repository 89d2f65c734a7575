"""From this machine to what training would find on it: packages, devices, attention kernels, memory, disk, network settings.

Nothing is downloaded and nothing is changed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

import torch

from leia_train.attention import candidates, flash_hindrance, varlen_hindrance
from leia_train.tracking import choose_tracker

_NEEDED = ("torch", "transformers", "accelerate", "tokenizers", "safetensors", "pyarrow", "numpy")
_OPTIONAL = ("tensorboard", "flash-attn", "wandb", "trackio", "PyYAML")
_TESTED = {"torch": (2, 10), "transformers": (5, 0), "accelerate": (1, 12)}
_GIB = 1 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at: `ok`, `note` or `missing`."""

    state: str
    subject: str
    text: str

    @property
    def exit_code(self) -> int:
        return 5 if self.state == "missing" else 0

    def line(self) -> str:
        """What a terminal shows."""
        return f"{self.state:<8}{self.subject}: {self.text}"


def examine() -> list[Finding]:
    """Look at everything."""
    return [*_packages(), *_devices(), *_attention(), *_machine(), *_settings()]


def _packages() -> Iterator[Finding]:
    for name in (*_NEEDED, *_OPTIONAL):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            state, text = ("missing", "not installed") if name in _NEEDED else ("note", "not installed (optional)")
        else:
            parts = tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())
            old = name in _TESTED and parts < _TESTED[name]
            state = "missing" if old else "ok"
            text = f"{version}; needs {'.'.join(map(str, _TESTED[name]))} or newer" if old else version
        yield Finding(state=state, subject=name, text=text)


def _devices() -> Iterator[Finding]:
    if not torch.cuda.is_available():
        yield Finding(state="note", subject="GPU", text="none that torch can use; training runs on the CPU")
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Finding(
            state="ok",
            subject=f"GPU {index}",
            text=f"{properties.name}, {properties.total_memory / _GIB:.0f} GiB, compute capability "
            f"{properties.major}.{properties.minor}, bfloat16 {'yes' if torch.cuda.is_bf16_supported() else 'no'}",
        )


def _attention() -> Iterator[Finding]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for dtype in ("bfloat16", "float32"):
        choice = candidates("auto", device, dtype)[0]
        yield Finding(
            state="ok", subject=f"attention in {dtype}", text=f"{choice.name} is tried first ({choice.reason})"
        )
    for name, why in (("flash", flash_hindrance), ("varlen", varlen_hindrance)):
        hindrance = why(device, "bfloat16")
        state = "note" if hindrance else "ok"
        yield Finding(state=state, subject=f"attention {name}", text=hindrance or "can be used")


def _machine() -> Iterator[Finding]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    yield Finding(
        state="ok",
        subject="machine",
        text=f"{os.cpu_count()} cores, {pages / _GIB:.0f} GiB of memory, {shutil.disk_usage('.').free / _GIB:.0f} GiB free "
        f"here, Python {sys.version.split()[0]}",
    )
    compiler = next((path for name in ("c++", "g++", "clang++", "cl") if (path := shutil.which(name))), None)
    yield Finding(
        state="ok" if compiler else "note",
        subject="--compile",
        text=f"C++ compiler {compiler}" if compiler else "no C++ compiler: --compile will not work on the CPU",
    )


def _settings() -> Iterator[Finding]:
    offline = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name)]
    yield Finding(
        state="note" if offline else "ok",
        subject="hub",
        text=f"off by {', '.join(offline)}: models must be folders" if offline else "models may be names on the hub",
    )
    tracker = choose_tracker("auto")
    yield Finding(state="ok", subject="tracker", text=f"{tracker or 'none'} with --tracker auto; metrics.jsonl always")
    distributed = torch.distributed.is_available() and importlib.util.find_spec("accelerate") is not None
    text = "--nproc N starts processes that meet through a file and the loopback interface"
    yield Finding(state="ok" if distributed else "note", subject="processes", text=text if distributed else "one only")
