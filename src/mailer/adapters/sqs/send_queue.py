"""The send queue and its dead-letter queue: our attributes of a message are one signed attribute, its body is the caller's JSON."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import batched
from typing import TYPE_CHECKING, Any

from mailer.adapters.aws import UNREADABLE, dependency_errors, readable
from mailer.adapters.sqs.signer import Signer
from mailer.domain.errors import DependencyError, UnreadableError
from mailer.domain.message import utf8_size
from mailer.domain.moments import from_millis, to_millis
from mailer.ports import QueueMessage

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

MAX_DELAY = timedelta(seconds=900)
"""SQS's limit for DelaySeconds."""

MAX_BATCH_BYTES = 1024 * 1024
"""SQS's limit for one SendMessageBatch, bodies and attributes together."""

_MAX_ENTRIES = 10
_ENTRY_OVERHEAD = 4096
"""Upper limit of the size of one message's attributes: what MAX_BODY leaves of SQS's 1 MiB."""

_MAX_DETAIL = 512
"""Bytes of a dead letter's detail."""

Entry = tuple[QueueMessage, timedelta]


class SqsSendQueue:
    """`ports.SendQueue` on SQS."""

    def __init__(self, client: "SQSClient", signer: Signer, queue_url: str, dead_letter_queue_url: str) -> None:
        self._client = client
        self._signer = signer
        self._queue_url = queue_url
        self._dead_letter_queue_url = dead_letter_queue_url

    def send(self, queue_messages: Iterable[Entry]) -> Sequence[QueueMessage]:
        """Send messages in as few calls as SQS allows; return those that were not taken."""
        return [queue_message for batch in packed(queue_messages) for queue_message in self._send_batch(batch)]

    def _send_batch(self, batch: Sequence[Entry]) -> Sequence[QueueMessage]:
        try:
            entries = [_entry(number, queue_message, delay, self._signer) for number, (queue_message, delay) in enumerate(batch)]
            with dependency_errors("SQS", "SendMessageBatch"):
                answer = self._client.send_message_batch(QueueUrl=self._queue_url, Entries=entries)
            with readable("SQS", "SendMessageBatch"):
                taken = {int(done["Id"]) for done in answer.get("Successful", [])}
        except DependencyError:
            return [queue_message for queue_message, _ in batch]
        return [queue_message for number, (queue_message, _) in enumerate(batch) if number not in taken]

    def dead_letter(self, queue_message: QueueMessage, *, reason: str, detail: str) -> None:
        """Put a message on the dead-letter queue with the reason as an attribute; without attributes if the body leaves no space."""
        text = detail.encode("utf-8", "replace")[:_MAX_DETAIL].decode("utf-8", "ignore")
        attributes = {
            **to_attributes(queue_message, self._signer, reason=reason),
            "reason": _string(reason),
            "detail": _string(text or "-"),
        }
        if utf8_size(queue_message.body) + _weight(attributes) > MAX_BATCH_BYTES:
            attributes = {}
        group: Any = {"MessageGroupId": queue_message.tenant_id} if queue_message.tenant_id else {}
        with dependency_errors("SQS", "SendMessage"):
            self._client.send_message(
                QueueUrl=self._dead_letter_queue_url, MessageBody=queue_message.body, MessageAttributes=attributes, **group
            )

    def hide(self, waits: Mapping[str, timedelta]) -> None:
        """Set the visibility timeout of messages, by their receipt handles; at most 12 hours.

        Raises:
            DependencyError: SQS did not take it; they become visible after the queue's own timeout.
        """
        for some in batched(waits.items(), _MAX_ENTRIES, strict=False):
            entries: Any = [
                {"Id": str(number), "ReceiptHandle": handle, "VisibilityTimeout": int(wait.total_seconds())}
                for number, (handle, wait) in enumerate(some)
            ]
            with dependency_errors("SQS", "ChangeMessageVisibilityBatch"):
                self._client.change_message_visibility_batch(QueueUrl=self._queue_url, Entries=entries)


def packed(queue_messages: Iterable[Entry]) -> Iterator[Sequence[Entry]]:
    """Group messages into batches of at most 10 entries and 1 MiB."""
    batch: list[Entry] = []
    weight = 0
    for entry in queue_messages:
        size = utf8_size(entry[0].body) + _ENTRY_OVERHEAD
        if batch and (len(batch) == _MAX_ENTRIES or weight + size > MAX_BATCH_BYTES):
            yield batch
            batch, weight = [], 0
        batch.append(entry)
        weight += size
    if batch:
        yield batch


