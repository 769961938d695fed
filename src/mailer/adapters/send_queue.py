"""The send queue and its dead-letter queue: what we know of a copy goes in one signed attribute, its body stays the caller's JSON."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import batched
from typing import TYPE_CHECKING, Any

from mailer.adapters.aws import dependency_errors, readable
from mailer.adapters.signer import Signer
from mailer.domain.errors import DependencyError
from mailer.domain.message import utf8_size
from mailer.ports import Copy

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

MAX_DELAY = timedelta(seconds=900)
"""SQS's limit for DelaySeconds."""

MAX_BATCH_BYTES = 1024 * 1024
"""SQS's limit for one SendMessageBatch, bodies and attributes together."""

_MAX_ENTRIES = 10
_ENTRY_OVERHEAD = 4096
"""Upper bound of what the attributes of one copy weigh: what a queue body leaves of SQS's 1 MiB."""

_MAX_DETAIL = 512
"""Bytes of a dead letter's detail."""

Entry = tuple[Copy, timedelta]


class SqsSendQueue:
    """`ports.SendQueue` on SQS."""

    def __init__(self, client: "SQSClient", signer: Signer, queue_url: str, dead_letter_queue_url: str) -> None:
        self._client = client
        self._signer = signer
        self._queue_url = queue_url
        self._dead_letter_queue_url = dead_letter_queue_url

    def send(self, copies: Iterable[Entry]) -> Sequence[Copy]:
        """Send copies in as few calls as SQS allows; return those that were not taken."""
        return [copy for batch in packed(copies) for copy in self._send_batch(batch)]

    def _send_batch(self, batch: Sequence[Entry]) -> Sequence[Copy]:
        try:
            entries = [_entry(number, copy, delay, self._signer) for number, (copy, delay) in enumerate(batch)]
            with dependency_errors("SQS", "SendMessageBatch"):
                answer = self._client.send_message_batch(QueueUrl=self._queue_url, Entries=entries)
            with readable("SQS", "SendMessageBatch"):
                taken = {int(done["Id"]) for done in answer.get("Successful", [])}
        except DependencyError:
            return [copy for copy, _ in batch]
        return [copy for number, (copy, _) in enumerate(batch) if number not in taken]

    def bury(self, copy: Copy, *, reason: str, detail: str) -> None:
        """Put a copy on the dead-letter queue with the reason as an attribute; a body that leaves no room for it goes alone."""
        told = detail.encode("utf-8", "replace")[:_MAX_DETAIL].decode("utf-8", "ignore")
        attributes = {**to_attributes(copy, self._signer, reason=reason), "reason": _string(reason), "detail": _string(told or "-")}
        if utf8_size(copy.body) + _weight(attributes) > MAX_BATCH_BYTES:
            attributes = {}
        group: Any = {"MessageGroupId": copy.tenant_id} if copy.tenant_id else {}
        with dependency_errors("SQS", "SendMessage"):
            self._client.send_message(QueueUrl=self._dead_letter_queue_url, MessageBody=copy.body, MessageAttributes=attributes, **group)

    def hide(self, waits: Mapping[str, timedelta]) -> None:
        """Let messages, by their receipt handles, not be handed out again before a time of at most 12 hours.

        Raises:
            DependencyError: SQS did not take it; they come back after the queue's own timeout.
        """
        for some in batched(waits.items(), _MAX_ENTRIES, strict=False):
            entries: Any = [
                {"Id": str(number), "ReceiptHandle": handle, "VisibilityTimeout": int(wait.total_seconds())}
                for number, (handle, wait) in enumerate(some)
            ]
            with dependency_errors("SQS", "ChangeMessageVisibilityBatch"):
                self._client.change_message_visibility_batch(QueueUrl=self._queue_url, Entries=entries)


def packed(copies: Iterable[Entry]) -> Iterator[Sequence[Entry]]:
    """Group copies into batches of at most 10 entries and 1 MiB."""
    batch: list[Entry] = []
    weight = 0
    for entry in copies:
        size = utf8_size(entry[0].body) + _ENTRY_OVERHEAD
        if batch and (len(batch) == _MAX_ENTRIES or weight + size > MAX_BATCH_BYTES):
            yield batch
            batch, weight = [], 0
        batch.append(entry)
        weight += size
    if batch:
        yield batch


