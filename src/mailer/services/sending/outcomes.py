"""Record the outcome of an attempt, and defer a request that will be tried again."""

from collections.abc import Callable
from dataclasses import replace

from mailer.domain import changes
from mailer.domain.changes import Deferral, Fence
from mailer.domain.delivery import Change, Delivery, MaybeSent, NotSent, Outcome, Sent, Status, WaitsFor
from mailer.domain.errors import DependencyError, ErrorClass, ErrorInfo
from mailer.domain.provider import Provider
from mailer.domain.remediation import with_remediation
from mailer.domain.retries import retry_delay
from mailer.ports import RefusedError
from mailer.services.requests.ending import maybe_sent_before
from mailer.services.sending.jobs import Job, SendDependencies
from mailer.services.sending.requeueing.reconcile import reconcile
from mailer.services.sending.requeueing.requeue import discard_body, requeue_at, requeue_or_park, requeue_with_proof


def record_outcome(job: Job, deps: SendDependencies, fence: Fence, outcome: Outcome, row: Provider | None) -> None:
    """Write the outcome to the record; if the table does not take it, requeue the message with the outcome as proof.

    Raises:
        DependencyError: neither the table nor the queue took it, or its body is not safe yet: the request must be requeued.
    """
    if isinstance(outcome, NotSent):
        outcome = replace(outcome, error=with_remediation(outcome.error, row))
    try:
        record = _write_outcome(job, deps, fence, outcome, row)
    except DependencyError as failure:
        deps.telemetry.failed("write outcome", job.tenant_id, failure)
        _keep_proof(job, deps, fence, outcome, failure)
        return
    if record is not None and record.status is Status.UNKNOWN and record.owner == fence.owner:
        if reconcile(job, deps, record):
            requeue_at(job, deps, deps.clock.now())
    else:
        discard_body(deps, record, job.queue_message.parked)


def _write_outcome(job: Job, deps: SendDependencies, fence: Fence, outcome: Outcome, row: Provider | None) -> Delivery | None:
    """Write an outcome and return the record after it; None if there is no record."""
    match outcome:
        case Sent(message_id):
            return _record_accepted(job, deps, fence, message_id, row)
        case NotSent(error) if error.error_class is ErrorClass.FAILED:
            return _record_rejected(job, deps, fence, error, row)
        case NotSent():
            return _defer_attempt(job, deps, fence, outcome, row)
        case MaybeSent(error):
            return _write(job, deps, changes.mark_unknown(job.request, deps.clock.now(), fence, error))


def _keep_proof(job: Job, deps: SendDependencies, fence: Fence, outcome: Outcome, failure: DependencyError) -> None:
    try:
        requeue_with_proof(job, deps, fence, outcome, failure)
    except DependencyError:
        if isinstance(outcome, NotSent) and outcome.error.error_class is not ErrorClass.FAILED:
            # The queue failed, but the table may work: SQS redelivers this same message, and this record lets it be tried then.
            deferral = Deferral(
                until=deps.clock.now(), generation=job.queue_message.generation, error=outcome.error, parked=job.queue_message.parked
            )
            _write(job, deps, changes.defer_attempt(job.request, deps.clock.now(), fence, deferral))
        raise


def _record_accepted(job: Job, deps: SendDependencies, fence: Fence, message_id: str, row: Provider | None) -> Delivery | None:
    record = _write(job, deps, changes.accept(job.request, deps.clock.now(), fence, message_id))
    if row is not None and row.active is not None and row.faulty_requests:
        version = row.active.version
        _write_best_effort(deps, job, "clear faults", lambda: deps.providers.clear_faults(job.tenant_id, version))
    return record


def _write_best_effort(deps: SendDependencies, job: Job, step: str, write: Callable[[], None]) -> None:
    """Make a write about the tenant; a failure does not affect the request."""
    try:
        write()
    except DependencyError as failure:
        deps.telemetry.failed(step, job.tenant_id, failure)


def _record_rejected(job: Job, deps: SendDependencies, fence: Fence, error: ErrorInfo, row: Provider | None) -> Delivery | None:
    if error.code == "sandbox_recipient_not_verified" and row is not None and row.active is not None and row.sandbox != "true":
        version = row.active.version
        _write_best_effort(deps, job, "learn sandbox", lambda: deps.providers.learn_sandbox(job.tenant_id, version))
    record = _write(job, deps, changes.fail_rejected(job.request, deps.clock.now(), fence, error))
    if record is None or not record.maybe_sent:
        return record
    return _write(job, deps, changes.mark_unknown(job.request, deps.clock.now(), fence, maybe_sent_before(error), for_good=True))


def _defer_attempt(job: Job, deps: SendDependencies, fence: Fence, outcome: NotSent, row: Provider | None) -> Delivery | None:
    is_evidence = outcome.error.error_class is ErrorClass.TENANT and not outcome.error.rights
    suspended = is_evidence and record_tenant_fault(job, deps, outcome.error, row)
    job = job.failed()
    until = job.request.expires_at if suspended else deps.clock.now() + retry_delay(outcome, job.queue_message.failures)
    deferral = requeue_or_park(job, deps, until, outcome.error, WaitsFor.PROVIDER if suspended else WaitsFor.TIME)
    record = _write(job, deps, changes.defer_attempt(job.request, deps.clock.now(), fence, deferral))
    discard_body(deps, record, deferral.parked)
    return record


def record_tenant_fault(job: Job, deps: SendDependencies, error: ErrorInfo, row: Provider | None) -> bool:
    """Count a tenant-class error against the tenant's active version; True if this suspended the provider."""
    if row is None or row.active is None:
        return False
    try:
        suspended = deps.providers.record_fault(job.tenant_id, row.active.version, job.send.request_id, error, row.verified_at)
    except DependencyError as failure:
        deps.telemetry.failed("record fault", job.tenant_id, failure)
        return False
    if suspended:
        deps.telemetry.suspended(job.tenant_id, row.active.version, error)
    return suspended


def _write(job: Job, deps: SendDependencies, change: Change) -> Delivery | None:
    """Apply a change and report the record; return the current record, also if it refused the change (None: there is none)."""
    try:
        with job.timings.measured("write", deps.clock):
            record = deps.messages.apply(change)
    except RefusedError as refusal:
        return refusal.current
    if record.sent_at:
        job.timings.add("total", record.sent_at - max(record.created_at, job.send_at))
    deps.telemetry.recorded(record, job.timings.steps)
    return record
