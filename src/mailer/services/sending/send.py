"""Send a batch of requests from the queue: read, get the provider, reserve slots, compose, pass the fence, call SES, record the outcome.

Every message ends in one of three ways: its request's record has the result, a newer message is on the queue, or its id is among the
returned failures and SQS redelivers it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain

from mailer.domain import changes, proof
from mailer.domain.changes import ATTEMPT_NOT_KNOWN, Fence, SentBy
from mailer.domain.delivery import NotSent, WaitsFor
from mailer.domain.errors import EXPIRED, DependencyError, ErrorClass, ErrorInfo, NotSentError, RequestError
from mailer.domain.large_mail import SMALL_BYTES, upload_time
from mailer.domain.message import MAX_BODY, S3Object, canonical_json
from mailer.domain.mime import Mail, compose
from mailer.domain.pacing import RetryAt, Slot
from mailer.domain.provider import Blocked, Provider, StoredConfig, sending_state
from mailer.domain.remediation import provider_with_remediation, with_remediation
from mailer.domain.retries import retry_delay
from mailer.domain.tags import tagged
from mailer.ports import LargerFileError, QueueMessage, RefusedError
from mailer.services.requests.queue_messages import ids_alone
from mailer.services.requests.uploads import pin
from mailer.services.sending.byte_budget import Held
from mailer.services.sending.intake import read
from mailer.services.sending.jobs import Job, Received, SendDependencies
from mailer.services.sending.outcomes import record_outcome, record_tenant_fault
from mailer.services.sending.requeueing.deferral import defer, end_job, keep_for_operator
from mailer.services.sending.requeueing.reconcile import reconcile
from mailer.services.sending.requeueing.requeue import ProofNotQueuedError, park, requeue_at, requeue_with_proof
from mailer.services.sending.slots import (
    PreparedSend,
    ScheduledSend,
    apply_backpressure,
    reserve_bandwidth,
    reserve_slots,
    revalidate_slot,
)
from mailer.services.sending.suppressed import ALL_SUPPRESSED, Entries, Rows, look_up, suppressed_of
from mailer.services.sending.suspects import is_suspect, requeue_in_time, try_alone
from mailer.services.sending.upload_loader import UploadLoader

CALL_SPAN = timedelta(seconds=27)
"""How long an attempt may take: the fence, connect (3 s), TLS handshake (3 s), write (5 s, for a large mail `upload_time` more),
read (10 s), and recording the outcome. An attempt is not begun with less of the function's time left, and after it the attempt counts as
lost."""

FENCE_SPAN = timedelta(seconds=5)
"""If the fence took longer, too little time is left for the call, which is not made then."""


def send_batch(batch: Sequence[Received], deps: SendDependencies, *, ends_at: datetime) -> list[str]:
    """Send a batch; return the SQS message ids that SQS must redeliver.

    `ends_at` is when the function times out.
    """
    trusted = [received for received in batch if not is_suspect(received)]
    suspects = list(deps.workers.map(lambda received: requeue_in_time(received, deps), filter(is_suspect, batch)))
    unfinished = _send_trusted(trusted, deps, ends_at)

    def send_alone(job: Job) -> Received | None:
        return next(iter(_send_concurrently([job], deps, ends_at)), None)

    tried = [try_alone(suspect, deps, ends_at, send_alone) for suspect in suspects if suspect is not None]
    return [received.sqs_message_id for received in (*unfinished, *tried) if received is not None]


def _send_trusted(batch: Sequence[Received], deps: SendDependencies, ends_at: datetime) -> Sequence[Received]:
    jobs = list(deps.workers.map(lambda received: read(received, deps), batch))
    unfinished = _send_concurrently([job for job in jobs if isinstance(job, Job)], deps, ends_at)
    return [*unfinished, *(job for job in jobs if isinstance(job, Received))]


def _send_concurrently(jobs: Sequence[Job], deps: SendDependencies, ends_at: datetime) -> Sequence[Received]:
    """Send jobs; return the messages that SQS must redeliver."""
    rows = _rows({job.tenant_id for job in jobs}, deps)
    entries = look_up(jobs, rows, deps)
    prepared = list(deps.workers.map(lambda job: _safely(job, deps, lambda: prepare_send(job, rows, entries, deps)), jobs))
    sends = reserve_slots((one for one in prepared if isinstance(one, PreparedSend)), deps, latest=ends_at - CALL_SPAN)
    taken = list(deps.workers.map(lambda one: _safely(one.prepared.job, deps, lambda: deliver(one, deps, ends_at)), sends))
    large = [one for one in taken if isinstance(one, ScheduledLargeSend)]
    after = deps.workers.map(lambda one: _safely(one.prepared.job, deps, lambda: deliver_large(one, deps, ends_at)), large)
    return [unfinished for unfinished in chain(prepared, taken, after) if isinstance(unfinished, Received)]


def _rows(tenant_ids: set[str], deps: SendDependencies) -> Rows:
    """Read the batch's provider rows in one call; a failure is handled for each request, not for the batch."""
    try:
        rows = deps.providers.get_many(tenant_ids) if tenant_ids else {}
    except DependencyError as failure:
        return dict.fromkeys(tenant_ids, failure)
    return {tenant_id: provider_with_remediation(row) if isinstance(row, Provider) else row for tenant_id, row in rows.items()}


