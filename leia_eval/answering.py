"""From encoded requests to their answers: fixed batches, dealt to processes, remembered in a cache.

A batch is a function of one task's requests and the batch size alone, so that its padding, and with it the last bits
of its numbers, are the same in every run: at one process and at several, and after an interruption. A batch is done
when all its answers are in the cache, else it is answered as a whole. Out of memory halves what goes through the model
at once, and the batch is tried again.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from leia_beam.errors import DamagedInput, MissingResource
from leia_eval.cache import Answer, AnswerCache, request_key

if TYPE_CHECKING:
    from leia_eval.scoring_model import ScoringModel


@dataclass(frozen=True, kw_only=True)
class EncodedRequest:
    """A request as token ids. `continuation_ids` is None where the model is to write; `where` is for messages.

    cut: how many tokens of the context's beginning were left out.
    """

    context_ids: tuple[int, ...]
    continuation_ids: tuple[int, ...] | None
    until: tuple[str, ...] = ()
    max_new_tokens: int = 0
    cut: int = field(default=0, compare=False)
    where: str = field(compare=False, repr=False)

    def description(self) -> dict[str, Any]:
        """What decides the answer, for the cache's key."""
        if self.continuation_ids is not None:
            return {"context": self.context_ids, "continuation": self.continuation_ids}
        return {"context": self.context_ids, "until": self.until, "max_new_tokens": self.max_new_tokens}

    @property
    def size(self) -> int:
        """Tokens that the model reads, for the order of batches."""
        return len(self.context_ids) + len(self.continuation_ids or ())


def fixed_batches(requests: Sequence[EncodedRequest], batch_size: int) -> Iterator[list[EncodedRequest]]:
    """The distinct requests in batches: one kind of request a batch, the longest first."""
    kinds: dict[tuple[Any, ...], list[EncodedRequest]] = {}
    for request in dict.fromkeys(requests):
        kind = (request.continuation_ids is None, request.until, request.max_new_tokens)
        kinds.setdefault(kind, []).append(request)
    for kind in sorted(kinds):
        ordered = sorted(
            kinds[kind], key=lambda request: (-request.size, request.context_ids, request.continuation_ids)
        )
        for start in range(0, len(ordered), batch_size):
            yield ordered[start : start + batch_size]


class Answerer:
    """Answers batches with a model that is loaded when the first one is not in the cache."""

    def __init__(
        self,
        *,
        load: Callable[[], "ScoringModel"],
        model_key: Mapping[str, Any],
        cache: AnswerCache,
        batch_size: int,
        advance: Callable[[int], None] = lambda count: None,
    ):
        self._load = load
        self._model: ScoringModel | None = None
        self._model_key = dict(model_key)
        self._cache = cache
        self._batch_size = batch_size
        self._advance = advance
        self.at_once = batch_size
        """How many requests go through the model together: the batch size, halved whenever memory ran out."""
        self.from_cache = 0

    def load(self) -> "ScoringModel":
        """The model, loaded now if it was not."""
        if self._model is None:
            self._model = self._load()
        return self._model

    def key(self, request: EncodedRequest) -> str:
        """Where the cache holds the answer."""
        return request_key(self._model_key, request.description())

    def answer(self, requests: Sequence[EncodedRequest], *, rank: int = 0, world_size: int = 1) -> None:
        """Puts this process's share of the answers into the cache.

        Raises: DamagedInput for an answer that is no number, MissingResource where one request alone is too large.
        """
        for number, batch in enumerate(fixed_batches(requests, self._batch_size)):
            if number % world_size == rank:
                self._answer_batch(batch)

    def answers(self, requests: Sequence[EncodedRequest]) -> list[Answer]:
        """All answers, in the order of the requests."""
        return [self._cache[self.key(request)] for request in requests]

    def _answer_batch(self, batch: list[EncodedRequest]) -> None:
        keys = [self.key(request) for request in batch]
        if all(key in self._cache for key in keys):
            self.from_cache += len(batch)
        else:
            answers: list[Answer] = []
            while len(answers) < len(batch):
                part = batch[len(answers) : len(answers) + self.at_once]
                found = self._try(part)
                if found is None:
                    self.at_once = max(1, self.at_once // 2)
                else:
                    answers += found
            self._cache.add(list(zip(keys, answers, strict=True)))
        self._advance(len(batch))

    def _try(self, part: Sequence[EncodedRequest]) -> list[Answer] | None:
        """The answers, or None where the memory was too small for so many at once."""
        import torch

        model = self.load()
        try:
            return _ask(model, part)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if "out of memory" not in str(error).lower() and not isinstance(error, torch.OutOfMemoryError):
                raise
            if self.at_once == 1:
                raise MissingResource(
                    f"out of memory for {part[0].where} alone ({part[0].size} tokens); give a larger device, or --device auto"
                ) from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


def _ask(model: "ScoringModel", part: Sequence[EncodedRequest]) -> list[Answer]:
    first = part[0]
    if first.continuation_ids is None:
        contexts = [list(request.context_ids) for request in part]
        written = model.generate(contexts, first.until, first.max_new_tokens)
        return [{"text": answer.text, "ended": answer.ended} for answer in written]
    pairs = [(list(request.context_ids), list(request.continuation_ids or ())) for request in part]
    found = model.log_likelihoods(pairs)
    for request, log_likelihood in zip(part, found, strict=True):
        if not math.isfinite(log_likelihood):
            raise DamagedInput(
                f"the model's log-likelihood of {request.where} is {log_likelihood}; its weights hold "
                "NaN or infinity, or --dtype is too narrow (try float32)"
            )
    return [{"log_likelihood": log_likelihood} for log_likelihood in found]
