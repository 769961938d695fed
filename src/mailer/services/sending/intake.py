"""Read a queue message into a job; one that cannot be read ends as a `failed` record, or as a dead letter with the reason."""

import hashlib
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from mailer.domain import changes
from mailer.domain.changes import Request
from mailer.domain.delivery import NotSent
from mailer.domain.errors import DependencyError, ErrorInfo, NotSentError, Problem, RequestError, UnreadableError
from mailer.domain.message import (
    DEFAULT_LIFE,
    HASH_SCHEME,
    MAX_AHEAD,
    MAX_BODY,
    SCHEMA,
    SendRequest,
    body_too_large,
    parse_request,
    readable_ids,
    schedule,
    utf8_size,
)
from mailer.domain.retries import retry_delay
from mailer.ports import QueueMessage, RefusedError
from mailer.services.requests.claims import recognise
from mailer.services.requests.ending import end_unsent
from mailer.services.requests.parked_bodies import is_own_body
from mailer.services.sending.jobs import Job, Received, SendDependencies
from mailer.services.sending.requeueing.requeue import dead_letter, enqueue

BODY_MISSING = ErrorInfo("body_missing", "its parked body is not in the bucket any more")

NOT_ALLOWED = "producer_not_allowed"
"""The reason of a dead letter whose producer may not send for its tenant: nothing is written under that tenant."""


def read(received: Received, deps: SendDependencies) -> Job | Received | None:
    """Return the job; None if the message is done with; the message itself if SQS must redeliver it."""
    try:
        try:
            return _job_or_end(received, deps)
        except DependencyError as failure:
            _requeue_unread(received, deps, failure)
    except Exception as failure:  # noqa: BLE001  # no body may fail the rest of the batch
        deps.telemetry.failed("read", received.queue_message.tenant_id, failure)
        return replace(received, raised=not isinstance(failure, DependencyError))
    return None


def _job_or_end(received: Received, deps: SendDependencies) -> Job | None:
    received = replace(received, queue_message=recognise(received.queue_message, deps.messages))
    if _asks_for_a_foreign_tenant(received.queue_message, deps):
        dead_letter(received.queue_message, deps, NOT_ALLOWED, f"{received.queue_message.sender} may not ask for this tenant")
        return None
    body, send = None, None
    try:
        body = _body(received, deps)
        if received.queue_message.parked is None and (size := utf8_size(body)) > MAX_BODY:
            raise body_too_large(size, "message")
        send = parse_request(body)
        return _job(received, send, deps.clock.now())
    except RequestError as refusal:
        if body is not None and send is None and _is_of_a_later_version(received.queue_message, deps.clock.now()):
            raise UnreadableError("send queue", received.queue_message.tenant_id or "?") from refusal
        _refuse(received, deps, refusal, send)
    except NotSentError as gone:
        deps.telemetry.failed("fetch parked body", received.queue_message.tenant_id, gone)
        _end_without_body(received, deps, gone.error)
    return None


def _asks_for_a_foreign_tenant(queue_message: QueueMessage, deps: SendDependencies) -> bool:
    """Return whether the producer may not send for the tenant that the message names."""
    if queue_message.sender is None or not (rules := deps.producers.current()).tenants:
        return False
    ids = readable_ids(queue_message.body)
    return ids is not None and not rules.may_request(queue_message.sender, ids[0])


def _is_of_a_later_version(queue_message: QueueMessage, now: datetime) -> bool:
    """Return whether a later version of this code could read this request and put it on the queue."""
    return (queue_message.schema > SCHEMA or queue_message.parked is not None) and now < queue_message.created_at + 2 * MAX_AHEAD


