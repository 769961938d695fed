"""Record an accepted event: that SES accepted the mail, the facts of each recipient, and their counts.

Each write is idempotent; after a crash between two of them the event is redelivered, and the result is the same.
"""

from dataclasses import replace

from mailer.domain import changes
from mailer.domain.delivery import Delivery, Status
from mailer.domain.facts import Facts, RecipientStatus, counts_of, recipients_of
from mailer.domain.feedback import EventKind, Refusal, SesEvent
from mailer.ports import MergedFacts, RefusedError
from mailer.services.feedback.matching import AcceptedEvent, FeedbackDependencies
from mailer.services.requests.parked_bodies import discard


def record_event(accepted: AcceptedEvent, deps: FeedbackDependencies) -> AcceptedEvent | Refusal:
    """Record an event; return it with the record as it is then, or why it changed nothing.

    Raises:
        DependencyError: DynamoDB did not answer.
    """
    record = _confirmed(accepted, deps)
    if isinstance(record, Refusal):
        return record
    facts = _merged(accepted, deps)
    if is_asked_for_by_id(accepted.event, facts.after):
        event = accepted.event
        deps.feedback.remember(event.account, event.region, event.message_id, accepted.mail, event.told_at)
    noted = _with_counts(record, facts, deps)
    if noted is None or noted.erased:
        # An erasure removes the record first and the facts after it: facts written since would stay.
        deps.feedback.forget(record.tenant_id, record.request_id, deps.clock.now())
        return Refusal.NO_RECORD
    _count_news(accepted.event, facts, deps)
    return replace(accepted, record=noted)


def close_confirmed(accepted: AcceptedEvent, deps: FeedbackDependencies) -> None:
    """Report a mail that this event has proven sent, and delete its parked body.

    The last step: the event is redelivered until all steps before it are done, and the retry does what an earlier try has left.
    """
    if accepted.record.confirmed_by == accepted.told_by:
        deps.telemetry.recorded(accepted.record)
        discard(accepted.record.parked, deps)


def _confirmed(accepted: AcceptedEvent, deps: FeedbackDependencies) -> Delivery | Refusal:
    """Return the record of a mail that SES accepted, as `sent`; a record that ended otherwise is not changed: a contradiction."""
    record, event = accepted.record, accepted.event
    if record.status is Status.SENT:
        return record
    change = changes.confirm(
        record,
        deps.clock.now(),
        attempt=accepted.mail.attempt,
        message_id=event.message_id,
        accepted_at=event.accepted_at,
        by=accepted.told_by,
    )
    try:
        return deps.messages.apply(change)
    except RefusedError as refusal:
        if refusal.current is None or refusal.current.erased:
            return Refusal.NO_RECORD
        if refusal.current.status is not Status.SENT:
            return Refusal.CONTRADICTION
        discard(refusal.current.parked, deps)
        return refusal.current


def _merged(accepted: AcceptedEvent, deps: FeedbackDependencies) -> MergedFacts:
    facts = accepted.event.facts
    return deps.feedback.merge(accepted.mail.tenant_id, accepted.mail.request_id, facts) if facts else MergedFacts({}, {})


def is_asked_for_by_id(event: SesEvent, facts: Facts) -> bool:
    """Whether an event without tags may follow, which only its messageId links to the mail: SES reports delays in that way."""
    settled = {recipient.email for recipient in recipients_of(facts) if recipient.status is not RecipientStatus.DELAYED}
    return event.ref is not None and (event.kind is EventKind.SEND or not settled.issuperset(event.destinations))


def _with_counts(record: Delivery, facts: MergedFacts, deps: FeedbackDependencies) -> Delivery | None:
    """Write the counts of the facts to the record, unless it has newer ones; return it as it is after the facts were written."""
    counts = counts_of(facts.after)
    if counts is None:
        return record
    if not counts.replaces(record.feedback):
        return record if facts.after == facts.before else deps.messages.get(record.tenant_id, record.request_id)
    try:
        return deps.messages.apply(changes.note_feedback(record, deps.clock.now(), counts))
    except RefusedError as refusal:
        return refusal.current


def _count_news(event: SesEvent, facts: MergedFacts, deps: FeedbackDependencies) -> None:
    """Count recipients whose status has changed; a duplicate event counts nothing."""
    before = {recipient.email: recipient.status for recipient in recipients_of(facts.before)}
    for recipient in recipients_of(facts.after):
        if before.get(recipient.email) is not recipient.status:
            is_delivery = recipient.status is RecipientStatus.DELIVERED
            deps.telemetry.feedback(recipient.status, recipient.fact.at - event.accepted_at if is_delivery else None)
