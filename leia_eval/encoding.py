"""From a task's requests to token ids, cut where the reference cut them and refused where the model cannot read them whole."""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from leia_beam.errors import UsageError
from leia_eval.answering import EncodedRequest
from leia_eval.preparing import PreparedTask, Request

if TYPE_CHECKING:
    from leia_eval.encoders import RequestEncoder


def encode_requests(task: PreparedTask, encoder: "RequestEncoder") -> list[EncodedRequest]:
    """Token ids of all requests; in the reference profile what is too long is cut from the left, as the reference did.

    Raises: UsageError for the first request that the model cannot read whole otherwise (lm-eval would cut it unsaid).
    """
    return [_encode(task, request, encoder) for request in task.requests]


def items_cut(task: PreparedTask, requests: Sequence[EncodedRequest]) -> int:
    """How many items lost a part of their context."""
    pairs = zip(task.requests, requests, strict=True)
    return len({request.item_index for request, encoded in pairs if encoded.cut})


def _encode(task: PreparedTask, request: Request, encoder: "RequestEncoder") -> EncodedRequest:
    from leia_eval import reference

    where = task.where(request)
    most, continuation = 0, None
    if request.continuation is None:
        whole = encoder.encode_prompt(request.context)
        most = request.max_new_tokens or reference.generation_length(encoder.encode_plain, request.length_of)
        longest = encoder.max_length - most
    else:
        whole, continuation = encoder.encode_pair(request.context, request.continuation)
        longest = encoder.longest_pair - len(continuation)
        if not continuation:
            raise UsageError(
                f"{where} has no token of its own: {request.continuation!r} after the "
                "prompt changes nothing in the tokenizer's output"
            )
    context = whole
    if encoder.profile == "reference":
        with contextlib.suppress(ValueError):  # said below
            context = reference.cut_context(whole, continuation, encoder.max_length)
    if len(context) > longest:
        more = most if continuation is None else len(continuation) - 1  # the last is predicted only
        raise UsageError(
            f"{where} is {len(context) + more} tokens long with its shots"
            + (" and its longest answer" if continuation is None else "")
            + f", and the model reads {longest + more}; lower --shots or leave the item out"
        )
    ids = [*context, *(continuation or ())]
    if max(ids) >= encoder.vocabulary_size:
        raise UsageError(
            f"{where} holds token id {max(ids)}, and the model "
            f"has {encoder.vocabulary_size} embeddings; its tokenizer is another model's"
        )
    return EncodedRequest(
        context_ids=tuple(context),
        continuation_ids=None if continuation is None else tuple(continuation),
        until=request.until,
        max_new_tokens=most,
        cut=len(whole) - len(context),
        where=where,
    )
