"""Publish events to other systems at least once: the stream redelivers what is not published now."""

from collections.abc import Sequence

from mailer.domain.errors import DependencyError
from mailer.domain.events import Event
from mailer.ports import EventBus

ROUNDS = 3
"""Tries of an event in one run: the bus may accept some events of a call and throttle others."""


def publish(events: Sequence[Event], bus: EventBus) -> None:
    """Put all events on the bus.

    Raises:
        DependencyError: the bus did not accept all of them; those that it accepted may be published twice.
    """
    left = events
    for _ in range(ROUNDS):
        left = bus.put(left) if left else left
    if left:
        raise DependencyError("EventBridge", "PutEvents")
