"""Accept send requests, show and list their records, and cancel them.

First the queue, then the record: a request that was answered with 202 is on the queue, even if the write after it fails.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from secrets import randbits
from typing import Self
from uuid import UUID

from mailer.domain import changes, delivery
from mailer.domain.delivery import ERASED_CONTENT, Delivery, Status, same_content
from mailer.domain.errors import DependencyError, Problem, RequestError
from mailer.domain.facts import RecipientFeedback, recipients_of
from mailer.domain.message import MAX_BODY, SCHEMA, S3Object, SendRequest, body_too_large, canonical_json, schedule
from mailer.domain.provider import Blocked, Provider, StoredConfig, sending_state
from mailer.domain.retries import MAX_DELAY
from mailer.domain.uploads import Upload, UploadRequest
from mailer.ports import (
    Attachments,
    Clock,
    FeedbackTable,
    MessagesTable,
    Page,
    ParkedBodies,
    ProvidersTable,
    QueueMessage,
    RefusedError,
    SendQueue,
    SuppressionsReader,
    Telemetry,
    Uploads,
)
from mailer.services.requests.parked_bodies import discard
from mailer.services.requests.uploads import pin

Refusal = RequestError | DependencyError
"""Why a request was not accepted: the caller must change it, or an AWS service failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesDependencies:
    """What the messages API depends on."""

    providers: ProvidersTable
    suppressions: SuppressionsReader
    messages: MessagesTable
    feedback: FeedbackTable
    queue: SendQueue
    parked: ParkedBodies
    attachments: Attachments
    uploads: Uploads
    telemetry: Telemetry
    clock: Clock
    workers: Executor
    """Reads and writes the records of a batch concurrently."""
    send_timeout: timedelta
    """SendFunction's timeout: after it a worker is dead."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request that is on the queue; `replayed` if an earlier call had put it there."""

    record: Delivery
    replayed: bool


@dataclass(frozen=True, slots=True)
class SubmittedRequest:
    """A request that could be read, with its record's fields; its times are not checked yet."""

    send: SendRequest
    request: changes.Request

    @classmethod
    def of(cls, send: SendRequest, now: datetime, correlation_id: str | None = None) -> Self:
        """Wrap a request that was read."""
        return cls(send, changes.Request.of(send, created_at=now, expires_at=now, correlation_id=correlation_id))


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request that can be queued: its record's fields, its queue message and the message's delay."""

    request: changes.Request
    queue_message: QueueMessage
    delay: timedelta


# ── accept ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def accept(send: SendRequest, deps: MessagesDependencies, *, correlation_id: str | None = None) -> Accepted:
    """Accept one request.

    Raises:
        RequestError: what the caller must change: the times, the size, a requestId that stands for other content, the provider.
        DependencyError: it is not certain to be on the queue.
    """
    [answer] = accept_batch([send], deps, correlation_id=correlation_id)
    if isinstance(answer, Refusal):
        raise answer
    return answer


def accept_batch(
    sends: Sequence[SendRequest | RequestError], deps: MessagesDependencies, *, correlation_id: str | None = None
) -> Sequence[Accepted | Refusal]:
    """Accept the requests of one tenant, each by itself; the answers stand in the order of the requests.

    A request that could not be read stands as its refusal, which becomes its answer.
    """
    now = _milliseconds(deps.clock.now())
    answers: dict[int, Accepted | Refusal] = {number: send for number, send in enumerate(sends) if isinstance(send, RequestError)}
    waiting = {number: send for number, send in enumerate(sends) if isinstance(send, SendRequest)}
    while waiting:
        firsts = {number: SubmittedRequest.of(waiting[number], now, correlation_id) for number in _first_of_each_id(waiting)}
        answers |= _accept_concurrently(firsts, now, deps)
        waiting = {number: send for number, send in waiting.items() if number not in firsts}
    return [answers[number] for number in range(len(sends))]


def _milliseconds(moment: datetime) -> datetime:
    """Round a time down to milliseconds, the precision of table and queue."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def prepare_request(asked: SubmittedRequest, now: datetime) -> PreparedRequest:
    """Prepare a request for the queue.

    Raises:
        RequestError: its times or its size are not allowed.
    """
    send, request = asked.send, asked.request
    times, body = schedule(send, now), canonical_json(send)
    if times.expires_at <= now:
        raise RequestError([Problem("expiresAt", "must be later than now")])
    if len(body) > MAX_BODY:
        raise body_too_large(len(body), "message.attachments" if send.message.attachments else "message")
    delay = times.send_at - now
    queue_message = QueueMessage(body=body, tenant_id=send.tenant_id, created_at=now, correlation_id=request.correlation_id, schema=SCHEMA)
    # A later one is queued without delay: SendFunction parks it and records when it is due.
    return PreparedRequest(replace(request, expires_at=times.expires_at), queue_message, delay if delay <= MAX_DELAY else timedelta())


