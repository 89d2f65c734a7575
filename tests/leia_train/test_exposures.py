"""Exposures are counted from the draws, and are what the rows held."""

import json

import numpy as np
import pyarrow.parquet as pq
from article_strategies import wikis
from hypothesis import given, settings
from hypothesis import strategies as st
from list_reference import make_store

from leia_train.cli import main
from leia_train.config import DataConfig
from leia_train.exposures import count_exposures, plan_of_run
from leia_train.insertion import MARKER, NAME, TEXT
from leia_train.metrics import read_metrics
from leia_train.plan import TrainingPlan


def slow_count(plan, end):
    """Article by article through the stream: where each entity's anchor and insertion begin."""
    documents = plan.store.documents
    size = len(documents.entity_starts)
    occurrences, insertions, tokens = ([0] * size for _ in range(3))
    number, position = 0, 0
    while position < end:
        epoch = plan.epoch(number)
        for place, article in enumerate(epoch.order.tolist()):
            made = plan.augmented(epoch, place, place + 1)
            own, at, inside = 0, {}, {}
            for offset, kind in enumerate(made.kinds.tolist()):
                inside.setdefault(own, []).append(offset) if kind in (NAME, MARKER) else None
                if kind == TEXT:
                    at[own] = offset
                    own += 1
            removed = 0
            lengths = plan.inserted_lengths(slice(None))
            taken = {key: list(value) for key, value in inside.items()}
            for entity in range(documents.entity_offsets[article], documents.entity_offsets[article + 1]):
                start, stop = int(documents.entity_starts[entity]), int(documents.entity_ends[entity])
                put = bool(epoch.inserted[entity])
                spot = (stop if plan.data.strategy == "right" else start) - removed
                offsets = [taken[spot].pop(0) for _ in range(int(lengths[entity]))] if put else []
                if put and plan.data.strategy == "replace":
                    removed += stop - start
                    begins = offsets[0]
                else:
                    begins = at[start - removed]
                occurrences[entity] += position + begins < end
                insertions[entity] += put and position + offsets[0] < end
                tokens[entity] += sum(position + offset < end for offset in offsets)
            position += len(made.kinds)
        number += 1
    return occurrences, insertions, tokens


def test_counts_equal_a_walk_through_the_stream():
    """For every strategy and every place where the stream may end, over epochs."""
    seen = {"insertions": 0, "epochs": 0, "cut": 0}

    @settings(max_examples=15, deadline=None)
    @given(wikis(), st.integers(0, 99))
    def check(some, seed):
        for strategy in ("right", "left", "replace", "none"):
            data = DataConfig(shards=("-",), strategy=strategy, probability=0.9, validation_share=0, max_length=3)
            plan = TrainingPlan(make_store(some, 2), data, seed, ((90,), (91, 92)))
            for end in range(1, 41):
                counts = count_exposures(plan, end)
                names = ("occurrences", "insertions", "inserted_tokens")
                found = tuple(getattr(counts, name).tolist() for name in names)
                assert found == slow_count(plan, end), (strategy, end)
                seen["insertions"] += int(counts.insertions.sum())
                seen["epochs"] += plan.epoch_at(end - 1).number > 0
                lengths = plan.inserted_lengths(slice(None)).clip(1)
                seen["cut"] += int((counts.inserted_tokens % lengths != 0).sum())

    check()
    assert min(seen.values()) > 5, seen


def test_a_runs_exposures_add_up_to_what_its_log_counted(arguments, tmp_path, capsys):
    """Inserted tokens until any step are the log's; the run's folder is enough; one line an entity."""
    assert main(arguments("--names", "permuted", "--entities", "blocks!=list")) == 0
    run = tmp_path / "run"
    logged = np.cumsum([record["inserted_tokens"] for record in read_metrics(run)[:4]]).tolist()
    for step in (1, 3, 4):
        assert main(["exposures", str(run), "--step", str(step), "--output", str(tmp_path / "out.parquet")]) == 0
        rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
        assert sum(row["inserted_tokens"] for row in rows) == logged[step - 1]
    assert {row["name"] for row in rows} == {"Tokyo", "Nairobi", "Kyoto", "Lake Victoria", "Mount Fuji"}
    assert [row["occurrences"] for row in rows] == sorted((row["occurrences"] for row in rows), reverse=True)
    assert all(row["insertions"] <= row["occurrences"] for row in rows)
    assert any(row["qid"] is None for row in rows) and any(row["qid"] for row in rows)
    assert main(["exposures", str(run), "--output", str(tmp_path / "out.jsonl")]) == 0
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == rows
    capsys.readouterr()
    assert main(["exposures", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(rows) and "Lake Victoria" in "".join(lines)
    plan, identity = plan_of_run(run)
    assert plan.data.names == "permuted" and identity["steps"] == 4


def test_a_step_that_was_not_reached_and_a_folder_without_a_run_exit_2(arguments, tmp_path, capsys):
    """With what there is."""
    assert main(arguments("--steps", 1, "--warmup", 0)) == 0
    assert main(["exposures", str(tmp_path / "run"), "--step", "2"]) == 2
    assert "has 1 steps" in capsys.readouterr().err
    assert main(["exposures", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
