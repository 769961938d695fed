"""Decide how long a request waits before it is tried again."""

from datetime import timedelta

from mailer.domain.delivery import NotSent
from mailer.domain.errors import ErrorClass

MAX_DELAY = timedelta(seconds=900)
"""The longest delay of a message (SQS DelaySeconds); for longer waits the body is parked in the bucket."""

FIRST_RETRY = {ErrorClass.DEFERRED: timedelta(seconds=5), ErrorClass.TENANT: timedelta(seconds=60)}
"""First wait after an error that passes by itself, and after one that the tenant must fix; each further wait is twice as long."""

_MOST_DOUBLINGS = 8

HIDE_FROM = 5
"""From this receive on a message that goes back to the queue is hidden for longer than the queue's timeout: an outage lasts."""

MAX_RECEIVES = 10
"""After so many receives SQS moves a message to the dead-letter queue (template.yaml)."""

_FIRST_HIDDEN, _LONGEST_HIDDEN = timedelta(minutes=30), timedelta(hours=4)


def retry_delay(outcome: NotSent, failures: int) -> timedelta:
    """Return how long to wait after the request's n-th failed try (`failures`). A wait that the provider named takes precedence."""
    if outcome.retry_after is not None:
        return outcome.retry_after
    first = FIRST_RETRY.get(outcome.error.error_class, FIRST_RETRY[ErrorClass.DEFERRED])
    return min(first * (1 << min(failures - 1, _MOST_DOUBLINGS)), MAX_DELAY)


def hidden_for(receives: int) -> timedelta | None:
    """Return how long to hide a message that goes back to the queue after so many receives, so that an outage does not use them up.

    None if the queue's own timeout is right: at first, and after the last receive, when SQS moves the message to the dead-letter queue.
    """
    if not HIDE_FROM <= receives < MAX_RECEIVES:
        return None
    return min(_FIRST_HIDDEN * (1 << receives - HIDE_FROM), _LONGEST_HIDDEN)
