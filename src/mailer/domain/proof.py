"""Carry what became of an attempt on the queue, when it could not be written to the table."""

import json
from datetime import timedelta

from mailer.domain.changes import Fence
from mailer.domain.delivery import MaybeSent, NotSent, Outcome, Sent
from mailer.domain.errors import CODES, ErrorInfo, Kind


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
    """Read it back; None where it is not one (anybody who may send to the queue can write the attribute)."""
    try:
        proof = json.loads(text)
        fence = Fence(int(proof["attempt"]), str(proof["owner"]))
        return fence, _outcome(proof)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _outcome(proof: dict[str, str]) -> Outcome:
    if "sent" in proof:
        return Sent(str(proof["sent"]))
    if "maybeSent" in proof:
        return MaybeSent(_error(proof, proof["maybeSent"], Kind.UNKNOWN))
    error = _error(proof, proof["notSent"], Kind.FAILED, Kind.TENANT, Kind.DEFERRED)
    seconds = int(proof.get("retryAfter", "0"))
    if not 0 <= seconds <= _MAX_SECONDS:
        raise ValueError("no request waits so long")
    return NotSent(error, timedelta(seconds=seconds) or None)


def _error(proof: dict[str, str], code: str, *kinds: Kind) -> ErrorInfo:
    error = ErrorInfo(code, str(proof.get("message", "")))
    if code in CODES and error.kind not in kinds:  # a later version's code says nothing here; its outcome does
        raise ValueError("the code says something else than the outcome")
    return error


_MAX_SECONDS = 7 * 24 * 3600
"""No request lives longer after its sendAt."""