def _entry(number: int, queue_message: QueueMessage, delay: timedelta, signer: Signer) -> "SendMessageBatchRequestEntryTypeDef":
    seconds = min(max(delay, timedelta()), MAX_DELAY).total_seconds()
    entry: SendMessageBatchRequestEntryTypeDef = {
        "Id": str(number),
        "MessageBody": queue_message.body,
        # Rounded up: a message that arrives early has to be requeued.
        "DelaySeconds": -int(-seconds // 1),
        "MessageAttributes": to_attributes(queue_message, signer),
    }
    if queue_message.tenant_id:
        entry["MessageGroupId"] = queue_message.tenant_id
    return entry


# -- attributes of a message ---------------------------------------------------------------------------------------------

SIGNED_ATTRIBUTE = "tenantmail"
"""The attribute that our functions add, signed; producers may use any other name. SQS takes at most ten."""

CORRELATION_ID = "correlationId"
"""The only attribute of a producer's message that is read."""

MAX_CORRELATION_ID = 128

UNKNOWN_SENDER = "-"
"""The sender in an event without SenderId, which was written by hand."""


def _string(value: str) -> Any:
    return {"DataType": "String", "StringValue": value}


def _weight(attributes: Mapping[str, Any]) -> int:
    """Return the bytes that SQS counts for attributes: names, types and values."""
    return sum(utf8_size(f"{name}{value['DataType']}{value['StringValue']}") for name, value in attributes.items())


def to_attributes(queue_message: QueueMessage, signer: Signer, *, reason: str | None = None) -> Mapping[str, Any]:
    """Write our attributes of a message, and the reason of a dead letter, as one signed attribute.

    Raises:
        DependencyError: it could not be signed.
    """
    known = {
        "generation": queue_message.generation or None,
        "redeliveries": queue_message.redeliveries or None,
        "failures": queue_message.failures or None,
        "createdAt": to_millis(queue_message.created_at),
        "parked": queue_message.parked,
        "expiresAt": to_millis(queue_message.expires_at) if queue_message.expires_at else None,
        "slot": None if queue_message.slot is None else round(queue_message.slot, 3),
        "uploadSlot": None if queue_message.upload_slot is None else round(queue_message.upload_slot, 3),
        "proof": queue_message.proof,
        CORRELATION_ID: queue_message.correlation_id,
        "sender": queue_message.sender,
        "schema": queue_message.schema or None,
        "claimed": queue_message.claimed or None,
        "reason": reason,
    }
    text = json.dumps({name: value for name, value in known.items() if value is not None}, separators=(",", ":"))
    return {SIGNED_ATTRIBUTE: _string(signer.sign(text, queue_message.body))}


@dataclass(frozen=True, slots=True)
class SqsRecord:
    """A message as SQS delivered it, to a function's event source or to a program that receives."""

    queue_message: QueueMessage
    signed: Mapping[str, Any] | None
    """The verified attributes of our functions; None for a producer's message."""
    attributes: Mapping[str, str]
    sent_at: datetime
    """When SQS took it; now, if the record does not say so, as in events written by hand."""
    receives: int
    """How many times SQS has delivered it, this time included."""


def read_record(body: str, attributes: Mapping[str, Any], system: Mapping[str, str], signer: Signer) -> SqsRecord:
    """Read a record from its body, its message attributes (in Lambda's spelling or SQS's own), and SQS's.

    Raises:
        DependencyError: KMS did not return the key, so the signature cannot be checked; or a later version wrote the signed attributes.
    """
    texts = {name: value.get("stringValue") or value.get("StringValue") or "" for name, value in attributes.items()}
    sent_at = from_millis(int(system["SentTimestamp"])) if "SentTimestamp" in system else datetime.now(UTC)
    try:
        signed = read_signed(body, texts, signer)
        queue_message = to_queue_message(body, texts, system, signed, sent_at=sent_at)
    except UNREADABLE as error:
        raise UnreadableError("send queue", system.get("MessageGroupId", "?")) from error
    return SqsRecord(queue_message, signed, texts, sent_at, int(system.get("ApproximateReceiveCount", 1)))


def read_signed(body: str, attributes: Mapping[str, str], signer: Signer) -> Mapping[str, Any] | None:
    """Return the attributes that one of our functions has signed; None for a producer's message, or if the signature is not valid.

    Raises:
        DependencyError: KMS did not return the key, so the signature cannot be checked.
    """
    text = signer.read(attributes[SIGNED_ATTRIBUTE], body) if SIGNED_ATTRIBUTE in attributes else None
    known: Mapping[str, Any] | None = json.loads(text) if text else None
    return known


def to_queue_message(
    body: str, attributes: Mapping[str, str], system: Mapping[str, str], signed: Mapping[str, Any] | None, *, sent_at: datetime
) -> QueueMessage:
    """Read a queue message from a body, its attributes and SQS's own; a producer's is of generation 0, created when SQS took it."""
    tenant_id = system.get("MessageGroupId")
    if signed is None:
        correlation_id = attributes.get(CORRELATION_ID, "")[:MAX_CORRELATION_ID]
        sender = system.get("SenderId", UNKNOWN_SENDER)
        return QueueMessage(
            body=body,
            tenant_id=tenant_id,
            created_at=sent_at,
            correlation_id=correlation_id or None,
            sender=sender,
            claimed=SIGNED_ATTRIBUTE in attributes,
        )
    return QueueMessage(
        body=body,
        tenant_id=tenant_id,
        created_at=from_millis(signed["createdAt"]),
        generation=signed.get("generation", 0),
        redeliveries=signed.get("redeliveries", 0),
        failures=signed.get("failures", 0),
        parked=signed.get("parked"),
        expires_at=from_millis(signed["expiresAt"]) if "expiresAt" in signed else None,
        slot=signed.get("slot"),
        upload_slot=signed.get("uploadSlot"),
        proof=signed.get("proof"),
        correlation_id=signed.get(CORRELATION_ID),
        sender=signed.get("sender"),
        schema=signed.get("schema", 0),
        claimed=signed.get("claimed", False),
    )
