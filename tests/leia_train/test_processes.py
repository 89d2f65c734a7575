"""Several processes have the rows of one, its losses and its weights; they stop together and open no port to others."""

import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from leia_beam.errors import LeiaError, MissingResource, UsageError
from leia_beam.termination import PARENT_VARIABLE
from leia_train import launcher, processes, updates
from leia_train.config import DataConfig, ModelConfig, OptimizationConfig, RunConfig, TrainConfig
from leia_train.launcher import exit_code, is_launched, signalled
from leia_train.metrics import read_metrics
from leia_train.packing import PackedRows
from leia_train.shares import owners_of
from tests.leia_train.interrupting import held

ROOT = str(Path(__file__).resolve().parents[2])
LIMIT_S = 900
"""Of a wait that ends by itself but for a fault, on a loaded machine too."""
FLAGS = ("--batch", 4, "--micro-batch", 2, "--steps", 4)
LESS_KEPT = ("--activation-checkpointing", "selective", "--activation-offload")
"""What of activations is kept, which changes nothing."""


def environment():
    """Ours, with one thread a process, so that sums are in one order."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": ROOT, "HF_HUB_OFFLINE": "1"}


def run(arguments, *launcher, code=0, namespace=False):
    """Run a command by a launcher; its output."""
    command = [*(launcher or (sys.executable, "-m", "leia_train")), *arguments]
    if namespace:
        command = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == code, done.stderr[-3000:]
    return done


def needs_namespace():
    """Skip where a network of its own cannot be had."""
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode != 0:
        pytest.skip(
            "no network name space may be made here (`unshare -rn true` fails): ports must not be seen from outside"
        )


@pytest.fixture(scope="module")
def alone(tmp_path_factory, request):
    """The run of one process."""
    made = {}

    def get(arguments):
        if not made:
            made[""] = tmp_path_factory.mktemp("alone") / "run"
            run(arguments(*FLAGS, output=made[""]))
        return made[""]

    return get


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The run of two processes started by --nproc, and what it printed."""
    made = {}

    def get(arguments):
        if not made:
            output = tmp_path_factory.mktemp("two") / "run"
            made[output] = run(arguments(*FLAGS, *LESS_KEPT, "--nproc", 2, output=output)).stdout
        return next(iter(made.items()))

    return get


def same_training(one, other):
    """Losses, norms and weights within 1e-6, and exactly equal counts, which are those of the rows."""
    first, second = (read_metrics(folder) for folder in (one, other))
    assert len(first) == len(second) == 5
    for old, new in zip(first[:4], second[:4]):
        for key in ("tokens", "label_tokens", "inserted_tokens", "name_label_tokens", "epoch"):
            assert old[key] == new[key], key
        for key in ("loss", "name_loss", "gradient_norm"):
            assert abs(old[key] - new[key]) < 1e-6 * max(old[key], 1), key
    for old, new in zip(
        *(load_file(folder / "checkpoint-final/model.safetensors").values() for folder in (one, other))
    ):
        assert np.abs(old.numpy() - new.numpy()).max() < 1e-6
    assert first[4]["evaluation"]["tokens"] == second[4]["evaluation"]["tokens"]
    assert abs(first[4]["evaluation"]["bits_per_byte"] - second[4]["evaluation"]["bits_per_byte"]) < 1e-6


