"""From a stage to its manifest in the output folder: claimed, resumed, run on an engine, finished, and noted.

A stage that is finished is skipped; one that was interrupted does only the units that it lacks; one of another build is
refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from leia_beam.commits import read_record
from leia_beam.console import Console
from leia_beam.coverage import STRICT, Tolerance
from leia_beam.disk_space import check_free, needed_bytes
from leia_beam.dump_lock import with_origin
from leia_beam.dumps import Dump
from leia_beam.errors import LeiaError, MissingResource, UsageError
from leia_beam.finish import MaxRejects, drop_damaged_units, finish_stage, read_finished
from leia_beam.log_file import LOG_NAME, write_log_to
from leia_beam.manifest import MANIFEST_NAME, Manifest
from leia_beam.plans import claim_folder
from leia_beam.sources import is_remote, storage_for
from leia_beam.stage_articles import ArticlesStage
from leia_beam.stage_folders import stage_manifest
from leia_beam.stage_langlinks import LangLinksStage
from leia_beam.stage_shards import ShardsStage
from leia_beam.stage_sitelinks import SitelinksStage
from leia_beam.storage import Storage
from leia_beam.sums import check_sum, stated_sum
from leia_beam.units import AnyStage
from pipelines.engine import Engine, Graph
from pipelines.lock import StageLock
from pipelines.progress import Progress
from pipelines.runners import RunnerOptions, open_engine, run_units


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a build runs; nothing here changes what it writes, but `overwrite`."""

    output: str
    runner: RunnerOptions = field(default_factory=RunnerOptions)
    max_rejects: MaxRejects = field(default_factory=lambda: MaxRejects(share=0.001))
    tolerance: Tolerance = STRICT
    verify_inputs: bool = False
    strict_dates: bool = False
    overwrite: bool = False
    dry_run: bool = False
    console: Console = field(default_factory=lambda: Console("leia-beam"))

    @property
    def beam_options(self) -> Sequence[str]:
        """What goes to Beam as it is."""
        return self.runner.beam_options


