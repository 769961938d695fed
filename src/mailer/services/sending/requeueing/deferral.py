"""Defer a request that has not reached the fence, or end it unsent."""

from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from mailer.domain import changes
from mailer.domain.delivery import Delivery, NotSent, Status, WaitsFor, same_content
from mailer.domain.errors import DependencyError, ErrorInfo
from mailer.domain.retries import retry_delay
from mailer.ports import RefusedError
from mailer.services.requests.ending import end_unsent
from mailer.services.requests.parked_bodies import discard
from mailer.services.sending.jobs import Job, SendDependencies
from mailer.services.sending.requeueing.reconcile import reconcile
from mailer.services.sending.requeueing.requeue import dead_letter_crashed, remember_body, requeue, requeue_at, requeue_or_park


def defer(
    job: Job,
    deps: SendDependencies,
    until: datetime,
    error: ErrorInfo | None,
    waits_for: WaitsFor = WaitsFor.TIME,
    *,
    slot: float | None = None,
    upload_slot: float | None = None,
) -> None:
    """Defer a request that has not passed the fence; the slots are the reservations that its next message carries.

    Raises:
        DependencyError: neither queue nor bucket took it.
    """
    record = deps.messages.get(job.tenant_id, job.send.request_id)
    if record is not None and not _is_deferrable(job, record) and not reconcile(job, deps, record):
        return
    deferral = requeue_or_park(job, deps, until, error, waits_for, slot=slot, upload_slot=upload_slot)
    try:
        deps.telemetry.recorded(deps.messages.apply(changes.defer(job.request, deps.clock.now(), deferral)), job.timings.steps)
    except RefusedError as refusal:  # its record changed meanwhile; its next message will be reconciled with it
        if not deferral.on_queue:
            _reconcile_parked(job, deps, refusal.current, deferral.parked)
    except DependencyError as failure:
        deps.telemetry.failed("defer", job.tenant_id, failure)
        if not deferral.on_queue:  # without a record the sweeper would not find the parked body
            job = job.failed()
            requeue(job, deps, retry_delay(NotSent(failure.error), job.queue_message.failures), parked=deferral.parked)


def _reconcile_parked(job: Job, deps: SendDependencies, record: Delivery | None, key: str | None) -> None:
    """Reconcile a request whose record changed while its body was being parked: it has no later message that would."""
    if record is None:
        return
    if not same_content(job.request.content_hash, record.content_hash):
        reconcile(job, deps, record)
        if job.queue_message.parked is None:  # the dead letter contains the body
            discard(key, deps)
        return
    if record.generation > job.queue_message.generation:
        remember_body(deps, record, key)
        return
    # The message that finds the end deletes the body.
    job = replace(job, received=replace(job.received, queue_message=replace(job.queue_message, parked=key)))
    if reconcile(job, deps, record):
        requeue_at(job, deps, deps.clock.now())


def _is_deferrable(job: Job, record: Delivery) -> bool:
    fits = same_content(job.request.content_hash, record.content_hash) and record.generation <= job.queue_message.generation
    return fits and record.status in (Status.QUEUED, Status.DEFERRED)


def end_job(job: Job, deps: SendDependencies, error: ErrorInfo, *, suppressed: int = 0) -> None:
    """End a request that cannot be sent: as `failed`, or as `unknown` if an earlier attempt may have been accepted.

    `suppressed` is how many recipients were left out, which the record shows.

    Raises:
        DependencyError: the table, or the queue, did not take it.
    """
    record: Delivery | None
    try:
        record = end_unsent(job.request, deps, error, job.timings.steps, suppressed=suppressed)
    except RefusedError as refusal:
        record = refusal.current
    if record is not None and reconcile(job, deps, record):
        end_job(job, deps, error, suppressed=suppressed)


def keep_for_operator(job: Job, crash: ErrorInfo, deps: SendDependencies) -> None:
    """Dead-letter a message that kills its worker; the record stays open until the message is redriven or dropped, or it expires."""
    record = deps.messages.get(job.tenant_id, job.send.request_id)
    if record is not None and not _is_deferrable(job, record) and not reconcile(job, deps, record):
        return
    dead_letter_crashed(job.received, deps, crash)
    with suppress(RefusedError):  # the record changed meanwhile; after a redrive the message is reconciled with it
        deps.telemetry.recorded(
            deps.messages.apply(changes.defer_for_operator(job.request, deps.clock.now(), crash, job.queue_message.parked))
        )
