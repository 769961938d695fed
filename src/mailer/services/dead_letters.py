"""Work through the dead-letter queue: what lies there and why, what may be tried again, what is given up with a record of it."""

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
from mailer.ports import Clock, DeadLetters, Journal, Letter, MessagesTable, ParkedBodies, RefusedError, SendQueue
from mailer.services.claims import recognise
from mailer.services.ending import end_unsent
from mailer.services.intake import NOT_ALLOWED
from mailer.services.requeue import discard, is_own_body

MOVED_BY_SQS = "moved_by_sqs"
"""Stands for the reason of a message that carries none: SQS moved it after the last receive."""

UNREADABLE = "(unreadable)"
"""Stands for the ids of a body that tells none."""

DROPPED = ErrorInfo("dropped", "an operator took it off the dead-letter queue")


class Did(StrEnum):
    """What became of one letter."""

    REDRIVEN = "redriven"
    DROPPED = "dropped"
    SETTLED = "settled: it proves that the request was sent"
    KEPT_ENDED = "kept: its request has ended"
    KEPT_OTHER_CONTENT = "kept: its requestId stands for other content; it can only be dropped"
    KEPT_UNREADABLE = "kept: it cannot be read; it can only be dropped"
    KEPT_NOT_ALLOWED = "kept: its producer may not ask for this tenant (ProducerTenants)"
    KEPT_TOO_LARGE = "kept: the queue would not take it with what must go along; it can only be dropped"
    KEPT_UNDER_WAY = "kept: a worker may be at it"
    KEPT_QUEUE = "kept: the queue did not take it"
    KEPT_FAILED = "kept: an AWS service did not answer; run this again"


