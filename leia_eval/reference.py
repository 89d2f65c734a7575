"""The rules of LEIA's own harness: how it drew shots, cut requests into tokens, and how long it let a model write.

Facts of the paper's evaluation, kept apart from what is thought right today:
- the evaluated set is shuffled by ``random.Random(42)``, and the same generator then draws the shots document by
  document: ``sample(train, n)`` where the set has a training split, else ``sample(shuffled, n + 1)`` from which the
  document itself is removed and the first n kept, so the prompts of one document depend on all before it;
- NIILC's and JEMHopQA's shots are the first n of a fixed list;
- context and answer are tokenised apart, without BOS; an empty context is the EOS token, and X-CODAH and XNLI are
  whole texts after it;
- a context that is too long loses its beginning, so that with the answer it fits; one that a text is generated from
  keeps 256 tokens free, whatever the answer's length may be;
- a generated answer to JSQuAD may be as long as its longest gold answer, which gives away a part of it.
"""

import random
from collections.abc import Callable, Sequence

from leia_beam.errors import UsageError
from leia_eval.forms import Document

SEED = 42
KEPT_FREE = 256
"""Tokens that a prompt to be continued leaves of the context."""


def draw_shots(
    documents: Sequence[Document],
    n: int,
    *,
    train: Sequence[Document] | None,
    fixed_ids: Sequence[str] = (),
    needs_train: bool = False,
    task: str = "the task",
) -> dict[str, list[Document]]:
    """The shots of every document, by its id.

    Raises: UsageError where the shots' own set is missing, or is too small.
    """
    if n and (needs_train or fixed_ids) and train is None:
        raise UsageError(
            f"{task}: the reference profile takes its shots from a training set, which is not in --data-dir; put it "
            "there (`leia-eval ls` names the file), or give --shots 0"
        )
    if fixed_ids:
        by_id = {document["id"]: document for document in train or ()}
        missing = [id_ for id_ in fixed_ids[:n] if id_ not in by_id]
        if missing or n > len(fixed_ids):
            raise UsageError(
                f"{task}: the reference's list of {len(fixed_ids)} shots does not give {n}"
                + (f", and {missing[0]!r} is not in the shots' file" if missing else "; lower --shots")
            )
        return {document["id"]: [by_id[id_] for id_ in fixed_ids[:n]] for document in documents}
    generator = random.Random(SEED)
    shuffled = list(documents)
    generator.shuffle(shuffled)
    pool = shuffled if train is None else list(train)
    if n and len(pool) < n + (train is None):
        raise UsageError(f"{task}: {n} shots from {len(pool)} documents; lower --shots")
    return {document["id"]: _shots_of(document, pool, n, generator, train is None) for document in shuffled}


def _shots_of(
    document: Document, pool: Sequence[Document], n: int, generator: random.Random, same_set: bool
) -> list[Document]:
    if n == 0:
        return []
    if not same_set:
        return generator.sample(pool, n)
    return [shot for shot in generator.sample(pool, n + 1) if shot != document][:n]


def encode_pair(
    encode: Callable[[str], list[int]], eos_token_id: int, context: str, continuation: str
) -> tuple[list[int], list[int]]:
    """Token ids of a request; `encode` adds no special token."""
    return encode(context) if context else [eos_token_id], encode(continuation)


def cut_context(context: Sequence[int], continuation: Sequence[int] | None, max_length: int) -> list[int]:
    """The end of `context` that fits; `continuation` None where the model is to write.

    The last token of a continuation is only predicted, so one token more than `max_length` fits.

    Raises: ValueError where nothing of the context would be left.
    """
    room = max_length - KEPT_FREE if continuation is None else max_length - len(continuation) + 1
    if room < 1:
        raise ValueError(f"no token of the context fits {max_length}")
    return list(context[-room:])


def generation_length(encode: Callable[[str], list[int]], answers: Sequence[str]) -> int:
    """How many tokens an answer to JSQuAD may have."""
    return max(len(encode(answer)) for answer in answers)
