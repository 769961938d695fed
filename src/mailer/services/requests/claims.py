"""Recognise by its record a message of ours whose signature does not fit: the key that signed it has been replaced.

What such a message says of itself does not count, as anybody could have made it up; what its record knows does. So whoever knows the
content of a request that was accepted, or its ids where its body is parked, can add a message of it: that waits for its time as any other.
"""

from dataclasses import replace

from mailer.domain.errors import RequestError
from mailer.domain.message import content_hash, parse_request, readable_ids
from mailer.domain.wire import load_object
from mailer.ports import MessagesTable, QueueMessage
from mailer.services.requests.queue_messages import as_known, pointer_to


def recognise(queue_message: QueueMessage, messages: MessagesTable) -> QueueMessage:
    """Return a message as its record knows it; one that no record knows is a producer's first.

    Raises:
        DependencyError: the table did not answer.
    """
    ids = readable_ids(queue_message.body) if queue_message.claimed else None
    record = messages.get(*ids) if ids else None
    if record is None:
        return queue_message
    if record.parked and _is_pointer(queue_message.body):
        return pointer_to(record)
    is_known = _hash(queue_message.body) == record.content_hash
    return replace(as_known(queue_message, record), sender=None, claimed=False) if is_known else queue_message


def _is_pointer(body: str) -> bool:
    document, _ = load_object(body)
    return document.keys() == {"tenantId", "requestId"}


def _hash(body: str) -> str | None:
    try:
        return content_hash(parse_request(body))
    except RequestError:
        return None
