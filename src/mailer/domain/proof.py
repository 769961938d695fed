"""Proofs: the outcome of an attempt, carried on the queue when it could not be written to the table."""

import json
from datetime import timedelta

from mailer.domain.changes import Fence, Request
from mailer.domain.delivery import Delivery, MaybeSent, NotSent, Outcome, Sent, Status, same_content
from mailer.domain.errors import CODES, ErrorClass, ErrorInfo


def to_json(fence: Fence, outcome: Outcome) -> str:
    """Write an attempt's outcome as one line of JSON, short enough for a message attribute."""
    return json.dumps({"attempt": fence.attempt, "owner": fence.owner, **_fields(outcome)})


_MAX_MESSAGE = 300
"""ASCII characters of an error's text in a proof: other characters would take up to twelve bytes each of the message's size."""


def _short(error: ErrorInfo) -> str:
    return error.message[:_MAX_MESSAGE].encode("ascii", "replace").decode()


def _fields(outcome: Outcome) -> dict[str, str]:
    match outcome:
        case Sent(message_id):
            return {"sent": message_id}
        case NotSent(error, retry_after):
            seconds = int((retry_after or timedelta()).total_seconds())
            rights = {"rights": " ".join(error.rights)} if error.rights else {}
            return {"notSent": error.code, "message": _short(error), "retryAfter": str(seconds), **rights}
        case MaybeSent(error):
            return {"maybeSent": error.code, "message": _short(error)}


def from_json(text: str) -> tuple[Fence, Outcome] | None:
    """Read a proof; None if the text is not one."""
    try:
        proof = json.loads(text)
        fence = Fence(int(proof["attempt"]), str(proof["owner"]))
        return fence, _outcome(proof)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def proven_outcome(text: str, request: Request, record: Delivery | None) -> tuple[Fence, Outcome] | None:
    """Return the attempt of a proof and its outcome; None if the proof tells nothing new about the request's record.

    It must be of the same content and of an attempt that was made. An acceptance counts at any time, unless the record says so already;
    any other outcome counts only while its attempt is the last one and open.

    The worker that passed the fence is identified by its token alone: without an answer to `begin` it has `ATTEMPT_NOT_KNOWN`.
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
    error = ErrorInfo(code, str(proof.get("message", "")), rights=tuple(str(proof.get("rights", "")).split()))
    if code in CODES and error.error_class not in error_classes:  # of a later version's code the class is not known
        raise ValueError("the code says something else than the outcome")
    return error


_MAX_SECONDS = 7 * 24 * 3600
"""A request expires at most this long after its sendAt."""