def _safely[T](job: Job, deps: SendDependencies, work: Callable[[], T]) -> T | Received | None:
    """Do some work for a request; None if it was deferred instead, the received message if SQS must redeliver it."""
    try:
        return _or_defer(job, deps, work)
    except Exception as failure:  # noqa: BLE001  # a bug must not fail the rest of the batch
        deps.telemetry.failed("deliver", job.tenant_id, failure)
        return replace(job.received, raised=not isinstance(failure, DependencyError))


def _or_defer[T](job: Job, deps: SendDependencies, work: Callable[[], T]) -> T | None:
    """Do some work for a request; None if an AWS service failed and the request was deferred."""
    try:
        return work()
    except DependencyError as failure:
        deps.telemetry.failed("deliver", job.tenant_id, failure)
        _defer_after_failure(job, deps, failure)
    return None


def _defer_after_failure(job: Job, deps: SendDependencies, failure: DependencyError) -> None:
    """Defer a request because an AWS service failed; only requeue it if the table fails too, or its proof is not recorded yet."""
    job = job.failed()
    if isinstance(failure, ProofNotQueuedError):
        job = replace(job, received=replace(job.received, queue_message=replace(job.queue_message, proof=failure.proof)))
    until = deps.clock.now() + retry_delay(NotSent(failure.error), job.queue_message.failures)
    if job.queue_message.proof:
        requeue_at(job, deps, until)
        return
    try:
        defer(job, deps, until, failure.error)
    except DependencyError:
        requeue_at(job, deps, until)


def prepare_send(job: Job, rows: Rows, entries: Entries, deps: SendDependencies) -> PreparedSend | None:
    """Do all steps of a request that need no slot; None if it was deferred or ended.

    Raises:
        DependencyError: an AWS service failed.
    """
    row = rows.get(job.tenant_id)
    if isinstance(row, DependencyError):
        raise row
    if job.queue_message.proof:
        if _record_proof(job, row, deps):
            return None
        job = replace(job, received=replace(job.received, queue_message=replace(job.queue_message, proof=None)))
    if job.received.crash is not None:
        keep_for_operator(job, job.received.crash, deps)
    elif deps.clock.now() >= job.request.expires_at:
        end_job(job, deps, EXPIRED)
    else:
        return _prepare_in_time(job, row, entries, deps)
    return None


def _prepare_in_time(job: Job, row: Provider | None, entries: Entries, deps: SendDependencies) -> PreparedSend | None:
    try:
        job = _with_uploads(job, deps)
    except RequestError as refusal:
        end_job(job, deps, ErrorInfo(refusal.code, str(refusal)))
        return None
    # On a failure defer here: the caller's job does not have the pinned versions.
    return _or_defer(job, deps, lambda: _prepare_pinned(job, row, entries, deps))


def _prepare_pinned(job: Job, row: Provider | None, entries: Entries, deps: SendDependencies) -> PreparedSend | None:
    if deps.clock.now() < job.send_at:
        defer(job, deps, job.send_at, None)
    elif isinstance(state := sending_state(row, job.request.created_at), Blocked):
        _defer_or_end(job, deps, state)
    else:
        return _with_recipients(job, row, state, entries, deps)
    return None


