"""Process a batch of SES's events from the queue; an event is acknowledged once everything it reports is written, or it is refused."""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime, timedelta

from mailer.domain.feedback import Refusal, SesEvent, VerifyRef, parse_event, unreadable_fields
from mailer.services.feedback.matching import AcceptedEvent, FeedbackDependencies, is_out_of_time, match
from mailer.services.feedback.recording import close_confirmed, record_event

EVENT_SPAN = timedelta(seconds=25)
"""Maximum duration of one event: a call that hangs fails after three tries of 2 s (connect) and 5 s (read) and the pauses between them.
No event is started with less of the function's time left."""

RECORD_EXPECTED = timedelta(minutes=15)
"""How long an event without a record is retried: the record of a restored table may be written back."""


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """A message as SQS delivers it."""

    sqs_message_id: str
    body: str
    sent_at: datetime
    """When EventBridge put it on the queue."""


def receive_batch(batch: Sequence[ReceivedEvent], deps: FeedbackDependencies, workers: Executor, *, ends_at: datetime) -> list[str]:
    """Record a batch of events; return the ids of the SQS messages that SQS must redeliver.

    Events of one mail are processed in sequence, because they write to the same items. `ends_at` is when the function times out: events
    that cannot be started in time are returned, so that the rest of the batch is not repeated.
    """
    read = [(received, _read(received, deps)) for received in batch]
    by_mail: dict[str, list[tuple[ReceivedEvent, SesEvent | Refusal]]] = defaultdict(list)
    for received, event in read:
        if event is not None:
            by_mail[event.message_id if isinstance(event, SesEvent) else ""].append((received, event))

    def process_all(events: Sequence[tuple[ReceivedEvent, SesEvent | Refusal]]) -> list[str]:
        return [received.sqs_message_id for received, event in events if not _is_done(received, event, deps, ends_at)]

    unread = [received.sqs_message_id for received, event in read if event is None]
    return [*unread, *(sqs_message_id for waiting in workers.map(process_all, by_mail.values()) for sqs_message_id in waiting)]


def _read(received: ReceivedEvent, deps: FeedbackDependencies) -> SesEvent | Refusal | None:
    """Parse one event; None if that failed and it must be redelivered."""
    try:
        return parse_event(received.body)
    except Exception as failure:  # noqa: BLE001  # as in `_is_done`
        deps.telemetry.failed("read feedback", None, failure)
        return None


def _is_done(received: ReceivedEvent, event: SesEvent | Refusal, deps: FeedbackDependencies, ends_at: datetime) -> bool:
    """Process one event; False if it must be redelivered."""
    if deps.clock.now() + EVENT_SPAN > ends_at:
        return False
    try:
        refusal = event if isinstance(event, Refusal) else _process(event, received.sqs_message_id, deps)
        fields = unreadable_fields(received.body) if event is Refusal.UNREADABLE else ()
    except Exception as failure:  # noqa: BLE001  # a bug must not stop the rest of the batch
        deps.telemetry.failed("feedback", None, failure)
        return False
    if refusal is Refusal.NO_RECORD and deps.clock.now() - received.sent_at < RECORD_EXPECTED:
        return False
    if refusal is not None:
        deps.telemetry.feedback_refused(refusal, event if isinstance(event, SesEvent) else None, fields)
    return True


def _process(event: SesEvent, told_by: str, deps: FeedbackDependencies) -> Refusal | None:
    """Record an event and run its reactions; return why it changed nothing.

    Raises:
        DependencyError: part of it may not be written.
    """
    if refusal := is_out_of_time(event, deps):
        return refusal
    if isinstance(event.ref, VerifyRef):
        return _process_verify(event.ref, event, deps)
    matched = match(event, told_by, deps)
    recorded = record_event(matched, deps) if isinstance(matched, AcceptedEvent) else matched
    if isinstance(recorded, Refusal):
        if recorded is Refusal.CONTRADICTION and isinstance(matched, AcceptedEvent):
            _react(matched, deps)  # the record stays as it is, but recipients that bounced or complained must be suppressed
        return recorded
    _notify(recorded, deps)
    close_confirmed(recorded, deps)
    return None


def _process_verify(ref: VerifyRef, event: SesEvent, deps: FeedbackDependencies) -> Refusal | None:
    refusals = [listener.verify_event_arrived(ref, event) for listener in deps.listeners]
    return next(filter(None, refusals), None)


def _react(accepted: AcceptedEvent, deps: FeedbackDependencies) -> None:
    for reaction in deps.reactions:
        reaction(accepted)


def _notify(accepted: AcceptedEvent, deps: FeedbackDependencies) -> None:
    _react(accepted, deps)
    record = accepted.record
    if record.provider_version is not None and accepted.mail.attempt == record.attempt:
        for listener in deps.listeners:
            listener.event_arrived(record.tenant_id, record.provider_version, deps.clock.now())
