"""Answers come from fixed batches and a cache that no two models share, whatever interrupts or divides the work."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from eval_fixtures import make_items, save_tiny_model, write_items

from leia_beam.errors import DamagedInput, MissingResource
from leia_eval.answering import Answerer, EncodedRequest, fixed_batches
from leia_eval.cache import AnswerCache
from leia_eval.preparing import PromptOptions
from leia_eval.runner import ModelOptions, run

REPOSITORY = Path(__file__).parents[2]


def requests(n: int) -> list[EncodedRequest]:
    """Requests of several lengths."""
    return [
        EncodedRequest(context_ids=(1,) * (1 + i % 5), continuation_ids=(i + 2,), where=f"item {i}") for i in range(n)
    ]


class FakeModel:
    """Answers with the first id of the continuation, and has memory for `room` requests at once."""

    parameters, computed_dtype = 1, "float32"

    def __init__(self, room: int = 100, scale: float = -1.0):
        self.room, self.scale, self.asked = room, scale, []

    def log_likelihoods(self, pairs):
        self.asked.append(len(pairs))
        if len(pairs) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [self.scale * continuation[0] for _, continuation in pairs]


def answerer(folder: Path, model: FakeModel, name: str = "a", batch_size: int = 8) -> Answerer:
    """An answerer over a cache in `folder`."""
    return Answerer(load=lambda: model, model_key={"weights": name}, cache=AnswerCache(folder), batch_size=batch_size)


def test_batches_do_not_depend_on_the_order_of_requests_and_lose_none():
    """Reversed requests give the same batches; each distinct request is in one."""
    asked = requests(21)
    batches = list(fixed_batches(asked, 4))
    assert batches == list(fixed_batches([*reversed(asked), *asked], 4))
    assert sorted(request.where for batch in batches for request in batch) == sorted(r.where for r in asked)
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 1]


def test_two_models_never_share_an_entry(tmp_path):
    """The same requests in one folder: each model gets its own answers, and neither asks twice."""
    asked = requests(10)
    first, second = FakeModel(), FakeModel(scale=-2.0)
    for _ in range(2):
        for model, name in ((first, "a"), (second, "b")):
            work = answerer(tmp_path, model, name)
            work.answer(asked)
            expected = [{"log_likelihood": model.scale * request.continuation_ids[0]} for request in asked]
            assert work.answers(asked) == expected
    assert first.asked == second.asked == [8, 2]


def test_out_of_memory_halves_what_goes_through_at_once(tmp_path):
    """Room for three: 8 becomes 4, then 2, and all answers are there; room for none is an error with the item."""
    asked = requests(16)
    model = FakeModel(room=3)
    work = answerer(tmp_path / "a", model)
    work.answer(asked)
    assert work.at_once == 2
    assert model.asked == [8, 4] + [2] * 8
    assert len(work.answers(asked)) == 16
    with pytest.raises(MissingResource, match=r"out of memory for item \d+ alone"):
        answerer(tmp_path / "b", FakeModel(room=0)).answer(asked)


def test_a_line_cut_short_is_counted_and_answered_again(tmp_path):
    """The last line of a killed process is no answer."""
    asked = requests(8)
    answerer(tmp_path, FakeModel()).answer(asked)
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-5])
    model = FakeModel()
    work = answerer(tmp_path, model)
    assert work._cache.damaged_lines == 1
    work.answer(asked)
    assert model.asked == [8]
    assert len(work.answers(asked)) == 8


def test_an_answer_that_is_no_number_is_never_stored(tmp_path):
    """NaN names the request, and the cache stays empty."""
    with pytest.raises(DamagedInput, match=r"log-likelihood of item \d is nan"):
        answerer(tmp_path, FakeModel(scale=float("nan"))).answer(requests(4))
    assert list(tmp_path.glob("*.jsonl")) == []


def kept(output: Path) -> dict[str, bytes]:
    """What two runs of the same must share, byte for byte."""
    return {str(p.relative_to(output)): p.read_bytes() for p in [output / "results.json", *output.glob("samples/*")]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Model, data, and an undisturbed run of 300 items with 2 shots."""
    folder = tmp_path_factory.mktemp("whole")
    save_tiny_model(folder / "model", seed=0)
    write_items(folder / "data/jawiki.jsonl", make_items(300))
    run(
        PromptOptions(tasks=("leia_sample_ja",), data_dir=folder / "data", shots=2),
        ModelOptions(model=folder / "model"),
        folder / "out",
    )
    return folder


