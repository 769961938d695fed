"""Decide which writes to the tables become events, and their content: outcomes, delivery reports, changes of providers and suppressions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from mailer.domain.delivery import Delivery, Status
from mailer.domain.errors import ErrorInfo
from mailer.domain.facts import RecipientStatus
from mailer.domain.moments import rfc3339
from mailer.domain.provider import Provider, ProviderStatus, StoredConfig
from mailer.domain.suppressions import Entry, Suppression, digest

VERSION = "1"
"""Version of the details: raised when a field changes its meaning or is removed, not when one is added."""

ProviderChange = Literal["stored", "verified", "verifyFailed", "disabled", "enabled", "suspended", "deleted"]
"""What happened to a tenant's provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event as EventBridge carries it; the detail contains no recipient, body or secret."""

    id: str
    """The same however often the event is published: consumers deduplicate by it."""
    detail_type: Literal["Request Ended", "Delivery Reported", "Provider Changed", "Suppression Changed"]
    at: datetime
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RequestWritten:
    """One write to the record of a request."""

    event_id: str
    """The same however often the stream delivers it."""
    old: Delivery | None
    new: Delivery

    @property
    def sent(self) -> bool:
        """Whether it recorded that SES accepted the mail."""
        return self.new.status is Status.SENT and (self.old is None or self.old.status is not Status.SENT)


@dataclass(frozen=True, slots=True)
class RowWritten:
    """One write to a tenant's provider row."""

    event_id: str
    old: Provider | None
    new: Provider


@dataclass(frozen=True, slots=True)
class EntryWritten:
    """One write to an entry of the suppressions table."""

    event_id: str
    old: Entry | None
    new: Entry


Write = RequestWritten | RowWritten | EntryWritten


def events_of(write: Write) -> Sequence[Event]:
    """Return the events of a write."""
    match write:
        case RowWritten():
            change = provider_changed(write.event_id, write.old, write.new)
            return [change] if change else []
        case EntryWritten():
            change = suppression_changed(write.event_id, write.old, write.new)
            return [change] if change else []
    ended = request_ended(write.event_id, write.old, write.new)
    return [*([ended] if ended else []), *delivery_reported(write.event_id, write.old, write.new)]


def request_ended(event_id: str, old: Delivery | None, new: Delivery) -> Event | None:
    """Return the event of a write that ended a request; None if it did not. An `unknown` may end a second time, as `sent`."""
    if not new.ended or (old and old.ended and old.status is new.status):
        return None
    detail = {
        "version": VERSION,
        "id": event_id,
        "tenantId": new.tenant_id,
        "requestId": new.request_id,
        "status": new.status.value,
        "onUnknown": new.on_unknown,
        "provider": new.provider,
        "configVersion": new.provider_version,
        "messageId": new.message_id,
        "attempts": new.attempt,
        "recipients": new.recipients,
        "correlationId": new.correlation_id,
        "createdAt": rfc3339(new.created_at),
        "endedAt": rfc3339(new.updated_at),
        "principal": new.principal,
        "error": _error(new.shown_error),
    }
    return Event(id=event_id, detail_type="Request Ended", at=new.updated_at, detail=detail)


def delivery_reported(event_id: str, old: Delivery | None, new: Delivery) -> Sequence[Event]:
    """Return an event for each status that more recipients have after a write than before it.

    A recipient has one status: if a complaint follows the delivery, one count rises and the other falls, which gives no event.
    """
    before, after = old and old.feedback, new.feedback
    if after is None or after == before:
        return []
    counts = {status: getattr(after, status) for status in RecipientStatus}
    return [
        _reported(f"{event_id}-{status}", new, status, count, after.last_at)
        for status, count in counts.items()
        if count > (getattr(before, status) if before else 0)
    ]


