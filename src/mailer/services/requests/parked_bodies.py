"""Parked bodies, of requests that wait longer than the queue can delay them: check keys, delete."""

from typing import Protocol

from mailer.domain.errors import DependencyError
from mailer.ports import ParkedBodies, Telemetry


class BodyDependencies(Protocol):
    """What discarding a parked body depends on."""

    @property
    def parked(self) -> ParkedBodies:
        """Return the parked bodies."""
        ...

    @property
    def telemetry(self) -> Telemetry:
        """Return the telemetry."""
        ...


def is_own_body(key: str, tenant_id: str, request_id: str) -> bool:
    """Return whether a key of the bucket is that of a parked body of this request."""
    return key.startswith(f"parked/{tenant_id}/{request_id}/")


def discard(key: str | None, deps: BodyDependencies) -> None:
    """Delete the parked body of a request that has ended; if this fails, the bucket's lifecycle rule deletes it."""
    if key is None:
        return
    try:
        deps.parked.discard(key)
    except DependencyError as failure:
        deps.telemetry.failed("discard", None, failure)
