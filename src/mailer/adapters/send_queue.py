"""The send queue and its dead-letter queue: a copy's travel papers are message attributes, its body stays the caller's JSON."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import TYPE_CHECKING, Any

from mailer.adapters.aws import dependency_errors, readable
from mailer.domain.errors import DependencyError
from mailer.ports import Copy

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

MAX_DELAY = timedelta(seconds=900)
"""SQS's limit for DelaySeconds."""

MAX_BATCH_BYTES = 1024 * 1024
"""SQS's limit for one SendMessageBatch, bodies and attributes together."""

_MAX_ENTRIES = 10
_ENTRY_OVERHEAD = 2048
"""Upper bound of what the attributes of one copy weigh."""

Entry = tuple[Copy, timedelta]


class SqsSendQueue:
    """`ports.SendQueue` on SQS."""

    def __init__(self, client: "SQSClient", queue_url: str, dead_letter_queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url
        self._dead_letter_queue_url = dead_letter_queue_url

    def send(self, copies: Iterable[Entry]) -> Sequence[Copy]:
        """Send copies in as few calls as SQS allows; return those that were not taken."""
        return [copy for batch in packed(copies) for copy in self._send_batch(batch)]

    def _send_batch(self, batch: Sequence[Entry]) -> Sequence[Copy]:
        entries = [_entry(number, copy, delay) for number, (copy, delay) in enumerate(batch)]
        try:
            with dependency_errors("SQS", "SendMessageBatch"):
                answer = self._client.send_message_batch(QueueUrl=self._queue_url, Entries=entries)
            with readable("SQS", "SendMessageBatch"):
                taken = {int(done["Id"]) for done in answer.get("Successful", [])}
        except DependencyError:
            return [copy for copy, _ in batch]
        return [copy for number, (copy, _) in enumerate(batch) if number not in taken]

    def bury(self, copy: Copy, *, reason: str, detail: str) -> None:
        """Put a copy on the dead-letter queue with the reason as an attribute."""
        # SQS takes ten attributes: what only the next try would need stays behind.
        attributes = {
            **to_attributes(replace(copy, slot=None, failures=0)),
            "reason": _string(reason),
            "detail": _string(detail[:512] or "-"),
        }
        group: Any = {"MessageGroupId": copy.tenant_id} if copy.tenant_id else {}
        with dependency_errors("SQS", "SendMessage"):
            self._client.send_message(QueueUrl=self._dead_letter_queue_url, MessageBody=copy.body, MessageAttributes=attributes, **group)


def packed(copies: Iterable[Entry]) -> Iterator[Sequence[Entry]]:
    """Group copies into batches of at most 10 entries and 1 MiB."""
    batch: list[Entry] = []
    weight = 0
    for entry in copies:
        size = len(entry[0].body.encode()) + _ENTRY_OVERHEAD
        if batch and (len(batch) == _MAX_ENTRIES or weight + size > MAX_BATCH_BYTES):
            yield batch
            batch, weight = [], 0
        batch.append(entry)
        weight += size
    if batch:
        yield batch


def _entry(number: int, copy: Copy, delay: timedelta) -> "SendMessageBatchRequestEntryTypeDef":
    seconds = min(max(delay, timedelta()), MAX_DELAY).total_seconds()
    entry: SendMessageBatchRequestEntryTypeDef = {
        "Id": str(number),
        "MessageBody": copy.body,
        # Rounded up: a copy that comes early costs another round.
        "DelaySeconds": -int(-seconds // 1),
        "MessageAttributes": to_attributes(copy),
    }
    if copy.tenant_id:
        entry["MessageGroupId"] = copy.tenant_id
    return entry


# -- travel papers -------------------------------------------------------------------------------------------------------

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _string(value: str) -> Any:
    return {"DataType": "String", "StringValue": value}


def _millis(moment: datetime) -> str:
    return str((moment - _EPOCH) // timedelta(milliseconds=1))


def _moment(millis: str) -> datetime:
    return _EPOCH + timedelta(milliseconds=int(millis))


def to_attributes(copy: Copy) -> Mapping[str, Any]:
    """Write a copy's travel papers as SQS message attributes; SQS takes at most ten."""
    papers = {
        "hop": str(copy.hop),
        "redeliveries": str(copy.redeliveries) if copy.redeliveries else None,
        "failures": str(copy.failures) if copy.failures else None,
        "createdAt": _millis(copy.created_at),
        "parked": copy.parked,
        "expiresAt": _millis(copy.expires_at) if copy.expires_at else None,
        "slot": None if copy.slot is None else f"{copy.slot:.3f}",
        "proof": copy.proof,
        "correlationId": copy.correlation_id,
        "schema": str(copy.schema) if copy.schema else None,
    }
    return {name: _string(value) for name, value in papers.items() if value}


def from_attributes(body: str, papers: Mapping[str, str], *, sent_at: datetime, tenant_id: str | None) -> Copy:
    """Read a copy from a message; papers that a producer left out or garbled count as those of a first copy."""
    return Copy(
        body=body,
        tenant_id=tenant_id,
        created_at=_moment_or(papers.get("createdAt"), sent_at) or sent_at,
        hop=_count(papers.get("hop", "")),
        redeliveries=_count(papers.get("redeliveries", "")),
        failures=_count(papers.get("failures", "")),
        parked=papers.get("parked"),
        expires_at=_moment_or(papers.get("expiresAt"), None),
        slot=_slot(papers.get("slot", "")),
        proof=papers.get("proof"),
        correlation_id=papers.get("correlationId", "")[:128] or None,
        schema=_count(papers.get("schema", "")),
    )


_MAX_DIGITS = 6


def _count(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) <= _MAX_DIGITS else 0


def _slot(text: str) -> float | None:
    try:
        slot = float(text)
    except ValueError:
        return None
    return slot if isfinite(slot) else None


def _moment_or(millis: str | None, default: datetime | None) -> datetime | None:
    try:
        return _moment(millis) if millis else default
    except (ValueError, OverflowError):
        return default
