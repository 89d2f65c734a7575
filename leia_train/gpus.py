"""From a GPU's name to what it can do: the makers' dense bfloat16 figures without sparsity, and their memory."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from leia_beam.errors import UsageError
from leia_beam.suggestions import nearest


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """A kind of GPU. `memory_gb` is of 10^9 bytes."""

    name: str
    tflops: float
    memory_gb: float

    @property
    def memory_bytes(self) -> int:
        """Bytes on the device."""
        return int(self.memory_gb * 1e9)


GPUS = tuple(
    Gpu(name=name, tflops=tflops, memory_gb=memory_gb)
    for name, tflops, memory_gb in (
        ("A100", 312, 80),
        ("A800", 312, 80),
        ("A40", 150, 48),
        ("A10", 125, 24),
        ("L40S", 362, 48),
        ("L40", 181, 48),
        ("L4", 121, 24),
        ("H100 PCIe", 756, 80),
        ("H100", 989, 80),
        ("H200", 989, 141),
        ("GH200", 989, 96),
        ("H800", 989, 80),
        ("B200", 2250, 180),
        ("RTX 4090", 165, 24),
        ("RTX 3090", 71, 24),
    )
)


def gpu_named(name: str) -> Gpu | None:
    """The kind that a device's name is of: 'NVIDIA H100 80GB HBM3'. None for one that is not in the table."""
    return next((gpu for gpu in GPUS if re.search(rf"\b{gpu.name}\b", name)), None)


def gpu_here(device: torch.device) -> Gpu | None:
    """The kind of a device, with the memory that it has; None for no GPU, and one that is not in the table."""
    found = gpu_named(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    if found is None:
        return None
    size_bytes = torch.cuda.get_device_properties(device).total_memory
    return Gpu(name=found.name, tflops=found.tflops, memory_gb=size_bytes / 1e9)


def parse_gpus(text: str) -> tuple[int | None, Gpu]:
    """How many (None where it is not said), and which, from '8xH100' or 'H100'.

    Raises: UsageError.

    >>> count, gpu = parse_gpus("8xh100")
    >>> count, gpu.name, gpu.memory_gb
    (8, 'H100', 80)
    """
    match = re.fullmatch(r"(?:(\d+)\s*[xX×*]\s*)?(.*)", text.strip())
    assert match is not None  # whatever it is, it is a name
    number, name = match.group(1), match.group(2)
    count = None if number is None else int(number)
    if count == 0:
        raise UsageError(f"--gpus {text}: no GPU at all; give a number such as 8xH100")
    found = next((gpu for gpu in GPUS if _plain(gpu.name) == _plain(name)), None)
    if found is None:
        names = [gpu.name for gpu in GPUS]
        raise UsageError(f"--gpus {text}: {name!r} is none of {', '.join(names)}{nearest(name.upper(), names)}")
    return count, found


def _plain(name: str) -> str:
    return name.casefold().replace(" ", "")