def _reported(event_id: str, record: Delivery, status: RecipientStatus, count: int, at: datetime) -> Event:
    detail = {
        "version": VERSION,
        "id": event_id,
        "tenantId": record.tenant_id,
        "requestId": record.request_id,
        "messageId": record.message_id,
        "status": status.value,
        "recipients": count,
        "correlationId": record.correlation_id,
        "at": rfc3339(at),
    }
    return Event(id=event_id, detail_type="Delivery Reported", at=at, detail=detail)


def provider_changed(event_id: str, old: Provider | None, new: Provider) -> Event | None:
    """Return the event of a write that changed a provider; None for counters, learned facts and clean-up."""
    change = what_changed(old, new)
    if change is None:
        return None
    config = _config_of(change, new)
    error = config.error if config and change == "verifyFailed" else new.error
    detail = {
        "version": VERSION,
        "id": event_id,
        "tenantId": new.tenant_id,
        "change": change,
        "status": new.status.value,
        "configVersion": config.version if config else new.versions,
        "changedAt": rfc3339(new.updated_at),
        "principal": new.updated_by,
        "error": _error(error),
    }
    return Event(id=event_id, detail_type="Provider Changed", at=new.updated_at, detail=detail)


def suppression_changed(event_id: str, old: Entry | None, new: Entry) -> Event | None:
    """Return the event of a write that suppressed an address, identified by its digest, or lifted it; None if it did neither."""
    before = old.suppression if old else None
    suppression = new.suppression or before
    if suppression is None or new.suppression == before:
        return None
    at, principal = suppression.at, suppression.by
    if new.suppression is None:
        at, principal = _lifted(old, new, suppression)
    detail = {
        "version": VERSION,
        "id": event_id,
        "tenantId": new.tenant_id,
        "emailSha256": digest(new.email),
        "change": "lifted" if new.suppression is None else "suppressed",
        "reason": suppression.reason.value,
        "requestId": suppression.request_id,
        "changedAt": rfc3339(at),
        "expiresAt": rfc3339(new.suppression.expires_at) if new.suppression and new.suppression.expires_at else None,
        "principal": principal,
    }
    return Event(id=event_id, detail_type="Suppression Changed", at=at, detail=detail)


def _lifted(old: Entry | None, new: Entry, suppression: Suppression) -> tuple[datetime, str | None]:
    """Return when a suppression was lifted and by whom: by a call, or by nobody, if a late report of a delivery cancelled it."""
    if new.lifted and (old is None or new.lifted != old.lifted):
        return new.lifted.at, new.lifted.by
    return max(suppression.at, new.delivered_at or suppression.at), None


def what_changed(old: Provider | None, new: Provider) -> ProviderChange | None:
    """Name the change between two states of a row; the counters of sending and the sweeper's marks do not touch `updatedAt`."""
    if old and all(getattr(old, name) == getattr(new, name) for name in ("updated_at", "status", "versions", "verified_at")):
        return None
    if new.status is ProviderStatus.DELETED:
        return "deleted" if new.deleted_at and (old is None or old.deleted_at != new.deleted_at) else None
    if old is None or new.versions > old.versions:
        return "stored"
    if new.verified_at != old.verified_at:
        return "verified"
    if new.status is not old.status:
        return _SWITCHED.get(new.status)
    return "verifyFailed"


_SWITCHED: Mapping[ProviderStatus, ProviderChange] = {
    ProviderStatus.ACTIVE: "enabled",
    ProviderStatus.DISABLED: "disabled",
    ProviderStatus.SUSPENDED: "suspended",
}


def _config_of(change: ProviderChange, row: Provider) -> StoredConfig | None:
    """Return the config that a change happened to."""
    newest_first = change in ("stored", "verifyFailed")
    return (row.candidate or row.active) if newest_first else (row.active or row.candidate)


def _error(error: ErrorInfo | None) -> Mapping[str, Any] | None:
    if error is None:
        return None
    return {"code": error.code, "message": error.message, "retryable": error.retryable, "hint": error.hint}
