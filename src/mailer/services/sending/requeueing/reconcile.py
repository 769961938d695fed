"""Reconcile a queue message with a record that does not allow sending: the request is being sent, was sent, or has ended."""

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from mailer.domain import changes
from mailer.domain.delivery import OVERDUE_AFTER, Delivery, Status, same_content
from mailer.domain.errors import DependencyError
from mailer.domain.message import SCHEMA
from mailer.ports import RefusedError
from mailer.services.requests.ending import WORKER_LOST
from mailer.services.requests.queue_messages import as_known
from mailer.services.sending.jobs import Job, SendDependencies
from mailer.services.sending.requeueing.requeue import dead_letter, discard_body, enqueue, park, requeue_at


def reconcile(job: Job, deps: SendDependencies, record: Delivery) -> bool:
    """Act on the record's state; True if the request may be tried now.

    Raises:
        DependencyError: nothing safe was written; SQS must redeliver the message.
    """
    if not same_content(job.request.content_hash, record.content_hash):
        dead_letter(job.queue_message, deps, "request_id_reused", "an earlier request with other content has this requestId")
        return False
    if record.status in (Status.SENT, Status.FAILED, Status.CANCELLED):
        discard_body(deps, record, job.queue_message.parked)
        return False
    if record.generation > job.queue_message.generation:
        if job.queue_message.generation == 0 and has_lost_its_copy(record, deps.clock.now()):
            _take_over(job, deps, record)
        return False  # a newer message exists; SQS delivered this one again because its deletion was lost
    match record.status:
        case Status.SENDING:
            return _reconcile_sending(job, deps, record)
        case Status.UNKNOWN:
            return _reconcile_unknown(job, deps, record)
        case _:
            requeue_at(job, deps, record.due_at or deps.clock.now())
            return False


def has_lost_its_copy(record: Delivery, now: datetime) -> bool:
    """Return whether a deferred request is long overdue; one that is left to an operator is never due."""
    return record.status is Status.DEFERRED and record.due_at is not None and record.due_at + OVERDUE_AFTER <= now


def _take_over(job: Job, deps: SendDependencies, record: Delivery) -> None:
    """Replace a lost message by this one, which the caller has sent again; the request is not overdue any more."""
    now, generation = deps.clock.now(), record.generation + 1
    enqueue(replace(as_known(job.queue_message, record), generation=generation, schema=SCHEMA), deps, timedelta())
    with suppress(RefusedError, DependencyError):
        deps.messages.apply(changes.reschedule(record, now, due_at=now, generation=generation))


def _reconcile_sending(job: Job, deps: SendDependencies, record: Delivery) -> bool:
    now = deps.clock.now()
    if record.deadline is None or record.deadline >= now:
        requeue_at(job, deps, record.deadline or now)
        return False
    lost: Delivery | None
    try:
        lost = deps.messages.apply(changes.time_out(record, now, WORKER_LOST))
        deps.telemetry.recorded(lost)
    except RefusedError as refusal:
        lost = refusal.current
    return lost is None or reconcile(job, deps, lost)


def _reconcile_unknown(job: Job, deps: SendDependencies, record: Delivery) -> bool:
    now, dead_at = deps.clock.now(), record.worker_dead_at(deps.send_timeout)
    if record.ended or max(now, dead_at) >= record.expires_at:
        return _hold(job, deps, record)
    if now <= dead_at:
        requeue_at(job, deps, dead_at)
        return False
    try:
        deps.telemetry.recorded(deps.messages.apply(changes.resend(record, now, deps.send_timeout)))
    except RefusedError as refusal:
        return _after_lost_race(job, deps, refusal.current)
    return True


def _after_lost_race(job: Job, deps: SendDependencies, current: Delivery | None) -> bool:
    """Go on if another worker wrote the resend; else reconcile again: this may be the request's only message."""
    return current is None or current.status is Status.QUEUED or reconcile(job, deps, current)


def _hold(job: Job, deps: SendDependencies, record: Delivery) -> bool:
    """Keep the body and hold the request, so that only an operator can send it again.

    If the record changed meanwhile, reconcile with the new state.
    """
    if record.parked is not None and record.ended:
        return False
    key = record.parked or park(job, deps)
    try:
        deps.messages.apply(changes.hold(record, deps.clock.now(), key))
    except RefusedError as refusal:
        current = refusal.current
        if current is not None and current.status is Status.UNKNOWN:
            return _hold(job, deps, current)
        discard_body(deps, current, key)
        return current is None or reconcile(job, deps, current)
    return False
