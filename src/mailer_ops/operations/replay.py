"""Update a restored status table from the functions' log lines and the bodies in the bucket.

Of each request the newest line counts, wherever it is in a file; an acceptance by SES counts above all. Ends are written to the table. A
request that is still open, and whose body is in the bucket only, is made due, so that the sweeper requeues it. Sending must be paused.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mailer.domain.changes import Request
from mailer.domain.delivery import END_STATUSES, LOST_CONTENT, OVERDUE_AFTER, Delivery, Status, WaitsFor, same_content
from mailer.domain.errors import RequestError
from mailer.domain.message import DEFAULT_LIFE, parse_request, schedule
from mailer.ports import Clock, MessagesTable, ParkedBodies, ParkedBody, RefusedError
from mailer_ops.operations.request_log import Ids, LoggedState, RequestLog, read_log
from mailer_ops.ports import OutcomeRestore, ParkedList

REOPENED, KNOWN, ON_QUEUE, UNREADABLE, CHANGED = "reopened", "known", "on the queue", "unreadable", "changed meanwhile"
"""Counted results besides the ends that were written."""

MARGIN = timedelta(minutes=5)
"""Longest time between the parking of a body and the write of its record: longer than any invocation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayDependencies:
    """What a replay depends on."""

    outcomes: OutcomeRestore
    messages: MessagesTable
    parked: ParkedBodies
    bodies: ParkedList
    clock: Clock


def replay(lines: Iterable[str], deps: ReplayDependencies, *, since: datetime) -> Counter[str]:
    """Write what log and bucket show; return the numbers of ends by status, of reopened and known requests, and so on.

    `since` is the moment that the table was restored to. After a crash the same lines can be replayed again.

    Raises:
        DependencyError: an AWS service did not answer.
    """
    log = read_log(lines)
    done = Counter({UNREADABLE: log.unreadable})
    for logged in log.newest.values():
        if logged.status in END_STATUSES:
            done[logged.status if deps.outcomes.write(logged.outcome) else KNOWN] += 1
    bodies = _by_request(deps.bodies.list_all())
    for ids in _candidates(log, bodies, since - MARGIN):
        done[_reopen(ids, log.newest.get(ids), bodies.get(ids, ()), deps)] += 1
    return +done


# ── open requests, and the bucket ───────────────────────────────────────────────────────────────────────────────────────


def _by_request(bodies: Iterator[ParkedBody]) -> Mapping[Ids, Sequence[ParkedBody]]:
    """Group the bodies by request, each request's oldest first: a later one of other content was refused."""
    found: dict[Ids, list[ParkedBody]] = defaultdict(list)
    for body in bodies:
        match body.key.split("/"):
            case [_, tenant_id, request_id, _]:
                found[tenant_id, request_id].append(body)
    return {ids: sorted(some, key=lambda body: body.parked_at) for ids, some in found.items()}


def _candidates(log: RequestLog, bodies: Mapping[Ids, Sequence[ParkedBody]], since: datetime) -> Iterator[Ids]:
    """Yield requests that the log shows open or that have a body parked since; an older body without a record is an expired request's."""
    logged = {ids for ids, logged in log.newest.items() if logged.status not in END_STATUSES}
    held = {ids for ids, logged in log.newest.items() if logged.status is Status.UNKNOWN}
    fresh = {ids for ids, some in bodies.items() if some[-1].parked_at >= since}
    yield from sorted(logged | fresh | (held & bodies.keys()))


def _reopen(ids: Ids, logged: LoggedState | None, bodies: Sequence[ParkedBody], deps: ReplayDependencies) -> str:
    record = deps.messages.get(*ids)
    if logged is not None and (logged.status in END_STATUSES or (record is not None and _is_newer(record, logged))):
        logged = None  # an end was written back before, or refused
    if record is not None and record.status in (Status.SENT, Status.FAILED, Status.CANCELLED):
        return KNOWN
    try:
        body = _fitting(bodies, logged, record, deps)
        if not _is_lost(record, logged, body):
            return ON_QUEUE if record is None else KNOWN
        deps.outcomes.reopen(_reopened(ids, record, logged, body, deps.clock.now()), record)
    except RequestError:
        return UNREADABLE
    except RefusedError:
        return CHANGED
    return REOPENED