def _active_configs(tenant_ids: Collection[str], now: datetime, deps: MessagesDependencies) -> Mapping[str, StoredConfig]:
    """Return each tenant's active config; refuse tenants whose mail would fail, but not those whose mail would wait."""
    rows = provider_rows(tenant_ids, deps) if tenant_ids else {}
    for tenant_id in tenant_ids:
        state = sending_state(rows.get(tenant_id), now)
        if isinstance(state, Blocked) and not state.waits:
            raise RequestError([Problem("", state.error.message)], state.error.code)
    return {tenant_id: row.active for tenant_id, row in rows.items() if row.active}


def provider_rows(tenant_ids: Collection[str], deps: MessagesDependencies) -> Mapping[str, Provider]:
    """Return the provider rows of tenants.

    Raises:
        DependencyError: the table did not answer, or a row cannot be read.
    """
    rows: dict[str, Provider] = {}
    for tenant_id, row in deps.providers.get_many(tenant_ids).items():
        if isinstance(row, DependencyError):
            raise row
        rows[tenant_id] = row
    return rows


def check_tags(send: SendRequest, config: StoredConfig) -> None:
    """Refuse tags if the config has no configuration set: SES would not report them.

    Raises:
        RequestError: the config names no configuration set.
    """
    if send.message.tags and config.provider == "ses" and config.configuration_set is None:
        problem = "needs a configuration set, and the tenant's config names none: leave the tags out, or store a config with one"
        raise RequestError([Problem("message.tags", problem)])


def _first_of_each_id(sends: Mapping[int, SendRequest]) -> Iterable[int]:
    """Return the requests that can be accepted together; a repeated id has to find the record of its first request."""
    firsts: dict[str, int] = {}
    for number, send in sends.items():
        firsts.setdefault(send.request_id, number)
    return firsts.values()


def _accept_concurrently(asked: Mapping[int, SubmittedRequest], now: datetime, deps: MessagesDependencies) -> dict[int, Accepted | Refusal]:
    """Accept requests of different ids.

    The records are read first: a request that was accepted before gets its first answer, whatever its times, provider or uploads are now.
    """
    known = _each(asked, lambda one: _earlier(one, deps), deps)
    answers: dict[int, Accepted | Refusal] = {number: answer for number, answer in known.items() if answer is not None}
    requests, refused = _prepare_all({number: one for number, one in asked.items() if number not in answers}, now, deps)
    return {**answers, **refused, **_queue(requests, deps)}


def _prepare_all(
    asked: Mapping[int, SubmittedRequest], now: datetime, deps: MessagesDependencies
) -> tuple[Mapping[int, PreparedRequest], Mapping[int, Refusal]]:
    """Prepare new requests for the queue, and return why others are refused. Checks that need a call are made last."""
    refused: dict[int, Refusal] = {}
    requests = _taken({number: _safely(lambda one: prepare_request(one, now), one) for number, one in asked.items()}, refused)
    try:
        configs = _active_configs({asked[number].send.tenant_id for number in requests}, now, deps)
    except (RequestError, DependencyError) as refusal:
        return {}, refused | dict.fromkeys(requests, refusal)

    def tagged(one: SubmittedRequest) -> SubmittedRequest:
        check_tags(one.send, configs[one.send.tenant_id])
        return one

    fitting = _taken({number: _safely(tagged, asked[number]) for number in requests}, refused)
    return _taken(_with_uploads(fitting, requests, now, deps), refused), refused


def _taken[Answer](answers: Mapping[int, Answer | Refusal], refused: dict[int, Refusal]) -> dict[int, Answer]:
    """Return the answers that are not refusals; the refusals are added to `refused`."""
    refused |= {number: answer for number, answer in answers.items() if isinstance(answer, Refusal)}
    return {number: answer for number, answer in answers.items() if not isinstance(answer, Refusal)}


def _with_uploads(
    asked: Mapping[int, SubmittedRequest], requests: Mapping[int, PreparedRequest], now: datetime, deps: MessagesDependencies
) -> Mapping[int, PreparedRequest | Refusal]:
    """Pin the uploads of requests to their current versions; each object is looked up once, several concurrently."""
    refs = {ref: one.send.tenant_id for one in asked.values() for ref in one.send.uploads.values()}
    looked_up = deps.workers.map(lambda ref: _safely(lambda of: deps.attachments.version(refs[of], of), ref), refs)
    found = dict(zip(refs, looked_up, strict=True))

    def version_of(ref: S3Object) -> str | None:
        answer = found[ref]
        if isinstance(answer, Refusal):
            raise answer
        return answer

    def repinned(one: SubmittedRequest) -> PreparedRequest:
        return prepare_request(replace(one, send=pin(one.send, version_of)), now)

    return {number: _safely(repinned, one) if one.send.uploads else requests[number] for number, one in asked.items()}


