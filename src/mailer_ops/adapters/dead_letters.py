"""The dead-letter queue on SQS, read message by message."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import batched
from typing import TYPE_CHECKING

from mailer.adapters.aws import dependency_errors
from mailer.adapters.sqs.send_queue import read_record, to_queue_message
from mailer.adapters.sqs.signer import Signer
from mailer.domain.errors import DependencyError, UnreadableError
from mailer_ops.adapters.interrupts import without_interrupts
from mailer_ops.ports import DeadLetter

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

_HIDDEN_SECONDS = 600
"""How long an operator's command may hide a message before it becomes visible again."""

_BATCH = 10
"""Messages of one call (SQS's limit)."""

_WAIT_SECONDS = 1

_EMPTY_ANSWERS = 2
"""Empty answers in a row that mean that the queue is read; a single one may come from a shard without messages."""


class SqsDeadLetters:
    """`ports.DeadLetters` on SQS."""

    def __init__(self, client: "SQSClient", signer: Signer, queue_url: str) -> None:
        self._client = client
        self._signer = signer
        self._queue_url = queue_url
        self._hidden: dict[str, DeadLetter] = {}

    def receive_all(self) -> Iterator[DeadLetter]:
        """Receive every message once."""
        self._signer.fetch_key()  # without it they would be taken out in vain
        seen: set[str] = set()
        empty = 0
        while empty < _EMPTY_ANSWERS:
            with without_interrupts():
                fresh = {message_id: dead_letter for message_id, dead_letter in self._receive() if message_id not in seen}
                self._hidden |= {dead_letter.handle: dead_letter for dead_letter in fresh.values()}
            seen |= fresh.keys()
            empty = 0 if fresh else empty + 1
            yield from fresh.values()

    def _receive(self) -> Iterator[tuple[str, DeadLetter]]:
        with dependency_errors("SQS", "ReceiveMessage"):
            answer = self._client.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=_BATCH,
                WaitTimeSeconds=_WAIT_SECONDS,
                VisibilityTimeout=_HIDDEN_SECONDS,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["All"],
            )
        for message in answer.get("Messages", []):
            yield message["MessageId"], _dead_letter(message, self._signer)

    def delete(self, dead_letter: DeadLetter) -> None:
        """Delete a message; it is not an error if it is gone, because the reply of an earlier try may have been lost."""
        with dependency_errors("SQS", "DeleteMessage"), suppress(self._client.exceptions.ReceiptHandleIsInvalid):
            self._client.delete_message(QueueUrl=self._queue_url, ReceiptHandle=dead_letter.handle)
        self._hidden.pop(dead_letter.handle, None)

    def put_back(self, dead_letters: Iterable[DeadLetter]) -> None:
        """Make messages visible again at once; if SQS does not answer, they are visible after `_HIDDEN_SECONDS`."""
        for some in batched(dead_letters, _BATCH, strict=False):
            with suppress(DependencyError):
                self._show(some)

    def _show(self, some: Sequence[DeadLetter]) -> None:
        with dependency_errors("SQS", "ChangeMessageVisibilityBatch"):
            self._client.change_message_visibility_batch(
                QueueUrl=self._queue_url,
                Entries=[{"Id": str(n), "ReceiptHandle": dead_letter.handle, "VisibilityTimeout": 0} for n, dead_letter in enumerate(some)],
            )
        for dead_letter in some:
            self._hidden.pop(dead_letter.handle, None)

    def close(self) -> None:
        """Put back the messages that were received and neither deleted nor put back: an operator may stop in the middle.

        Raises:
            DependencyError: SQS did not take it; they are visible again after ten minutes.
        """
        with without_interrupts():
            for some in batched(list(self._hidden.values()), _BATCH, strict=False):
                self._show(some)


def _dead_letter(message: "MessageTypeDef", signer: Signer) -> DeadLetter:
    system = {str(name): value for name, value in message.get("Attributes", {}).items()}
    try:
        record = read_record(message["Body"], message.get("MessageAttributes", {}), system, signer)
    except UnreadableError:
        bare = to_queue_message(message["Body"], {}, system, None, sent_at=datetime.now(UTC))
        return DeadLetter(bare, None, None, message["ReceiptHandle"], is_readable=False)
    reason = (record.signed or {}).get("reason")
    return DeadLetter(record.queue_message, reason, record.attributes.get("detail") if reason else None, message["ReceiptHandle"])
