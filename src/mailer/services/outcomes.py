"""Write down what became of an attempt, and bring a request that goes on to rest."""

from collections.abc import Callable

from mailer.domain import changes
from mailer.domain.changes import Fence, Rest
from mailer.domain.delivery import Change, Delivery, MaybeSent, NotSent, Outcome, Sent, WaitsFor
from mailer.domain.errors import DependencyError, ErrorInfo, Kind
from mailer.domain.provider import Provider
from mailer.domain.waiting import retry_delay
from mailer.ports import RefusedError
from mailer.services.ending import maybe_sent_before
from mailer.services.mailroom import Job, Mailroom
from mailer.services.redelivery import redelivered
from mailer.services.waiting import carry_proof, discard, rest


def settle(job: Job, room: Mailroom, fence: Fence, outcome: Outcome, row: Provider | None) -> None:
    """Bring the record to where the outcome leads; where the table does not take it, send the proof along the queue.

    Raises:
        DependencyError: neither the table nor the queue took it: the copy must stay on the queue.
    """
    try:
        match outcome:
            case Sent(message_id):
                _accepted(job, room, fence, message_id, row)
            case NotSent(error) if error.kind is Kind.FAILED:
                _rejected(job, room, fence, error, row)
            case NotSent():
                _postponed(job, room, fence, outcome, row)
            case MaybeSent(error):
                _lost(job, room, fence, error)
    except DependencyError as failure:
        room.journal.failed("write outcome", job.tenant_id, failure)
        _keep_proof(job, room, fence, outcome)


def _keep_proof(job: Job, room: Mailroom, fence: Fence, outcome: Outcome) -> None:
    try:
        carry_proof(job, room, fence, outcome)
    except DependencyError:
        if isinstance(outcome, NotSent) and outcome.error.kind is not Kind.FAILED:
            # The queue is out of reach, perhaps not the table: SQS hands this very copy out again, to a record that may be tried.
            resting = Rest(until=room.clock.now(), hop=job.copy.hop, error=outcome.error, parked=job.copy.parked)
            _write(room, changes.postpone(job.request, room.clock.now(), fence, resting))
        raise


def _accepted(job: Job, room: Mailroom, fence: Fence, message_id: str, row: Provider | None) -> None:
    _write(room, changes.accept(job.request, room.clock.now(), fence, message_id))
    discard(job.copy.parked, room)
    if row is not None and row.active is not None and row.faulty_requests:
        version = row.active.version
        _try(room, job, "clear faults", lambda: room.providers.clear_faults(job.tenant_id, version))


def _try(room: Mailroom, job: Job, step: str, write: Callable[[], None]) -> None:
    """Make a write about the tenant that the request does not depend on."""
    try:
        write()
    except DependencyError as failure:
        room.journal.failed(step, job.tenant_id, failure)


def _rejected(job: Job, room: Mailroom, fence: Fence, error: ErrorInfo, row: Provider | None) -> None:
    if error.code == "sandbox_recipient_not_verified" and row is not None and row.active is not None and row.sandbox != "true":
        version = row.active.version
        _try(room, job, "learn sandbox", lambda: room.providers.learn_sandbox(job.tenant_id, version))
    refused = _write(room, changes.reject(job.request, room.clock.now(), fence, error))
    if refused is None:
        discard(job.copy.parked, room)
    elif refused.maybe_sent:
        _lost(job, room, fence, maybe_sent_before(error), for_good=True)


def _postponed(job: Job, room: Mailroom, fence: Fence, outcome: NotSent, row: Provider | None) -> None:
    suspended = outcome.error.kind is Kind.TENANT and blame(job, room, outcome.error, row)
    until = job.request.expires_at if suspended else room.clock.now() + retry_delay(outcome, job.copy.hop)
    resting = rest(job, room, until, outcome.error, WaitsFor.PROVIDER if suspended else WaitsFor.TIME)
    _write(room, changes.postpone(job.request, room.clock.now(), fence, resting))


def blame(job: Job, room: Mailroom, error: ErrorInfo, row: Provider | None) -> bool:
    """Count a tenant-class error against the tenant's active version; True when the provider is suspended now."""
    if row is None or row.active is None:
        return False
    try:
        suspended = room.providers.record_fault(job.tenant_id, row.active.version, job.send.request_id, error)
    except DependencyError as failure:
        room.journal.failed("record fault", job.tenant_id, failure)
        return False
    if suspended:
        room.journal.suspended(job.tenant_id, row.active.version, error)
    return suspended


def _lost(job: Job, room: Mailroom, fence: Fence, error: ErrorInfo, *, for_good: bool = False) -> None:
    now = room.clock.now()
    try:
        record = room.messages.apply(changes.lose(job.request, now, fence, error, for_good=for_good))
        room.journal.recorded(record)
    except RefusedError as refusal:
        if refusal.current is None:
            return
        record = refusal.current
    redelivered(job, room, record)


def _write(room: Mailroom, change: Change) -> Delivery | None:
    """Apply a change and note the record; return the record that refused it, if one did."""
    try:
        room.journal.recorded(room.messages.apply(change))
    except RefusedError as refusal:
        return refusal.current
    return None
