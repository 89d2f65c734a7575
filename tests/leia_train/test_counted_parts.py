"""What a plan says that a process holds, held against the tensors that the processes of real runs count."""

import pytest
from counting_runs import counted, said

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(
    ("processes", "flags"),
    [
        (3, ("--shard-model", "--dtype", "bfloat16", "--weights", "bfloat16")),
        (2, ("--share-optimizer", "--dtype", "bfloat16")),
        (2, ("--lora", 8, "--dtype", "bfloat16", "--weights", "bfloat16")),
    ],
    ids=["FSDP2", "shared optimizer", "LoRA"],
)
def test_a_plan_says_what_processes_hold(tmp_path, shards, processes, flags):
    """When training begins, and once the optimizer has its state; gradients stay where processes exchange them, but for FSDP2's."""
    parts = said(tmp_path, shards, processes, *flags)
    begin = parts["weights"] + (0 if "--shard-model" in flags else parts["gradients"])
    found = counted(tmp_path / "counted", shards, processes, *flags)
    for each in found:
        assert each["begin"] == pytest.approx(begin, rel=1e-3, abs=20_000)
    after = max(each["after"] for each in found)  # of shares one is the largest
    assert after == pytest.approx(begin + parts["optimizer"], rel=2e-3, abs=40_000)
