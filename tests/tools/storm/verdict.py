"""Judge a storm by what SES accepted: its own ledger, against what each request's record says."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mailer.domain.delivery import Delivery, Status
from tools.local_aws.control import SeenRequest, SentMail
from tools.storm.mail import Asked
from tools.storm.weather import Span

WINDOW = frozenset({"SendRawEmail", "SendEmail", "UpdateItem"})
"""The calls between the fence and the record of the result: a fault elsewhere excuses no `unknown`."""


@dataclass(slots=True)
class Group:
    """What became of the requests of some tenants."""

    requests: int = 0
    accepted: int = 0
    resent: int = 0
    """Acceptances beyond the first."""
    unknown: int = 0


@dataclass(slots=True)
class Verdict:
    """What became of the requests. The five lists hold ids and must be empty."""

    accepted: int = 0
    resent: int = 0
    """Acceptances beyond the first, of requests that allow to be sent again."""
    ends: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    """No end, or `sent` without SES knowing of it."""
    doubled: list[str] = field(default_factory=list)
    """Accepted more often than once, or than it was tried where the caller allows to send again."""
    wrong: list[str] = field(default_factory=list)
    """An end that is not what happened: `failed` (nothing was wrong with any of them), accepted and `cancelled`, and so on."""
    unexplained: list[str] = field(default_factory=list)
    """`unknown`, though no worker died with it and no fault hit its call or the write of its result."""

    unsettled: list[str] = field(default_factory=list)
    """`unknown`, though SES accepted it and its events came back."""
    told: Group = field(default_factory=Group)
    """Tenants whose events come back."""
    untold: Group = field(default_factory=Group)

    @property
    def is_clean(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.doubled or self.wrong or self.unexplained or self.unsettled)


def judge(
    asked: Iterable[Asked],
    records: Mapping[str, Delivery],
    mails: Iterable[SentMail],
    withdrawn: Mapping[str, int],
    struck: set[str],
    told: Collection[str] = (),
) -> Verdict:
    """Compare; `withdrawn` is what the API answered to a cancel, `struck` the requests that a death or a fault in the window hit.

    `told` are the tenants whose events come back.
    """
    message_ids: dict[str, list[str]] = {}
    for mail in mails:
        message_ids.setdefault(mail.destinations[0].partition("@")[0], []).append(mail.message_id)
    verdict = Verdict()
    for one in asked:
        record, accepted = records.get(one.request_id), message_ids.get(one.request_id, [])
        _judge(one, record, accepted, withdrawn.get(one.request_id), verdict)
        is_unknown = record is not None and record.status is Status.UNKNOWN
        if is_unknown and one.request_id not in struck:
            verdict.unexplained.append(one.request_id)
        if is_unknown and accepted and one.tenant_id in told:
            verdict.unsettled.append(one.request_id)
        _count(accepted, verdict.told if one.tenant_id in told else verdict.untold, is_unknown=is_unknown)
    return verdict


def _count(accepted: Sequence[str], group: Group, *, is_unknown: bool) -> None:
    group.requests += 1
    group.accepted += len(accepted)
    group.resent += max(0, len(accepted) - 1)
    group.unknown += is_unknown


def _judge(one: Asked, record: Delivery | None, accepted: Sequence[str], cancel_answer: int | None, verdict: Verdict) -> None:
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


def struck(wire: Iterable[SeenRequest]) -> set[str]:
    """Say whose calls in the window a fault hit."""
    return {mark for call in wire if call.faults and call.operation in WINDOW for mark in call.marks}


def met(spans: Mapping[str, Sequence[Span]], refusals: Sequence[Span]) -> set[str]:
    """Say who was in a worker's hands while a service refused everyone."""
    return {one for one, held in spans.items() if any(a <= d and c <= b for a, b in held for c, d in refusals)}