def command(whole: Path, output: Path) -> list[str]:
    """The same run as a command."""
    options = {"--model": whole / "model", "--data-dir": whole / "data", "--output": output, "--shots": 2}
    flat = [str(part) for option in options.items() for part in option]
    return [sys.executable, "-m", "leia_eval", "run", "--tasks", "leia_sample_ja", *flat]


def environment(**more: str) -> dict[str, str]:
    """One thread, this tree's code."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **more}


KILLED_AFTER_TWO_BATCHES = """
import os, signal, sys
from leia_eval.cache import AnswerCache
from leia_eval.cli import main

add, added = AnswerCache.add, []

def add_and_die(self, answers):
    add(self, answers)
    added.extend([answers] if "log_likelihood" in repr(answers) else [])
    if len(added) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

AnswerCache.add = add_and_die
sys.exit(main(sys.argv[1:]))
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(whole, tmp_path):
    """SIGKILL after some batches are stored; the same command answers the rest only."""
    output = tmp_path / "out"
    killed = [sys.executable, "-c", KILLED_AFTER_TWO_BATCHES, *command(whole, output)[3:]]
    assert subprocess.run(killed, env=environment(), stdout=subprocess.DEVNULL).returncode == -signal.SIGKILL
    (stored,) = output.glob("cache/*.jsonl")
    assert b"log_likelihood" in stored.read_bytes() and not (output / "results.json").exists()
    subprocess.run(command(whole, output), env=environment(), check=True, stdout=subprocess.DEVNULL)
    assert kept(output) == kept(whole / "out")
    assert json.loads((output / "run.json").read_text())["answers_from_cache"] > 0


def test_a_finished_run_whose_line_about_the_model_is_damaged_is_written_again(whole, tmp_path):
    """All answers are there and what is known of the model is not: it is loaded for that alone."""
    output = Path(shutil.copytree(whole / "out", tmp_path / "out"))
    (path,) = output.glob("cache/*.jsonl")
    lines = path.read_bytes().split(b"\n")
    assert sum(b"computed_dtype" in line for line in lines) == 1
    path.write_bytes(b"\n".join(line.replace(b"float32", b"float99") for line in lines))
    prompts = PromptOptions(tasks=("leia_sample_ja",), data_dir=whole / "data", shots=2)
    run(prompts, ModelOptions(model=whole / "model"), output)
    assert kept(output) == kept(whole / "out")
    assert json.loads((output / "run.json").read_text())["damaged_cache_lines"] == 1


def test_two_processes_write_what_one_writes(whole, tmp_path):
    """Under a launcher's environment, in a network of their own: each answers a share, the first writes the same bytes."""
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode != 0:
        pytest.skip("needs a network namespace (unshare -rn)")
    output = tmp_path / "out"
    launch = " ".join(command(whole, output))
    script = f"ip link set lo up; RANK=1 LOCAL_RANK=1 {launch} & RANK=0 LOCAL_RANK=0 {launch} > /dev/null && wait $!"
    more = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511", "LOCAL_WORLD_SIZE": "2"}
    done = subprocess.run(
        ["unshare", "-rn", "bash", "-c", script], env=environment(**more), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((output / "run.json").read_text())["processes"] == 2
    answered = [
        {json.loads(line[9:])[0] for line in path.read_bytes().splitlines() if b"log_likelihood" in line}
        for path in output.glob("cache/*.jsonl")
    ]
    assert len(answered) == 2 and not answered[0] & answered[1], "each must have answered a share of its own"
    assert min(map(len, answered)) > 0.4 * sum(map(len, answered))
    assert kept(output) == kept(whole / "out")
