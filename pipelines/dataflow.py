"""From a build's stages to one job on Google Cloud Dataflow.

All is given from the start, since a few thousand descriptors tell an autoscaler nothing: the number of workers, one
process a vCPU with one thread, memory for one unit each. Workers get the packages by `--setup_file` (packaging) and the
dependencies by their image. What the request holds is tested offline; Dataflow's answer cannot be.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import DebugOptions, GoogleCloudOptions, PipelineOptions, WorkerOptions

from leia_beam.commits import RECORDS_FOLDER
from leia_beam.errors import LeiaError, MissingResource, UsageError
from leia_beam.finish import finish_stage, read_finished
from leia_beam.planning import WorkerNeeds, needs_of
from leia_beam.plans import claim_folder, read_plan
from leia_beam.sources import is_remote
from leia_beam.storage import Storage
from leia_beam.units import AnyStage, Unit
from pipelines.engine import Graph
from pipelines.late_stages import EntitySteps, ShardsStep
from pipelines.one_job import JobRules, build_graph
from pipelines.packaging import write_source_folder

DATAFLOW = "dataflow"
STAGE_FOLDERS = ("sitelinks", "langlinks", "articles", "entities/_titles", "entities/_redirects", "entities", "shards")
RANGE_BYTES = 48 << 20
TELL_EVERY_S = 30.0
_SECRETS = ("s3_secret_access_key", "s3_access_key_id", "s3_session_token", "azure_connection_string")
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A whole build as one job."""

    output: str
    first: Sequence[AnyStage]
    entities: EntitySteps
    shards: ShardsStep
    rules: JobRules
    storage: Storage
    needs: WorkerNeeds


def run_dataflow(job: Job, workers: int | None, beam_options: Sequence[str], say: Say, wait: bool = True) -> None:
    """Submit the job and, unless told not to, wait for its end.

    Raises: UsageError before anything is sent; the error of a unit; MissingResource if the job fails otherwise.
    """
    paths = [job.output, *paths_of(job.first), job.entities.sitelinks_folder]
    options = job_options(paths, job.entities.wiki_code, job.needs, workers, beam_options)
    for stage in job.first:
        claim_folder(stage.storage, stage.folder, stage.plan, job.rules.overwrite)
    with _packaged(), _one_line():
        pipeline = beam.Pipeline(runner="DataflowRunner", options=options)
        build_graph(pipeline, job.first, job.entities, job.shards, job.rules)
        result = pipeline.run()
    google = options.view_as(GoogleCloudOptions)
    if google.template_location:
        say(f"the job's description is at {google.template_location}")
        return
    say(f"job {google.job_name} of project {google.project} in {google.region} was submitted")
    if not wait:
        return
    with _telling(job, say), _one_line():
        state = result.wait_until_finish()
    check_finished(job, str(state))


