"""`leia-train study`: from a recipe to trained, scored and compared arms, doing only what is missing.

FOLDER/report/study.json notes with which values and of which model each run was scored, so that nothing is scored twice; it
may be removed, which costs a scoring from the answers that leia-eval keeps. `--arms` and `--seeds` say what is done now: the
report is of all runs of the recipe that are trained and scored, so that a part of a study never replaces the whole.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from leia_beam.configuration import Options, parse
from leia_beam.errors import Interrupted, LeiaError, MissingResource, OtherBuild, UsageError
from leia_beam.manifest import MANIFEST_NAME
from leia_beam.recipe import CORPUS, EVALUATION, Recipe
from leia_train.checkpoints import COMPLETE_NAME, FINAL_NAME
from leia_train.command_configs import StudyConfig
from leia_train.command_line import make_config, make_parser
from leia_train.config import TrainConfig
from leia_train.files import sha256_of, write_json
from leia_train.launcher import is_launched
from leia_train.opening import source_fingerprints
from leia_train.runs import STATUS_NAME
from leia_train.study import FINISHED, StudyRun, study_runs, training_state
from leia_train.study_steps import output_of, run_step

NOTES_NAME = "study.json"
_RESULTS = "results.json"
_TRAINING_PAGE = "training.html"
_PAGES = ("comparison.html", "comparison.md", "comparison.json")

_SCORED_AGAIN = "; in a study --set evaluation.overwrite=true scores again what differs"

Report = Callable[[str], None]
_Found = TypeVar("_Found")


def run_study(options: Options, chosen: StudyConfig, *, report: Report) -> int:
    """Do what is missing of a recipe's study, and say at the end where everything is.

    Raises: OtherBuild where a folder holds what another recipe made; Interrupted, with what is kept; the error of a step.
    """
    if options.recipe is None:
        raise UsageError("give the study's recipe with -c FILE")
    if is_launched(os.environ):
        raise UsageError("a study starts its processes itself; give `nproc` in the recipe in place of a launcher")
    if importlib.util.find_spec("lm_eval") is None:
        raise MissingResource("a study needs lm_eval, which is not installed: pip install 'leia-lm[eval]'")
    study = _Study.of(options, chosen)
    if chosen.dry_run:
        print("\n".join(study.lines()))
        return 0
    for line in study.lines():
        report(line)
    study.do(report)
    print("\n".join(study.places()))
    return 0


@dataclass(kw_only=True)
class _Study:
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
    notes: dict[str, Any]
    report_folder: Path
    contamination: Path | None

    @classmethod
    def of(cls, options: Options, chosen: StudyConfig) -> _Study:
        """The study, with every command's configuration checked."""
        recipe = options.recipe_read
        flags = ["-c", str(recipe.path), *(f"--set={setting}" for setting in options.settings)]
        loudness = [f"--{name.replace('_', '-')}" for name in ("quiet", "log_json") if getattr(chosen, name)]
        runs = study_runs(recipe, chosen)
        folder = recipe.report_folder()
        if folder is None:
            raise UsageError(f"{recipe.path}: a study needs `folder`, below which everything is written")
        output_of(
            ["leia_eval", "compare", *flags, "--print-config"], "the comparison"
        )  # is its primary endpoint known?
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
            notes=_read_notes(notes_path),
            report_folder=notes_path.parent,
            contamination=None if seen is None else Path(seen.texts[0]),
        )
        return study.with_others([run for run in study_runs(recipe, StudyConfig()) if run not in runs])

    def with_others(self, others: Sequence[StudyRun]) -> _Study:
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

    def is_scored(self, run: StudyRun) -> bool:
        """Whether a run's scores are there and of the model that is there, with the values of today."""
        if run.folder is not None and self.training[run.name] != FINISHED:
            return False
        if not _has_scores(run) or self.scoring[run.name]["differing"]:
            return False
        return bool(self.notes["scored"].get(run.name) == self.key_of(run))

    def key_of(self, run: StudyRun) -> str:
        """What the scores of a run depend on."""
        weights = "" if run.folder is None else sha256_of(run.folder / FINAL_NAME / COMPLETE_NAME)
        scoring = self.scoring[run.name]
        values = [weights, scoring["model"], scoring["options"], sorted(scoring["tasks"])]
        return _sha256(json.dumps(values, sort_keys=True))

    def lines(self) -> Iterator[str]:
        """What is there and what is to be done."""
        width = max(len(run.name) for run in self.runs)
        for run in self.runs:
            training = "not trained" if run.folder is None else self.training[run.name]
            yield f"{run.name:<{width}}  training: {training}; scores: {FINISHED if self.is_scored(run) else 'to do'}"
        yield from self._corpus_lines()
        if self.contamination is not None:
            yield f"test items in the corpus are looked for: {self.contamination}"
        for reason in self.left_out:
            yield f"warning: not in the report: {reason}"
        if self.others:
            yield f"in the report too: {self._names_of_others()}"
        yield f"report: {self.report_folder}" if len(self.arms()) > 1 else "one arm alone: nothing to compare"

    def _names_of_others(self) -> str:
        return ", ".join(run.name for run in self.others)

    def _corpus_lines(self) -> Iterator[str]:
        """What stands against the corpus: that it is not there, or that the recipe would make another one today."""
        corpus = self.recipe.corpus_folder()
        if corpus is None or not self.recipe.section(CORPUS):
            return
        command = f"leia-beam build {shlex.join(self.flags)}"
        if not Path(corpus.texts[0], "shards", MANIFEST_NAME).is_file():
            yield f"warning: {corpus.texts[0]} holds no finished corpus: {command}"
            return
        try:
            output_of(
                ["leia_beam", "build", *self.flags, "--set=corpus.verify_inputs=false", "--dry-run"], "the corpus"
            )
        except OtherBuild as error:
            yield f"warning: the corpus is not the one that the recipe would make today: {error}"
        except LeiaError:
            return  # its dumps may be gone, which a finished corpus does not need

    def reported(self) -> list[StudyRun]:
        """The runs that the report is of, in the recipe's order."""
        return [run for run in study_runs(self.recipe, StudyConfig()) if run in self.runs or run in self.others]

    def arms(self) -> dict[str, list[StudyRun]]:
        """The runs of the report by arm, in the recipe's order."""
        found: dict[str, list[StudyRun]] = {arm: [] for arm in self.recipe.arms}
        for run in self.reported():
            found.setdefault(run.arm, []).append(run)
        return {arm: runs for arm, runs in found.items() if runs}

    def do(self, report: Report) -> None:
        """Do what is missing, run by run."""
        try:
            self._do(report)
        except Interrupted as error:
            scored = sum(self.is_scored(run) for run in self.runs)
            raise Interrupted(
                f"interrupted in {error}; {scored} of {len(self.runs)} runs are trained and scored, and what was begun is "
                "kept; the same command goes on"
            ) from error

    def _do(self, report: Report) -> None:
        missing = [run for run in self.runs if not self.is_scored(run)]
        if any(run.folder is not None and self.training[run.name] != FINISHED for run in missing):
            report("looking at the tasks and their data")
            output_of(
                ["leia_eval", "run", *self.flags, *_arm_flags(missing[0], "--training-seed"), "--dry-run"], "tasks"
            )
        for number, run in enumerate(missing, 1):
            if run.folder is not None and self.training[run.name] != FINISHED:
                report(f"training {run.name} ({number} of {len(missing)})")
                run_step(
                    ["leia_train", "train", *self.flags, *self.loudness, *_arm_flags(run, "--seed")],
                    f"the training of {run.name}",
                )
                self.training[run.name] = FINISHED
            report(f"scoring {run.name} ({number} of {len(missing)})")
            run_step(
                ["leia_eval", "run", *self.flags, *self.loudness, *_arm_flags(run, "--training-seed")],
                f"the scoring of {run.name}",
            )
            self.scoring[run.name]["differing"] = []
            self._note("scored", run.name, self.key_of(run))
            report(f"{run.name}: {', '.join(_scores_of(run))}")
        self._draw_training(report)
        self._look_for_items(report)
        self._compare(report)

    def _draw_training(self, report: Report) -> None:
        """One page of all trained runs' curves."""
        runs = [run.folder for run in self.reported() if run.folder is not None]
        key = _sha256("\n".join(f"{run} {sha256_of(run / STATUS_NAME)}" for run in runs))
        if not runs or (self.training_page.is_file() and self.notes["drawn"].get("key") == key):
            return
        report("drawing the training")
        words = ["leia_train", "report", *map(str, runs), "--output", str(self.training_page), "--no-exposures"]
        run_step(words, "the page of the training")
        self._note("drawn", "key", key)

    @property
    def training_page(self) -> Path:
        """Where the curves of all runs are."""
        return self.report_folder / _TRAINING_PAGE

    def _look_for_items(self, report: Report) -> None:
        if self.contamination is None:
            return
        words = ["leia_eval", "contamination", *self.flags]
        key = _sha256(
            f"{self._manifest_of_shards()}\n{_values(output_of([*words, '--print-config'], 'contamination'))}"
        )
        noted, data = self.notes["contamination"], self._data()
        if self.contamination.is_file() and noted.get("key") == key and data in (None, noted.get("data")):
            return
        report("looking for test items in the corpus")
        run_step([*words, *self.loudness], "the search for test items")
        self._note("contamination", "key", key)
        self._note("contamination", "data", data or "")

    def _data(self) -> str | None:
        """What the items are that are looked for; None where their files are not there, which a finished search does not need."""
        tasks = [self.scoring[run.name]["tasks"] for run in self.runs]
        if any(sums["items"] is None for of_run in tasks for sums in of_run.values()):
            return None
        return _sha256("\n".join(sorted({json.dumps(of_run, sort_keys=True) for of_run in tasks})))

    def _sources(self) -> str:
        """What the files are that any arm mixes with the shards."""
        runs = [run for run in study_runs(self.recipe, StudyConfig()) if run.folder is not None]
        found = [source_fingerprints(_config_of(run, self.flags).data) for run in runs]
        return "\n".join(sorted({json.dumps(of_run, sort_keys=True) for of_run in found}))

    def _manifest_of_shards(self) -> str:
        corpus = self.recipe.corpus_folder()
        paths = [] if corpus is None else sorted(Path(corpus.texts[0]).glob("shards/_manifest.json"))
        return sha256_of(paths[0]) if paths else ""

    def _compare(self, report: Report) -> None:
        arms = self.arms()
        if len(arms) < 2:
            return
        words = ["leia_eval", "compare", *self.flags]
        words += [f"{arm}={','.join(str(run.scores) for run in runs)}" for arm, runs in arms.items()]
        words += ["--output", str(self.report_folder)]
        sums = [sha256_of(run.scores / _RESULTS) for run in self.reported()]
        sums += [] if self.contamination is None else [sha256_of(self.contamination)]
        key = _sha256("\n".join([*sums, _values(output_of([*words, "--print-config"], "compare"))]))
        pages = [self.report_folder / name for name in _PAGES]
        if all(page.is_file() for page in pages) and self.notes["compared"].get("key") == key:
            return
        report("comparing the arms")
        run_step(words, "the comparison")
        self._note("compared", "key", key)

    def _note(self, part: str, name: str, key: str) -> None:
        self.notes[part][name] = key
        self.report_folder.mkdir(parents=True, exist_ok=True)
        write_json(self.report_folder / NOTES_NAME, self.notes)

    def places(self) -> Iterator[str]:
        """Where everything is that a user may want."""
        for run in self.runs:
            model = "" if run.folder is None else f"model {run.folder / FINAL_NAME}, "
            yield f"{run.name}: {model}scores {run.scores / 'report.html'}"
        if self.contamination is not None:
            yield f"test items in the corpus: {self.contamination}"
        if self.others:
            yield f"in the report too: {self._names_of_others()}"
        if any(run.folder is not None for run in self.reported()):
            yield f"curves of the trainings: {self.training_page}"
        if len(self.arms()) > 1:
            yield from _primary_line(self.report_folder / _PAGES[2])
            yield f"comparison: {self.report_folder / _PAGES[0]} and {self.report_folder / _PAGES[1]}"


