"""From the state of a study to all of it done: what is missing is trained, scored, drawn, searched and compared.

Each step is a command of its own; a page or a search is made again where what it is made from is not what the notes say.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import yaml

from leia_beam.errors import Interrupted, LeiaError
from leia_beam.manifest import MANIFEST_NAME
from leia_train.files import sha256_of
from leia_train.mix_sources import read_source
from leia_train.opening import source_fingerprint
from leia_train.runs import STATUS_NAME
from leia_train.study import FINISHED
from leia_train.study_lines import COMPARISON_PAGES, TRAINING_PAGE, score_words
from leia_train.study_notes import COMPARED, DRAWN, SCORED, SEARCHED, key_of
from leia_train.study_state import RESULTS_NAME, Study, arm_flags
from leia_train.study_steps import output_of, run_step

Report = Callable[[str], None]
_NO_MIX = "none"
"""What leia-eval is told where the shards alone are searched."""


def do_missing(study: Study, report: Report) -> None:
    """Do what is missing, run by run, then what is made from all of them.

    Raises: Interrupted with what is kept; the error of a step.
    """
    try:
        _train_and_score(study, report)
        _draw_training(study, report)
        _search_for_items(study, report)
        _compare(study, report)
    except Interrupted as error:
        scored = sum(study.is_scored(run) for run in study.runs)
        raise Interrupted(
            f"interrupted in {error}; {scored} of {len(study.runs)} runs are trained and scored, and what was begun is "
            "kept; the same command goes on"
        ) from error


def _train_and_score(study: Study, report: Report) -> None:
    missing = [run for run in study.runs if not study.is_scored(run)]
    if any(map(study.needs_training, missing)):
        report("looking at the tasks and their data")
        output_of(["leia_eval", "run", *study.flags, *arm_flags(missing[0], "--training-seed"), "--dry-run"], "tasks")
    for number, run in enumerate(missing, 1):
        if study.needs_training(run):
            report(f"training {run.name} ({number} of {len(missing)})")
            run_step(
                ["leia_train", "train", *study.flags, *study.loudness, *arm_flags(run, "--seed")],
                f"the training of {run.name}",
            )
            study.training[run.name] = FINISHED
        report(f"scoring {run.name} ({number} of {len(missing)})")
        run_step(
            ["leia_eval", "run", *study.flags, *study.loudness, *arm_flags(run, "--training-seed")],
            f"the scoring of {run.name}",
        )
        study.scoring[run.name]["differing"] = []
        study.notes.write(SCORED, study.scoring_key(run), run.name)
        report(f"{run.name}: {', '.join(score_words(run))}")


def _draw_training(study: Study, report: Report) -> None:
    """One page of all trained runs' curves."""
    page = study.report_folder / TRAINING_PAGE
    runs = [run.folder for run in study.reported() if run.folder is not None]
    key = key_of("\n".join(f"{run} {sha256_of(run / STATUS_NAME)}" for run in runs))
    if not runs or (page.is_file() and study.notes.get(DRAWN) == key):
        return
    report("drawing the training")
    words = ["leia_train", "report", *map(str, runs), "--output", str(page), "--no-exposures"]
    run_step(words, "the page of the training")
    study.notes.write(DRAWN, key)


def _search_for_items(study: Study, report: Report) -> None:
    """Which test items stand in what is trained on, where the recipe asks for that."""
    if study.contamination is None:
        return
    words = ["leia_eval", "contamination", *study.flags]
    config = _values(output_of([*words, "--print-config"], "contamination"))
    key = key_of(f"{_searched_shards(study)}\n{config}")
    parts = {"data": _data(study), "mix": _searched_sources(config)}
    done = study.contamination.is_file() and study.notes.get(SEARCHED) == key
    if done and all(found in (None, study.notes.get(SEARCHED, part)) for part, found in parts.items()):
        return
    report("looking for test items in the corpus")
    run_step([*words, *study.loudness], "the search for test items")
    study.notes.write(SEARCHED, key)
    for part, found in parts.items():
        study.notes.write(SEARCHED, found or "", part)


def _data(study: Study) -> str | None:
    """What the items are that are looked for; None where their files are not there, which a finished search does not need."""
    tasks = [study.scoring[run.name]["tasks"] for run in study.runs]
    if any(sums["items"] is None for of_run in tasks for sums in of_run.values()):
        return None
    return key_of("\n".join(sorted({json.dumps(of_run, sort_keys=True) for of_run in tasks})))


def _searched_shards(study: Study) -> str:
    corpus = study.recipe.corpus_folder()
    shards = None if corpus is None else Path(corpus.texts[0], "shards", MANIFEST_NAME)
    return sha256_of(shards) if shards is not None and shards.is_file() else ""


def _searched_sources(config: str) -> str | None:
    """The content of what is searched beside the shards; None where that is nothing, or one is not there, which a finished
    search does not need."""
    mix = yaml.safe_load(config)["evaluation"]["contamination_mix"]
    try:
        sources = [source_fingerprint(read_source(text)) for text in mix or () if text != _NO_MIX]
    except LeiaError:
        return None
    return key_of("\n".join(sources)) if sources else None


def _compare(study: Study, report: Report) -> None:
    arms = study.arms()
    if len(arms) < 2:
        return
    words = ["leia_eval", "compare", *study.flags]
    words += [f"{arm}={','.join(str(run.scores) for run in runs)}" for arm, runs in arms.items()]
    words += ["--output", str(study.report_folder)]
    sums = [sha256_of(run.scores / RESULTS_NAME) for run in study.reported()]
    sums += [] if study.contamination is None else [sha256_of(study.contamination)]
    key = key_of("\n".join([*sums, _values(output_of([*words, "--print-config"], "compare"))]))
    pages = [study.report_folder / name for name in COMPARISON_PAGES]
    if all(page.is_file() for page in pages) and study.notes.get(COMPARED) == key:
        return
    report("comparing the arms")
    run_step(words, "the comparison")
    study.notes.write(COMPARED, key)


def _values(config: str) -> str:
    """A printed configuration without where its values came from."""
    return "\n".join(line.rpartition("  # ")[0] or line for line in config.splitlines() if not line.startswith("#"))