@dataclass
class Build:
    """Runs stages into one output folder and notes what they took in `_run/`."""

    options: RunOptions
    began: float = field(default_factory=time.monotonic)
    notes: list[dict[str, object]] = field(default_factory=list)
    _engine: Engine | None = None
    _log_folder: tempfile.TemporaryDirectory[str] | None = None

    def folder(self, stage: str) -> str:
        """The folder of a stage."""
        return f"{self.options.output.rstrip('/')}/{stage}"

    @property
    def storage(self) -> Storage:
        """What the output folder lies on."""
        return self.storage_with(self.options.output)

    def storage_with(self, *folders: str) -> Storage:
        """A storage of the output folder and of other folders."""
        return storage_for([self.options.output, *folders], self.options.beam_options)

    def manifest(self, folder: str) -> Manifest:
        """The manifest of a finished stage."""
        return stage_manifest(self.storage_with(folder), folder)

    def is_stage(self, path: str) -> bool:
        """Whether a path is no file but the folder of a stage."""
        if not is_remote(path):
            return Path(path).is_dir()
        return self.storage_with(path).size(f"{path.rstrip('/')}/{MANIFEST_NAME}") is not None

    @property
    def engine(self) -> Engine:
        """What runs the units; one for all stages."""
        if self._engine is None:
            self._engine = open_engine(self.options.runner, self.options.output, self.say)
        return self._engine

    @contextmanager
    def noted(self) -> Iterator[Build]:
        """This, for a `with` block, at whose end the engine is closed and it is noted what the block took and came to."""
        outcome = "failed"
        try:
            yield self
            outcome = "done"
        except KeyboardInterrupt:
            outcome = "interrupted"
            raise
        finally:
            if self._engine is not None:
                self._engine.close()
            self.write_notes(outcome)

    def prepare_output(self) -> None:
        """Make the output folder and its log file; nothing in a dry run. An object store gets the log at the end."""
        if self.options.dry_run:
            return
        if not is_remote(self.options.output):
            check_output(self.options.output)
            write_log_to(self.options.output)
        elif self._log_folder is None:
            self._log_folder = tempfile.TemporaryDirectory(prefix="leia-log-")
            write_log_to(self._log_folder.name)

    def verified(self, dumps: tuple[Dump, ...]) -> tuple[Dump, ...]:
        """The dumps, with what the lock beside them says; with `--verify-inputs` after their sums were found to be as the
        lists beside them say.

        Raises: UsageError, DamagedInput.
        """
        dumps = tuple(with_origin(dump) for dump in dumps)
        if not self.options.verify_inputs:
            return dumps
        checked = []
        for dump in dumps:
            stated = stated_sum(dump)
            self.say(
                f"{dump.name}: reading {dump.size_bytes / 1e6:,.0f} MB once more for its {stated.partition(':')[0]}"
            )
            check_sum(dump, stated, self.options.console.progress)
            self.options.console.clear()
            checked.append(replace(dump, verified_sum=stated))
        return tuple(checked)

    def run(self, stage: AnyStage, graph: Graph) -> Manifest | None:
        """Bring a stage to its manifest (None in a dry run).

        Raises: OtherBuild; the error of a unit; what `finish_stage` raises.
        """
        plan = stage.plan
        units = f"{plan.unit_count:,} unit" + ("s" if plan.unit_count != 1 else "")
        if self.options.dry_run:
            inputs = ", ".join(str(entry["name"]) for entry in plan.identity["inputs"])
            self.say(f"{plan.stage:<10} would read {inputs} in {units} into {stage.folder}")
            return None
        with StageLock(self.options.output, plan.stage):
            return self._run_claimed(stage, graph, units)

    def _run_claimed(self, stage: AnyStage, graph: Graph, units: str) -> Manifest:
        storage = stage.storage
        plan = claim_folder(storage, stage.folder, stage.plan, self.options.overwrite)
        if self.options.overwrite and not is_remote(stage.folder):
            damaged = drop_damaged_units(storage, stage.folder, plan)
            if damaged:
                self.say(f"{plan.stage:<10} units whose files are not as they were written, made again: {damaged:,}")
        if isinstance(stage, ShardsStage):
            stage.publish_tokenizer()
        finished = read_finished(storage, stage.folder, plan.fingerprint)
        if finished is not None:
            self.say(f"{plan.stage:<10} finished before, skipped")
            return finished
        began = time.monotonic()
        if not is_remote(stage.folder):
            self._check_disk(stage)
        with Progress(stage, stage.units(), self.options.console):
            run_units(self.engine, graph, stage)
        if isinstance(stage, (SitelinksStage, LangLinksStage, ArticlesStage)):
            for dump in stage.dumps:
                dump.check_unchanged()
        manifest = finish_stage(storage, stage.folder, plan, self.options.max_rejects, self.options.tolerance)
        elapsed_s = time.monotonic() - began
        self.notes.append({"stage": plan.stage, "units": plan.unit_count, "elapsed_s": round(elapsed_s, 3)})
        self.say(f"{plan.stage:<10} {_summary(manifest)} in {units}, {elapsed_s:.1f} s")
        for warning in manifest.warnings:
            self.say(f"           warning: {warning}")
        return manifest

    def _check_disk(self, stage: AnyStage) -> None:
        fingerprint = stage.plan.fingerprint
        pending = [u for u in stage.units() if read_record(stage.storage, stage.folder, u.number, fingerprint) is None]
        warning = check_free(stage.folder, needed_bytes(stage.plan.stage, pending))
        if warning is not None:
            self.say(f"{stage.plan.stage:<10} warning: {warning}")

    def say(self, line: str) -> None:
        """A note or a warning, on standard error so that results alone are on standard output."""
        self.options.console.say(line)

    def write_notes(self, outcome: str) -> None:
        """Times, host, runner and workers of this run: never compared, never read by a stage."""
        remote = is_remote(self.options.output)
        if self.options.dry_run or not (remote or Path(self.options.output).is_dir()):
            return
        run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"
        content = {
            "outcome": outcome,
            "elapsed_s": round(time.monotonic() - self.began, 3),
            "host": platform.node(),
            "python": platform.python_version(),
            "runner": self.options.runner.name,
            "workers": self.options.runner.workers,
            "stages": self.notes,
        }
        path = f"{self.options.output.rstrip('/')}/_run/{run_id}"
        # What the run failed of is what a user should read, not that the notes of it cannot be written either.
        with contextlib.nullcontext() if outcome == "done" else contextlib.suppress(LeiaError):
            self.storage.write(f"{path}.json", (json.dumps(content, indent=1) + "\n").encode())
            if self._log_folder is not None and os.path.getsize(f"{self._log_folder.name}/{LOG_NAME}"):
                self.storage.publish(f"{self._log_folder.name}/{LOG_NAME}", f"{path}.log")


def _summary(manifest: Manifest) -> str:
    rows = {table: manifest.rows_of(table) for table in dict.fromkeys(file.table for file in manifest.files)}
    rejected = rows.pop("rejects", 0)
    shown = {
        "train": "articles",
        "sitelinks": "items",
        "langlinks": "links",
        "held-out": "titles held out",
        "titles-rows": "titles",
        "redirect-ends": "titles",
    }
    hidden = ("titles-trie", "lookup-titles", "lookup-rows", "facts")
    parts = [f"{count:,} {shown.get(table, table)}" for table, count in rows.items() if table not in hidden]
    return ", ".join(parts) + (f", {rejected:,} rejected" if rejected else "")


def check_output(output: str) -> None:
    """Make the output folder, or find that it is there.

    Raises: MissingResource if it cannot be written to; UsageError if it is a file.
    """
    path = Path(output)
    if path.exists() and not path.is_dir():
        raise UsageError(f"--output {output}: is a file; give a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MissingResource(f"--output {output}: cannot be made ({error.strerror}); give another folder") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise MissingResource(f"--output {output}: cannot be written to; give another folder")
