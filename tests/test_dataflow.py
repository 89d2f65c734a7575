"""Dataflow's own job request, made offline against an emulated bucket, and a worker with the staged packages alone."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from leia_beam.cli import main
from pipelines import packaging
from pipelines.dataflow_template import PARAMETERS
from tests.build_files import kept_files
from tests.conftest import ROOT, Sample, own_host
from tests.object_emulators import BUCKET, Store, gcs_emulator

DEPLOY = Path(__file__).resolve().parents[1] / "deploy" / "dataflow"
IMAGE = "example/leia-beam:0.1.0"
OPTIONS = ("--range-bytes", "8KiB", "--buckets", "3", "--quiet")
BEAM = (
    "--runner=DataflowRunner",
    "--no_auth",
    "--project=demo",
    "--region=europe-west4",
    f"--temp_location=gs://{BUCKET}/temp",
    f"--staging_location=gs://{BUCKET}/staging",
    f"--template_location=gs://{BUCKET}/template/job.json",
    f"--sdk_container_image={IMAGE}",
    "--flexrs_goal=COST_OPTIMIZED",
)


@dataclass(frozen=True)
class Request:
    """What Dataflow would be sent: the job, and what was staged for it by name."""

    job: dict[str, object]
    staged: dict[str, bytes]
    objects: dict[str, bytes]


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    """An empty bucket."""
    with gcs_emulator() as found:
        yield found


def in_bucket(store: Store, sample: Sample) -> list[str]:
    """`leia-beam build …` with dumps that were put into the bucket and output there."""
    command = sample.build_arguments("jawiki", Path("output"))
    for option in ("--pages", "--wikidata"):
        at = command.index(option) + 1
        if f"in/{Path(command[at]).name}" not in store.objects("in/"):
            store.put(f"in/{Path(command[at]).name}", Path(command[at]).read_bytes())
        command[at] = f"gs://{BUCKET}/in/{Path(command[at]).name}"
    command[command.index("--output") + 1] = f"gs://{BUCKET}/out"
    return [*command, *OPTIONS, "--runner", "dataflow"]


@pytest.fixture(scope="module")
def request_(store: Store, sample: Sample) -> Request:
    """The request of the sample's build."""
    before = os.getcwd()
    assert main([*in_bucket(store, sample), "--workers", "3", "--", *BEAM]) == 0
    assert os.getcwd() == before
    objects = store.objects()
    job = json.loads(objects["template/job.json"])
    staged = {key.rpartition("/")[2]: content for key, content in objects.items() if key.startswith("staging/")}
    return Request(job, staged, objects)


def test_the_request_holds_image_packages_and_options(request_: Request) -> None:
    """One pool of a fixed number of workers, one thread a process, the image, one package of ours, FlexRS."""
    environment = request_.job["environment"]
    [pool] = environment["workerPools"]
    assert pool["numWorkers"] == 3 and pool["autoscalingSettings"]["algorithm"].endswith("NONE")
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 3
    assert pool["numThreadsPerWorker"] == 1 and pool["machineType"] == "e2-standard-4"
    assert pool["diskSizeGb"] == 30
    assert [image["containerImage"] for image in pool["sdkHarnessContainerImages"]] == [IMAGE]
    assert all(image["useSingleCorePerContainer"] for image in pool["sdkHarnessContainerImages"])
    assert environment["flexResourceSchedulingGoal"].endswith("COST_OPTIMIZED")
    assert [package["name"] for package in pool["packages"]] == ["workflow.tar.gz"]
    assert request_.job["name"].startswith("leia-jawiki-")
    assert set(request_.staged) == {"workflow.tar.gz", "pipeline.pb"}, "nothing else of this machine is sent"
    steps = request_.staged["pipeline.pb"].decode("latin-1")
    for stage in ("Sitelinks", "Articles", "Titles", "Redirects", "Entities", "Shards"):
        assert f"{stage}/Finish" in steps, f"the stage {stage} is part of the one job"


