"""Send a batch of requests off the queue: read, open the provider, render, pass the fence, hand over, write down.

Every copy that this is given ends in one of three ways: its request's record says what became of it, a newer copy is on its way,
or its receipt is in the answer and SQS hands it out again.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from mailer.domain import changes, proof
from mailer.domain.changes import Fence
from mailer.domain.delivery import NotSent, Status, WaitsFor
from mailer.domain.errors import EXPIRED, DependencyError, ErrorInfo, Kind, NotSentError, RequestError
from mailer.domain.mime import Mail, compose
from mailer.domain.provider import Provider, Stop, StoredConfig, sending_state
from mailer.domain.waiting import retry_delay
from mailer.ports import EmailProvider, RefusedError
from mailer.services.intake import read
from mailer.services.mailroom import Job, Mailroom, Received
from mailer.services.outcomes import blame, maybe_sent_before, settle
from mailer.services.redelivery import redelivered
from mailer.services.waiting import bury, come_back, discard, rest, send_copy

CALL_SPAN = timedelta(seconds=20)
"""How long an attempt may take from the fence to its result: SES's connect (3 s) and read timeout (10 s), and the write of the outcome.
An attempt is not begun with less of the function's time left, and its worker is given up after it."""

CAREFUL_FROM = 3
"""From this receive on a copy may be what kills the worker: it is handled after its neighbours, by itself."""

LAST_RECEIVE = 5
"""The queue's maxReceiveCount: a copy is not tried then but kept for an operator."""

CRASHED = ErrorInfo("processing_crashed", f"the worker died on it {LAST_RECEIVE - 1} times")


def send_batch(batch: Sequence[Received], room: Mailroom, *, ends_at: datetime) -> list[str]:
    """Send what came in one batch; return the receipts of copies that must be handed out again.

    `ends_at` is when the function's time is over.
    """
    calm = [r for r in batch if r.receives < CAREFUL_FROM]
    returned = _send_side_by_side(calm, room, ends_at)
    for received in batch:
        if received.receives >= CAREFUL_FROM:
            returned += _send_side_by_side([received], room, ends_at)
    return returned


def _send_side_by_side(batch: Sequence[Received], room: Mailroom, ends_at: datetime) -> list[str]:
    jobs = list(room.workers.map(lambda received: read(received, room), batch))
    readable = [job for job in jobs if isinstance(job, Job)]
    rows = _rows({job.tenant_id for job in readable}, room)
    safe = room.workers.map(lambda job: _deliver_safely(job, rows, room, ends_at), readable)
    unsafe = [job.receipt for job in jobs if isinstance(job, Received)]
    return unsafe + [job.received.receipt for job, is_safe in zip(readable, safe, strict=True) if not is_safe]


def _rows(tenant_ids: set[str], room: Mailroom) -> Mapping[str, Provider] | DependencyError:
    """Read the batch's provider rows at once; a failure hits each of its requests, not the batch."""
    try:
        return room.providers.get_many(tenant_ids) if tenant_ids else {}
    except DependencyError as failure:
        return failure


def _deliver_safely(job: Job, rows: Mapping[str, Provider] | DependencyError, room: Mailroom, ends_at: datetime) -> bool:
    """Deliver one request; False when its copy must be handed out again, because nothing else could be made safe."""
    try:
        try:
            if isinstance(rows, DependencyError):
                raise rows
            deliver(job, rows.get(job.tenant_id), room, ends_at)
        except DependencyError as failure:
            room.journal.failed("deliver", job.tenant_id, failure)
            come_back(job, room, room.clock.now() + retry_delay(NotSent(failure.error), job.copy.hop))
    except Exception as failure:  # noqa: BLE001  # a bug of ours must not take the neighbours along
        room.journal.failed("deliver", job.tenant_id, failure)
        return False
    return True


def deliver(job: Job, row: Provider | None, room: Mailroom, ends_at: datetime) -> None:
    """Take one request as far as it goes.

    Raises:
        DependencyError: an AWS service of ours failed before the fence.
    """
    _settle_proof(job, row, room)
    if job.received.receives >= LAST_RECEIVE:
        _keep_for_operator(job, room)
    elif room.clock.now() >= job.request.expires_at:
        end(job, room, EXPIRED)
    elif room.clock.now() < job.send_at:
        defer(job, room, job.send_at, None)
    elif isinstance(state := sending_state(row, job.request.created_at), Stop):
        _stop(job, room, state)
    else:
        _open_and_send(job, row, state, room, ends_at)


def _settle_proof(job: Job, row: Provider | None, room: Mailroom) -> None:
    """Write down what became of an attempt whose result the table did not take; the copy then goes on like any other."""
    if job.copy.proof and (proven := proof.from_json(job.copy.proof)):
        settle(job, room, *proven, row)