def test_two_processes_train_as_one_and_go_on_bit_for_bit(arguments, alone, two, tmp_path):
    """Started by --nproc: the same rows, losses and weights, one path at the end; killed, the same bytes as undisturbed.

    Only torchrun is killed, as by a scheduler: its processes notice, save what they have and end.
    """
    (output, printed), again = two(arguments), tmp_path / "again"
    assert printed.splitlines() == [str(output / "checkpoint-final")]
    same_training(alone(arguments), output)
    flags = arguments(*FLAGS, "--nproc", 2, output=again)
    start = subprocess.Popen([sys.executable, "-m", "leia_train", *flags], env=held(environment(), tmp_path, steps=1))
    wait_for_steps(again, 1, start)
    children = Path(f"/proc/{start.pid}/task/{start.pid}/children").read_text().split()
    start.kill()
    start.wait()
    wait_until(lambda: not any(is_running(child) for child in children))
    assert json.loads((again / "_status.json").read_text())["status"] == "interrupted"
    run(flags)
    losses = [[record["loss"] for record in read_metrics(folder) if "loss" in record] for folder in (output, again)]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    final, resumed = ((folder / "checkpoint-final/model.safetensors").read_bytes() for folder in (output, again))
    assert final == resumed


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU, the processes would be on it")
def test_processes_find_each_other_on_a_machine_without_a_gpu_that_is_not_told_so(arguments, alone, tmp_path):
    """--device auto, which is the default: by --nproc, and by torchrun without --nproc, whose two are one run."""
    needs_namespace()
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1")
    run(arguments(*FLAGS, "--device", "auto", "--nproc", 2, output=tmp_path / "nproc"))
    flags = arguments(*FLAGS, "--device", "auto", output=tmp_path / "torchrun")
    run(flags, *torchrun, "-m", "leia_train", namespace=True)
    for name in ("nproc", "torchrun"):
        same_training(alone(arguments), tmp_path / name)


def test_a_shared_optimizer_changes_nothing_and_its_checkpoints_fit_any_run(arguments, two, tmp_path):
    """Two processes with half of the state each, then with all of it: the bytes of two that had all of it all the way."""
    whole, shared = two(arguments)[0], tmp_path / "shared"
    flags = (*FLAGS, "--nproc", 2)
    run(arguments(*flags, "--share-optimizer", output=shared))
    for name in ("training/optimizer.safetensors", "model.safetensors"):
        last, here = (load_file(folder / "checkpoint-00000003" / name) for folder in (whole, shared))
        assert set(last) == set(here) and all(torch.equal(last[key], here[key]) for key in last), name
    losses = [[record["loss"] for record in read_metrics(folder) if "loss" in record] for folder in (whole, shared)]
    assert losses[0] == losses[1]
    for name in ("checkpoint-00000003", "checkpoint-final"):
        shutil.rmtree(shared / name)
    run(arguments(*flags, output=shared))
    final, again = ((folder / "checkpoint-final/model.safetensors").read_bytes() for folder in (whole, shared))
    assert final == again


def test_owners_have_about_as_much_to_keep():
    """Of the sizes of a model's weights; every weight has one, the same one wherever it is asked."""
    sizes = [32_000 * 64, *[64 * 64, 64 * 172, 64] * 20, 32_000 * 64]
    owners = owners_of(sizes, 4)
    loads = [sum(size for size, owner in zip(sizes, owners) if owner == process) for process in range(4)]
    assert owners == owners_of(sizes, 4) and set(owners) == {0, 1, 2, 3}
    assert max(loads) == 32_000 * 64 and max(loads[2:]) - min(loads[2:]) <= 64 * 172
    assert owners_of([3, 3], 4) == [0, 1]


def is_running(process):
    """Whether a process is there and not only its entry, which nobody may have asked for."""
    status = Path(f"/proc/{process}/status")
    try:
        return "State:\tZ" not in status.read_text()
    except OSError:
        return False


def test_two_processes_of_torchrun_train_as_one(arguments, alone, tmp_path):
    """In a network of their own, because torchrun listens on all interfaces; it takes --nproc for its own, a recipe does not."""
    needs_namespace()
    (tmp_path / "recipe.yaml").write_text("training: {nproc: 2}\n")
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1")
    output = tmp_path / "torchrun"
    run(arguments(*FLAGS, "-c", tmp_path / "recipe.yaml", output=output), *torchrun, "-m", "leia_train", namespace=True)
    same_training(alone(arguments), output)


