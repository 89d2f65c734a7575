"""From a name or a folder to a checkpoint's files and what identifies them; no weight is loaded, no code of its own run."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from leia_beam.errors import DamagedInput, MissingResource, UsageError

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_READ_BYTES = 1 << 20
_SETTINGS: dict[str, tuple[str, ...]] = {
    "generation_config.json": (),
    "special_tokens_map.json": (),
    "tokenizer_config.json": ("bos_token", "eos_token", "pad_token", "unk_token", "add_bos_token", "add_eos_token"),
}
"""Files, and the keys in them that decide answers; none named, all but `_OF_A_SAVE`."""
_OF_A_SAVE = ("transformers_version", "_from_model_config")


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """What was evaluated: hashes of the files that decide the scores, not the folder's place.

    settings_sha256: of what else decides a generated text, the special tokens' names and generation_config.json.
    """

    name: str
    weights_sha256: str
    config_sha256: str
    tokenizer_sha256: str
    settings_sha256: str
    weight_files: tuple[str, ...]
    stored_dtypes: tuple[str, ...]


def find_checkpoint(model: str) -> Path:
    """The folder of `model`, which is one, or the name of a checkpoint on the hub, which is downloaded.

    Raises: UsageError where it is neither, MissingResource where the hub is not reached.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder
    if model.count("/") != 1 or model.startswith((".", "/")) or os.environ.get("HF_HUB_OFFLINE") == "1":
        raise UsageError(f"--model {model} is not a folder; give a local Hugging Face checkpoint, or a name on the hub")
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(model, allow_patterns=["*.json", "*.safetensors"]))
    except (OSError, ValueError) as error:
        raise MissingResource(f"cannot download --model {model} from the hub: {one_line(error)}") from error


def identify_model(folder: Path, untrained_seed: int | None = None) -> ModelIdentity:
    """Hashes of the checkpoint's files; reads every weight file once.

    untrained_seed: the weights are random instead, and only their seed and the configuration identify them.

    Raises: UsageError where the folder is no checkpoint, DamagedInput for a weight file that is missing or cut short.
    """
    if not folder.is_dir():
        raise UsageError(f"--model {folder} is not a folder; give a local Hugging Face checkpoint")
    _refuse_what_is_no_model_yet(folder)
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise UsageError(f"--model {folder} has no {name}; give a Hugging Face checkpoint with its tokenizer")
    files = find_weight_files(folder) if untrained_seed is None else []
    hashes = {path.name: _file_sha256(path) for path in files}
    if untrained_seed is not None:
        hashes = {"untrained": str(untrained_seed)}
    return ModelIdentity(
        name=folder.resolve().name + ("" if untrained_seed is None else f" (untrained, seed {untrained_seed})"),
        weights_sha256=hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest(),
        config_sha256=_file_sha256(folder / "config.json"),
        tokenizer_sha256=_file_sha256(folder / "tokenizer.json"),
        settings_sha256=_settings_sha256(folder),
        weight_files=tuple(path.name for path in files),
        stored_dtypes=tuple(sorted({dtype for path in files for dtype in _stored_dtypes(path)})),
    )


def _refuse_what_is_no_model_yet(folder: Path) -> None:
    """An adapter, weights in parts and a run's own folder, of all of which leia-train makes a model.

    Raises: UsageError with what to give.
    """
    made = f"leia-train export {folder} makes a whole one"
    if (folder / "config.json").is_file():
        if (folder / "distributed").is_dir():
            raise UsageError(f"--model {folder} is a checkpoint to go on from, with its weights in parts; {made}")
        return
    if (folder / "adapter_config.json").is_file():
        beside = folder.resolve().parent
        whole = f"give {beside}, the whole one" if (beside / "config.json").is_file() else made
        raise UsageError(f"--model {folder} is an adapter (LoRA), not a model; {whole}")
    if (folder / "_run.json").is_file():
        final = folder / "checkpoint-final"
        whole = f"give {final}" if final.is_dir() else f"leia-train export {folder} makes one of its newest checkpoint"
        raise UsageError(f"--model {folder} is a training run's folder, not a model; {whole}")


def find_weight_files(folder: Path) -> list[Path]:
    """The files that transformers would load: a single one or all of an index, safetensors first.

    Raises: DamagedInput for an index that is none, or that names a file which is not there; UsageError where there are no
    weights.
    """
    for name in _WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            try:
                names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DamagedInput(f"{index} is no index of weight files ({error})") from error
            missing = [name for name in names if not (folder / name).is_file()]
            if missing:
                raise DamagedInput(f"{index} names {missing[0]}, which is not in the folder; copy the checkpoint again")
            return [folder / name for name in names]
    raise UsageError(f"--model {folder} holds no weights; looked for {' and '.join(_WEIGHTS)}, whole or with an index")


def _settings_sha256(folder: Path) -> str:
    settings = {name: _settings_in(folder / name) for name in _SETTINGS}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _settings_in(path: Path) -> object:
    """The parts of a settings file that decide answers; a file that is not there has none."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return path.read_text(encoding="utf-8", errors="replace")  # refused by what reads it next
    keys = _SETTINGS[path.name]
    return {key: value for key, value in found.items() if key in keys or (not keys and key not in _OF_A_SAVE)}


def refuse_remote_code(folder: Path) -> None:
    """Refuse a checkpoint that brings its own code, with what would be run.

    Raises: UsageError.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # said by what reads it next
    wanted = config.get("auto_map") if isinstance(config, dict) else None
    if not wanted or config.get("model_type") in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return  # transformers has the model itself, and is told never to take the other one
    names = sorted({str(value) for value in wanted.values()} if isinstance(wanted, dict) else [str(wanted)])
    files = sorted(path.name for path in folder.glob("*.py")) or ["none in the folder"]
    raise UsageError(
        f"--model {folder} wants to run its own code ({', '.join(names)}; files: {', '.join(files)}), which this program "
        "never does; give a checkpoint of an architecture that transformers has"
    )


def one_line(error: BaseException) -> str:
    """The first line of what an error says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _stored_dtypes(path: Path) -> Iterator[str]:
    if path.suffix != ".safetensors":
        return
    import safetensors

    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield from {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118, not a mapping
    except safetensors.SafetensorError as error:
        reason = one_line(error)
        raise DamagedInput(f"the weight file {path} is damaged ({reason}); copy the checkpoint again") from error


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
