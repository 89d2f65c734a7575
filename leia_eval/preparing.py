"""From options to tasks with their data, shots and requests, by the rules of a profile; needs no model.

lm-eval builds the prompts, from the tasks' YAML and the shots that are given to it. `standard` is lm-eval's own way,
with shots fixed per document; `reference` draws the shots and lays out the requests as LEIA's harness did.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leia_beam.errors import DamagedInput, MissingResource, UsageError
from leia_eval import jasquad
from leia_eval.catalog import TASKS_FOLDER, TaskEntry, read_catalog, select_tasks
from leia_eval.documents import SHOT_SPLIT, SPLIT, ItemFile, TaskData, read_source
from leia_eval.forms import Document

PROFILES = ("standard", "reference")
PROMPTS_IN_DRY_RUN = 3
LONGEST_ANSWER = 256
"""Tokens, where a set of lm-eval does not say."""


@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """What decides the prompts. `data_dir` None: from the hub. `shots` None: none, or in `reference` the paper's.

    limit: at most so many items of each task, drawn by `limit_seed`.
    """

    tasks: tuple[str, ...]
    data_dir: Path | None = None
    shots: int | None = None
    limit: int | None = None
    limit_seed: int = 42
    seed: int = 42
    profile: str = "standard"
    pmi: bool = False

    def __post_init__(self) -> None:
        if self.shots is not None and self.shots < 0:
            raise UsageError(f"--shots {self.shots} must be 0 or more")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit {self.limit} must be 1 or more")
        for option, seed in (("--seed", self.seed), ("--limit-seed", self.limit_seed)):
            if seed < 0:
                raise UsageError(f"{option} {seed} must be 0 or more")
        if self.profile not in PROFILES:
            raise UsageError(f"--profile {self.profile} is none of {', '.join(PROFILES)}")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One thing asked of a model for one item: a continuation to score, or (None) a text to write.

    `unconditional`: the choice after nothing, for PMI. `length_of`: answers whose longest one is the longest text.
    """

    item_index: int
    choice: int
    context: str
    continuation: str | None
    unconditional: bool = False
    until: tuple[str, ...] = ()
    max_new_tokens: int = 0
    length_of: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PreparedTask:
    """A task with its checked items, lm-eval's task object, and the requests of the items to be scored."""

    entry: TaskEntry
    data: TaskData
    task: Any = field(repr=False)
    shots: int
    shots_from: str
    profile: str
    requests: list[Request] = field(repr=False)
    prompts_sha256: str

    @property
    def items(self) -> ItemFile:
        """The evaluated items."""
        return self.data.items

    @property
    def scored(self) -> list[int]:
        """Which items are scored, in the data's order."""
        return sorted({request.item_index for request in self.requests})

    @property
    def n(self) -> int:
        """How many items are scored."""
        return len(self.scored)

    def id_of(self, index: int) -> str:
        """The id of item `index`."""
        return str(self.items.documents[index]["id"])

    def where(self, request: Request) -> str:
        """Item, choice, task and place of a request, for a message."""
        labels = labels_of(self.items.documents[request.item_index])
        of_choice = "" if request.continuation is None else f" (choice {labels[request.choice]!r})"
        place = self.items.places[request.item_index]
        return f"item {self.id_of(request.item_index)!r}{of_choice} of {self.entry.name} at {place}"


def labels_of(document: Document) -> Sequence[str]:
    """The labels of a document's choices, A, B, … where it has none."""
    question = document.get("question")
    return question["choices"]["label"] if isinstance(question, dict) else "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def prepare_tasks(options: PromptOptions) -> list[PreparedTask]:
    """Tasks with items, shots and prompts.

    Raises: UsageError for an unknown task, missing data or too many shots; DamagedInput for a damaged item.
    """
    entries = select_tasks(options.tasks, read_catalog())
    for entry in entries:
        _check_profile(entry, options)
    data = {entry.name: read_source(entry.source, options.data_dir, entry.name) for entry in entries if entry.source}
    shots = {name: _draw_shots(entry, data[name], options) for entry in entries if (name := entry.name) in data}
    from lm_eval.tasks import TaskManager

    manager = TaskManager(
        include_path=TASKS_FOLDER,
        include_defaults=any(entry.source is None for entry in entries),
        metadata={"data_dir": str(options.data_dir)} if options.data_dir else None,
    )
    tasks: dict[str, list[tuple[str, Any]]] = {}
    for entry in entries:  # a task that lm-eval brings may be a group of its own, of subjects
        tasks[entry.name] = sorted(manager.load([entry.name])["tasks"].items())
    prepared = []
    for entry in entries:
        for name, task in tasks[entry.name]:
            if entry.source is None:
                named = TaskEntry(**{**vars(entry), "name": name})
                prepared.append(_prepare(named, _data_of(name, task), task, None, options))
            else:
                prepared.append(_prepare(entry, data[name], task, shots[name], options))
    return prepared


