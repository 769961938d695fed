"""List, redrive and drop what is on the dead-letter queue."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from mailer.domain import changes, proof
from mailer.domain.changes import Fence, Request
from mailer.domain.delivery import Delivery, NotSent, Outcome, Sent, Status, same_content
from mailer.domain.errors import DependencyError, ErrorInfo, RequestError
from mailer.domain.message import MAX_BODY, parse_request, readable_ids, schedule, utf8_size
from mailer.domain.producers import Producers
from mailer.ports import Clock, MessagesTable, ParkedBodies, RefusedError, SendQueue, Telemetry
from mailer.services.requests.claims import recognise
from mailer.services.requests.ending import end_unsent
from mailer.services.requests.parked_bodies import discard, is_own_body
from mailer.services.sending.intake import NOT_ALLOWED
from mailer_ops.ports import DeadLetter, DeadLetters

MOVED_BY_SQS = "moved_by_sqs"
"""The reason of a message without one: SQS moved it after its last receive."""

OTHER_VERSION = "other_version"
"""The reason of a message whose signed attributes, which have the reason, this version cannot read."""

UNREADABLE = "(unreadable)"
"""Shown for the ids of a body that has none."""

DROPPED = ErrorInfo("dropped", "an operator took it off the dead-letter queue")


class DeadLetterResult(StrEnum):
    """What became of one dead letter."""

    REDRIVEN = "redriven"
    DROPPED = "dropped"
    RECORDED = "recorded: it proves that the request was sent"
    KEPT_ENDED = "kept: its request has ended"
    KEPT_OTHER_CONTENT = "kept: its requestId belongs to other content; it can only be dropped"
    KEPT_UNREADABLE = "kept: it cannot be read; it can only be dropped"
    KEPT_OTHER_VERSION = "kept: another version of the service wrote its attributes; run this from a checkout of that version"
    KEPT_NOT_ALLOWED = "kept: its producer may not ask for this tenant (ProducerTenants)"
    KEPT_TOO_LARGE = "kept: with its attributes it is too large for the queue; it can only be dropped"
    KEPT_IN_PROGRESS = "kept: a worker may be sending it"
    KEPT_QUEUE = "kept: the queue did not take it"
    KEPT_FAILED = "kept: an AWS service did not answer; run this again"


HANDLED = frozenset({DeadLetterResult.REDRIVEN, DeadLetterResult.DROPPED, DeadLetterResult.RECORDED})
"""Results after which the dead letter is deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterDependencies:
    """What the work on dead letters depends on."""

    dead_letters: DeadLetters
    messages: MessagesTable
    queue: SendQueue
    parked: ParkedBodies
    telemetry: Telemetry
    clock: Clock
    producers: Producers


@dataclass(frozen=True, slots=True)
class DeadLetterSummary:
    """One dead letter as an operator sees it, without its body."""

    tenant_id: str
    request_id: str
    reason: str
    detail: str


Selector = Callable[[DeadLetterSummary], bool]
Results = Iterator[tuple[DeadLetterSummary, DeadLetterResult]]


def summarize(dead_letter: DeadLetter) -> DeadLetterSummary:
    """Return what an operator may see of a dead letter."""
    ids = readable_ids(dead_letter.queue_message.body) or (dead_letter.queue_message.tenant_id or UNREADABLE, UNREADABLE)
    reason = dead_letter.reason or MOVED_BY_SQS if dead_letter.is_readable else OTHER_VERSION
    return DeadLetterSummary(*ids, reason, dead_letter.detail or "")


def list_dead_letters(deps: DeadLetterDependencies) -> list[DeadLetterSummary]:
    """Read the whole queue and leave it as it was."""
    taken = list(deps.dead_letters.receive_all())
    deps.dead_letters.put_back(taken)
    return [summarize(dead_letter) for dead_letter in taken]


def redrive(deps: DeadLetterDependencies, selected: Selector) -> Results:
    """Redrive the selected dead letters, but never one whose request has ended, unless it proves another end."""
    return _process(deps, selected, _redrive)


def drop(deps: DeadLetterDependencies, selected: Selector) -> Results:
    """Drop the selected dead letters; their requests end as `failed: dropped`, or `unknown` if an earlier attempt may have been sent.

    If a dead letter proves that SES had accepted the mail, the request ends as `sent`.
    """
    return _process(deps, selected, _drop)


def _process(
    deps: DeadLetterDependencies, selected: Selector, act: Callable[[DeadLetter, DeadLetterDependencies], DeadLetterResult]
) -> Results:
    kept: list[DeadLetter] = []
    try:
        for dead_letter in deps.dead_letters.receive_all():
            summary = summarize(dead_letter)
            if not selected(summary):
                kept.append(dead_letter)
                continue
            result = _handle(dead_letter, deps, act)
            if result not in HANDLED:
                kept.append(dead_letter)
            yield summary, result
    finally:
        deps.dead_letters.put_back(kept)


def _handle(
    dead_letter: DeadLetter, deps: DeadLetterDependencies, act: Callable[[DeadLetter, DeadLetterDependencies], DeadLetterResult]
) -> DeadLetterResult:
    """Handle one dead letter; if an AWS service fails, this one is kept and the next one is handled."""
    if not dead_letter.is_readable:  # it may have a proof
        return DeadLetterResult.KEPT_OTHER_VERSION
    try:
        dead_letter = replace(dead_letter, queue_message=recognise(dead_letter.queue_message, deps.messages))
        result = act(dead_letter, deps)
        if result in HANDLED:
            deps.dead_letters.delete(dead_letter)
    except DependencyError as failure:
        deps.telemetry.failed("dead letter", dead_letter.queue_message.tenant_id, failure)
        return DeadLetterResult.KEPT_FAILED
    return result