def test_two_processes_of_accelerate_launch_train_as_one(arguments, alone, tmp_path):
    """On CPUs accelerate leaves the starting to mpirun; what that tells each process is said here in its place."""
    needs_namespace()
    launch = "-m accelerate.commands.launch --cpu --num_processes 2 --num_machines 1 --mixed_precision no"
    launch += " --dynamo_backend no --gradient_accumulation_steps 3 -m leia_train"
    each = (
        "for rank in 0 1; do OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=$rank OMPI_COMM_WORLD_LOCAL_RANK=$rank RANK=$rank "
        f'{sys.executable} {launch} "$@" & done; wait -n && wait -n'
    )
    output = tmp_path / "accelerate"
    run(arguments(*FLAGS, "--nproc", 2, output=output), "bash", "-c", each, "bash", namespace=True)
    same_training(alone(arguments), output)


TWO_MACHINES = """
for machine in 0 1; do
  mkdir -p "$0/machine-$machine"
  (cd "$0/machine-$machine" && exec PYTHON -m torch.distributed.run --nnodes 2 --node-rank $machine --nproc-per-node 1 \
    --master-addr 127.0.0.1 --master-port 29713 -m leia_train "$@") & started="$started $!"
done
failed=0
for process in $started; do wait $process || failed=$?; done
exit $failed
"""
"""Two launchers, each in a working directory of its own, which are told of each other as on two machines."""


def test_two_machines_train_as_one_process_where_they_share_the_folder(arguments, alone, tmp_path):
    """Each begins with its own process 0 of the machine; one of them alone writes what both read."""
    needs_namespace()
    script = TWO_MACHINES.replace("PYTHON", sys.executable)
    output = tmp_path / "shared/run"
    run(arguments(*FLAGS, output=output), "bash", "-c", script, str(tmp_path), namespace=True)
    same_training(alone(arguments), output)
    assert sorted(path.name for path in output.glob("train*.log")) == ["train-1.log", "train.log"]


def test_torchruns_own_parser_takes_the_documentations_lines():
    """It reads abbreviations of its options behind the module's name too, `--nproc` among them."""
    from torch.distributed.run import parse_args

    text = (Path(ROOT) / "docs/training.md").read_text().replace("\\\n", " ")
    lines = [line.split() for line in text.splitlines() if line.startswith("torchrun ")]
    assert len(lines) >= 2
    for line in lines:
        parsed = parse_args(line[1:])
        assert parsed.training_script == "leia_train" and parsed.training_script_args[0] == "train"


def test_machines_that_do_not_share_the_folder_are_told_so(arguments, tmp_path):
    """A relative path is another folder on each: nothing is trained, and the line says which process has another."""
    needs_namespace()
    script = TWO_MACHINES.replace("PYTHON", sys.executable)
    done = run(arguments(*FLAGS, output="run"), "bash", "-c", script, str(tmp_path), code=1, namespace=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("leia-train: error: ")]
    assert any(
        "process 1: --output run: machine" in line and "all of the run's machines share" in line for line in lines
    )
    assert "leia-train: error: a process does not have this run's folder; its message says which" in lines
    assert not list(tmp_path.glob("machine-*/run/store-*"))


GRADIENTS = """
import sys, torch
from leia_train import processes, replicated
from leia_train.config import *
from leia_train.loss import TokenLoss
from transformers import LlamaConfig, LlamaForCausalLM

config = TrainConfig(data=DataConfig(shards=("-",)), model=ModelConfig(model="tiny-llama"),
    optimization=OptimizationConfig(batch=2), run=RunConfig(output="-", device="cpu", nproc=2))
accelerator = processes.make_accelerator(config)
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(vocab_size=40, hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8))
parallelism = replicated.Replicated(config, accelerator)
parallelism.token_loss = TokenLoss(model)
parallelism.begin(None)
loss = parallelism.model
weights = list(loss.parameters())
places = [weight.grad.data_ptr() for weight in weights]
assert all((weight.grad == 0).all() for weight in weights)
for step in range(2):
    for micro in range(2):
        ids = torch.arange(8)[None] + 8 * micro + 16 * accelerator.process_index
        positions = torch.arange(8)[None]
        with parallelism.accumulating(last=micro == 1):
            parallelism.backward(loss(ids, positions, ids).sum())
        assert [weight.grad.data_ptr() for weight in weights] == places, (step, micro)
    assert any((weight.grad != 0).any() for weight in weights)
    total = torch.tensor([float(weights[0].grad.abs().sum())])
    assert torch.allclose(accelerator.gather(total), total)
    parallelism.update(1e-3)
print("kept")
processes.close_processes()
"""