def _queue(requests: Mapping[int, PreparedRequest], deps: MessagesDependencies) -> dict[int, Accepted | Refusal]:
    untaken = set(deps.queue.send([(prepared.queue_message, prepared.delay) for prepared in requests.values()])) if requests else set()
    queued = {number: prepared for number, prepared in requests.items() if prepared.queue_message not in untaken}
    lost = {number: DependencyError("SQS", "SendMessageBatch") for number in requests if number not in queued}
    return {**lost, **_each(queued, lambda prepared: _record(prepared, deps), deps)}


def _each[Item, Answer](
    items: Mapping[int, Item], step: Callable[[Item], Answer], deps: MessagesDependencies
) -> Mapping[int, Answer | Refusal]:
    """Do a step for each request, concurrently."""
    return dict(zip(items, deps.workers.map(lambda item: _safely(step, item), items.values()), strict=True))


def _safely[Item, Answer](step: Callable[[Item], Answer], item: Item) -> Answer | Refusal:
    """Return a request's error as its answer, so that the other requests go on."""
    try:
        return step(item)
    except (RequestError, DependencyError) as refusal:
        return refusal


def _earlier(asked: SubmittedRequest, deps: MessagesDependencies) -> Accepted | None:
    record = deps.messages.get(asked.request.tenant_id, asked.request.request_id)
    if record is None:
        return None
    _check_content(record, asked.request)
    return Accepted(record, replayed=True)


def _check_content(record: Delivery, request: changes.Request) -> None:
    if not same_content(record.content_hash, request.content_hash):
        raise RequestError([Problem("requestId", "already stands for a request with other content")], "request_id_reused")


def _record(prepared: PreparedRequest, deps: MessagesDependencies) -> Accepted:
    """Write the record of a request that the queue has taken; if this fails, SendFunction writes it."""
    change = changes.queue(prepared.request, prepared.request.created_at)
    try:
        record = deps.messages.apply(change)
    except RefusedError as refusal:
        current = refusal.current or delivery.apply(change, None)
        _check_content(current, prepared.request)
        # SendFunction may have been faster than this write: then the record is of this same call.
        return Accepted(current, replayed=current.created_at != prepared.request.created_at)
    except DependencyError as failure:
        deps.telemetry.failed("record", prepared.request.tenant_id, failure)
        return Accepted(delivery.apply(change, None), replayed=False)
    deps.telemetry.recorded(record)
    return Accepted(record, replayed=False)


def new_request_id(now: datetime) -> str:
    """Make an id for a request without one: a UUIDv7, so that ids sort by time (RFC 9562 §5.7)."""
    milliseconds = int(now.timestamp() * 1000)
    return str(UUID(int=milliseconds << 80 | 0x7 << 76 | randbits(12) << 64 | 0b10 << 62 | randbits(62)))


# ── read ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def get(tenant_id: str, request_id: str, deps: MessagesDependencies) -> Delivery:
    """Return one record.

    Raises:
        RequestError: not_found.
    """
    record = deps.messages.get(tenant_id, request_id)
    if record is not None and record.content_hash != ERASED_CONTENT:
        return record
    raise RequestError([Problem("requestId", "is not known under this tenant")], "not_found")


def feedback(tenant_id: str, request_id: str, deps: MessagesDependencies) -> Sequence[RecipientFeedback]:
    """Return SES's most significant report about each recipient of a request.

    Raises:
        RequestError: not_found.
    """
    get(tenant_id, request_id, deps)
    return recipients_of(deps.feedback.facts(tenant_id, request_id))


def list_newest(tenant_id: str, deps: MessagesDependencies, *, status: Status | None, limit: int, cursor: str | None) -> Page:
    """Return a page of a tenant's records, newest first.

    Raises:
        RequestError: not_found, for a cursor that is not of this tenant's list.
    """
    try:
        return deps.messages.list(tenant_id, status=status, limit=limit, cursor=cursor)
    except KeyError:
        raise RequestError([Problem("cursor", "is not one that this list gave")], "not_found") from None


# ── cancel ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def cancel(tenant_id: str, request_id: str, deps: MessagesDependencies, *, by: str | None = None) -> Delivery:
    """Cancel a request that is queued or deferred; idempotent.

    `by` is the ARN of the caller, which is kept in the record.

    Raises:
        RequestError: not_found, or not_cancellable.
    """
    waiting = get(tenant_id, request_id, deps)
    try:
        record = deps.messages.apply(changes.cancel(waiting, deps.clock.now(), by))
    except RefusedError as refusal:
        current = refusal.current or waiting
        if current.status is Status.CANCELLED:
            return current
        raise RequestError([Problem("status", _why_not_cancellable(current))], "not_cancellable") from None
    deps.telemetry.recorded(record)
    discard(record.parked, deps)
    return record


def _why_not_cancellable(record: Delivery) -> str:
    if record.status in (Status.QUEUED, Status.DEFERRED):
        return f"is {record.status}, but an earlier attempt may have been sent"
    return f"is {record.status}"


def create_upload(tenant_id: str, request: UploadRequest, deps: MessagesDependencies) -> Upload:
    """Permit one upload of an attachment, bound to the file's type and size."""
    return deps.uploads.create_upload(tenant_id, request)
