"""From a recipe to the runs of its study: each arm with each seed, where it goes, and what of it is done.

Nothing is run here, and neither torch nor a shard is read: a run is finished where its status says so, its description is
what the recipe would make today, and its final checkpoint has the files that it should have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from leia_beam.errors import OtherBuild, UsageError
from leia_beam.manifest import MANIFEST_NAME
from leia_beam.recipe import DEFAULT_ARM, Recipe
from leia_beam.suggestions import nearest
from leia_train.checkpoints import FINAL_NAME, is_whole, step_checkpoints
from leia_train.command_configs import StudyConfig
from leia_train.config import TrainConfig
from leia_train.files import sha256_of
from leia_train.opening import source_fingerprints
from leia_train.runs import CODE, RUN_NAME, check_output, code_fingerprint, read_status
from leia_train.store import fingerprint_of


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyRun:
    """One arm with one seed; without a seed, a model that is scored as it is."""

    arm: str
    seed: int | None
    folder: Path | None
    """Where it is trained; None where it is not."""
    scores: Path

    @property
    def name(self) -> str:
        """How messages call it."""
        return self.arm if self.seed is None else f"{self.arm}-{self.seed}"


def study_runs(recipe: Recipe, chosen: StudyConfig) -> list[StudyRun]:
    """The runs, seed by seed, so that the arms can be compared as soon as the first seed is done.

    Raises: UsageError where the recipe has no such arm or seed, no folder, or one folder for several runs.
    """
    arms = list(recipe.arms) or [DEFAULT_ARM]
    seeds = list(recipe.seeds) or [recipe.seed()]
    for flag, given, known in (("--arms", chosen.arms, arms), ("--seeds", chosen.seeds, seeds)):
        for each in given:
            if each not in known:
                raise UsageError(
                    f"{flag} {each}: the recipe has {', '.join(map(str, known))}{nearest(each, map(str, known))}"
                )
    wanted = [arm for arm in arms if not chosen.arms or arm in chosen.arms]
    runs = list(_untrained(recipe, wanted))
    for seed in seeds:
        if not chosen.seeds or seed in chosen.seeds:
            runs += [_trained(recipe, arm, seed) for arm in wanted if recipe.is_trained(arm)]
    for name, paths in (
        ("training.output", [run.folder for run in runs if run.folder is not None]),
        ("evaluation.output", [run.scores for run in runs]),
    ):
        if len(set(paths)) < len(paths):
            raise UsageError(
                f"{recipe.path}: {name} is one folder for {len(paths)} runs; leave it out and give `folder`"
            )
    return runs


def _untrained(recipe: Recipe, arms: Sequence[str]) -> Iterator[StudyRun]:
    for arm in arms:
        if not recipe.is_trained(arm):
            yield StudyRun(arm=arm, seed=None, folder=None, scores=_scores(recipe, arm, ""))


def _trained(recipe: Recipe, arm: str, seed: int) -> StudyRun:
    folder = recipe.run_folder(arm, seed)
    if folder is None:
        raise UsageError(f"{recipe.path}: a study needs `folder`, below which everything is written")
    return StudyRun(arm=arm, seed=seed, folder=Path(folder.texts[0]), scores=_scores(recipe, arm, seed))


def _scores(recipe: Recipe, arm: str, seed: int | str) -> Path:
    scores = recipe.scores_folder(arm, seed)
    if scores is None:
        raise UsageError(f"{recipe.path}: a study needs `folder`, below which everything is written")
    return Path(scores.texts[0])


FINISHED = "finished"


def training_state(run: StudyRun, config: TrainConfig) -> str:
    """FINISHED, or what is there of a run's training.

    Raises: OtherBuild where its folder holds the run of another recipe, or something else.
    """
    assert run.folder is not None
    if (run.folder / RUN_NAME).is_file():
        identity = {**config.identity(), "data_fingerprint": _data_fingerprint(config), CODE: code_fingerprint()}
        identity |= source_fingerprints(config.data)
        try:
            check_output(run.folder, identity, accept_other_code=config.run.accept_other_code)
        except (OtherBuild, UsageError) as error:
            raise OtherBuild(str(error)) from error
    status = read_status(run.folder)
    if status.get("status") == FINISHED and is_whole(run.folder / FINAL_NAME, sums=False):
        return FINISHED
    steps = [checkpoint.step for checkpoint in step_checkpoints(run.folder)]
    return f"goes on after step {max(steps):,}" if steps else "a new run"


def _data_fingerprint(config: TrainConfig) -> str:
    """What the shards' manifests are.

    Raises: UsageError where one is not there.
    """
    manifests = [Path(folder) / MANIFEST_NAME for folder in config.data.shards]
    for path in manifests:
        if not path.is_file():
            raise UsageError(f"{path.parent}: holds no finished shards; build them first with `leia-beam build`")
    return fingerprint_of([sha256_of(path) for path in manifests])