def _has_scores(run: StudyRun) -> bool:
    """Whether its results and all of its answers are there; whether they are whole is looked at when they are read."""
    try:
        tasks = json.loads((run.scores / _RESULTS).read_bytes())["tasks"]
    except (OSError, ValueError, KeyError):
        return False
    return all((run.scores / "samples" / f"{task['name']}.jsonl").is_file() for task in tasks)


def _scores_of(run: StudyRun) -> Iterator[str]:
    """Each task's main score."""
    for task in json.loads((run.scores / _RESULTS).read_bytes())["tasks"]:
        score = task["scores"].get(task["metric"])
        if score is not None:
            yield f"{task['name']} {task['metric']} {100 * score['value']:.1f}"


def _primary_line(comparison: Path) -> Iterator[str]:
    """What the primary endpoint came to."""
    primary = json.loads(comparison.read_bytes())["primary"]
    if primary is not None:
        low, value, high = (100 * primary[part] for part in ("low", "difference", "high"))
        yield (
            f"primary endpoint: {primary['arm']} minus {primary['against']} {value:+.1f} points, 95 % interval {low:+.1f} to "
            f"{high:+.1f}, p {primary['p']:.3g}, over {len(primary['tasks'])} tasks"
        )


def _arm_flags(run: StudyRun, seed_flag: str) -> list[str]:
    return ["--arm", run.arm, *([] if run.seed is None else [seed_flag, str(run.seed)])]


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
    return make_config(parse(make_parser(), ["train", *flags, *_arm_flags(run, "--seed")]))


def _scoring_of(run: StudyRun, flags: Sequence[str]) -> dict[str, Any]:
    """What `leia-eval run --check` says of a run.

    Raises: OtherBuild where its scores were made otherwise than the recipe would today.
    """
    words = ["leia_eval", "run", *flags, *_arm_flags(run, "--training-seed"), "--check"]
    found: dict[str, Any] = json.loads(output_of(words, f"the configuration of {run.name}"))
    return found


def _values(config: str) -> str:
    """A printed configuration without where its values came from."""
    return "\n".join(line.rpartition("  # ")[0] or line for line in config.splitlines() if not line.startswith("#"))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read_notes(path: Path) -> dict[str, Any]:
    """The notes of the study so far; none where they are damaged, since they only spare work."""
    empty: dict[str, Any] = {"scored": {}, "drawn": {}, "contamination": {}, "compared": {}}
    try:
        found = json.loads(path.read_bytes())
        return {part: dict(found.get(part, {})) for part in empty}
    except (OSError, ValueError, AttributeError, TypeError):
        return empty
