"""The doctors find planted problems, say what they mean and what to do, and end with 5 where the recipe cannot run here."""

from __future__ import annotations

import bz2
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from leia_beam import machine_checks, package_checks
from leia_beam.cli import main as leia_beam
from leia_beam.dump_lock import LOCK_NAME
from leia_beam.findings import Finding
from leia_train.cli import main as leia_train
from tests.conftest import Sample
from tests.local_mirror import serving, write_mirror

GIB = 1 << 30


@pytest.fixture(autouse=True)
def _enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory and disk of a machine that is large enough for its cores, whatever runs these tests."""
    for module in ("leia_beam.machine_checks", "leia_train.doctor"):
        monkeypatch.setattr(f"{module}.total_memory_bytes", lambda: 1024 * GIB)
    monkeypatch.setattr(machine_checks, "free_bytes", lambda folder: 1024 * GIB)


def _findings(
    run: Callable[[list[str]], int], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> tuple[int, dict[str, tuple[str, str]]]:
    """Exit code, and by subject the state and the text of what was found."""
    capsys.readouterr()
    code = run(["doctor", *arguments])
    lines = capsys.readouterr().out.splitlines()
    assert lines, "nothing was said"
    found = {}
    for line in lines[:-1]:
        state, _, rest = line.partition(" ")
        subject, _, text = rest.strip().partition(": ")
        found[subject] = (state, text)
    return code, found


# ------------------------------------------------------------------------------------------------- the corpus


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that fetch filled."""
    folder = tmp_path_factory.mktemp("doctor")
    os.environ.setdefault("NO_PROXY", "127.0.0.1")
    with serving(write_mirror(folder / "mirror")) as server:
        fetch = ["fetch", "--wiki", "ja", "--output", str(folder / "dumps"), "--mirror", server.address, "--quiet"]
        assert leia_beam(fetch) == 0
    return folder / "dumps"


@pytest.fixture
def recipe(sample: Sample, dumps: Path, tmp_path: Path) -> Path:
    """A recipe that can run here, over a copy of the dumps."""
    shutil.copytree(dumps, tmp_path / "work" / "dumps")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"folder: {tmp_path}/work\ncorpus: {{wiki: ja, tokenizer: {sample.tokenizer}, workers: 1}}\n"
        "training: {model: tiny-llama, device: cpu, batch: 8}\n"
    )
    return path


def _of_build(recipe: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, tuple[str, str]]]:
    return _findings(leia_beam, ["-c", str(recipe), *more], capsys)


