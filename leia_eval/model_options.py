"""From options to how a checkpoint is scored: where, in which type, by what, in what steps."""

from dataclasses import dataclass
from pathlib import Path

from leia_beam.errors import UsageError

DTYPES = ("auto", "float32", "bfloat16", "float16")
BACKENDS = ("hf", "vllm")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What decides the scores of given prompts. `untrained_seed`: random weights instead of the checkpoint's."""

    model: Path | str
    batch_size: int = 8
    device: str = "cpu"
    dtype: str = "float32"
    backend: str = "hf"
    untrained_seed: int | None = None
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"--batch-size {self.batch_size} must be 1 or more")
        if self.dtype not in DTYPES:
            raise UsageError(f"--dtype {self.dtype} is none of {', '.join(DTYPES)}")
        if self.backend not in BACKENDS:
            raise UsageError(f"--backend {self.backend} is none of {', '.join(BACKENDS)}")
        if self.untrained_seed is not None and (self.untrained_seed < 0 or self.backend != "hf"):
            raise UsageError(f"--untrained {self.untrained_seed} must be 0 or more, and needs --backend hf")
