"""From a document to the shots that stand before it, the same in every run.

lm-eval draws shots from one generator in the order in which documents come, so its prompts change with the number of
processes (1 of 240 equal at 1 and 2) and with --limit. Here the shots of a document are a function of the seed, its
own id and the set of ids: draw i is SHA-256(seed, id, i) modulo the set sorted by id, and a draw that is the
document itself, asks its question, or was drawn before is passed over. How LEIA's own harness drew them is in
`reference`.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lm_eval.api.samplers import ContextSampler

from leia_beam.errors import UsageError
from leia_eval.forms import Document


def question_of(document: Document) -> str:
    """What makes one document a leak in another's prompt: the same stem, texts, premise, passage or question."""
    question = document["question"]
    if isinstance(question, dict):
        return str(question["stem"] or "\n".join(question["choices"]["text"]))
    return str(document.get("context") or document.get("premise") or question)


class ShotPool:
    """The documents from which shots are drawn."""

    def __init__(self, documents: Sequence[Document]):
        self._documents = sorted(documents, key=lambda document: document["id"])
        self._questions = Counter(map(question_of, documents))

    def draw(self, document: Document, n: int, seed: int) -> list[Document]:
        """`n` distinct documents, none of them `document` nor one with its question.

        Raises: UsageError where the pool has fewer.
        """
        question = question_of(document)
        eligible = len(self._documents) - self._questions[question]
        if eligible < n:
            raise UsageError(
                f"{n} shots for item {document['id']!r} but only {eligible} other questions to draw them "
                "from; lower --shots"
            )
        drawn: dict[str, Document] = {}
        i = 0
        while len(drawn) < n:
            digest = hashlib.sha256(f"{seed}\0{document['id']}\0{i}".encode()).digest()
            candidate = self._documents[int.from_bytes(digest[:8], "big") % len(self._documents)]
            if question_of(candidate) != question:
                drawn.setdefault(candidate["id"], candidate)
            i += 1
        return list(drawn.values())


class FixedShots(ContextSampler):  # type: ignore[misc]  # lm-eval has no types
    """lm-eval's sampler over a `ShotPool`; named by the tasks' YAML, so that plain lm-eval has the same prompts."""

    def __init__(self, df: Sequence[Document] | None = None, *, rnd: int | None = None, **kwargs: object):
        super().__init__(df, rnd=rnd, **kwargs)
        self._seed = rnd or 0
        self._pool = ShotPool(df or [])

    def set_rnd(self, rnd: int | None) -> "FixedShots":
        """Takes lm-eval's few-shot seed, which is a number here and no generator."""
        self._seed = rnd or 0
        return self

    def sample(self, n: int, eval_doc: Document | None = None, df: object = None, **kwargs: object) -> list[Document]:
        """The shots of `eval_doc`.

        Raises: ValueError where lm-eval does not say which document that is.
        """
        if eval_doc is None:
            raise ValueError("fewshot_split must equal test_split: lm-eval did not say which document it evaluates")
        return self._pool.draw(eval_doc, n, self._seed)


class GivenShots(ContextSampler):  # type: ignore[misc]
    """lm-eval's sampler over shots that were drawn before, by document."""

    def __init__(self, shots_of: dict[str, list[Document]], **kwargs: Any):
        super().__init__([], **kwargs)
        self._shots_of = shots_of

    def set_rnd(self, rnd: int | None) -> "GivenShots":
        """Nothing is drawn here."""
        return self

    def sample(self, n: int, eval_doc: Document | None = None, df: object = None, **kwargs: object) -> list[Document]:
        """The shots of `eval_doc`."""
        assert eval_doc is not None
        return self._shots_of[eval_doc["id"]]