@contextlib.contextmanager
def _telling(job: Job, say: Say) -> Iterator[None]:
    """While a job runs, say now and then how far it is."""
    stop = threading.Event()

    def tell() -> None:
        while not stop.wait(TELL_EVERY_S):
            say(job_line(job))

    thread = threading.Thread(target=tell, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def job_line(job: Job) -> str:
    """How far a job is: of each stage that has begun the units that have a record, or that it is finished."""
    parts = []
    for name in STAGE_FOLDERS:
        folder = f"{job.output}/{name}"
        plan = read_plan(job.storage, folder)
        if plan is None:
            continue
        if read_finished(job.storage, folder, plan.fingerprint) is not None:
            parts.append(f"{plan.stage} finished")
        else:
            done = len(job.storage.list(f"{folder}/{RECORDS_FOLDER}"))
            parts.append(f"{plan.stage} {done:,} of {plan.unit_count:,} units")
    return "; ".join(parts) or "nothing has begun"


def paths_of(stages: Sequence[AnyStage]) -> list[str]:
    """What the stages read."""
    return [dump.path for stage in stages for dump in getattr(stage, "dumps", ())]


class DataflowEngine:
    """See Engine: each stage by itself as a job, for the commands of single stages."""

    def __init__(self, workers: int | None, beam_options: Sequence[str]):
        self._workers = workers
        self._beam_options = beam_options

    def run(self, graph: Graph, stage: AnyStage, units: Sequence[Unit]) -> None:
        paths = [stage.folder, *paths_of([stage])]
        needs = needs_of(len(units), sum(unit.size_bytes for unit in units), RANGE_BYTES)
        options = job_options(paths, stage.plan.stage, needs, self._workers, self._beam_options)
        if options.view_as(GoogleCloudOptions).template_location:
            raise UsageError("--template_location: only `leia-beam build` is one job that can be a template")
        with _packaged(), _one_line():
            pipeline = beam.Pipeline(runner="DataflowRunner", options=options)
            graph(pipeline, stage, units)
            result = pipeline.run()
        with _one_line():
            result.wait_until_finish()

    def close(self) -> None:
        """Nothing is kept."""


def check_finished(job: Job, state: str) -> None:
    """Find every stage finished, or raise what it failed of."""
    for name in STAGE_FOLDERS:
        folder = f"{job.output}/{name}"
        plan = read_plan(job.storage, folder)
        if plan is not None and read_finished(job.storage, folder, plan.fingerprint) is None:
            finish_stage(job.storage, folder, plan, job.rules.max_rejects, job.rules.tolerance)
    if state != "DONE":
        raise MissingResource(f"the job ended as {state}; its log says why, and the same command goes on from there")


def job_options(
    paths: Sequence[str], name: str, needs: WorkerNeeds, workers: int | None, beam_options: Sequence[str]
) -> PipelineOptions:
    """Beam's options of a job: those that were given, and what it needs beside them.

    Raises: UsageError for what is missing, what workers could not see, and secrets, which the description would show.
    """
    given = PipelineOptions(list(beam_options))
    _check(paths, given)
    google, machine = given.view_as(GoogleCloudOptions), given.view_as(WorkerOptions)
    machines = machine.num_workers or workers or needs.workers
    added = {
        "job_name": google.job_name or job_name(name),
        "num_workers": machines,
        "max_num_workers": machines,
        "autoscaling_algorithm": "NONE",
        "machine_type": machine.machine_type or needs.machine_type,
        "disk_size_gb": machine.disk_size_gb or needs.disk_gb,
        "number_of_worker_harness_threads": given.view_as(DebugOptions).number_of_worker_harness_threads or 1,
        "sdk_location": "container",
        "setup_file": "./setup.py",
        # The list of packages that Beam would send along has the paths of this machine's checkouts in it.
        "experiments": "disable_logging_submission_environment",
    }
    # All that workers run stands in modules: the session that Beam would pickle holds the launcher's globals.
    flags = ["--no_save_main_session", *(f"--{name}={value}" for name, value in added.items())]
    return PipelineOptions([*beam_options, *flags])


def job_name(what: str) -> str:
    """A name that says what it is and nothing of who sent it; Beam's own has the user's name in it."""
    return f"leia-{re.sub('[^a-z0-9]+', '-', what.lower())}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def _check(paths: Sequence[str], options: PipelineOptions) -> None:
    given = options.get_all_options()
    missing = [name for name in ("project", "region", "temp_location", "sdk_container_image") if not given.get(name)]
    if missing:
        raise UsageError(
            f"--runner dataflow: give {', '.join(f'--{name}=…' for name in missing)} after '--' "
            "(the image is that of deploy/dataflow/Dockerfile)"
        )
    secrets = [name for name in _SECRETS if given.get(name)]
    if secrets:
        raise UsageError(
            f"--runner dataflow: --{secrets[0]} would stand in the job's description; let the workers' service account "
            "read that store"
        )
    for path in paths:
        if not is_remote(path):
            raise UsageError(
                f"--runner dataflow: {path} is on this machine; put it into a bucket and give its gs:// path"
            )


@contextlib.contextmanager
def _packaged() -> Iterator[None]:
    """Stand beside a setup.py of the packages: the path that Beam is given, and puts into the request, is relative."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="leia-package-") as folder:
        write_source_folder(Path(folder))
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """What Dataflow's client raises as one line."""
    try:
        yield
    except LeiaError:
        raise
    except Exception as error:  # Google's packages raise many kinds
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise MissingResource(f"--runner dataflow: {first_line}; nothing that is finished is lost") from error