def _job(received: Received, request: SendRequest, now: datetime) -> Job:
    queue_message = received.queue_message
    times = schedule(request, queue_message.created_at)
    job = Job(
        received=replace(received, queue_message=replace(queue_message, tenant_id=request.tenant_id)),
        send=request,
        request=Request.of(
            request,
            created_at=queue_message.created_at,
            expires_at=queue_message.expires_at or times.expires_at,
            generation=queue_message.generation,
            correlation_id=queue_message.correlation_id,
        ),
        send_at=times.send_at,
    )
    if queue_message.generation == 0 and received.sent_at:
        job.timings.add("queue", now - max(received.sent_at, times.send_at))
    return job


def _body(received: Received, deps: SendDependencies) -> str:
    """Return the request's JSON; for a pointer it is fetched from the bucket, if the key is the request's own."""
    queue_message = received.queue_message
    if queue_message.parked is None:
        return queue_message.body
    ids = readable_ids(queue_message.body)
    if ids is None or not is_own_body(queue_message.parked, *ids):
        raise RequestError([Problem("parked", "must be the key of this request's own body")])
    try:
        return deps.parked.fetch(queue_message.parked)
    except KeyError:
        raise NotSentError(BODY_MISSING) from None


def _refuse(received: Received, deps: SendDependencies, refusal: RequestError, send: SendRequest | None) -> None:
    """End a refused request as `failed`, if its ids can be read and belong to no other request; else dead-letter it.

    `send` is given if only its times are refused: then its content hash is known.
    """
    queue_message = received.queue_message
    request = Request.of(send, **_request_fields(queue_message)) if send else _unreadable(queue_message)
    if request is None:
        dead_letter(queue_message, deps, refusal.code, str(refusal))
        return
    error = ErrorInfo(refusal.code, str(refusal)[:_MAX_MESSAGE])
    try:
        deps.telemetry.recorded(deps.messages.apply(changes.fail_unsent(request, deps.clock.now(), error)))
    except RefusedError as other:
        if other.current is None or other.current.content_hash != request.content_hash:
            dead_letter(queue_message, deps, refusal.code, str(refusal))


def _request_fields(queue_message: QueueMessage) -> dict[str, Any]:
    expires_at = queue_message.created_at + DEFAULT_LIFE
    return {
        "created_at": queue_message.created_at,
        "expires_at": expires_at,
        "generation": queue_message.generation,
        "correlation_id": queue_message.correlation_id,
    }


def _unreadable(queue_message: QueueMessage) -> Request | None:
    """Return what is known of a request that cannot be read; None if its ids are not known."""
    ids = readable_ids(queue_message.body)
    if ids is None:
        return None
    digest = hashlib.sha256(queue_message.body.encode("utf-8", "surrogatepass")).hexdigest()
    # With the scheme of readable requests, so that it differs from the content of every one of them.
    return Request(
        tenant_id=ids[0], request_id=ids[1], content_hash=f"{HASH_SCHEME}:{digest}", recipients=0, **_request_fields(queue_message)
    )


_MAX_MESSAGE = 2_000
"""Characters of an error text that a record keeps."""


def _end_without_body(received: Received, deps: SendDependencies, error: ErrorInfo) -> None:
    ids = readable_ids(received.queue_message.body)
    record = deps.messages.get(*ids) if ids else None
    if record is None or record.ended or record.parked != received.queue_message.parked:  # the id may belong to other content
        return
    request = changes.request_of(record)
    try:
        end_unsent(request, deps, error)
    except RefusedError:
        if record.on_unknown == "resend":  # an attempt was made, and no other one can be
            with suppress(RefusedError):  # it has ended meanwhile
                deps.messages.apply(changes.annotate(request, deps.clock.now(), on_unknown="hold"))


def _requeue_unread(received: Received, deps: SendDependencies, failure: DependencyError) -> None:
    queue_message = received.queue_message
    deps.telemetry.failed("read", queue_message.tenant_id, failure)
    failures = queue_message.failures + 1
    enqueue(
        replace(queue_message, generation=queue_message.generation + 1, redeliveries=received.redeliveries, failures=failures),
        deps,
        retry_delay(NotSent(failure.error), failures),
    )