def test_the_request_holds_no_path_user_or_host_of_the_launcher(request_: Request, sample: Sample) -> None:
    """In the job, the pipeline, and every member of the package."""
    folders = {str(ROOT), str(sample.folder), os.getcwd(), sys.prefix, os.path.expanduser("~")}
    hidden = {folder if folder.count("/") > 1 else f"{folder.rstrip('/')}/" for folder in folders}
    hidden |= {"/tmp/", f"{getpass.getuser()}@", "leia-package-", own_host()}
    contents = {
        "job": json.dumps(request_.job).encode(),
        "pipeline": request_.staged["pipeline.pb"],
    }
    with open_package(request_) as package:
        for member in package:
            assert member.uname in ("", "root") or member.uname != getpass.getuser()
            file = package.extractfile(member)
            if file is not None and not member.name.endswith(".py"):
                contents[member.name] = file.read()
    for name, content in contents.items():
        found = [text for text in hidden if len(text) > 1 and text.encode() in content]
        assert not found, f"{name} holds {found}"


def open_package(request_: Request) -> tarfile.TarFile:
    """The staged package."""
    import io

    return tarfile.open(fileobj=io.BytesIO(request_.staged["workflow.tar.gz"]))


def test_the_package_holds_what_workers_import_and_no_trainer(request_: Request) -> None:
    """leia_beam with its data, pipelines; neither leia_train nor tests nor a requirement."""
    with open_package(request_) as package:
        names = {name.partition("/")[2] for name in package.getnames()}
        [info] = [name for name in package.getnames() if name.endswith("egg-info/PKG-INFO")]
        metadata = package.extractfile(info).read().decode()
    assert {"leia_beam/units.py", "leia_beam/markup/__init__.py", "pipelines/one_job.py"} <= names
    assert any(name.startswith("leia_beam/data/") for name in names)
    assert not [name for name in names if name.startswith(("leia_train", "leia_eval", "tests"))]
    assert "Name: leia-lm" in metadata and "Requires-Dist" not in metadata


def test_secrets_local_paths_and_missing_options_are_refused(
    store: Store, sample: Sample, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Each is one line that says what to do; nothing is sent."""
    command = in_bucket(store, sample)
    local = list(command)
    local[local.index("--output") + 1] = str(tmp_path / "out")
    for arguments, message in (
        ([*command, "--", *BEAM, "--s3_secret_access_key=x"], "--s3_secret_access_key would stand in the job's"),
        ([*command, "--", *BEAM[:-2]], "give --sdk_container_image=… after '--'"),
        ([*command, "--", "--no_auth", "--project=demo"], "give --region=…, --temp_location=…, --sdk_container_image"),
        ([*local, "--", *BEAM], f"{tmp_path}/out is on this machine; put it into a bucket"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and message in error


def test_a_worker_with_the_staged_package_alone_runs_the_staged_pipeline(
    request_: Request, store: Store, sample: Sample, tmp_path: Path
) -> None:
    """An empty virtual environment beside the dependencies; our modules come from the staged package, nowhere else."""
    assert main([*sample.build_arguments("jawiki", tmp_path / "local"), "--workers", "1", *OPTIONS]) == 0
    environment = tmp_path / "worker"
    venv.create(environment, with_pip=False)
    own = environment / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    # The dependencies, as the image has them. A .pth within this folder, such as a checkout's, is not read.
    (own / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    (tmp_path / "workflow.tar.gz").write_bytes(request_.staged["workflow.tar.gz"])
    (tmp_path / "pipeline.pb").write_bytes(request_.staged["pipeline.pb"])
    install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--target",
        str(own),
    ]
    subprocess.run([sys.executable, *install, str(tmp_path / "workflow.tar.gz")], check=True, timeout=900, cwd=tmp_path)
    (tmp_path / "worker.py").write_text(WORKER)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(environment / "bin/python"), str(tmp_path / "worker.py"), str(tmp_path / "pipeline.pb")],
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
        cwd=tmp_path,
        env={**clean, **store.environment},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == str(own / "leia_beam/__init__.py")
    kept = {
        key.removeprefix("out/"): hashlib.sha256(content).hexdigest()
        for key, content in store.objects("out/").items()
        if not key.startswith("out/_run/")
    }
    assert kept == kept_files(tmp_path / "local")


def test_a_flex_template_makes_the_same_job(request_: Request, store: Store, sample: Sample) -> None:
    """deploy/dataflow/launch.py with what Dataflow's launcher gives it: the description lies where it asked for it."""
    command = in_bucket(store, sample)
    for path in Path(sample.tokenizer).iterdir():
        store.put(f"in/tokenizer/{path.name}", path.read_bytes())
    given = {name: command[command.index(f"--{name}") + 1] for name in ("pages", "wikidata", "wiki", "output")}
    given |= {"tokenizer": f"gs://{BUCKET}/in/tokenizer", "range_bytes": "8KiB", "workers": "3"}
    given |= {"runner": "DataflowRunner", "job_name": "from-template"}
    beam_options = [*BEAM[:-3], f"--template_location=gs://{BUCKET}/template/flex.json", *BEAM[-2:]]
    launched = subprocess.run(
        [
            sys.executable,
            str(DEPLOY / "launch.py"),
            *(f"--{name}={value}" for name, value in given.items()),
            *beam_options,
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "PYTHONPATH": str(DEPLOY.parents[1])},
    )
    assert launched.returncode == 0, launched.stderr[-3000:]
    job = json.loads(store.objects("template/flex.json")["template/flex.json"])
    assert job["name"] == "from-template"
    [pool], [expected] = job["environment"]["workerPools"], request_.job["environment"]["workerPools"]
    for name in ("numWorkers", "machineType", "diskSizeGb", "numThreadsPerWorker"):
        assert pool[name] == expected[name]


def test_the_template_s_parameters_are_options_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """What metadata.json lists is what the launcher knows, and each is an option of `leia-beam build`."""
    metadata = json.loads((DEPLOY / "metadata.json").read_text())
    names = {parameter["name"] for parameter in metadata["parameters"]}
    assert names == set(PARAMETERS)
    assert all(set(entry) == {"name", "label", "helpText", "isOptional", "regexes"} for entry in metadata["parameters"])
    assert {entry["name"] for entry in metadata["parameters"] if not entry["isOptional"]} == {
        "pages",
        "wiki",
        "tokenizer",
        "output",
    }
    with pytest.raises(SystemExit):
        main(["build", "--help"])
    text = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in text for name in names)


