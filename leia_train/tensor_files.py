"""From tensors to safetensors files and back, a tensor or some of its rows at a time.

`TensorFiles` reads what lies whole (Hugging Face's form) or in pieces (torch.distributed.checkpoint's, whose files say where
each piece begins); `TensorWriter` writes either form from tensors that come one by one, so that no process ever
holds a whole model. Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from leia_beam.errors import DamagedInput

MAX_FILE_BYTES = 5_000_000_000
INDEX_NAME = "model.safetensors.index.json"
_PIECES, _BEGINS = "DCP_SHARDING_INFO", "saved_offsets"
"""Where torch's distributed form notes the first index of each piece in every dimension."""
_CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Piece:
    """Rows of a tensor, from `first` on, in a file."""

    first: int
    count: int
    file: Any
    path: Path


def model_files(folder: Path) -> list[Path]:
    """The files of a model's weights: those of its index, else the one of the usual name, else all that there are.

    Raises: DamagedInput for an index that is none.
    """
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise DamagedInput(f"{index}: no index of weights ({error}); copy the model again") from error
        return [folder / str(name) for name in names]
    return [single] if single.is_file() else sorted(folder.glob("*.safetensors"))


class TensorFiles:
    """The tensors of some files by name; what is read is a new tensor on the CPU, of the type that the file has."""

    def __init__(self, paths: Iterable[Path]):
        """Raises: DamagedInput for a file that is no safetensors file, and where pieces are missing."""
        self._pieces: dict[str, list[_Piece]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for path in sorted(paths):
            try:
                self._open(path)
            except SafetensorError as error:
                raise DamagedInput(f"{path}: not a whole safetensors file ({error})") from error
        for name, pieces in self._pieces.items():
            pieces.sort(key=lambda piece: piece.first)
            follow = [sum(piece.count for piece in pieces[:index]) for index in range(len(pieces))]
            if [piece.first for piece in pieces] != follow:
                raise DamagedInput(f"{pieces[0].path.parent}: pieces of {name} are missing, or there twice")

    def _open(self, path: Path) -> None:
        file: Any = safe_open(path, framework="pt")
        noted = json.loads((file.metadata() or {}).get(_PIECES) or "{}")
        for name in file.keys():  # noqa: SIM118, not a mapping
            shape = tuple(file.get_slice(name).get_shape())
            first = [*(noted[name][_BEGINS] if name in noted else ()), 0][0]
            count = shape[0] if shape else 1
            if shape and not count:
                continue  # of a process that has no row of it
            self._pieces.setdefault(name, []).append(_Piece(first=first, count=count, file=file, path=path))
            last = max(first + count, *self._shapes.get(name, (0,))[:1])
            self._shapes[name] = (last, *shape[1:]) if shape else ()

    def names(self) -> list[str]:
        """Sorted."""
        return sorted(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the whole tensor."""
        return self._shapes[name]

    def dtype(self, name: str) -> torch.dtype:
        """Of the numbers."""
        piece = self._pieces[name][0]
        shape = self._shapes[name]
        found: Tensor = piece.file.get_slice(name)[0:0] if shape else piece.file.get_tensor(name)
        return found.dtype

    def rows(self, name: str, first: int, last: int) -> Tensor:
        """Rows `first` to `last` (half-open) of a tensor that has a dimension."""
        found = []
        for piece in self._pieces[name]:
            begin, end = max(first - piece.first, 0), min(last - piece.first, piece.count)
            if begin < end:
                found.append(piece.file.get_slice(name)[begin:end])
        if not found:
            return self._pieces[name][0].file.get_slice(name)[0:0]  # type: ignore[no-any-return]
        return torch.cat(found)

    def whole(self, name: str) -> Tensor:
        """All of a tensor."""
        shape = self._shapes[name]
        if not shape:
            return self._pieces[name][0].file.get_tensor(name).clone()  # type: ignore[no-any-return]
        return self.rows(name, 0, shape[0])


class TensorWriter:
    """Files of a model in Hugging Face's form, of at most so many bytes each, with an index where there are several.

    Tensors are put in the order of `order`; only what is put is in memory.
    """

    def __init__(
        self,
        folder: Path,
        kinds: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
        max_bytes: int = MAX_FILE_BYTES,
        process: int | None = None,
        begins: Mapping[str, tuple[int, ...]] | None = None,
    ):
        """With `process`, what it has of each tensor, as torch's distributed form has it; `begins`: the first index of each
        piece in every dimension."""
        self._folder, self._kinds, self._begins, self._process = folder, dict(kinds), begins or {}, process
        # Numbers of the same width beside each other, so that each tensor begins at a multiple of its own.
        self.order = sorted(kinds, key=lambda name: -kinds[name][0].itemsize)
        groups: list[list[str]] = []
        room = 0
        for name in self.order:
            room -= self._size(name)
            if room < 0 or not groups:
                groups.append([])
                room = max_bytes - self._size(name)
            groups[-1].append(name)
        self._groups = {self._file_name(number, len(groups)): group for number, group in enumerate(groups, start=1)}
        self._place = {name: file for file, group in self._groups.items() for name in group}
        self._put: list[str] = []
        self._stream: IO[bytes] | None = None
        self._stack = ExitStack()

    def _file_name(self, number: int, of: int) -> str:
        name = f"model-{number:05d}-of-{of:05d}.safetensors"
        if self._process is not None:
            return f"shard-{self._process + 1:05d}-{name}"
        return "model.safetensors" if of == 1 else name

    def _size(self, name: str) -> int:
        dtype, shape = self._kinds[name]
        return dtype.itemsize * torch.Size(shape).numel()

    def put(self, name: str, tensor: Tensor) -> None:
        """Write the next tensor.

        Raises: ValueError for one that is not due, or of another type or shape than was said.
        """
        if name != self.order[len(self._put)]:
            raise ValueError(f"{name} was put where {self.order[len(self._put)]} was due")
        file = self._place[name]
        if name == self._groups[file][0]:
            self._begin(file)
        dtype, shape = self._kinds[name]
        if tensor.dtype != dtype or tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: {tensor.dtype} {tuple(tensor.shape)} in place of {dtype} {shape}")
        assert self._stream is not None
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        self._stream.write(content.numpy().data)
        self._put.append(name)

    def _begin(self, file: str) -> None:
        self._stack.close()
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        if self._process is not None:
            pieces = {name: {_BEGINS: self._begins[name]} for name in self._groups[file]}
            header["__metadata__"] |= {_PIECES: json.dumps(pieces), "DCP_VERSION": "1.0"}
        begin = 0
        for name in self._groups[file]:
            dtype, shape = self._kinds[name]
            end = begin + self._size(name)
            header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
            begin = end
        content = json.dumps(header).encode()
        content += b" " * (-len(content) % 8)
        self._stream = self._stack.enter_context((self._folder / file).open("wb"))
        self._stream.write(len(content).to_bytes(8, "little") + content)

    def close(self) -> None:
        """Finish the last file, and write the index.

        Raises: ValueError where tensors were not put.
        """
        self._stack.close()
        if self._put != self.order:
            raise ValueError(f"{len(self.order) - len(self._put)} tensors were not put")
        if len(self._groups) > 1 and self._process is None:
            metadata = {
                "total_parameters": sum(torch.Size(shape).numel() for _, shape in self._kinds.values()),
                "total_size": sum(map(self._size, self.order)),
            }
            content = {"metadata": metadata, "weight_map": dict(sorted(self._place.items()))}
            (self._folder / INDEX_NAME).write_text(json.dumps(content, indent=2) + "\n")

    def abandon(self) -> None:
        """Close the file that is open, whatever is missing."""
        self._stack.close()
