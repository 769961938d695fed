"""Put events on the stack's EventBridge bus."""

import json
from collections.abc import Sequence
from itertools import batched
from typing import Any

from mailer.adapters.aws import dependency_errors, readable
from mailer.domain.errors import DependencyError
from mailer.domain.events import Event

SOURCE = "tenantmail"

_MAX_ENTRIES = 10
"""Events in one PutEvents (EventBridge's limit). A call may have 1 MB, and our events have about 1 kB each."""


class EventBridgeBus:
    """`ports.EventBus` on EventBridge."""

    def __init__(self, client: Any, bus: str) -> None:
        self._client = client
        self._bus = bus

    def put(self, events: Sequence[Event]) -> Sequence[Event]:
        """Put events on the bus in as few calls as EventBridge allows; return those that it did not take."""
        return [event for some in batched(events, _MAX_ENTRIES, strict=False) for event in self._put(some)]

    def _put(self, events: Sequence[Event]) -> Sequence[Event]:
        try:
            with dependency_errors("EventBridge", "PutEvents"):
                answer = self._client.put_events(Entries=[self._entry(event) for event in events])
            with readable("EventBridge", "PutEvents"):
                # One answer per event, in their order.
                return [event for event, result in zip(events, answer["Entries"], strict=True) if "EventId" not in result]
        except DependencyError:
            return events

    def _entry(self, event: Event) -> dict[str, Any]:
        return {
            "EventBusName": self._bus,
            "Source": SOURCE,
            "DetailType": event.detail_type,
            "Time": event.at,
            "Detail": json.dumps(event.detail),
        }
