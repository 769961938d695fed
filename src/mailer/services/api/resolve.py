"""Resolve an `unknown` on an operator's word: it was sent, or it is to be sent again."""

from dataclasses import replace
from datetime import datetime, timedelta

from mailer.domain import changes, delivery
from mailer.domain.delivery import Change, Delivery, Resolution, Status
from mailer.domain.errors import DependencyError, Problem, RequestError
from mailer.domain.message import parse_request, schedule
from mailer.ports import RefusedError
from mailer.services.api.messages import MessagesDependencies, get
from mailer.services.requests.parked_bodies import discard
from mailer.services.requests.queue_messages import pointer_to

HOLD_BACK = timedelta(seconds=10)
"""Delay of a resent message, until the record is `queued`: an earlier message would find the `unknown` and be held."""


def resolve(
    tenant_id: str, request_id: str, resolution: Resolution, deps: MessagesDependencies, *, message_id: str | None = None
) -> Delivery:
    """Resolve one request; idempotent for the same resolution.

    Raises:
        RequestError: not_found, or not_resolvable: it is not `unknown`, or cannot be sent again.
        DependencyError: it is not known whether it was resolved; ask again.
    """
    record = get(tenant_id, request_id, deps)
    if _is_repeated(record, resolution):
        if record.status is Status.UNKNOWN:  # perhaps a retry of the call that had it sent again
            raise _not_resolvable("why", "is that of the resolution after which it is unknown again", _OTHER_REASON)
        return record
    if record.status is not Status.UNKNOWN:
        raise _not_resolvable("status", f"is {record.status}; only an unknown can be resolved")
    if resolution.outcome == "resend":
        return _resend(record, resolution, deps)
    resolved = _applied(changes.resolve_sent(record, resolution.at, message_id, resolution), deps)
    discard(record.parked, deps)
    return resolved


def _is_repeated(record: Delivery, resolution: Resolution) -> bool:
    """Whether an earlier call made the same resolution."""
    known = record.resolution
    return known is not None and (known.outcome, known.by, known.why) == (resolution.outcome, resolution.by, resolution.why)


def _resend(record: Delivery, resolution: Resolution, deps: MessagesDependencies) -> Delivery:
    """Send the parked body again: first the message, then the record.

    After a crash in between, the message finds the `unknown` and is held again, and the operator can repeat the call. In the other order
    the record would be `queued` and nothing would be on the queue.
    """
    expires_at = _new_expiry(record, resolution.at, deps)
    change = changes.resolve_resend(record, resolution.at, deps.send_timeout, resolution, expires_at)
    if not delivery.allows(change, record):
        dead_at = record.worker_dead_at(deps.send_timeout)
        raise _not_resolvable("status", f"its worker may still send it; ask again after {dead_at:%Y-%m-%dT%H:%M:%SZ}", _LATER)
    pointer = replace(pointer_to(record), created_at=resolution.at, generation=record.generation + 1, expires_at=None)
    if deps.queue.send([(pointer, HOLD_BACK)]):
        raise DependencyError("SQS", "SendMessageBatch")
    return _applied(change, deps)


def _new_expiry(record: Delivery, now: datetime, deps: MessagesDependencies) -> datetime:
    """Return when a resent request expires: counted from now, unless its caller set `expiresAt`."""
    try:
        expires_at = schedule(parse_request(deps.parked.fetch(record.parked or "")), now).expires_at
    except KeyError:
        raise _not_resolvable("outcome", "its body is not kept any more; send it as a new request", _ANEW) from None
    except RequestError as fault:
        raise _not_resolvable("outcome", f"its body cannot be sent any more ({fault}); send it as a new request", _ANEW) from None
    if expires_at <= now:
        raise _not_resolvable("outcome", "its expiresAt has passed; send it as a new request", _ANEW)
    return expires_at


def _applied(change: Change, deps: MessagesDependencies) -> Delivery:
    try:
        resolved = deps.messages.apply(change)
    except RefusedError as refusal:
        by_now = refusal.current.status if refusal.current else "gone"
        raise _not_resolvable("status", f"is {by_now} by now; only an unknown can be resolved") from None
    deps.telemetry.recorded(resolved)
    return resolved


_OTHER_REASON = "Operator: to send it once more, give another reason (why)."
_LATER = "Operator: resolve it again after that time, or as sent if that is known."
_ANEW = "Operator: have its caller send it as a new request, or resolve it as sent if that is known."


def _not_resolvable(path: str, problem: str, remediation: str | None = None) -> RequestError:
    return RequestError([Problem(path, problem)], "not_resolvable", remediation)