def _entry(number: int, copy: Copy, delay: timedelta, signer: Signer) -> "SendMessageBatchRequestEntryTypeDef":
    seconds = min(max(delay, timedelta()), MAX_DELAY).total_seconds()
    entry: SendMessageBatchRequestEntryTypeDef = {
        "Id": str(number),
        "MessageBody": copy.body,
        # Rounded up: a copy that comes early costs another round.
        "DelaySeconds": -int(-seconds // 1),
        "MessageAttributes": to_attributes(copy, signer),
    }
    if copy.tenant_id:
        entry["MessageGroupId"] = copy.tenant_id
    return entry


# -- what we know of a copy ----------------------------------------------------------------------------------------------

OURS = "tenantmail"
"""The attribute that our functions add, signed: producers may use any other name. SQS takes at most ten."""

CORRELATION_ID = "correlationId"
"""The one attribute of a producer's that is read."""

MAX_CORRELATION_ID = 128

UNKNOWN_SENDER = "-"
"""Of a message that SQS did not hand out: an event written by hand."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _string(value: str) -> Any:
    return {"DataType": "String", "StringValue": value}


def _weight(attributes: Mapping[str, Any]) -> int:
    """Return the bytes that SQS counts towards a message: of names, types and values."""
    return sum(utf8_size(f"{name}{value['DataType']}{value['StringValue']}") for name, value in attributes.items())


def _millis(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _moment(millis: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=millis)


def to_attributes(copy: Copy, signer: Signer, *, reason: str | None = None) -> Mapping[str, Any]:
    """Write what we know of a copy, and why it is buried, as one signed attribute.

    Raises:
        DependencyError: it could not be signed.
    """
    known = {
        "hop": copy.hop or None,
        "redeliveries": copy.redeliveries or None,
        "failures": copy.failures or None,
        "createdAt": _millis(copy.created_at),
        "parked": copy.parked,
        "expiresAt": _millis(copy.expires_at) if copy.expires_at else None,
        "slot": None if copy.slot is None else round(copy.slot, 3),
        "proof": copy.proof,
        CORRELATION_ID: copy.correlation_id,
        "sender": copy.sender,
        "schema": copy.schema or None,
        "claimed": copy.claimed or None,
        "reason": reason,
    }
    text = json.dumps({name: value for name, value in known.items() if value is not None}, separators=(",", ":"))
    return {OURS: _string(signer.sign(text, copy.body))}


def read_ours(body: str, attributes: Mapping[str, str], signer: Signer) -> Mapping[str, Any] | None:
    """Return what one of our functions said of a message; None for a producer's, whatever it says of itself.

    Raises:
        DependencyError: it could not be told whose it is.
    """
    text = signer.read(attributes[OURS], body) if OURS in attributes else None
    known: Mapping[str, Any] | None = json.loads(text) if text else None
    return known


def to_copy(
    body: str, attributes: Mapping[str, str], system: Mapping[str, str], ours: Mapping[str, Any] | None, *, sent_at: datetime
) -> Copy:
    """Make a copy of a message with its attributes and SQS's own; a producer's is a first one, made when SQS took it."""
    tenant_id = system.get("MessageGroupId")
    if ours is None:
        correlation_id = attributes.get(CORRELATION_ID, "")[:MAX_CORRELATION_ID]
        sender = system.get("SenderId", UNKNOWN_SENDER)
        return Copy(
            body=body,
            tenant_id=tenant_id,
            created_at=sent_at,
            correlation_id=correlation_id or None,
            sender=sender,
            claimed=OURS in attributes,
        )
    return Copy(
        body=body,
        tenant_id=tenant_id,
        created_at=_moment(ours["createdAt"]),
        hop=ours.get("hop", 0),
        redeliveries=ours.get("redeliveries", 0),
        failures=ours.get("failures", 0),
        parked=ours.get("parked"),
        expires_at=_moment(ours["expiresAt"]) if "expiresAt" in ours else None,
        slot=ours.get("slot"),
        proof=ours.get("proof"),
        correlation_id=ours.get(CORRELATION_ID),
        sender=ours.get("sender"),
        schema=ours.get("schema", 0),
        claimed=ours.get("claimed", False),
    )