DONE = frozenset({Did.REDRIVEN, Did.DROPPED, Did.SETTLED})
"""What leaves nothing of a letter to work on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterDependencies:
    """What the work on dead letters depends on."""

    letters: DeadLetters
    messages: MessagesTable
    queue: SendQueue
    parked: ParkedBodies
    journal: Journal
    clock: Clock
    producers: Producers


@dataclass(frozen=True, slots=True)
class Shown:
    """One letter as an operator sees it: never its body."""

    tenant_id: str
    request_id: str
    reason: str
    detail: str


Chosen = Callable[[Shown], bool]
Work = Iterator[tuple[Shown, Did]]


def show(letter: Letter) -> Shown:
    """Return what may be shown of a letter."""
    ids = readable_ids(letter.queue_message.body) or (letter.queue_message.tenant_id or UNREADABLE, UNREADABLE)
    return Shown(*ids, letter.reason or MOVED_BY_SQS, letter.detail or "")


def list_letters(deps: DeadLetterDependencies) -> list[Shown]:
    """Read the whole queue and leave it as it was."""
    taken = list(deps.letters.letters())
    deps.letters.put_back(taken)
    return [show(letter) for letter in taken]


def redrive(deps: DeadLetterDependencies, chosen: Chosen) -> Work:
    """Send chosen letters through the queue again, but never one whose request has ended, unless it proves another end."""
    return _work(deps, chosen, _redrive)


def drop(deps: DeadLetterDependencies, chosen: Chosen) -> Work:
    """Give chosen letters up; their requests end as `failed: dropped`, or `unknown` where an earlier attempt may have been accepted.

    Where the letter proves that SES had accepted it, the request ends as `sent`.
    """
    return _work(deps, chosen, _drop)


def _work(deps: DeadLetterDependencies, chosen: Chosen, act: Callable[[Letter, DeadLetterDependencies], Did]) -> Work:
    kept: list[Letter] = []
    try:
        for letter in deps.letters.letters():
            shown = show(letter)
            if not chosen(shown):
                kept.append(letter)
                continue
            did = _try(letter, deps, act)
            if did not in DONE:
                kept.append(letter)
            yield shown, did
    finally:
        deps.letters.put_back(kept)


def _try(letter: Letter, deps: DeadLetterDependencies, act: Callable[[Letter, DeadLetterDependencies], Did]) -> Did:
    """Work on one letter; a service that fails keeps this one, not those after it."""
    try:
        letter = replace(letter, queue_message=recognise(letter.queue_message, deps.messages))
        did = act(letter, deps)
        if did in DONE:
            deps.letters.delete(letter)
    except DependencyError as failure:
        deps.journal.failed("dead letter", letter.queue_message.tenant_id, failure)
        return Did.KEPT_FAILED
    return did


def _redrive(letter: Letter, deps: DeadLetterDependencies) -> Did:
    request = _request(letter, deps)
    if request is None:
        return Did.KEPT_UNREADABLE
    if not deps.producers.may_ask(letter.queue_message.sender, request.tenant_id):
        return Did.KEPT_NOT_ALLOWED
    if utf8_size(letter.queue_message.body) > MAX_BODY:
        return Did.KEPT_TOO_LARGE
    record = deps.messages.get(request.tenant_id, request.request_id)
    if record is not None and not same_content(request.content_hash, record.content_hash):
        return Did.KEPT_OTHER_CONTENT
    if record is not None and record.ended and not _proven(letter, request, record):
        return Did.KEPT_ENDED
    generation = max(letter.queue_message.generation, record.generation if record else 0)
    if record is not None:
        with suppress(RefusedError):  # it waits no more: the copy meets what the record says then
            deps.messages.apply(changes.reschedule(record, deps.clock.now(), due_at=deps.clock.now()))
    queue_message = replace(letter.queue_message, generation=generation, failures=0, tenant_id=request.tenant_id)
    return Did.KEPT_QUEUE if deps.queue.send([(queue_message, timedelta())]) else Did.REDRIVEN


def _drop(letter: Letter, deps: DeadLetterDependencies) -> Did:
    request = _request(letter, deps)
    # Of a tenant that its producer may not ask for nothing may be written.
    if request is None or letter.reason == NOT_ALLOWED or not deps.producers.may_ask(letter.queue_message.sender, request.tenant_id):
        return Did.DROPPED
    record = deps.messages.get(request.tenant_id, request.request_id)
    if record is not None and not same_content(request.content_hash, record.content_hash):
        discard(letter.queue_message.parked, deps)
        return Did.DROPPED
    if record is not None and (proven := _proven(letter, request, record)) and (did := _record_proven(request, record, proven, deps)):
        if did in DONE:
            discard(letter.queue_message.parked, deps)
        return did
    if record is not None and record.ended:
        return Did.DROPPED
    try:
        ended = end_unsent(changes.request_of(record) if record else request, deps, DROPPED)
    except RefusedError:
        return Did.KEPT_UNDER_WAY
    if ended.status is Status.FAILED:  # of an unknown an operator may still need it
        discard(letter.queue_message.parked, deps)
    return Did.DROPPED


def _proven(letter: Letter, request: Request, record: Delivery) -> tuple[Fence, Outcome] | None:
    return proof.settled_by(letter.queue_message.proof or "", request, record)


def _record_proven(request: Request, record: Delivery, proven: tuple[Fence, Outcome], deps: DeadLetterDependencies) -> Did | None:
    """Write down what a letter proves before it is dropped; None where that ends nothing."""
    fence, outcome = proven
    now = deps.clock.now()
    if isinstance(outcome, Sent):
        did, change = Did.SETTLED, changes.accept(request, now, fence, outcome.message_id)
    elif isinstance(outcome, NotSent) and not record.maybe_sent:
        did, change = Did.DROPPED, changes.fail_rejected(request, now, fence, DROPPED)
    else:
        return None
    try:
        deps.journal.recorded(deps.messages.apply(change))
    except RefusedError:  # it has gone on meanwhile
        return Did.KEPT_UNDER_WAY
    return did


def _request(letter: Letter, deps: DeadLetterDependencies) -> Request | None:
    """Read the letter's request; None where its body cannot be read, is not in the bucket any more, or is another request's."""
    queue_message, ids = letter.queue_message, readable_ids(letter.queue_message.body)
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
