"""Requeue a request's message or park its body. Order of writes: queue or bucket, then record, then deletion from the queue."""

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from mailer.domain import changes
from mailer.domain.changes import Deferral, Fence
from mailer.domain.delivery import Delivery, NotSent, Outcome, Status, WaitsFor
from mailer.domain.errors import DependencyError, ErrorInfo
from mailer.domain.message import SCHEMA, canonical_json
from mailer.domain.proof import to_json
from mailer.domain.retries import MAX_DELAY, retry_delay
from mailer.ports import QueueMessage, RefusedError
from mailer.services.requests.parked_bodies import discard
from mailer.services.sending.jobs import Job, Received, SendDependencies


def requeue(
    job: Job,
    deps: SendDependencies,
    delay: timedelta,
    *,
    proof: str | None = None,
    parked: str | None = None,
    slot: float | None = None,
    upload_slot: float | None = None,
) -> None:
    """Put the request's next message on the queue, with the next generation; `parked` is the key if its body was parked since.

    Only the slots given here are kept: those of the job's own message were used or forfeited.

    Raises:
        DependencyError: SQS did not take it.
    """
    queue_message = replace(
        job.queue_message,
        generation=job.queue_message.generation + 1,
        proof=proof,
        parked=parked or job.queue_message.parked,
        slot=slot,
        upload_slot=upload_slot,
    )
    enqueue(replace(queue_message, redeliveries=job.received.redeliveries, schema=SCHEMA), deps, delay)


def enqueue(queue_message: QueueMessage, deps: SendDependencies, delay: timedelta) -> None:
    """Put one message on the queue.

    Raises:
        DependencyError: SQS did not take it.
    """
    if deps.queue.send([(queue_message, delay)]):
        raise DependencyError("SQS", "SendMessageBatch")


def requeue_or_park(
    job: Job,
    deps: SendDependencies,
    until: datetime,
    error: ErrorInfo | None,
    waits_for: WaitsFor = WaitsFor.TIME,
    *,
    slot: float | None = None,
    upload_slot: float | None = None,
) -> Deferral:
    """Requeue the message, or park the body if the wait is too long for the queue; the caller writes the returned deferral to the record.

    Raises:
        DependencyError: neither S3 nor SQS took it.
    """
    until = min(until, job.request.expires_at)
    delay = until - deps.clock.now()
    deferral = Deferral(
        until=until,
        generation=job.queue_message.generation + 1,
        error=error,
        waits_for=waits_for,
        parked=job.queue_message.parked,
        redeliveries=job.received.redeliveries,
    )
    if waits_for is WaitsFor.PROVIDER or delay > MAX_DELAY:
        try:
            return replace(deferral, parked=park(job, deps), on_queue=False)
        except DependencyError as failure:
            deps.telemetry.failed("park", job.tenant_id, failure)
            deferral = replace(deferral, until=deps.clock.now() + MAX_DELAY, waits_for=WaitsFor.TIME)
    requeue(job, deps, min(delay, MAX_DELAY), slot=slot, upload_slot=upload_slot)
    return deferral


def park(job: Job, deps: SendDependencies) -> str:
    """Store the body in the bucket, unless it is there, and return its key; equal requests have equal keys."""
    return job.queue_message.parked or deps.parked.park(job.tenant_id, job.send.request_id, canonical_json(job.send))


def requeue_at(job: Job, deps: SendDependencies, until: datetime) -> None:
    """Requeue a request for a given time, with its proof, and note the new generation on the record; its status stays."""
    requeue(job, deps, min(until - deps.clock.now(), MAX_DELAY), proof=job.queue_message.proof)
    # If this write fails, at most one duplicate message is processed.
    with suppress(RefusedError, DependencyError):
        deps.messages.apply(changes.annotate(job.request, deps.clock.now(), generation=job.queue_message.generation + 1))


class ProofNotQueuedError(DependencyError):
    """Neither the table nor the queue took an attempt's outcome; `proof` is what the next message of the request must carry."""

    def __init__(self, proof: str) -> None:
        super().__init__("SQS", "SendMessage")
        self.proof = proof


def requeue_with_proof(job: Job, deps: SendDependencies, fence: Fence, outcome: Outcome, failure: DependencyError) -> None:
    """Requeue a request with its attempt's outcome as proof, because the table did not take it.

    Raises:
        ProofNotQueuedError: the queue did not take it either.
    """
    job = job.failed()
    delay = retry_delay(NotSent(failure.error), job.queue_message.failures) if job.queue_message.proof else _PROOF_DELAY
    proof = to_json(fence, outcome)
    try:
        requeue(job, deps, delay, proof=proof)
    except DependencyError as unqueued:
        raise ProofNotQueuedError(proof) from unqueued


_PROOF_DELAY = timedelta(seconds=10)
"""The first delay of a proof: long enough for a throttled table to recover, short enough to be before the attempt's deadline."""


def discard_body(deps: SendDependencies, record: Delivery | None, key: str | None) -> None:
    """Delete the parked body of a request that has ended for good; that of an `unknown` stays for the operator.

    `key` is used if the record has no key.
    """
    if record is not None and record.status in (Status.SENT, Status.FAILED, Status.CANCELLED):
        discard(record.parked or key, deps)


def remember_body(deps: SendDependencies, record: Delivery, key: str | None) -> None:
    """Note a parked body on an open record: another message may need it, and it is deleted when the request ends."""
    if record.parked is not None or key is None:
        return
    try:
        deps.messages.apply(changes.annotate(changes.request_of(record), deps.clock.now(), parked=key))
    except RefusedError as refusal:
        discard_body(deps, refusal.current, key)
    except DependencyError as failure:
        deps.telemetry.failed("remember", record.tenant_id, failure)


def dead_letter_crashed(received: Received, deps: SendDependencies, crash: ErrorInfo) -> None:
    """Dead-letter a message that kills its worker; after a redrive it is tried alone at once.

    Raises:
        DependencyError: SQS did not take it.
    """
    queue_message = replace(
        received.queue_message, generation=received.queue_message.generation + 1, redeliveries=received.redeliveries + 1
    )
    dead_letter(queue_message, deps, crash.code, crash.message)


def dead_letter(queue_message: QueueMessage, deps: SendDependencies, reason: str, detail: str) -> None:
    """Put a message on the dead-letter queue, with the reason.

    Raises:
        DependencyError: SQS did not take it.
    """
    deps.queue.dead_letter(queue_message, reason=reason, detail=detail)
    deps.telemetry.dead_lettered(queue_message, reason)
