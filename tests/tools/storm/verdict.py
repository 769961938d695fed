"""Judge a storm: compare SES's ledger of accepted mail with the requests' records."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mailer.domain.delivery import Delivery, Status
from tools.local_aws.control import SeenRequest, SentMail
from tools.storm.faults import Span
from tools.storm.requests import PlannedRequest
from tools.storm.suppressions import request_of

WINDOW = frozenset({"SendRawEmail", "SendEmail", "UpdateItem"})
"""Operations between the fence and the write of the result; only a fault of these explains an `unknown`."""


@dataclass(slots=True)
class Group:
    """Figures of a group of tenants."""

    requests: int = 0
    accepted: int = 0
    resent: int = 0
    """Acceptances beyond the first."""
    unknown: int = 0


@dataclass(slots=True)
class Verdict:
    """Outcomes of the requests. The lists contain request ids; all but `left_out` must be empty."""

    accepted: int = 0
    resent: int = 0
    """Acceptances beyond the first, of requests with onUnknown resend."""
    ends: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    """Not ended, or `sent` without a mail at SES."""
    doubled: list[str] = field(default_factory=list)
    """Accepted more than once, or with onUnknown resend more often than attempted."""
    wrong: list[str] = field(default_factory=list)
    """Ended with a wrong status: `failed` (all requests were valid), `cancelled` although accepted, and so on."""
    unexplained: list[str] = field(default_factory=list)
    """`unknown`, although no worker was terminated with it and neither its SES call nor the write of its result had a fault."""

    unresolved: list[str] = field(default_factory=list)
    """`unknown`, although SES accepted it and its events arrived."""
    left_out: list[str] = field(default_factory=list)
    """Mails without an address that an event of SES had suppressed."""
    left_out_wrongly: list[str] = field(default_factory=list)
    """Mails without an address of which SES had not told anything yet."""
    mailed_again: list[str] = field(default_factory=list)
    """Mails to an address in a batch that began after the event that suppresses it was acknowledged."""
    with_feedback: Group = field(default_factory=Group)
    """Tenants with feedback."""
    without_feedback: Group = field(default_factory=Group)

    @property
    def is_clean(self) -> bool:
        """Return whether every guarantee was kept."""
        broken = (self.lost, self.doubled, self.wrong, self.unexplained, self.unresolved, self.left_out_wrongly, self.mailed_again)
        return not any(broken)


def judge(
    planned: Iterable[PlannedRequest],
    records: Mapping[str, Delivery],
    mails: Iterable[SentMail],
    cancels: Mapping[str, int],
    excused: set[str],
    with_feedback: Collection[str] = (),
) -> Verdict:
    """Compare; `cancels` are the statuses of cancel calls, `excused` the requests with a termination or a fault in the window.

    `with_feedback` are the tenants with feedback.
    """
    message_ids: dict[str, list[str]] = {}
    for mail in mails:
        message_ids.setdefault(request_of(mail), []).append(mail.message_id)
    verdict = Verdict()
    for one in planned:
        record, accepted = records.get(one.request_id), message_ids.get(one.request_id, [])
        _judge(one, record, accepted, cancels.get(one.request_id), verdict)
        is_unknown = record is not None and record.status is Status.UNKNOWN
        if is_unknown and one.request_id not in excused:
            verdict.unexplained.append(one.request_id)
        if is_unknown and accepted and one.tenant_id in with_feedback:
            verdict.unresolved.append(one.request_id)
        _count(accepted, verdict.with_feedback if one.tenant_id in with_feedback else verdict.without_feedback, is_unknown=is_unknown)
    return verdict


def _count(accepted: Sequence[str], group: Group, *, is_unknown: bool) -> None:
    group.requests += 1
    group.accepted += len(accepted)
    group.resent += max(0, len(accepted) - 1)
    group.unknown += is_unknown


def _judge(one: PlannedRequest, record: Delivery | None, accepted: Sequence[str], cancel_answer: int | None, verdict: Verdict) -> None:
    verdict.accepted += len(accepted)
    if record is None or not record.ended:
        verdict.lost.append(one.request_id)
        return
    verdict.ends[record.status] += 1
    if record.status is Status.SENT and not accepted:
        verdict.lost.append(one.request_id)
    if len(accepted) > (record.attempt if one.on_unknown == "resend" else 1):
        verdict.doubled.append(one.request_id)
    elif accepted:
        verdict.resent += len(accepted) - 1
    if _is_wrong(record, accepted, cancel_answer):
        verdict.wrong.append(one.request_id)


def _is_wrong(record: Delivery, accepted: Sequence[str], cancel_answer: int | None) -> bool:
    match record.status:
        case Status.SENT:
            return (bool(accepted) and record.message_id not in accepted) or cancel_answer == 200
        case Status.CANCELLED:
            return bool(accepted) or cancel_answer is None
        case Status.UNKNOWN:
            return cancel_answer == 200
        case _:
            return True


def hit_by_faults(wire: Iterable[SeenRequest]) -> set[str]:
    """Return the requests whose calls in the window had a fault."""
    return {mark for call in wire if call.faults and call.operation in WINDOW for mark in call.marks}


def overlapping(spans: Mapping[str, Sequence[Span]], refusals: Sequence[Span]) -> set[str]:
    """Return the requests that were in progress while a service refused all connections."""
    return {one for one, held in spans.items() if any(a <= d and c <= b for a, b in held for c, d in refusals)}
