"""From the answers to a task's requests to one scored row an item, by the task's own rule."""

from collections.abc import Sequence

from leia_eval import jasquad, scoring
from leia_eval.cache import Answer
from leia_eval.preparing import PreparedTask, Request, gold_index, labels_of
from leia_eval.run_folder import Json


def score_task(task: PreparedTask, answers: Sequence[Answer]) -> list[scoring.Row]:
    """One row an item, in the order of the data."""
    of_item: dict[int, list[tuple[Request, Answer]]] = {}
    for request, answer in zip(task.requests, answers, strict=True):
        of_item.setdefault(request.item_index, []).append((request, answer))
    return [_score_item(task, index, of_item[index]) for index in sorted(of_item)]


def scored_by_words(task: PreparedTask) -> bool:
    """Whether the task's answers are also scored by JaSQuAD's rule."""
    return task.entry.metadata.get("scorer") == "jasquad" and jasquad.is_installed()


def _score_item(task: PreparedTask, index: int, found: Sequence[tuple[Request, Answer]]) -> scoring.Row:
    document = task.items.documents[index]
    asked = [(request, answer) for request, answer in found if not request.unconditional]
    id_, prompt = task.id_of(index), asked[0][0].context
    if asked[0][0].continuation is None and task.entry.source is not None:
        answer = asked[0][1]
        return scoring.generation_row(
            document,
            id_=id_,
            generated=answer["text"],
            ended=answer["ended"],
            prompt=prompt,
            by_words=scored_by_words(task),
            keep_names=task.profile == "reference",
        )
    if asked[0][0].continuation is None or task.task.multiple_input:
        return _score_by_lm_eval(task, document, id_, asked)
    unconditional = [answer["log_likelihood"] for request, answer in found if request.unconditional]
    choices = list(task.task.doc_to_choice(document))
    return scoring.choices_row(
        document,
        id_=id_,
        labels=labels_of(document)[: len(choices)],
        choices=choices,
        gold=gold_index(task.task, document),
        log_likelihoods=[answer["log_likelihood"] for _, answer in asked],
        unconditional=unconditional or None,
        prompt=prompt,
    )


def _score_by_lm_eval(
    task: PreparedTask, document: Json, id_: str, asked: Sequence[tuple[Request, Answer]]
) -> scoring.Row:
    """By the filters and the counting of a set that lm-eval brings; the first filter's scores are kept."""
    instances = [instance for instance in task.task.instances if instance.doc_id == asked[0][0].item_index]
    for instance, (_, answer) in zip(instances, asked, strict=True):
        instance.resps = [answer["text"] if "text" in answer else (answer["log_likelihood"], False)]
    first = task.task._filters[0]
    first.apply(instances)
    responses = [instance.filtered_resps[first.name] for instance in instances]
    scores = task.task.process_results(document, responses)
    said = [answer.get("text", answer.get("log_likelihood")) for _, answer in asked]
    return scoring.other_row(document, id_=id_, scores=scores, prompt=asked[0][0].context, response=said)