def _is_newer(record: Delivery, logged: LoggedState) -> bool:
    """Return whether a record is newer than a line; if it has begun a later attempt it is, whatever the clocks say."""
    return record.updated_at > logged.at or record.attempt > logged.attempt


@dataclass(frozen=True, slots=True)
class _Body:
    """A parked body that was read."""

    key: str
    request: Request


def _fitting(bodies: Sequence[ParkedBody], logged: LoggedState | None, record: Delivery | None, deps: ReplayDependencies) -> _Body | None:
    """Read the request's body: the one that the log names, else the oldest with the record's content.

    Raises:
        RequestError: it cannot be read.
    """
    for parked in sorted(bodies, key=lambda body: logged is None or body.key != logged.parked):
        request = _read(parked, logged, deps)
        if record is None or same_content(record.content_hash, request.content_hash):
            return _Body(parked.key, request)
    return None


def _read(parked: ParkedBody, logged: LoggedState | None, deps: ReplayDependencies) -> Request:
    send = parse_request(deps.parked.fetch(parked.key))
    created_at = (logged.created_at if logged else None) or parked.parked_at
    expires_at = logged.expires_at if logged else None
    if expires_at is None:
        try:
            expires_at = schedule(send, created_at).expires_at
        except RequestError:  # its own times have passed since: it ends as expired
            expires_at = send.expires_at or created_at + DEFAULT_LIFE
    return Request.of(send, created_at=created_at, expires_at=expires_at, generation=logged.generation if logged else 0)


def _is_lost(record: Delivery | None, logged: LoggedState | None, body: _Body | None) -> bool:
    """Return whether the table lacks what an open request needs to go on."""
    if record is None:
        return body is not None or (logged is not None and logged.maybe_sent)
    if logged is not None and record.status in (Status.SENDING, Status.UNKNOWN):
        return True
    return body is not None and record.parked is None


def _reopened(ids: Ids, record: Delivery | None, logged: LoggedState | None, body: _Body | None, now: datetime) -> Delivery:
    """Return the new record: an `unknown` unchanged, but with its body; else one that is due now."""
    base = record or _new_record(ids, logged, body, now)
    key = body.key if body else base.parked
    if logged is None and base.status in (Status.SENDING, Status.UNKNOWN):
        return replace(base, parked=key)
    expires_at = (logged.expires_at if logged else None) or base.expires_at
    look = now if key else now + OVERDUE_AFTER
    sender = logged if logged and logged.account and logged.attempt >= base.attempt else base
    return replace(
        base,
        account=sender.account,
        region=sender.region,
        status=Status.DEFERRED,
        updated_at=now,
        expires_at=expires_at,
        attempt=max(base.attempt, logged.attempt if logged else 0),
        generation=max(base.generation, logged.generation if logged else 0),
        maybe_sent=base.maybe_sent or bool(logged and logged.maybe_sent),
        parked=key,
        due_at=now,
        waits_for=WaitsFor.TIME,
        sweep_at=min(look, expires_at),
        deadline=None,
        error=None,
    )


def _new_record(ids: Ids, logged: LoggedState | None, body: _Body | None, now: datetime) -> Delivery:
    """Make a record for a request without one; if its body is on the queue, any content matches until its message arrives."""
    if body is not None:
        return Delivery(
            tenant_id=ids[0],
            request_id=ids[1],
            status=Status.QUEUED,
            updated_at=now,
            **body.request.initial_fields,
            generation=body.request.generation,
        )
    created_at = (logged.created_at if logged else None) or now
    return Delivery(
        tenant_id=ids[0],
        request_id=ids[1],
        status=Status.QUEUED,
        content_hash=LOST_CONTENT,
        created_at=created_at,
        updated_at=now,
        expires_at=created_at + DEFAULT_LIFE,
        recipients=0,
    )
