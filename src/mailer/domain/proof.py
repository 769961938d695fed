"""Carry what became of an attempt on the queue, when it could not be written to the table."""

import json
from datetime import timedelta

from mailer.domain.changes import Fence, Request
from mailer.domain.delivery import Delivery, MaybeSent, NotSent, Outcome, Sent, Status, same_content
from mailer.domain.errors import CODES, ErrorClass, ErrorInfo


def to_json(fence: Fence, outcome: Outcome) -> str:
    """Write an attempt's outcome as one line of JSON, short enough for a message attribute."""
    return json.dumps({"attempt": fence.attempt, "owner": fence.owner, **_fields(outcome)})


_MAX_MESSAGE = 300
"""Characters of an error's text that are carried, of ASCII: others would take up to twelve bytes each of what a message may weigh."""


def _short(error: ErrorInfo) -> str:
    return error.message[:_MAX_MESSAGE].encode("ascii", "replace").decode()


def _fields(outcome: Outcome) -> dict[str, str]:
    match outcome:
        case Sent(message_id):
            return {"sent": message_id}
        case NotSent(error, retry_after):
            seconds = int((retry_after or timedelta()).total_seconds())
            return {"notSent": error.code, "message": _short(error), "retryAfter": str(seconds)}
        case MaybeSent(error):
            return {"maybeSent": error.code, "message": _short(error)}


def from_json(text: str) -> tuple[Fence, Outcome] | None:
    """Read it back; None where it is not one."""
    try:
        proof = json.loads(text)
        fence = Fence(int(proof["attempt"]), str(proof["owner"]))
        return fence, _outcome(proof)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def proven_outcome(text: str, request: Request, record: Delivery | None) -> tuple[Fence, Outcome] | None:
    """Return whose attempt a proof is of and what became of it; None where it says nothing that the request's record does not know.

    It must be of the same content and of an attempt that was made. An acceptance counts whatever has come since, unless that is known
    too; anything else only while its attempt is the last one, and open.

    Whoever passed the fence is known by its token alone: a worker that had no answer to its `begin` does not know which attempt it was.
    """
    proven = from_json(text)
    if proven is None or record is None or not same_content(request.content_hash, record.content_hash):
        return None
    fence, outcome = proven
    if record.owner == fence.owner and record.status in (Status.SENDING, Status.UNKNOWN):
        return Fence(record.attempt, fence.owner), outcome
    is_last = (record.attempt, record.owner) == (fence.attempt, fence.owner)
    was_made = is_last or 1 <= fence.attempt < record.attempt  # whose the earlier ones were is not kept
    return proven if isinstance(outcome, Sent) and was_made and record.status is not Status.SENT else None


def _outcome(proof: dict[str, str]) -> Outcome:
    if "sent" in proof:
        return Sent(str(proof["sent"]))
    if "maybeSent" in proof:
        return MaybeSent(_error(proof, proof["maybeSent"], ErrorClass.UNKNOWN))
    error = _error(proof, proof["notSent"], ErrorClass.FAILED, ErrorClass.TENANT, ErrorClass.DEFERRED)
    seconds = int(proof.get("retryAfter", "0"))
    if not 0 <= seconds <= _MAX_SECONDS:
        raise ValueError("no request waits so long")
    return NotSent(error, timedelta(seconds=seconds) or None)


def _error(proof: dict[str, str], code: str, *error_classes: ErrorClass) -> ErrorInfo:
    error = ErrorInfo(code, str(proof.get("message", "")))
    if code in CODES and error.error_class not in error_classes:  # a later version's code says nothing here; its outcome does
        raise ValueError("the code says something else than the outcome")
    return error


_MAX_SECONDS = 7 * 24 * 3600
"""No request lives longer after its sendAt."""
