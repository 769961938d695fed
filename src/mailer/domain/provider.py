"""Decide what a tenant's provider may do: its configs, its status, and when its mail may go out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from mailer.domain.errors import ErrorInfo

Kind = Literal["ses", "smtp"]


class ProviderStatus(StrEnum):
    """The status of a tenant's provider record; `deleted` marks the tombstone that DELETE leaves."""

    UNVERIFIED = "unverified"
    ACTIVE = "active"
    DISABLED = "disabled"
    SUSPENDED = "suspended"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredConfig:
    """One version of a tenant's config as the table holds it: what may be shown in clear, the rest sealed."""

    provider: Kind
    version: int
    ciphertext: bytes = field(repr=False)
    """AWS Encryption SDK message over the config's JSON, bound to {tenant_id, provider, version}."""
    region: str
    from_address: str
    from_name: str
    credentials: Mapping[str, str]
    """What the API shows: {"type": "accessKey", "accessKeyId": "…last 4"} or {"type": "role", "roleArn", "externalId"}."""
    configuration_set: str | None = None
    max_send_rate: float | None = None
    """Recipients per second."""
    account: str | None = None
    """The sending AWS account's id, as verify learned it; paces the tenants that share it together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A tenant's provider row: at most one active config and one candidate beside it."""

    tenant_id: str
    status: ProviderStatus
    versions: int
    """The highest version ever given out; never reused, also after DELETE."""
    external_id: str
    active: StoredConfig | None = None
    candidate: StoredConfig | None = None
    sandbox: Literal["true", "false", "unknown"] = "unknown"
    verified_at: datetime | None = None
    updated_at: datetime
    warnings: tuple[str, ...] = ()
    error: ErrorInfo | None = None
    faulty_requests: frozenset[str] = frozenset()
    """Distinct requests that met a tenant-class error under the active version since the last success."""


SUSPEND_AFTER = 3
"""Distinct requests with tenant-class errors that suspend a version."""