def _stop(job: Job, room: Mailroom, state: Stop) -> None:
    if state.waits:
        defer(job, room, job.request.expires_at, state.error, WaitsFor.PROVIDER)
    else:
        end(job, room, state.error)


def _open_and_send(job: Job, row: Provider | None, config: StoredConfig, room: Mailroom, ends_at: datetime) -> None:
    try:
        provider = room.opener.open(job.tenant_id, config)
        mail = _render(job, provider, room)
    except RequestError as refusal:
        end(job, room, ErrorInfo(refusal.code, str(refusal)))
        return
    except NotSentError as refusal:
        _blocked(job, row, room, refusal.error)
        return
    if room.clock.now() + CALL_SPAN > ends_at:
        send_copy(job, room, timedelta())
        return
    _send_once(job, row, config, provider, mail, room, ends_at)


def _render(job: Job, provider: EmailProvider, room: Mailroom) -> Mail:
    return compose(
        job.send.message,
        provider.sender,
        date=room.clock.now(),
        load=lambda ref: room.attachments.fetch(job.tenant_id, ref),
    )


def _blocked(job: Job, row: Provider | None, room: Mailroom, error: ErrorInfo) -> None:
    """Let a request wait that its tenant's config or credentials keep from being tried."""
    if error.kind is Kind.FAILED:
        end(job, room, error)
    elif error.kind is Kind.TENANT and blame(job, room, error, row):
        defer(job, room, job.request.expires_at, error, WaitsFor.PROVIDER)
    else:
        defer(job, room, room.clock.now() + retry_delay(NotSent(error), job.copy.hop), error)


def _send_once(
    job: Job, row: Provider | None, config: StoredConfig, provider: EmailProvider, mail: Mail, room: Mailroom, ends_at: datetime
) -> None:
    now = room.clock.now()
    change = changes.begin(
        job.request, now, owner=room.new_owner(), deadline=now + CALL_SPAN, provider=provider.name, version=config.version
    )
    try:
        record = room.messages.apply(change)
    except RefusedError as refusal:
        if refusal.current is not None and redelivered(job, room, refusal.current):
            _send_once(job, row, config, provider, mail, room, ends_at)
        return
    fence = Fence(record.attempt, change.owner or "")
    began = room.clock.now()
    outcome = provider.send(mail, tags=job.send.message.tags)
    room.journal.answered(job.tenant_id, job.send.request_id, fence, outcome, room.clock.now() - began)
    settle(job, room, fence, outcome, row)


def defer(job: Job, room: Mailroom, until: datetime, error: ErrorInfo | None, waits_for: WaitsFor = WaitsFor.TIME) -> None:
    """Let a request wait that has not reached the fence.

    Raises:
        DependencyError: its copy could not be made safe.
    """
    resting = rest(job, room, until, error, waits_for)
    try:
        room.journal.recorded(room.messages.apply(changes.wait(job.request, room.clock.now(), resting)))
    except RefusedError as refusal:
        if refusal.current is not None:
            redelivered(job, room, refusal.current)
    except DependencyError as failure:
        room.journal.failed("defer", job.tenant_id, failure)
        if not resting.on_queue:  # without a record nobody would fetch the parked body
            send_copy(job, room, retry_delay(NotSent(failure.error), job.copy.hop))


def end(job: Job, room: Mailroom, error: ErrorInfo) -> None:
    """End a request that cannot be sent; where an earlier attempt may have been accepted it ends as `unknown`.

    Raises:
        DependencyError: the table did not take it, or its copy could not be made safe.
    """
    try:
        room.journal.recorded(room.messages.apply(changes.refuse(job.request, room.clock.now(), error)))
        discard(job.copy.parked, room)
    except RefusedError as refusal:
        current = refusal.current
        if current is not None and current.maybe_sent and current.status in (Status.QUEUED, Status.DEFERRED):
            room.journal.recorded(room.messages.apply(changes.give_up(job.request, room.clock.now(), maybe_sent_before(error))))
        elif current is not None:
            redelivered(job, room, current)


def _keep_for_operator(job: Job, room: Mailroom) -> None:
    """Put a copy that kills its worker on the dead-letter queue; the record stays open until it is redriven, dropped or expires."""
    record = room.messages.get(job.tenant_id, job.send.request_id)
    if record is not None and record.status not in (Status.QUEUED, Status.DEFERRED):
        redelivered(job, room, record)
        return
    bury(job.copy, room, CRASHED.code, CRASHED.message)
    resting = changes.Rest(until=job.request.expires_at, hop=job.copy.hop + 1, error=CRASHED, parked=job.copy.parked)
    try:
        room.journal.recorded(room.messages.apply(changes.wait(job.request, room.clock.now(), resting)))
    except RefusedError:
        return
