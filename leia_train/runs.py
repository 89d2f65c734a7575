"""From an output folder to the run that it holds: one process at a time, one configuration, a status at the end."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import secrets
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from leia_beam.errors import MissingResource, OtherBuild, UsageError
from leia_train.files import disk_errors, write_json

RUN_NAME = "_run.json"
STATUS_NAME = "_status.json"
LOCK_NAME = ".lock"
LOG_NAME = "train.log"
_OWN_PREFIXES = (
    *(
        "store-",
        ".tmp-",
        LOCK_NAME,
        "_status.json",
        "metrics.jsonl",
        "train.log",
        "train-",
        "bad-rows-",
        "tensorboard",
        "wandb",
        "trackio",
    ),
    "tasks",
)
_SEEN_AFTER_S = 35.0
"""How long a network's disk may keep showing what a folder held before: NFS for 30 s (acdirmin)."""
CODE = "code"
SOURCES = "sources"
"""Where a run's identity has the fingerprint of each source beside the shards."""
_CODE_MODULES = (
    *(
        "asked_parallelism",
        "attention",
        "draws",
        "entity_filter",
        "fully_sharded",
        "in_parts",
        "insertion",
        "lora",
        "lora_files",
        "loss",
        "markers",
        "mix_sources",
        "mixture",
        "model",
        "names",
    ),
    *(
        "opening",
        "optimizer",
        "packing",
        "plan",
        "preparing",
        "reference_stream",
        "replicated",
        "row_turns",
        "schedule",
        "sharded_model",
    ),
    *(
        "sharding",
        "shares",
        "store",
        "store_columns",
        "text_sources",
        "text_store",
        "token_rows",
        "typed_model",
        "updates",
    ),
    *("zero3", "zero3_parts"),
)


def code_fingerprint() -> str:
    """What the rows and the updates are computed with: 16 hexadecimal digits of the sources' SHA-256."""
    sources = b"".join(Path(__file__).with_name(f"{name}.py").read_bytes() for name in _CODE_MODULES)
    return hashlib.sha256(sources).hexdigest()[:16]


@contextmanager
def locked(output: Path) -> Iterator[str]:
    """Hold the output folder, so that no second run writes into it; what the lock's file says of this holder alone.

    Raises: MissingResource where another run holds it.
    """
    with disk_errors(output):
        output.mkdir(parents=True, exist_ok=True)
        stream = (output / LOCK_NAME).open("a+")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MissingResource(
                f"--output {output}: another run is writing to it; wait for it or give another folder"
            ) from error
        holder = f"{platform.node()} {os.getpid()} {secrets.token_hex(8)}\n"
        with disk_errors(output):
            stream.truncate(0)
            stream.write(holder)
            stream.flush()
            os.fsync(stream.fileno())
        yield holder


def sees_lock(output: Path, holder: str) -> bool:
    """Whether the lock's file says here what its holder wrote, which a disk of the network may show a moment later."""
    end = time.monotonic() + _SEEN_AFTER_S
    while True:
        try:
            if (output / LOCK_NAME).read_text() == holder:
                return True
        except OSError:
            pass
        if time.monotonic() > end:
            return False
        time.sleep(0.1)


def check_output(output: Path, identity: Mapping[str, Any], *, accept_other_code: bool = False) -> None:
    """Refuse a folder of something else, or of a run with other options or code, before anything is written to it.

    Raises: OtherBuild with what differs; UsageError for a file.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"--output {output}: is a file; give a folder")
    path = output / RUN_NAME
    if not path.is_file():
        foreign = sorted(entry.name for entry in output.glob("*") if not entry.name.startswith(_OWN_PREFIXES))
        if foreign:
            raise OtherBuild(
                f"--output {output}: holds {foreign[0]!r}, which is no training run's; give an empty folder"
            )
        return
    before = read_run(output)
    names = [name for name in sorted({*before, *identity}) if before.get(name) != identity.get(name)]
    if set(names) <= {SOURCES, CODE} and SOURCES in names:
        raise OtherBuild(f"--output {output}: {_changed_source(before.get(SOURCES, {}), identity.get(SOURCES, {}))}")
    if names == [CODE]:
        if accept_other_code:
            return
        raise OtherBuild(
            f"--output {output}: holds a run that other code began (code {before.get(CODE)} -> {identity.get(CODE)}); "
            "go on with that version, or give --accept-other-code: rows or updates may differ from here on"
        )
    if names:
        changes = ", ".join(f"{name} {before.get(name)!r} -> {identity.get(name)!r}" for name in names)
        raise OtherBuild(
            f"--output {output}: holds a run with other options ({changes}); give its options or another folder"
        )


def _changed_source(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    name = next(name for name in sorted({*before, *now}) if before.get(name) != now.get(name))
    was, found = (str(sums.get(name))[:12] for sums in (before, now))
    return (
        f"holds a run whose source {name!r} had other content ({was}… -> {found}…); give it the files that it began with, "
        "or give another folder"
    )


def read_run(output: Path) -> dict[str, Any]:
    """What the run in a folder is.

    Raises: OtherBuild where its description is not ours.
    """
    path = output / RUN_NAME
    try:
        identity: dict[str, Any] = json.loads(path.read_bytes())["identity"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OtherBuild(f"{path}: not a training run's ({error}); give an empty folder") from error
    return identity


def write_run(output: Path, identity: Mapping[str, Any], versions: Mapping[str, str], **more: Any) -> None:
    """Note what the run is, once all of it was checked."""
    write_json(output / RUN_NAME, {"identity": dict(identity), "versions": dict(versions), **more})


def write_status(output: Path, status: str, step: int, checkpoint: Path, **more: Any) -> None:
    """Say how the run ended: `finished` or `interrupted`."""
    write_json(output / STATUS_NAME, {"status": status, "step": step, "checkpoint": checkpoint.name, **more})


def read_status(output: Path) -> dict[str, Any]:
    """How the last run in a folder ended; empty while there is none."""
    try:
        status: dict[str, Any] = json.loads((output / STATUS_NAME).read_bytes())
    except (OSError, ValueError):
        return {}
    return status


class StopRequest:
    """Whether SIGTERM or SIGINT came: the step in progress is finished first; a second SIGINT ends at once."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Take the two signals for the time of a `with` block (in the main thread, where Python delivers them)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def requested(self) -> bool:
        """Whether this process was told to stop."""
        return self.signal_name is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal_name == "SIGINT":
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name
