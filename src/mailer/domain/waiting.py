"""Decide how long a request waits before it is tried again."""

from datetime import timedelta

from mailer.domain.delivery import NotSent
from mailer.domain.errors import Kind

MAX_DELAY = timedelta(seconds=900)
"""What a queue can hold a message back at most (SQS DelaySeconds); longer waits are parked in the bucket."""

FIRST_RETRY = {Kind.DEFERRED: timedelta(seconds=5), Kind.TENANT: timedelta(seconds=60)}
"""First wait after an error that passes by itself, and after one that the tenant must mend; each further one is twice as long."""

_MOST_DOUBLINGS = 8


def retry_delay(outcome: NotSent, failures: int) -> timedelta:
    """Return how long to wait after a failed try, the request's so many-th. A provider's own word comes first."""
    if outcome.retry_after is not None:
        return outcome.retry_after
    first = FIRST_RETRY.get(outcome.error.kind, FIRST_RETRY[Kind.DEFERRED])
    return min(first * (1 << min(failures - 1, _MOST_DOUBLINGS)), MAX_DELAY)
