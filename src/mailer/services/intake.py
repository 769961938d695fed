"""Read a copy off the queue into a job; one that cannot be read ends as a `failed` record, or on the dead-letter queue with the reason."""

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
    parse_request,
    readable_ids,
    schedule,
    utf8_size,
)
from mailer.domain.waiting import retry_delay
from mailer.ports import Copy, RefusedError
from mailer.services.claims import recognise
from mailer.services.ending import end_unsent
from mailer.services.jobs import Job, Received, SendDependencies
from mailer.services.messages import body_too_large
from mailer.services.waiting import bury, is_own_body, send

BODY_MISSING = ErrorInfo("body_missing", "its parked body is not in the bucket any more")

NOT_ALLOWED = "producer_not_allowed"
"""Reason of a dead letter whose producer may not ask for its tenant: nothing is written under that tenant."""


def read(received: Received, deps: SendDependencies) -> Job | Received | None:
    """Return the job; None where the copy is dealt with; the copy itself where it must be handed out again."""
    try:
        try:
            return _job_or_end(received, deps)
        except DependencyError as failure:
            _come_back(received, deps, failure)
    except Exception as failure:  # noqa: BLE001  # nothing that a body holds may stop its neighbours
        deps.journal.failed("read", received.copy.tenant_id, failure)
        return replace(received, raised=not isinstance(failure, DependencyError))
    return None


def _job_or_end(received: Received, deps: SendDependencies) -> Job | None:
    received = replace(received, copy=recognise(received.copy, deps.messages))
    if _asks_for_a_foreign_tenant(received.copy, deps):
        bury(received.copy, deps, NOT_ALLOWED, f"{received.copy.sender} may not ask for this tenant")
        return None
    body, send = None, None
    try:
        body = _body(received, deps)
        if received.copy.parked is None and (size := utf8_size(body)) > MAX_BODY:
            raise body_too_large(size, "message")
        send = parse_request(body)
        return _job(received, send, deps.clock.now())
    except RequestError as refusal:
        if body is not None and send is None and _is_of_a_later_version(received.copy, deps.clock.now()):
            raise UnreadableError("send queue", received.copy.tenant_id or "?") from refusal
        _refuse(received, deps, refusal, send)
    except NotSentError as gone:
        deps.journal.failed("fetch parked body", received.copy.tenant_id, gone)
        _end_without_body(received, deps, gone.error)
    return None


def _asks_for_a_foreign_tenant(copy: Copy, deps: SendDependencies) -> bool:
    """Whether its producer may not ask for the tenant that a copy names."""
    if copy.sender is None or not (rules := deps.producers.current()).tenants:
        return False
    ids = readable_ids(copy.body)
    return ids is not None and not rules.may_ask(copy.sender, ids[0])


def _is_of_a_later_version(copy: Copy, now: datetime) -> bool:
    """Whether a request that cannot be read had been read before: by a version of ours that knows more, which put it here."""
    return (copy.schema > SCHEMA or copy.parked is not None) and now < copy.created_at + 2 * MAX_AHEAD


def _job(received: Received, request: SendRequest, now: datetime) -> Job:
    copy = received.copy
    times = schedule(request, copy.created_at)
    job = Job(
        received=replace(received, copy=replace(copy, tenant_id=request.tenant_id)),
        send=request,
        request=Request.of(
            request,
            created_at=copy.created_at,
            expires_at=copy.expires_at or times.expires_at,
            hop=copy.hop,
            correlation_id=copy.correlation_id,
        ),
        send_at=times.send_at,
    )
    if copy.hop == 0 and received.sent_at:
        job.times.note("queue", now - max(received.sent_at, times.send_at))
    return job


def _body(received: Received, deps: SendDependencies) -> str:
    """Return the request's JSON; a pointer's from the bucket, where only its own tenant's may be named."""
    copy = received.copy
    if copy.parked is None:
        return copy.body
    ids = readable_ids(copy.body)
    if ids is None or not is_own_body(copy.parked, *ids):
        raise RequestError([Problem("parked", "must be the key of this request's own body")])
    try:
        return deps.parked.fetch(copy.parked)
    except KeyError:
        raise NotSentError(BODY_MISSING) from None


def _refuse(received: Received, deps: SendDependencies, refusal: RequestError, send: SendRequest | None) -> None:
    """End a request that cannot be taken as `failed`, where its ids can be read and stand for nothing else yet.

    `send` is given where only its times do not fit: then it is known by its content, as any other.
    """
    copy = received.copy
    request = Request.of(send, **_papers(copy)) if send else _unreadable(copy)
    if request is None:
        bury(copy, deps, refusal.code, str(refusal))
        return
    error = ErrorInfo(refusal.code, str(refusal)[:_MAX_MESSAGE])
    try:
        deps.journal.recorded(deps.messages.apply(changes.refuse(request, deps.clock.now(), error)))
    except RefusedError as other:
        if other.current is None or other.current.content_hash != request.content_hash:
            bury(copy, deps, refusal.code, str(refusal))


def _papers(copy: Copy) -> dict[str, Any]:
    expires_at = copy.created_at + DEFAULT_LIFE
    return {"created_at": copy.created_at, "expires_at": expires_at, "hop": copy.hop, "correlation_id": copy.correlation_id}


def _unreadable(copy: Copy) -> Request | None:
    """Return what is known of a request that cannot be read; None where not even its ids are."""
    ids = readable_ids(copy.body)
    if ids is None:
        return None
    digest = hashlib.sha256(copy.body.encode("utf-8", "surrogatepass")).hexdigest()
    # The scheme of readable requests, so that it never counts as the content of one.
    return Request(tenant_id=ids[0], request_id=ids[1], content_hash=f"{HASH_SCHEME}:{digest}", recipients=0, **_papers(copy))


_MAX_MESSAGE = 2_000
"""Characters of an error text kept on a record."""


def _end_without_body(received: Received, deps: SendDependencies, error: ErrorInfo) -> None:
    ids = readable_ids(received.copy.body)
    record = deps.messages.get(*ids) if ids else None
    if record is None or record.ended or record.parked != received.copy.parked:  # other content may have come under the same id
        return
    with suppress(RefusedError):  # it has been sent, or has ended, meanwhile: nobody needs the body
        end_unsent(changes.about(record), deps, error)


def _come_back(received: Received, deps: SendDependencies, failure: DependencyError) -> None:
    copy = received.copy
    deps.journal.failed("read", copy.tenant_id, failure)
    failures = copy.failures + 1
    send(
        replace(copy, hop=copy.hop + 1, redeliveries=received.redeliveries, failures=failures),
        deps,
        retry_delay(NotSent(failure.error), failures),
    )
