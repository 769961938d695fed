"""Find the attempt that an event is about, and compare the event with it: account and region of its envelope cannot be forged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from mailer.domain.delivery import RECORD_RETENTION, Delivery
from mailer.domain.feedback import EventKind, MailRef, Refusal, SesEvent
from mailer.ports import Clock, FeedbackListener, FeedbackTable, MessagesTable, ParkedBodies, Telemetry

CLOCKS_DIFFER = timedelta(hours=1)
"""Maximum difference of clocks: an event from further in the future is invalid."""


@dataclass(frozen=True, slots=True)
class AcceptedEvent:
    """An event about an attempt that was made, from the account and region that the attempt was sent from."""

    event: SesEvent
    mail: MailRef
    record: Delivery
    """As it was read; for reactions, as it is after the event."""
    told_by: str
    """The SQS message that brought the event; a copy of the event has another."""


Reaction = Callable[[AcceptedEvent], None]
"""A further effect of an accepted event, run before the event is acknowledged, possibly repeatedly. May raise DependencyError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackDependencies:
    """What feedback depends on."""

    messages: MessagesTable
    feedback: FeedbackTable
    parked: ParkedBodies
    telemetry: Telemetry
    clock: Clock
    listeners: Sequence[FeedbackListener] = ()
    reactions: Sequence[Reaction] = ()


def match(event: SesEvent, told_by: str, deps: FeedbackDependencies) -> AcceptedEvent | Refusal:
    """Return the event with its attempt's record, or why it changes nothing.

    Raises:
        DependencyError: DynamoDB did not answer.
    """
    mail = event.ref if isinstance(event.ref, MailRef) else deps.feedback.find(event.account, event.region, event.message_id)
    if mail is None:
        return Refusal.NO_RECORD if event.kind is EventKind.DELIVERY_DELAY else Refusal.UNTAGGED
    record = deps.messages.get(mail.tenant_id, mail.request_id)
    if record is None:
        return Refusal.NO_RECORD
    if record.erased:
        # It may have been erased while an earlier try of this event, which then crashed, wrote facts.
        deps.feedback.forget(mail.tenant_id, mail.request_id, deps.clock.now())
        return Refusal.NO_RECORD
    return fault(event, mail, record) or AcceptedEvent(event, mail, record, told_by)


def is_out_of_time(event: SesEvent, deps: FeedbackDependencies) -> Refusal | None:
    """Return the refusal of an event that is older than records are kept, or from the future."""
    now = deps.clock.now()
    if event.told_at > now + CLOCKS_DIFFER:
        return Refusal.UNREADABLE
    return Refusal.TOO_OLD if event.told_at < now - RECORD_RETENTION else None


def fault(event: SesEvent, mail: MailRef, record: Delivery) -> Refusal | None:
    """Return the refusal of an event that does not match the attempt it is about."""
    sent_from = record.sent_from(mail.attempt)
    if sent_from is None:
        return Refusal.NO_ATTEMPT
    if sent_from[0] is None:
        return Refusal.UNKNOWN_ACCOUNT
    if sent_from != (event.account, event.region) or event.sending_account not in (None, event.account):
        return Refusal.FOREIGN_ACCOUNT
    message_id = record.message_id_of(mail.attempt)
    return Refusal.WRONG_MESSAGE if message_id not in (None, event.message_id) else None
