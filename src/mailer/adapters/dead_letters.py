"""The dead-letter queue on SQS, read message by message."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import batched
from typing import TYPE_CHECKING

from mailer.adapters.aws import dependency_errors
from mailer.adapters.send_queue import read_ours, to_copy
from mailer.adapters.signer import Signer
from mailer.domain.errors import DependencyError
from mailer.ports import Letter

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

_HIDDEN_SECONDS = 600
"""How long an operator's run may hold a message before SQS shows it again by itself."""

_BATCH = 10
"""Messages of one call (SQS's limit)."""

_EMPTY_ANSWERS = 2
"""An empty answer may be a shard that had nothing; two in a row, each long-polled, mean that the queue is read."""


class SqsDeadLetters:
    """`ports.DeadLetters` on SQS."""

    def __init__(self, client: "SQSClient", signer: Signer, queue_url: str) -> None:
        self._client = client
        self._signer = signer
        self._queue_url = queue_url

    def letters(self) -> Iterator[Letter]:
        """Take out every message once."""
        self._signer.fetch_key()  # without it they would be taken out in vain
        seen: set[str] = set()
        empty = 0
        while empty < _EMPTY_ANSWERS:
            with dependency_errors("SQS", "ReceiveMessage"):
                answer = self._client.receive_message(
                    QueueUrl=self._queue_url,
                    MaxNumberOfMessages=_BATCH,
                    WaitTimeSeconds=1,
                    VisibilityTimeout=_HIDDEN_SECONDS,
                    MessageAttributeNames=["All"],
                    MessageSystemAttributeNames=["All"],
                )
            fresh = [message for message in answer.get("Messages", []) if message["MessageId"] not in seen]
            seen |= {message["MessageId"] for message in fresh}
            empty = 0 if fresh else empty + 1
            yield from (_letter(message, self._signer) for message in fresh)

    def delete(self, letter: Letter) -> None:
        """Remove a message for good; what is gone already stays gone: the reply of an earlier try may have been lost."""
        with dependency_errors("SQS", "DeleteMessage"), suppress(self._client.exceptions.ReceiptHandleIsInvalid):
            self._client.delete_message(QueueUrl=self._queue_url, ReceiptHandle=letter.handle)

    def put_back(self, letters: Iterable[Letter]) -> None:
        """Let messages be seen again at once; where SQS does not answer they are by themselves, after `_HIDDEN_SECONDS`."""
        for some in batched(letters, _BATCH, strict=False):
            with suppress(DependencyError), dependency_errors("SQS", "ChangeMessageVisibilityBatch"):
                self._client.change_message_visibility_batch(
                    QueueUrl=self._queue_url,
                    Entries=[{"Id": str(n), "ReceiptHandle": letter.handle, "VisibilityTimeout": 0} for n, letter in enumerate(some)],
                )


def _letter(message: "MessageTypeDef", signer: Signer) -> Letter:
    system, body = message.get("Attributes", {}), message["Body"]
    attributes = {name: value.get("StringValue", "") for name, value in message.get("MessageAttributes", {}).items()}
    sent_at = datetime.fromtimestamp(int(system.get("SentTimestamp", "0")) / 1000, UTC)
    ours = read_ours(body, attributes, signer)
    copy = to_copy(body, attributes, ours, sent_at=sent_at, tenant_id=system.get("MessageGroupId"))
    reason = (ours or {}).get("reason")
    return Letter(copy, reason, attributes.get("detail") if reason else None, message["ReceiptHandle"])