def _redrive(dead_letter: DeadLetter, deps: DeadLetterDependencies) -> DeadLetterResult:
    request = _request(dead_letter, deps)
    if request is None:
        return DeadLetterResult.KEPT_UNREADABLE
    if not deps.producers.may_request(dead_letter.queue_message.sender, request.tenant_id):
        return DeadLetterResult.KEPT_NOT_ALLOWED
    if utf8_size(dead_letter.queue_message.body) > MAX_BODY:
        return DeadLetterResult.KEPT_TOO_LARGE
    record = deps.messages.get(request.tenant_id, request.request_id)
    if record is not None and not same_content(request.content_hash, record.content_hash):
        return DeadLetterResult.KEPT_OTHER_CONTENT
    if record is not None and record.ended and not _proven(dead_letter, request, record):
        return DeadLetterResult.KEPT_ENDED
    generation = max(dead_letter.queue_message.generation, record.generation if record else 0)
    if record is not None:
        with suppress(RefusedError):  # it does not wait any more: the message is reconciled with the record when it arrives
            deps.messages.apply(changes.reschedule(record, deps.clock.now(), due_at=deps.clock.now()))
    queue_message = replace(dead_letter.queue_message, generation=generation, failures=0, tenant_id=request.tenant_id)
    return DeadLetterResult.KEPT_QUEUE if deps.queue.send([(queue_message, timedelta())]) else DeadLetterResult.REDRIVEN


def _drop(dead_letter: DeadLetter, deps: DeadLetterDependencies) -> DeadLetterResult:
    request = _request(dead_letter, deps)
    if (result := _drop_proof(dead_letter, request, deps)) is not None:
        return result
    # If the producer may not send for the tenant, nothing is written for the tenant.
    if (
        request is None
        or dead_letter.reason == NOT_ALLOWED
        or not deps.producers.may_request(dead_letter.queue_message.sender, request.tenant_id)
    ):
        return DeadLetterResult.DROPPED
    record = deps.messages.get(request.tenant_id, request.request_id)
    if record is not None and not same_content(request.content_hash, record.content_hash):
        discard(dead_letter.queue_message.parked, deps)
        return DeadLetterResult.DROPPED
    if record is not None and record.ended:
        return DeadLetterResult.DROPPED
    try:
        ended = end_unsent(changes.request_of(record) if record else request, deps, DROPPED)
    except RefusedError:
        return DeadLetterResult.KEPT_IN_PROGRESS
    if ended.status is Status.FAILED:  # of an unknown an operator may still need it
        discard(dead_letter.queue_message.parked, deps)
    return DeadLetterResult.DROPPED


def _drop_proof(dead_letter: DeadLetter, request: Request | None, deps: DeadLetterDependencies) -> DeadLetterResult | None:
    """Record what a dead letter proves; None if it proves nothing, or nothing that ends its request.

    Our own worker made the attempt, so the proof counts whatever the producer may do now, and even if the body cannot be read any more.
    """
    ids = readable_ids(dead_letter.queue_message.body) if dead_letter.queue_message.proof else None
    record = deps.messages.get(*ids) if ids else None
    if record is None:
        return None
    sent = request or changes.request_of(record)
    proven = _proven(dead_letter, sent, record)
    result = _record_proven(sent, record, proven, deps) if proven else None
    if request and result in HANDLED:
        discard(dead_letter.queue_message.parked, deps)
    return result


def _proven(dead_letter: DeadLetter, request: Request, record: Delivery) -> tuple[Fence, Outcome] | None:
    return proof.proven_outcome(dead_letter.queue_message.proof or "", request, record)


def _record_proven(
    request: Request, record: Delivery, proven: tuple[Fence, Outcome], deps: DeadLetterDependencies
) -> DeadLetterResult | None:
    """Record the outcome that a dead letter proves before it is dropped; None if it does not end the request."""
    fence, outcome = proven
    now = deps.clock.now()
    if isinstance(outcome, Sent):
        result, change = DeadLetterResult.RECORDED, changes.accept(request, now, fence, outcome.message_id)
    elif isinstance(outcome, NotSent) and not record.maybe_sent:
        result, change = DeadLetterResult.DROPPED, changes.fail_rejected(request, now, fence, DROPPED)
    else:
        return None
    try:
        deps.telemetry.recorded(deps.messages.apply(change))
    except RefusedError:  # its record changed meanwhile
        return DeadLetterResult.KEPT_IN_PROGRESS
    return result


def _request(dead_letter: DeadLetter, deps: DeadLetterDependencies) -> Request | None:
    """Read the dead letter's request; None if its body cannot be read, is not in the bucket any more, or is another request's."""
    queue_message, ids = dead_letter.queue_message, readable_ids(dead_letter.queue_message.body)
    if queue_message.parked and not (ids and is_own_body(queue_message.parked, *ids)):
        return None
    try:
        send = parse_request(deps.parked.fetch(queue_message.parked) if queue_message.parked else queue_message.body)
        times = schedule(send, queue_message.created_at)
    except (RequestError, KeyError):
        return None
    expires_at = queue_message.expires_at or times.expires_at
    return Request.of(
        send,
        created_at=queue_message.created_at,
        expires_at=expires_at,
        generation=queue_message.generation,
        correlation_id=queue_message.correlation_id,
    )
