"""From the state of a study to all of it done: what is missing is trained, scored, drawn, searched and compared.

Each step is a command of its own; a page or a search is made again where what it is made from is not what the notes say.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from leia_beam.errors import Interrupted
from leia_beam.manifest import MANIFEST_NAME
from leia_train.files import sha256_of
from leia_train.opening import source_fingerprints
from leia_train.runs import STATUS_NAME
from leia_train.study import FINISHED
from leia_train.study_lines import COMPARISON_PAGES, TRAINING_PAGE, score_words
from leia_train.study_notes import COMPARED, DRAWN, SCORED, SEARCHED, key_of
from leia_train.study_state import RESULTS_NAME, Study, arm_flags
from leia_train.study_steps import output_of, run_step

Report = Callable[[str], None]


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
    key, data = key_of(f"{_searched_texts(study)}\n{config}"), _data(study)
    done = study.contamination.is_file() and study.notes.get(SEARCHED) == key
    if done and data in (None, study.notes.get(SEARCHED, "data")):
        return
    report("looking for test items in the corpus")
    run_step([*words, *study.loudness], "the search for test items")
    study.notes.write(SEARCHED, key)
    study.notes.write(SEARCHED, data or "", "data")


def _data(study: Study) -> str | None:
    """What the items are that are looked for; None where their files are not there, which a finished search does not need."""
    tasks = [study.scoring[run.name]["tasks"] for run in study.runs]
    if any(sums["items"] is None for of_run in tasks for sums in of_run.values()):
        return None
    return key_of("\n".join(sorted({json.dumps(of_run, sort_keys=True) for of_run in tasks})))


def _searched_texts(study: Study) -> str:
    """What is searched: the shards, and the files that any arm mixes with them."""
    corpus = study.recipe.corpus_folder()
    shards = None if corpus is None else Path(corpus.texts[0], "shards", MANIFEST_NAME)
    sources = (source_fingerprints(config.data) for config in study.configs())
    mixed = {json.dumps(found, sort_keys=True) for found in sources if found}
    return "\n".join([sha256_of(shards) if shards is not None and shards.is_file() else "", *sorted(mixed)])


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
