"""From a recipe to the state of its study: what is trained, what is scored, which runs a report may hold.

`--arms` and `--seeds` say what is done now: the report is of all runs of the recipe that are trained and scored, so that a
part of a study never replaces the whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from leia_beam.configuration import Options, parse
from leia_beam.errors import OtherBuild, UsageError
from leia_beam.recipe import EVALUATION, Recipe
from leia_train.checkpoints import COMPLETE_NAME, FINAL_NAME
from leia_train.command_configs import StudyConfig
from leia_train.command_line import make_config, make_parser
from leia_train.config import TrainConfig
from leia_train.files import sha256_of
from leia_train.study import FINISHED, StudyRun, study_runs, training_state
from leia_train.study_notes import NOTES_NAME, SCORED, Notes, key_of, read_notes
from leia_train.study_steps import output_of

RESULTS_NAME = "results.json"
_SCORED_AGAIN = "; in a study --set evaluation.overwrite=true scores again what differs"

_Found = TypeVar("_Found")


@dataclass(kw_only=True)
class Study:
    """A study's runs with their state."""

    recipe: Recipe
    flags: Sequence[str]
    """How every command of the study is given the recipe."""
    loudness: Sequence[str]
    """How those that take long are told what to say."""
    runs: Sequence[StudyRun]
    """Those that were chosen."""
    others: Sequence[StudyRun]
    """Those of the recipe that were not, and that its report may hold all the same."""
    left_out: Sequence[str]
    """Why others that were scored are not in the report."""
    training: dict[str, str]
    """By run, FINISHED or what is there."""
    scoring: dict[str, dict[str, Any]]
    """By run, what `leia-eval run --check` says of it."""
    notes: Notes
    report_folder: Path
    contamination: Path | None
    """Where the recipe wants the search for test items; None where it does not."""

    @classmethod
    def of(cls, options: Options, chosen: StudyConfig) -> Study:
        """The study, with every command's configuration checked.

        Raises: UsageError for what the recipe lacks; OtherBuild where a folder holds what another recipe made.
        """
        recipe = options.recipe_read
        flags = ["-c", str(recipe.path), *(f"--set={setting}" for setting in options.settings)]
        loudness = [f"--{name.replace('_', '-')}" for name in ("quiet", "log_json") if getattr(chosen, name)]
        runs = study_runs(recipe, chosen)
        folder = recipe.report_folder()
        if folder is None:
            raise UsageError(f"{recipe.path}: a study needs `folder`, below which everything is written")
        # is its primary endpoint known?
        output_of(["leia_eval", "compare", *flags, "--print-config"], "the comparison")
        seen = recipe.section(EVALUATION).get("contamination")
        notes_path = Path(folder.texts[0]) / NOTES_NAME
        study = cls(
            recipe=recipe,
            flags=flags,
            loudness=loudness,
            runs=runs,
            others=(),
            left_out=(),
            training=_of_each(runs, lambda run: _training_of(run, flags), "trained"),
            scoring=_of_each(runs, lambda run: _scoring_of(run, flags), "scored", _SCORED_AGAIN),
            notes=read_notes(notes_path),
            report_folder=notes_path.parent,
            contamination=None if seen is None else Path(seen.texts[0]),
        )
        return study.with_others([run for run in study_runs(recipe, StudyConfig()) if run not in runs])

    def with_others(self, others: Sequence[StudyRun]) -> Study:
        """With those of other runs that are trained and scored as the recipe has them today."""
        kept, left_out = [], []
        for run in others:
            if not _has_scores(run):
                continue
            try:
                found = replace(
                    self,
                    training={**self.training, run.name: _training_of(run, self.flags)},
                    scoring={**self.scoring, run.name: _scoring_of(run, self.flags)},
                )
            except (OtherBuild, UsageError) as error:
                left_out.append(f"{run.name}: {error}")
                continue
            if found.is_scored(run):
                self = found
                kept.append(run)
            else:
                left_out.append(f"{run.name}: nothing says that its scores are of the model that is there")
        return replace(self, others=kept, left_out=left_out)

    def needs_training(self, run: StudyRun) -> bool:
        """Whether a run is one that is trained, and has not been to its end."""
        return run.folder is not None and self.training[run.name] != FINISHED

    def is_scored(self, run: StudyRun) -> bool:
        """Whether a run's scores are there and of the model that is there, with the values of today."""
        if self.needs_training(run) or not _has_scores(run) or self.scoring[run.name]["differing"]:
            return False
        return self.notes.get(SCORED, run.name) == self.scoring_key(run)

    def scoring_key(self, run: StudyRun) -> str:
        """What the scores of a run depend on."""
        weights = "" if run.folder is None else sha256_of(run.folder / FINAL_NAME / COMPLETE_NAME)
        scoring = self.scoring[run.name]
        values = [weights, scoring["model"], scoring["options"], sorted(scoring["tasks"])]
        return key_of(json.dumps(values, sort_keys=True))

    def reported(self) -> list[StudyRun]:
        """The runs that the report is of, in the recipe's order."""
        return [run for run in study_runs(self.recipe, StudyConfig()) if run in self.runs or run in self.others]

    def arms(self) -> dict[str, list[StudyRun]]:
        """The runs of the report by arm, in the recipe's order."""
        found: dict[str, list[StudyRun]] = {arm: [] for arm in self.recipe.arms}
        for run in self.reported():
            found.setdefault(run.arm, []).append(run)
        return {arm: runs for arm, runs in found.items() if runs}


def arm_flags(run: StudyRun, seed_flag: str) -> list[str]:
    """How a command is told which run is meant; `seed_flag`: what it calls the seed of the training."""
    return ["--arm", run.arm, *([] if run.seed is None else [seed_flag, str(run.seed)])]


def _has_scores(run: StudyRun) -> bool:
    """Whether its results and all of its answers are there; whether they are whole is looked at when they are read."""
    try:
        tasks = json.loads((run.scores / RESULTS_NAME).read_bytes())["tasks"]
    except (OSError, ValueError, KeyError):
        return False
    return all((run.scores / "samples" / f"{task['name']}.jsonl").is_file() for task in tasks)


def _of_each(
    runs: Sequence[StudyRun], find: Callable[[StudyRun], _Found], what: str, hint: str = ""
) -> dict[str, _Found]:
    """What is found of each run, by its name.

    Raises: OtherBuild that names all runs whose folders hold something else, with what the first one's holds.
    """
    found: dict[str, _Found] = {}
    refused: dict[str, OtherBuild] = {}
    for run in runs:
        try:
            found[run.name] = find(run)
        except OtherBuild as error:
            refused[run.name] = error
    if refused:
        first, *more = refused
        others = f"; also {what} otherwise: {', '.join(more)}" if more else ""
        raise OtherBuild(f"{first}: {refused[first]}{hint}{others}")
    return found


def _training_of(run: StudyRun, flags: Sequence[str]) -> str:
    """How far a run's training is; nothing of one that is scored as it is."""
    if run.folder is None:
        return ""
    return training_state(run, _config_of(run, flags))


def _config_of(run: StudyRun, flags: Sequence[str]) -> TrainConfig:
    return make_config(parse(make_parser(), ["train", *flags, *arm_flags(run, "--seed")]))


def _scoring_of(run: StudyRun, flags: Sequence[str]) -> dict[str, Any]:
    """What `leia-eval run --check` says of a run.

    Raises: OtherBuild where its scores were made otherwise than the recipe would today.
    """
    words = ["leia_eval", "run", *flags, *arm_flags(run, "--training-seed"), "--check"]
    found: dict[str, Any] = json.loads(output_of(words, f"the configuration of {run.name}"))
    return found