def dry_run(options: PromptOptions, n: int = PROMPTS_IN_DRY_RUN) -> str:
    """The first `n` full prompts of each task, with their choices or gold answers."""
    lines = []
    for task in prepare_tasks(options):
        lines.append(f"== {task.entry.name}: {task.n} items of {task.items.name}, {task.shots} shots{task.shots_from}")
        for index in task.scored[:n]:
            document = task.items.documents[index]
            requests = [request for request in task.requests if request.item_index == index]
            lines += [f"-- item {document['id']!r}", requests[0].context]
            for request in requests:
                if request.continuation is None:
                    lines.append(f" * {' | '.join(document.get('answers', ['?']))}")
                elif not request.unconditional:
                    label = labels_of(document)[request.choice]
                    mark = "*" if request.choice == gold_index(task.task, document) else " "
                    lines.append(f" {mark} {label}:{request.continuation}")
    return "\n".join(lines)


def gold_index(task: Any, document: Document) -> int:
    """Which choice is right, as lm-eval reads it."""
    gold = task.doc_to_target(document)
    return int(gold) if isinstance(gold, int) else list(task.doc_to_choice(document)).index(gold)


def draw_items(ids: Sequence[str], n: int, seed: int) -> list[int]:
    """The places of `n` of the items, in order: those whose SHA-256 of seed and id is least.

    So a set in order of articles (JSQuAD) is drawn from all of them, the same items are drawn in every language and in
    every order of the file, and fewer are a part of more.
    """
    ranked = sorted(range(len(ids)), key=lambda i: hashlib.sha256(f"{seed}\0{ids[i]}".encode()).digest())
    return sorted(ranked[:n])


def _check_profile(entry: TaskEntry, options: PromptOptions) -> None:
    if options.profile == "reference" and "reference_shots" not in entry.metadata:
        raise UsageError(f"the reference profile has no {entry.name}: the paper did not score it so; use standard")
    if options.profile == "reference" and entry.metadata.get("scorer") == "jasquad" and not jasquad.is_installed():
        raise MissingResource(
            f"the reference profile scores {entry.name} by JaSQuAD's rule, whose packages are not installed; "
            f"{jasquad.INSTALL}, or use standard"
        )
    if options.data_dir is not None and entry.source is None:
        raise UsageError(f"{entry.name} is lm-eval's own and reads the hub; leave --data-dir away to run it")


def _shots_wanted(entry: TaskEntry, options: PromptOptions) -> int:
    if options.profile == "reference":
        if entry.metadata["reference_shots"] == "none":
            return 0
        return int(entry.metadata["reference_n"]) if options.shots is None else options.shots
    return options.shots or 0


def _draw_shots(entry: TaskEntry, data: TaskData, options: PromptOptions) -> dict[str, list[Document]]:
    """The shots of every document, by its id."""
    from leia_eval import reference
    from leia_eval.prompts import ShotPool

    n = _shots_wanted(entry, options)
    assert entry.source is not None
    if options.profile == "reference":
        way = entry.metadata["reference_shots"]
        train = data.shots.documents if data.shots is not None and way in ("train", "fixed") else None
        ids = entry.source.shot_ids if way == "fixed" else ()
        return reference.draw_shots(
            data.items.documents, n, train=train, fixed_ids=ids, needs_train=way == "train", task=entry.name
        )
    pool = ShotPool((data.shots or data.items).documents)
    try:
        return {document["id"]: pool.draw(document, n, options.seed) for document in data.items.documents}
    except UsageError as error:
        raise UsageError(f"{entry.name}: {error}") from error


