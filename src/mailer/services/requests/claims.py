"""Recognise, by its record, a message of ours whose signature is not valid because the signing key was replaced.

Its own attributes do not count, because they may be forged; those of its record do. A producer that knows the content of an accepted
request, or its ids if its body is parked, can therefore add a message of it; that one waits until the request is due, as any other.
"""

from dataclasses import replace

from mailer.domain.errors import RequestError
from mailer.domain.message import content_hash, parse_request, readable_ids
from mailer.domain.wire import load_object
from mailer.ports import MessagesTable, QueueMessage
from mailer.services.requests.queue_messages import as_known, pointer_to


def recognise(queue_message: QueueMessage, messages: MessagesTable) -> QueueMessage:
    """Return a message with the attributes of its record; without a record it is a producer's new message.

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
