"""From the state of a study to what is said of it: what is there and to do, and at the end where everything is."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from leia_beam.errors import LeiaError, OtherBuild
from leia_beam.manifest import MANIFEST_NAME
from leia_beam.recipe import CORPUS
from leia_train.checkpoints import FINAL_NAME
from leia_train.study import FINISHED, StudyRun
from leia_train.study_state import RESULTS_NAME, Study
from leia_train.study_steps import output_of

TRAINING_PAGE = "training.html"
COMPARISON_PAGES = ("comparison.html", "comparison.md", "comparison.json")


def state_lines(study: Study) -> Iterator[str]:
    """What is there and what is to be done."""
    width = max(len(run.name) for run in study.runs)
    for run in study.runs:
        training = "not trained" if run.folder is None else study.training[run.name]
        yield f"{run.name:<{width}}  training: {training}; scores: {FINISHED if study.is_scored(run) else 'to do'}"
    yield from _corpus_lines(study)
    if study.contamination is not None:
        yield f"test items in the corpus are looked for: {study.contamination}"
    for reason in study.left_out:
        yield f"warning: not in the report: {reason}"
    if study.others:
        yield f"in the report too: {_names_of_others(study)}"
    yield f"report: {study.report_folder}" if len(study.arms()) > 1 else "one arm alone: nothing to compare"


def place_lines(study: Study) -> Iterator[str]:
    """Where everything is that a user may want."""
    for run in study.runs:
        model = "" if run.folder is None else f"model {run.folder / FINAL_NAME}, "
        yield f"{run.name}: {model}scores {run.scores / 'report.html'}"
    if study.contamination is not None:
        yield f"test items in the corpus: {study.contamination}"
    if study.others:
        yield f"in the report too: {_names_of_others(study)}"
    if any(run.folder is not None for run in study.reported()):
        yield f"curves of the trainings: {study.report_folder / TRAINING_PAGE}"
    if len(study.arms()) > 1:
        yield from _primary_line(study.report_folder / COMPARISON_PAGES[2])
        yield f"comparison: {study.report_folder / COMPARISON_PAGES[0]} and {study.report_folder / COMPARISON_PAGES[1]}"


def score_words(run: StudyRun) -> Iterator[str]:
    """Each task's main score."""
    for task in json.loads((run.scores / RESULTS_NAME).read_bytes())["tasks"]:
        score = task["scores"].get(task["metric"])
        if score is not None:
            yield f"{task['name']} {task['metric']} {100 * score['value']:.1f}"


def _corpus_lines(study: Study) -> Iterator[str]:
    """What stands against the corpus: that it is not there, or that the recipe would make another one today."""
    corpus = study.recipe.corpus_folder()
    if corpus is None or not study.recipe.section(CORPUS):
        return
    command = f"leia-beam build {shlex.join(study.flags)}"
    if not Path(corpus.texts[0], "shards", MANIFEST_NAME).is_file():
        yield f"warning: {corpus.texts[0]} holds no finished corpus: {command}"
        return
    try:
        output_of(["leia_beam", "build", *study.flags, "--set=corpus.verify_inputs=false", "--dry-run"], "the corpus")
    except OtherBuild as error:
        yield f"warning: the corpus is not the one that the recipe would make today: {error}"
    except LeiaError:
        return  # its dumps may be gone, which a finished corpus does not need


def _names_of_others(study: Study) -> str:
    return ", ".join(run.name for run in study.others)


def _primary_line(comparison: Path) -> Iterator[str]:
    """What the primary endpoint came to."""
    primary = json.loads(comparison.read_bytes())["primary"]
    if primary is not None:
        low, value, high = (100 * primary[part] for part in ("low", "difference", "high"))
        yield (
            f"primary endpoint: {primary['arm']} minus {primary['against']} {value:+.1f} points, 95 % interval {low:+.1f} to "
            f"{high:+.1f}, p {primary['p']:.3g}, over {len(primary['tasks'])} tasks"
        )