def _data_of(name: str, task: Any) -> TaskData:
    """The items of a set that lm-eval brings: documents as they are, with an id where they have none."""
    documents = [{**document, "id": str(document.get("id", index))} for index, document in enumerate(task.eval_docs)]
    digest = hashlib.sha256("".join(json.dumps(doc, sort_keys=True, default=str) for doc in documents).encode())
    places = [f"document {index}" for index in range(len(documents))]
    return TaskData(
        items=ItemFile(name=f"hub:{name}", sha256=digest.hexdigest(), documents=documents, places=places), shots=None
    )


def _prepare(
    entry: TaskEntry, data: TaskData, task: Any, shots: dict[str, list[Document]] | None, options: PromptOptions
) -> PreparedTask:
    n = _shots_wanted(entry, options) if entry.source else options.shots
    if entry.source and list(task.dataset[SPLIT]) != data.items.documents:
        raise DamagedInput(f"the data file {data.items.name} changed while it was read; start again")
    if n is not None:
        task.set_config("num_fewshot", n)
    if shots is not None:
        from leia_eval.prompts import GivenShots

        task.sampler = GivenShots(shots)
    else:
        task.set_fewshot_seed(options.seed)  # once, in one process: the requests are the same at any number of them
    drawn = None
    if options.limit is not None:
        drawn = draw_items([document["id"] for document in data.items.documents], options.limit, options.limit_seed)
    task.build_all_requests(samples=drawn, rank=0, world_size=1)
    if drawn is not None:
        for instance in task.instances:
            instance.doc_id = drawn[instance.doc_id]  # lm-eval counts within the samples
    requests = [
        request
        for instance in task.instances
        if (request := _request(instance, entry, data.items.documents, task, options)) is not None
    ]
    if options.pmi:
        requests += _unconditional(requests)
    digest = hashlib.sha256("".join(json.dumps(_prompt(request)) + "\n" for request in requests).encode())
    of_own_set = entry.source is not None and SHOT_SPLIT in task.dataset
    if not n:
        shots_from = ""
    elif options.profile == "reference":
        shots_from = f", drawn as the reference does ({entry.metadata['reference_shots']})"
    else:
        shots_from = f" from {data.shots.name}" if of_own_set and data.shots else " from the same set"
    return PreparedTask(
        entry=entry,
        data=data,
        task=task,
        shots=n or 0,
        shots_from=shots_from,
        profile=options.profile,
        requests=requests,
        prompts_sha256=digest.hexdigest(),
    )


def _prompt(request: Request) -> list[Any]:
    if request.continuation is not None:
        return [request.context, request.continuation]
    return [request.context, request.until, request.max_new_tokens, request.length_of]


def _request(
    instance: Any, entry: TaskEntry, documents: Sequence[Document], task: Any, options: PromptOptions
) -> Request | None:
    reference = options.profile == "reference"
    document = documents[instance.doc_id]
    context, asked = instance.args[:2]
    if instance.request_type == "generate_until":
        if asked.get("do_sample") or asked.get("temperature", 0):
            raise UsageError(f"{entry.name} samples its answers, which no second run would repeat")
        until = asked.get("until") or []
        gold = reference and entry.metadata.get("reference_length") == "gold"
        return Request(
            item_index=instance.doc_id,
            choice=0,
            context=context,
            continuation=None,
            until=(until,) if isinstance(until, str) else tuple(until),
            max_new_tokens=0 if gold else int(asked.get("max_gen_toks", LONGEST_ANSWER)),
            length_of=tuple(document["answers"]) if gold else (),
        )
    if instance.request_type != "loglikelihood":
        raise UsageError(f"{entry.name} asks for {instance.request_type}, which this program does not do")
    if reference and entry.metadata.get("reference_context") == "empty":
        context, asked = "", context + asked
    if not task.multiple_input and instance.idx >= len(task.doc_to_choice(document)):
        return None  # lm-eval's own extra requests for PMI
    return Request(item_index=instance.doc_id, choice=instance.idx, context=context, continuation=asked)


def _unconditional(requests: Sequence[Request]) -> list[Request]:
    """Each choice after nothing; choices that stand after nothing anyway have no PMI."""
    return [
        Request(
            item_index=request.item_index,
            choice=request.choice,
            context="",
            continuation=request.continuation,
            unconditional=True,
        )
        for request in requests
        if request.continuation is not None and request.context
    ]