def test_a_recipe_that_can_run_has_no_problem(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0; the sums of small dumps were read; nothing was made."""
    code, found = _of_build(recipe, capsys)
    assert code == 0 and {state for state, _ in found.values()} <= {"ok", "note"}
    assert "SHA256 as listed" in found["pages"][1] and "SHA256 as listed" in found["wikidata"][1]
    assert found["wiki"] == ("ok", "jawiki") and found["runner"][0] == "ok"
    assert not (recipe.parent / "work" / "corpus").exists()


def test_without_a_recipe_the_machine_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    """No wiki, no dumps, no output: packages, cores, memory."""
    code, found = _findings(leia_beam, [], capsys)
    assert code == 0 and {"Python", "pyarrow", "cores", "memory"} <= set(found)
    assert not {"pages", "dumps", "tokenizer", "disk"} & set(found)


def test_json_holds_every_finding(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For other programs."""
    assert leia_beam(["doctor", "-c", str(recipe), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(set(entry) == {"state", "subject", "text", "advice"} for entry in found) and len(found) > 10


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Versions that packages are said to have; None for one that is not installed."""
    said: dict[str, str | None] = {}
    real = metadata.version

    def version(name: str) -> str:
        if name in said:
            found = said[name]
            if found is None:
                raise metadata.PackageNotFoundError(name)
            return found
        return real(name)

    monkeypatch.setattr(package_checks.metadata, "version", version)
    return said


def test_a_wrong_version_and_a_missing_package(
    recipe: Path, capsys: pytest.CaptureFixture[str], versions: dict[str, str | None]
) -> None:
    """With the range that is needed, and the command that installs it."""
    versions |= {"pyarrow": "12.0.0", "lxml": None}
    code, found = _of_build(recipe, capsys)
    assert code == 5
    assert found["pyarrow"] == ("problem", "12.0.0, but <26,>=24 is needed; pip install 'pyarrow<26,>=24'")
    assert found["lxml"] == ("problem", "not installed; pip install 'leia-lm'")


def test_a_package_that_cannot_be_imported_ends_no_doctor(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can be looked at is looked at."""
    for name in ("leia_beam.doctor", "pipelines.doctor"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "leia_beam.doctor", None)
    code, found = _of_build(recipe, capsys)
    assert code == 5 and "so the rest was not looked at" in found["leia_beam.doctor"][1] and "pyarrow" in found


def test_too_little_disk_for_the_dumps_that_were_chosen(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the sizes of the dumps: a problem below half of what is needed, else a warning."""
    for free, state, exit_code in ((10_000, "problem", 5), (60_000, "warning", 0)):
        monkeypatch.setattr(machine_checks, "free_bytes", lambda folder, free=free: free)
        code, found = _of_build(recipe, capsys)
        assert (code, found["disk"][0]) == (exit_code, state), found["disk"]
        assert "free some space, or give another --output" in found["disk"][1]


def test_too_little_memory(recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the number of processes and of titles."""
    monkeypatch.setattr(machine_checks, "total_memory_bytes", lambda: 1 * GIB)
    code, found = _of_build(recipe, capsys, "--workers", "2")
    assert code == 5 and found["memory"][0] == "problem" and "give fewer --workers" in found["memory"][1]


def test_more_workers_than_cores(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would share them; a container's share of the machine counts."""
    monkeypatch.setattr("leia_beam.doctor.usable_cores", lambda: 3)
    code, found = _of_build(recipe, capsys, "--workers", "4")
    assert code == 0 and found["cores"][0] == "warning"
    assert (
        "4 worker processes were asked for, 3 cores can be used" in found["cores"][1]
        and "--workers 3" in found["cores"][1]
    )


def test_dumps_that_are_missing_cut_or_changed(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flipped bit has the size, not the sum; a cut file not even that; one that is gone is fetched again."""
    dumps = recipe.parent / "work" / "dumps"
    pages = next(dumps.glob("jawiki*"))
    content = bytearray(pages.read_bytes())
    content[1000] ^= 1
    pages.write_bytes(content)
    code, found = _of_build(recipe, capsys)
    assert code == 5 and "SHA256 is" in found["pages"][1] and "download it again" in found["pages"][1]
    pages.write_bytes(content[:-1])
    code, found = _of_build(recipe, capsys)
    assert code == 5 and "39,144 bytes, but 39,145 when it was fetched" in found["pages"][1]
    pages.unlink()
    code, found = _of_build(recipe, capsys)
    assert code == 5 and "is not whole (39.1 kB); run the same leia-beam fetch again" in found["pages"][1]
    (dumps / LOCK_NAME).unlink()
    code, found = _of_build(recipe, capsys)
    assert code == 5 and "no dumps.lock.json there; run leia-beam fetch" in found["--dumps"][1]
    code, found = _findings(leia_beam, ["--wiki", "ja"], capsys)
    assert code == 5 and "neither --pages nor a folder that fetch filled" in found["dumps"][1]
    code, found = _of_build(recipe, capsys, "--pages", "nowhere-*.bz2", "--wikidata", "nothing.gz")
    assert code == 5 and found["--pages"][0] == found["--wikidata"][0] == "problem"


def test_an_html_page_saved_as_a_dump(recipe: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """And dumps of different years."""
    page = tmp_path / "jawiki-20240101-pages-articles.xml.bz2"
    page.write_bytes(b"<!DOCTYPE html>")
    code, found = _of_build(recipe, capsys, "--pages", str(page))
    assert code == 5 and "looks like an HTML page" in found["--pages"][1]
    old = tmp_path / "jawiki-20230101-pages-articles-multistream.xml.bz2"
    shutil.copy(next((recipe.parent / "work" / "dumps").glob("jawiki*")), old)
    code, found = _of_build(recipe, capsys, "--pages", str(old))
    assert code == 0 and found["dates"][0] == "warning" and "days apart" in found["dates"][1]
    assert _of_build(recipe, capsys, "--pages", str(old), "--strict-dates")[0] == 5


def test_a_dump_of_another_wiki_than_the_recipes(
    recipe: Path, sample: Sample, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """By its header, whatever its file is called; by its name where the header does not say it."""
    spanish = tmp_path / "jawiki-20260101-pages-articles-multistream.xml.bz2"
    shutil.copy(sample.pages("eswiki"), spanish)
    code, found = _of_build(recipe, capsys, "--pages", str(spanish))
    assert code == 5 and found["--pages"][0] == "problem"
    assert "this is a dump of eswiki, not of jawiki; give --wiki eswiki" in found["--pages"][1]
    assert _of_build(recipe, capsys, "--pages", str(spanish), "--ignore-siteinfo")[0] == 0
    silent = tmp_path / "eswiki-20260101-pages-articles.xml.bz2"
    content = bz2.decompress(spanish.read_bytes())
    silent.write_bytes(bz2.compress(re.sub(rb"<siteinfo>.*?</siteinfo>", b"", content, flags=re.DOTALL)))
    code, found = _of_build(recipe, capsys, "--pages", str(silent))
    assert code == 5 and "by its name a dump of eswiki, not of jawiki" in found["--pages"][1]


def test_a_tokenizer_that_is_not_there(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is not there, a file that is none, a hub name without a hub."""
    code, found = _of_build(recipe, capsys, "--tokenizer", "./nowhere/at/all")
    assert code == 5 and "no such file or folder with a tokenizer.json" in found["tokenizer"][1]
    code, found = _of_build(recipe, capsys, "--tokenizer", str(recipe))
    assert code == 5 and "not a tokenizer.json" in found["tokenizer"][1]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, found = _of_build(recipe, capsys, "--tokenizer", "no-one/such-model")
    assert code == 5 and "the hub is off" in found["tokenizer"][1]


def test_an_output_that_cannot_be_written(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in its place, and a place where nobody may write."""
    code, found = _of_build(recipe, capsys, "--output", str(recipe))
    assert code == 5 and found["--output"] == ("problem", f"{recipe} is a file; give a folder")
    code, found = _of_build(recipe, capsys, "--output", "/proc/leia/build")
    assert code == 5 and "/proc cannot be written to" in found["--output"][1]


def test_flink_without_java_and_without_its_job_server(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No Java, an old one, a jar that is not there, none at all, a cluster that does not answer."""
    flink = ("--runner", "flink")
    monkeypatch.setattr("pipelines.doctor.JavaJarServer.JAR_CACHE", str(tmp_path / "no-jars"))
    monkeypatch.delenv("LEIA_FLINK_JOB_SERVER_JAR", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    code, found = _of_build(recipe, capsys, *flink)
    assert code == 5 and found["Java"][0] == "problem" and "install Java 17" in found["Java"][1]
    assert found["job server"][0] == "warning" and "give --flink-job-server-jar" in found["job server"][1]
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_402\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    code, found = _of_build(recipe, capsys, *flink)
    assert code == 5 and "is of version 8, 11 or newer is needed" in found["Java"][1]
    code, found = _of_build(recipe, capsys, *flink, "--flink-job-server-jar", "nowhere.jar")
    assert code == 5 and "nowhere.jar: no such file" in found["job server"][1]
    code, found = _of_build(recipe, capsys, *flink, "--flink-master", "127.0.0.1:9")
    assert code == 5 and "127.0.0.1:9" in found["Flink"][1]


def test_an_object_store_without_its_client(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra that has it is named."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "boto3" else real(name, *more))
    code, found = _of_build(recipe, capsys, "--output", "s3://bucket/build")
    assert code == 5 and found["s3://"][1] == "s3://bucket/build: boto3 is not installed; pip install 'leia-lm[aws]'"


# ----------------------------------------------------------------------------------------------- the training


@pytest.fixture(scope="module")
def shards(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's shards."""
    output = tmp_path_factory.mktemp("doctors-build")
    assert leia_beam([*sample.build_arguments("jawiki", output), "--quiet"]) == 0
    return output / "shards"


@pytest.fixture
def training(shards: Path, tmp_path: Path) -> Iterator[list[str]]:
    """Options of a run that can be trained here."""
    yield [
        *("--shards", str(shards), "--model", "tiny-llama", "--output", str(tmp_path / "run")),
        *("--device", "cpu", "--batch", "8"),
    ]


def _of_training(
    arguments: list[str], capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[int, dict[str, tuple[str, str]]]:
    return _findings(leia_train, [*arguments, *more], capsys)


def test_a_run_that_can_be_trained_has_no_problem(
    training: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Exit 0, with memory and disk by the model's size; nothing was made."""
    code, found = _of_training(training, capsys)
    assert code == 0 and "problem" not in {state for state, _ in found.values()}
    assert "articles in" in found["--shards"][1] and "weights" in found["--model"][1]
    assert {"memory", "disk", "processes", "attention"} <= set(found)
    assert not (tmp_path / "run").exists()


def test_the_trainers_doctor_alone_looks_at_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a run; a part of one is refused."""
    code, found = _findings(leia_train, [], capsys)
    assert code == 0 and {"torch", "attention in bfloat16", "machine", "tracker"} <= set(found)
    assert leia_train(["doctor", "--model", "x"]) == 2
    assert "--model: give --shards, --output too" in capsys.readouterr().err


def test_a_missing_package_of_the_trainer(
    training: list[str], capsys: pytest.CaptureFixture[str], versions: dict[str, str | None]
) -> None:
    """Its extra is named; without torch the rest is left, and said to be."""
    versions |= {"safetensors": None}
    code, found = _of_training(training, capsys)
    assert code == 5 and found["safetensors"] == ("problem", "not installed; pip install 'leia-lm[train]'")
    versions |= {"torch": "2.4.0"}
    code, found = _of_training(training, capsys)
    assert code == 5 and found["torch"][1].startswith("2.4.0, but >=2.10 is needed") and "the rest" in found


def test_kernels_and_types_that_need_a_gpu(training: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """flash on a CPU cannot run; bfloat16 can, slowly, and that is said unless the CPU was meant."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    code, found = _of_training(training, capsys, "--attention", "flash", "--dtype", "bfloat16")
    assert code == 5 and "--attention flash: it needs CUDA" in found["attention"][1]
    code, found = _of_training(training, capsys, "--dtype", "bfloat16", "--device", "auto")
    assert code == 0 and found["GPU"][0] == "warning" and "--device cpu says that this is meant" in found["GPU"][1]
    code, found = _of_training(training, capsys, "--dtype", "bfloat16")
    assert found["GPU"][0] == "note"


class _OldGpu:
    name, total_memory, major, minor = "Tesla T4", 50_000_000, 7, 5


def test_a_gpu_that_is_old_small_and_alone(
    training: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No bfloat16, too little memory, fewer GPUs than processes; each by itself, and --device cpu leaves it alone."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: _OldGpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *index: (7, 5))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    code, found = _of_training(training, capsys, "--device", "auto", "--nproc", "2", "--dtype", "bfloat16")
    assert code == 5
    assert found["GPU 0"][0] == "warning" and "Tesla T4" in found["GPU 0"][1] and "bfloat16 no" in found["GPU 0"][1]
    assert found["processes"] == ("problem", "2 asked for, 1 GPUs can be used; --nproc 1")
    assert found["GPU memory"][0] == "problem" and "the smallest GPU has 0 GiB" in found["GPU memory"][1]
    code, found = _of_training(training, capsys, "--device", "auto", "--attention", "varlen", "--dtype", "bfloat16")
    assert code == 5 and "it needs compute capability 8.0" in found["attention"][1]
    code, found = _of_training(training, capsys)
    assert code == 0 and "GPU memory" not in found


def test_more_processes_than_cores_and_a_batch_that_they_cannot_share(
    training: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for and got."""
    monkeypatch.setattr("leia_train.doctor.usable_cores", lambda: 2)
    code, found = _of_training(training, capsys, "--nproc", "3")
    assert code == 5 and found["processes"] == ("warning", "3 asked for, 2 cores can be used; --nproc 2")
    assert found["--batch"][1].startswith("8 is no multiple of 3 processes")
    assert _of_training(training, capsys, "--nproc", "4")[0] == 0


def test_memory_and_disk_of_a_model_that_is_too_large(
    training: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its number of weights, which are not there to be read."""
    monkeypatch.setattr(machine_checks, "total_memory_bytes", lambda: 1_000_000)
    code, found = _of_training(training, capsys)
    assert code == 5 and found["memory"][0] == "problem" and "lower --micro-batch" in found["memory"][1]
    monkeypatch.undo()
    monkeypatch.setattr(machine_checks, "free_bytes", lambda folder: 1000)
    code, found = _of_training(training, capsys)
    assert code == 5 and found["disk"][0] == "problem" and "checkpoints" in found["disk"][1]


def test_a_model_or_shards_that_are_not_as_they_should_be(
    training: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, shards: Path
) -> None:
    """No folder, no tokenizer, no weights, another tokenizer; shards that are not finished or were cut."""
    code, found = _of_training(training, capsys, "--model", "./nowhere")
    assert code == 5 and "no such folder" in found["--model"][1]
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')
    code, found = _of_training(training, capsys, "--model", str(model))
    assert code == 5 and "has no tokenizer.json; download the whole model again" in found["--model"][1]
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    Tokenizer(BPE(vocab={"a": 0, "b": 1}, merges=[])).save(str(model / "tokenizer.json"))
    code, found = _of_training(training, capsys, "--model", str(model))
    assert code == 5 and "has no weights (*.safetensors)" in found["--model"][1]
    (model / "model.safetensors").write_bytes(b"")
    code, found = _of_training(training, capsys, "--model", str(model))
    assert code == 5 and "is not the one that made the shards" in found["--model"][1]
    copy = tmp_path / "shards"
    shutil.copytree(shards, copy)
    file = next(copy.rglob("*.parquet"))
    os.truncate(file, 100)
    code, found = _of_training(training, capsys, "--shards", str(copy))
    assert code == 5 and "has 100 bytes, its manifest says" in found["--shards"][1]
    (copy / "_manifest.json").unlink()
    code, found = _of_training(training, capsys, "--shards", str(copy))
    assert code == 5 and found["--shards"][0] == "problem"


def test_a_tracker_and_tasks_whose_packages_are_missing(
    training: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked for beside the training itself."""
    real = importlib.util.find_spec
    missing = ("wandb", "lm_eval")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name in missing else real(name, *more))
    code, found = _of_training(training, capsys, "--tracker", "wandb")
    assert code == 5 and "wandb is not installed" in found["tracker"][1]
    code, found = _of_training(training, capsys, "--eval-tasks", "leia_jcola")
    assert code == 5 and "lm-eval is not installed" in found["--eval-tasks"][1]


def test_a_doctor_costs_nothing_until_it_is_asked() -> None:
    """Its modules import nothing heavy."""
    code = (
        "import sys, leia_beam.doctor_command, leia_beam.findings, leia_beam.package_checks, leia_beam.machine_checks,"
        " leia_train.doctor\n"
        "heavy = {'torch', 'transformers', 'apache_beam', 'tokenizers', 'numpy', 'requests', 'packaging'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_finding_is_of_a_known_state() -> None:
    """A misspelt one would be no problem to anyone."""
    with pytest.raises(ValueError, match="'fine' is none of ok, note, warning, problem"):
        Finding(state="fine", subject="x", text="y")
    assert Finding(state="ok", subject="a", text="b\x1b[2J").line() == "ok       a: b\\x1b[2J"
