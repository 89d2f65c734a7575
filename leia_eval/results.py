"""From scored tasks to what results.json holds, and to the keys that tell whether two runs, or two answers, are the same."""

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from leia_beam.version import DISTRIBUTION
from leia_eval import jasquad, scoring
from leia_eval.cache import request_key
from leia_eval.model_options import ModelOptions
from leia_eval.preparing import PreparedTask, PromptOptions
from leia_eval.run_folder import FORMAT, Json, Samples
from leia_eval.task_scoring import scored_by_words

if TYPE_CHECKING:
    from leia_eval.checkpoints import ModelIdentity

PACKAGES = ("lm_eval", "transformers", "torch", "tokenizers", "datasets", "numpy")


@dataclass(frozen=True, kw_only=True)
class About:
    """What is known of a model once it is loaded."""

    parameters: int | None
    computed_dtype: str


def scored_options(prompts: PromptOptions, model: ModelOptions) -> Json:
    """The options that decide the scores of a given model on given data."""
    return {
        "profile": prompts.profile, "shots": prompts.shots, "seed": prompts.seed,
        "limit": prompts.limit, "limit_seed": None if prompts.limit is None else prompts.limit_seed,
        "pmi": prompts.pmi, "batch_size": model.batch_size, "device": model.device, "dtype": model.dtype,
        "backend": model.backend, "untrained_seed": model.untrained_seed,
    }  # fmt: skip


def own_version() -> str:
    """This package's version, or what stands for it in a source tree that was never installed."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0+not.installed"


def model_key(identity: "ModelIdentity", options: ModelOptions) -> Json:
    """What of a model an answer depends on."""
    return {
        "weights": identity.weights_sha256,
        "config": identity.config_sha256,
        "tokenizer": identity.tokenizer_sha256,
        "settings": identity.settings_sha256,
        "dtype": options.dtype,
        "device": options.device.split(":")[0],
        "backend": options.backend,
    }


def about_key(identity: "ModelIdentity", options: ModelOptions) -> str:
    """Under which the cache of answers keeps what is known of the model."""
    return request_key(model_key(identity, options), {"about": "the model"})


def run_key(
    prompts: PromptOptions, model: ModelOptions, tasks: Sequence[PreparedTask], identity: "ModelIdentity"
) -> Json:
    """What must be equal for two runs to be the same run."""
    return {
        "model": [
            identity.weights_sha256, identity.config_sha256, identity.tokenizer_sha256, identity.settings_sha256
        ],
        "tasks": {task.entry.name: [task.items.sha256, task.prompts_sha256] for task in tasks},
        "options": scored_options(prompts, model),
    }  # fmt: skip


def run_results(
    key: Json,
    prepared: Sequence[PreparedTask],
    samples: Samples,
    identity: "ModelIdentity",
    about: About,
    cut: dict[str, int],
) -> Json:
    """What results.json holds; `cut`: by task, how many items lost a part of their context."""
    versions = {"leia": own_version(), "python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in PACKAGES}
    if any(map(scored_by_words, prepared)):
        versions |= jasquad.versions()
    return {
        "format": FORMAT,
        "key": key,
        "model": {**asdict(identity), **asdict(about)},
        "options": key["options"],
        "interval": "95 %: Wilson for right or wrong, else a bootstrap over clusters of items",
        "versions": versions,
        "tasks": [_task_result(task, samples[task.entry.name], cut[task.entry.name]) for task in prepared],
    }


def _task_result(task: PreparedTask, rows: list[scoring.Row], cut: int) -> Json:
    from leia_eval.stats import score_interval

    metadata_ = task.entry.metadata
    preferred = metadata_.get("reference_metric") if task.profile == "reference" else None
    lacks_words = metadata_.get("scorer") == "jasquad" and not scored_by_words(task)
    return {
        "name": task.entry.name,
        "version": task.entry.version,
        "group": task.entry.tags[0] if task.entry.tags else task.entry.name,
        "language": task.entry.language,
        "n": len(rows),
        "items_in_file": len(task.items.documents),
        "without_answer": task.items.without_answer,
        "empty_choices": task.items.empty_choices if task.entry.source else 0,
        "clusters": len({row["cluster"] for row in rows}),
        "shots": task.shots,
        "shots_from": task.shots_from.removeprefix(",").strip(),
        "chance": scoring.chance_of(rows),
        "metric": scoring.main_metric(rows, preferred),
        "scores": {metric: asdict(score_interval(rows, metric)) for metric in scoring.metrics_of(rows)},
        "flags": scoring.flag_shares(rows),
        "cut": cut,
        "left_out": f"JaSQuAD's scores need packages that are not installed: {jasquad.INSTALL}" if lacks_words else "",
        "ties": sum(row.get("tied", False) for row in rows),
        "from_wikipedia": bool(metadata_.get("from_wikipedia")),
        "data_file": task.items.name,
        "data_sha256": task.items.sha256,
        "shots_sha256": task.data.shots.sha256 if task.data.shots and task.shots else None,
        "prompts_sha256": task.prompts_sha256,
    }