def _with_recipients(job: Job, row: Provider | None, config: StoredConfig, entries: Entries, deps: SendDependencies) -> PreparedSend | None:
    """Leave out who is suppressed now, however the request was judged before; one that nobody is left of ends."""
    suppressed = suppressed_of(job, entries, deps.clock.now())
    if suppressed and not job.send.message.without(suppressed).recipients:
        end_job(job, deps, ALL_SUPPRESSED, suppressed=job.request.recipients)
        return None
    prepared = _with_provider(job, row, config, deps)
    return replace(prepared, suppressed=suppressed) if prepared and suppressed else prepared


def _with_uploads(job: Job, deps: SendDependencies) -> Job:
    """Pin the uploads to the current versions at the first reading, so that later messages send the same ones."""
    if all(ref.version for ref in job.send.uploads.values()):
        return job
    job = replace(job, send=pin(job.send, lambda ref: ref.version or deps.attachments.version(job.tenant_id, ref)))
    return replace(job, received=replace(job.received, queue_message=_with_pins(job, deps)))


def _with_pins(job: Job, deps: SendDependencies) -> QueueMessage:
    """Return the message with the pinned versions in its body; a body that gets too large with them is parked."""
    body = canonical_json(job.send)
    if job.queue_message.parked is None and len(body) > MAX_BODY:
        return replace(job.queue_message, body=ids_alone(job.tenant_id, job.send.request_id), parked=park(job, deps))
    return job.queue_message if job.queue_message.parked else replace(job.queue_message, body=body)


def _record_proof(job: Job, row: Provider | None, deps: SendDependencies) -> bool:
    """Record an outcome that the table did not take before; False if there is nothing to record."""
    record = deps.messages.get(job.tenant_id, job.send.request_id)
    proven = proof.proven_outcome(job.queue_message.proof or "", job.request, record)
    if proven is None:
        return False
    record_outcome(job, deps, *proven, row)
    return True


def _defer_or_end(job: Job, deps: SendDependencies, state: Blocked) -> None:
    if state.waits:
        defer(job, deps, job.request.expires_at, state.error, WaitsFor.PROVIDER)
    else:
        end_job(job, deps, state.error)


def _with_provider(job: Job, row: Provider | None, config: StoredConfig, deps: SendDependencies) -> PreparedSend | None:
    try:
        with job.timings.measured("config", deps.clock):
            provider = deps.provider_factory.create(job.tenant_id, config, row.verified_at if row else None)
        return PreparedSend(job=job, row=row, config=config, provider=provider)
    except NotSentError as refusal:
        _handle_refusal(job, row, deps, refusal.error)
        return None


def _handle_refusal(job: Job, row: Provider | None, deps: SendDependencies, error: ErrorInfo) -> None:
    """Defer or end a request whose provider could not be created."""
    error = with_remediation(error, row)
    if error.error_class is ErrorClass.FAILED:
        end_job(job, deps, error)
    elif error.error_class is ErrorClass.TENANT and record_tenant_fault(job, deps, error, row):
        defer(job, deps, job.request.expires_at, error, WaitsFor.PROVIDER)
    else:
        job = job.failed()
        defer(job, deps, deps.clock.now() + retry_delay(NotSent(error), job.queue_message.failures), error)


@dataclass(frozen=True, slots=True)
class ScheduledLargeSend:
    """A send with large uploads: it begins after the small mails of the batch, one at a time as memory allows."""

    prepared: PreparedSend
    slot: Slot


def deliver(scheduled: ScheduledSend, deps: SendDependencies, ends_at: datetime) -> ScheduledLargeSend | None:
    """Send a request at its slot, or defer it until then; return a large one, of which nothing is loaded yet.

    Raises:
        DependencyError: an AWS service failed before the fence.
    """
    match scheduled.plan:
        case Slot() as slot:
            return _deliver_small(slot, scheduled.prepared, deps, ends_at)
        case RetryAt() as retry:
            _defer_to_slot(retry, scheduled.prepared.job, deps)
            return None
        case failure:
            raise failure


def _deliver_small(slot: Slot, prepared: PreparedSend, deps: SendDependencies, ends_at: datetime) -> ScheduledLargeSend | None:
    message = prepared.job.send.message
    try:
        with deps.budget.hold(min(message.most_bytes, SMALL_BYTES)) as held:
            _send_at(slot, prepared, held, deps, ends_at, UploadLoader(prepared.job, deps, SMALL_BYTES - message.inline_bytes))
    except LargerFileError:
        return ScheduledLargeSend(prepared, slot)
    return None