def test_the_image_has_the_builder_s_dependencies_and_no_torch() -> None:
    """Every package of the image is bound by constraints.txt; the image asks for no trainer, and names no registry."""
    root = DEPLOY.parents[1]
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    code = dockerfile.partition('python -c "')[2].partition('" > requirements.txt')[0]
    listed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root).stdout
    names = {re.split(r"[\[<>=]", line)[0].lower() for line in listed.splitlines()}
    constraints = (root / "constraints.txt").read_text().splitlines()
    bound = {line.partition("==")[0].lower() for line in constraints}
    assert {"apache-beam", "lxml", "tokenizers", "marisa-trie"} <= names <= bound
    assert not names & {"torch", "transformers", "accelerate", "lm-eval"}
    assert "-c constraints.txt -r requirements.txt" in dockerfile
    [beam_version] = [line.partition("==")[2] for line in constraints if line.startswith("apache-beam==")]
    assert f"ARG BEAM_VERSION={beam_version}" in dockerfile
    images = re.findall(r"^FROM (\S+)|--from=(\S+)", dockerfile, re.MULTILINE)
    assert images and not [image for pair in images for image in pair if re.search(r"\.(io|dev|com)/", image)]


WORKER = """
import sys

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

proto = beam_runner_api_pb2.Pipeline()
proto.ParseFromString(open(sys.argv[1], "rb").read())
for environment in proto.components.environments.values():
    environment.urn = "beam:env:embedded_python:v1"
    environment.payload = b""
    del environment.dependencies[:]
FnApiRunner().run_via_runner_api(proto, PipelineOptions(["--no_auth"]))
import leia_beam

print(leia_beam.__file__)
"""


def test_the_package_is_made_from_an_installed_wheel_too(tmp_path: Path) -> None:
    """Where no checkout and no setup.py is: the installed modules are what is packed."""
    wheel_like = tmp_path / "installed"
    packaging.write_source_folder(tmp_path / "source")
    build = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*build, "--target", str(wheel_like), str(tmp_path / "source")], check=True, timeout=900)
    code = "import sys; from pathlib import Path; from pipelines import packaging as p; "
    code += "print(p.__file__); print(p.write_source_folder(Path(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "again")],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(wheel_like)},
    )
    assert done.stdout.splitlines()[0].startswith(str(wheel_like))

    def files(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and "egg-info" not in str(path) and path.parts[len(folder.parts)] != "build"
        }

    assert files(tmp_path / "again") == files(tmp_path / "source") and len(files(tmp_path / "again")) > 60