def test_gradients_stay_where_processes_exchange_them(tmp_path):
    """From the first micro-batch on, over updates: no second copy of them; and they are those of both processes."""
    (tmp_path / "program.py").write_text(GRADIENTS)
    started = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "program.py")],
            env={**environment(), "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
            | {"LEIA_TRAIN_RENDEZVOUS": str(tmp_path / "rendezvous"), "MASTER_ADDR": "127.0.0.1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    said = [process.communicate(timeout=LIMIT_S) for process in started]
    assert [out.strip() for out, _ in said] == ["kept", "kept"], said


def test_a_launcher_that_starts_too_few_processes_is_refused(arguments, tmp_path):
    """accelerate launch --cpu --num_processes 2 runs one: exit 2 instead of half a run."""
    needs_namespace()
    launch = (
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    )
    launch += ("--mixed_precision", "no", "--dynamo_backend", "no", "-m", "leia_train")
    command = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *launch]
    command += arguments(*FLAGS, "--nproc", 2)
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode != 0
    assert "--nproc 2: 1 process(es) were started" in done.stderr
    assert not (tmp_path / "run/_run.json").exists()


def test_another_number_of_processes_goes_on_with_the_same_rows(arguments, alone, tmp_path):
    """One process until it is killed, then two: the result of one."""
    output = tmp_path / "run"
    command = [sys.executable, "-m", "leia_train", *arguments(*FLAGS, output=output)]
    start = subprocess.Popen(command, env=held(environment(), tmp_path, steps=3))
    wait_for_steps(output, 3, start)
    start.kill()
    assert start.wait() == -signal.SIGKILL
    assert not (output / "checkpoint-final").exists() and list(output.glob("checkpoint-0*"))
    run(arguments(*FLAGS, "--nproc", 2, output=output))
    same_training(alone(arguments), output)


def wait_until(true):
    """Until something is so."""
    end = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def wait_for_steps(output, count, process):
    """Until the log of a run, which a process makes, has some steps."""

    def there():
        ended = process.poll() is not None  # looked at first: the steps may have come before the end
        return sum("loss" in record for record in read_metrics(output)) >= count or ended

    wait_until(there)
    assert sum("loss" in record for record in read_metrics(output)) >= count, f"ended with {process.poll()}"


def listening(children):
    """The local addresses on which some processes listen."""
    inodes = set()
    for process in children:
        for link in Path(f"/proc/{process}/fd").glob("*"):
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add((table, fields[1].split(":")[0]))
    return found


def test_a_signal_stops_both_processes_after_the_step_and_no_port_is_open_to_others(arguments, tmp_path):
    """Exit 75, a checkpoint, a status; while they ran they listened on 127.0.0.1 alone; the same command goes on."""
    output = tmp_path / "run"
    flags = ("--batch", 4, "--micro-batch", 2, "--steps", 100_000, "--save-every", 0, "--nproc", 2)
    process = subprocess.Popen(
        [sys.executable, "-m", "leia_train", *arguments(*flags, output=output)],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_steps(output, 2, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    addresses = listening([str(process.pid), *children])
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 75, said[-2000:]
    status = json.loads((output / "_status.json").read_text())
    assert status["status"] == "interrupted" and status["step"] >= 2
    assert said.count("the same command goes on") == 1 and "death signal" not in said, "one line for all of them"
    assert (output / status["checkpoint"] / "_COMPLETE").is_file()
    local = {("tcp", f"{int.from_bytes(socket.inet_aton('127.0.0.1'), sys.byteorder):08X}")}
    assert addresses and addresses <= local, addresses


def test_processes_are_told_who_started_them(tmp_path):
    """So that those whose launcher died while they were still starting end as well; later nothing of it is left."""
    with launcher._environment(tmp_path, 2):
        assert os.environ[PARENT_VARIABLE] == str(os.getpid())
    assert PARENT_VARIABLE not in os.environ


def test_a_process_that_is_killed_takes_the_others_with_it(arguments, tmp_path):
    """No hang: the launcher ends with an error, and nothing is left running."""
    output = tmp_path / "run"
    flags = ("--batch", 4, "--micro-batch", 2, "--steps", 100_000, "--save-every", 0, "--nproc", 2)
    process = subprocess.Popen(
        [sys.executable, "-m", "leia_train", *arguments(*flags, output=output)],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_steps(output, 1, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    said = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 5, said
    assert "process 1 was ended by SIGKILL, usually for lack of memory; the same command goes on" in said
    assert "Traceback" not in said
    wait_until(lambda: not any(is_running(child) for child in children))


def test_what_stops_one_process_stops_the_others_with_a_line(arguments, tmp_path):
    """A folder that another run holds is seen by the first process alone: its exit code, and no traceback."""
    (tmp_path / "run").mkdir()
    with (tmp_path / "run/.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        done = run(arguments(*FLAGS, "--nproc", 2), code=5)
    assert "another run is writing to it" in done.stderr and "Traceback" not in done.stderr
    assert "process 1" not in done.stderr, "the first process of a machine speaks for the others"


def test_rows_that_are_not_finite_are_those_of_the_process_that_has_them(tmp_path):
    """Every process names the first one that has such rows, and only that one keeps them."""
    for process in (0, 1):
        accelerator = SimpleNamespace(device="cpu", process_index=process, gather=lambda found: torch.tensor([-1, 1]))
        settings = SimpleNamespace(optimization=SimpleNamespace(micro_batch=2, batch=8))
        one_run = SimpleNamespace(config=settings, accelerator=accelerator, output=tmp_path / str(process), step=4)
        one_run.output.mkdir()
        ids = np.arange(12).reshape(4, 3)
        rows = PackedRows(input_ids=ids, position_ids=ids, labels=ids, kinds=ids.astype(np.uint8))
        parts = [torch.zeros(2), torch.full((2,), float("nan") if process else 0.0)]
        with pytest.raises(LeiaError, match="step 5, process 1, rows 38 to 39: loss nan"):
            updates.refuse_update(one_run, rows, parts, float("nan"), 1.0)
        kept = [path.name for path in one_run.output.iterdir()]
        assert kept == (["bad-rows-step-00000005-process-1.safetensors"] if process else [])


def test_processes_must_divide_the_batch(monkeypatch):
    """Three do not divide four rows."""
    made = SimpleNamespace(num_processes=3, distributed_type=processes.DistributedType.MULTI_CPU)
    monkeypatch.setattr(processes, "Accelerator", lambda **options: made)
    with pytest.raises(UsageError, match="--batch 4: must be a multiple of the 3 processes"):
        processes.make_accelerator(config_of())


def test_what_accelerate_was_configured_to_does_not_change_the_gradient(monkeypatch, fresh_accelerator):
    """Its launcher hands on steps of accumulation, by which accelerate would divide each loss."""
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    accelerator = processes.make_accelerator(config_of())
    weight = torch.nn.Parameter(torch.ones(1))
    accelerator.backward(3 * weight.sum())
    assert weight.grad.item() == 3


def config_of(**options):
    """A configuration on the CPU."""
    return TrainConfig(
        data=DataConfig(shards=("-",)),
        model=ModelConfig(model="tiny-llama"),
        optimization=OptimizationConfig(batch=4),
        run=RunConfig(output="-", device="cpu", **options),
    )


def test_ways_to_share_a_model_that_are_not_ours_are_refused(monkeypatch):
    """As `accelerate config` may ask for: weights in parts would be saved in part."""
    for kind in ("FSDP", "DEEPSPEED"):
        made = SimpleNamespace(num_processes=1, distributed_type=processes.DistributedType(kind))
        monkeypatch.setattr(processes, "Accelerator", lambda made=made, **options: made)
        with pytest.raises(UsageError, match=f"accelerate was told to use {kind}"):
            processes.make_accelerator(config_of())


def test_processes_wait_as_long_as_one_may_build_a_store(monkeypatch):
    """Under torchrun accelerate makes the group, with ten minutes for NCCL unless it is told."""
    given = {}

    def make(**options):
        given.update(options)
        return SimpleNamespace(num_processes=1, distributed_type=processes.DistributedType.NO)

    monkeypatch.setattr(processes, "Accelerator", make)
    processes.make_accelerator(config_of())
    (timeout,) = [handler.timeout for handler in given["kwargs_handlers"] if hasattr(handler, "timeout")]
    assert timeout.total_seconds() >= 3600


def test_one_exit_code_for_all_processes():
    """75 before all; then the first that failed by itself; a killed one as a shell says it."""

    def code(*failures):
        return exit_code(
            SimpleNamespace(exitcode=number, timestamp=at, local_rank=rank)
            for rank, (number, at) in enumerate(failures)
        )

    assert code((2, 5)) == 2
    assert code((1, 6), (5, 5)) == 5
    assert code((-15, 5), (2, 6)) == 2
    assert code((2, 6), (1, 5)) == 2
    assert code((1, 5), (75, 6)) == 75
    assert code((-9, 5), (-15, 6)) == 137


def test_a_process_that_the_system_killed_is_named():
    """Nobody else says why the run ended; where one failed by itself, that one does."""

    def say(*codes):
        failures = [SimpleNamespace(exitcode=code, timestamp=100 + at) for code, at in codes]
        launcher._say_who_was_killed(dict(enumerate(failures)))

    with pytest.raises(MissingResource, match=r"^process 1 was ended by SIGKILL, usually for lack of memory"):
        say((1, 2), (-9, 0))
    with pytest.raises(MissingResource, match=r"^process 0 was ended by SIGKILL"):
        say((-9, 0), (-9, 30))
    say((5, 0), (-9, 0))
    say((1, 0), (-15, 0))
    say((-9, 30), (1, 0))  # by torchrun, since it did not end in time


def test_torchruns_words_and_handlers_are_gone_after_it():
    """Its loggers have levels of their own, and its handlers would raise in whatever comes after it."""
    import torch.distributed.elastic.agent.server.api as agent

    before, level = signal.getsignal(signal.SIGINT), agent.logger.level
    with launcher._quiet():
        assert not agent.logger.isEnabledFor(logging.ERROR)
        signal.signal(signal.SIGINT, lambda *args: None)
    assert signal.getsignal(signal.SIGINT) is before and agent.logger.level == level


def test_a_thread_may_launch():
    """Where no handlers can be set, none are."""

    def launched():
        with launcher._quiet():
            return "done"

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(launched).result() == "done"


def test_a_signal_is_told_by_the_status_that_the_run_left():
    """75 where it can be gone on with, 0 where it was done, else the signal."""
    assert signalled({"status": "interrupted"}, 15) == 75
    assert signalled({"status": "finished"}, 15) == 0
    assert signalled({}, 15) == 143


def test_launchers_are_recognised_by_what_they_set():
    """Ours, torchrun's and accelerate's variables; none in a plain shell."""
    assert not is_launched({"PATH": "/bin"})
    assert all(is_launched({name: "1"}) for name in ("RANK", "WORLD_SIZE", "ACCELERATE_USE_CPU"))