def deliver_large(large: ScheduledLargeSend, deps: SendDependencies, ends_at: datetime) -> None:
    """Send a large mail; raises as `deliver`."""
    with deps.budget.hold(large.prepared.job.send.message.most_bytes) as held:
        _send_at(large.slot, large.prepared, held, deps, ends_at, UploadLoader(large.prepared.job, deps))


def _defer_to_slot(retry: RetryAt, job: Job, deps: SendDependencies) -> None:
    deps.telemetry.paced(retry.at - deps.clock.now())
    defer(job, deps, retry.at, None, slot=retry.slot)


def _send_at(
    slot: Slot, prepared: PreparedSend, held: Held, deps: SendDependencies, ends_at: datetime, load: Callable[[S3Object], bytes]
) -> None:
    """Compose the mail, wait for the slots, send. A mail that cannot be composed wastes its slot."""
    try:
        mail = _compose(prepared, deps, load)
    except RequestError as refusal:
        end_job(prepared.job, deps, ErrorInfo(refusal.code, str(refusal)))
        return
    held.shrink(len(mail.mime))
    upload = reserve_bandwidth(len(mail.mime), prepared, deps)
    if isinstance(upload, RetryAt):
        deps.telemetry.paced(upload.at - deps.clock.now())
        defer(prepared.job, deps, upload.at, None, upload_slot=upload.slot)
        return
    with prepared.job.timings.measured("pacing", deps.clock):
        deps.clock.wait_until(upload.at)
    plan = revalidate_slot(slot, prepared, deps)
    if isinstance(plan, RetryAt):
        _defer_to_slot(plan, prepared.job, deps)
        return
    deps.telemetry.paced(plan.at - deps.clock.now())
    with prepared.job.timings.measured("pacing", deps.clock):
        deps.clock.wait_until(plan.at)
    _send_once(prepared, mail, deps, ends_at)


def _compose(prepared: PreparedSend, deps: SendDependencies, load: Callable[[S3Object], bytes]) -> Mail:
    with prepared.job.timings.measured("compose", deps.clock):
        return compose(prepared.message, prepared.provider.sender, date=deps.clock.now(), load=load)


def _send_once(prepared: PreparedSend, mail: Mail, deps: SendDependencies, ends_at: datetime) -> None:
    job, now, size = prepared.job, deps.clock.now(), len(mail.mime)
    span = CALL_SPAN + upload_time(size)
    if now + span > ends_at:
        defer(job, deps, now, None)
        return
    owner, deadline = deps.new_owner(), now + span
    suppressed = job.request.recipients - prepared.recipients
    change = changes.begin(job.request, now, owner=owner, deadline=deadline, sent_by=_sent_by(prepared), suppressed=suppressed)
    try:
        with job.timings.measured("fence", deps.clock):
            record = deps.messages.apply(change)
    except RefusedError as refusal:
        if refusal.current is not None and reconcile(job, deps, refusal.current):
            _send_once(prepared, mail, deps, ends_at)
        return
    except DependencyError as failure:
        deps.telemetry.failed("begin", job.tenant_id, failure)
        # The fence may have been passed all the same; without the proof the request would become unknown although SES was not called.
        requeue_with_proof(job, deps, Fence(ATTEMPT_NOT_KNOWN, owner), NotSent(failure.error), failure)
        return
    fence = Fence(record.attempt, owner)
    began = deps.clock.now()
    if began - now > FENCE_SPAN:
        record_outcome(job, deps, fence, NotSent(DependencyError("DynamoDB", "UpdateItem in time").error), prepared.row)
        return
    with job.timings.measured("provider", deps.clock):
        outcome = prepared.provider.send(mail, tags=_tags(job, fence))
    deps.telemetry.answered(record, outcome, job.timings.steps)
    record_outcome(job, deps, fence, outcome, prepared.row)
    apply_backpressure(outcome, size, prepared, deps)


def _sent_by(prepared: PreparedSend) -> SentBy:
    config = prepared.config
    return SentBy(prepared.provider.name, config.version, config.account, config.region or None)


def _tags(job: Job, fence: Fence) -> Mapping[str, str]:
    return tagged(
        job.send.message.tags,
        tenant_id=job.tenant_id,
        request_id=job.send.request_id,
        attempt=fence.attempt,
        correlation_id=job.queue_message.correlation_id,
    )
