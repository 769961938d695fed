"""Queue messages of a request, made from its record."""

import json
from dataclasses import replace

from mailer.domain.delivery import Delivery
from mailer.ports import QueueMessage


def ids_alone(tenant_id: str, request_id: str) -> str:
    """Return the body of a message whose request is in the bucket."""
    return json.dumps({"tenantId": tenant_id, "requestId": request_id})


def as_known(queue_message: QueueMessage, record: Delivery) -> QueueMessage:
    """Return a message that has the whole body, with the attributes of the record's newest message."""
    return replace(
        queue_message,
        tenant_id=record.tenant_id,
        created_at=record.created_at,
        generation=record.generation,
        redeliveries=record.redeliveries,
        expires_at=record.expires_at,
        correlation_id=record.correlation_id,
    )


def pointer_to(record: Delivery) -> QueueMessage:
    """Return the queue message that points to a record's parked body."""
    return QueueMessage(
        body=ids_alone(record.tenant_id, record.request_id),
        tenant_id=record.tenant_id,
        created_at=record.created_at,
        generation=record.generation,
        redeliveries=record.redeliveries,
        parked=record.parked,
        expires_at=record.expires_at,
        correlation_id=record.correlation_id,
    )
