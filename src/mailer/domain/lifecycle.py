"""Decide how each call of the provider API changes a tenant's row; pure.

    ∅, deleted ──store──▶ unverified ──verify──▶ active ◀──enable──▶ disabled
    active, disabled, suspended ──store──▶ as it was, with a candidate ──verify──▶ the candidate is the active config
    active ──SUSPEND_AFTER faulty requests──▶ suspended ──verify──▶ active
    active ──the reputation guard──▶ suspended ──enable, with who and why──▶ active
    any ──disable──▶ disabled ──verify──▶ disabled      any ──delete──▶ deleted (the tombstone)
    suspended by the reputation guard ──delete──▶ deleted ──store──▶ unverified ──verify──▶ suspended

A function returns the same row if nothing changes.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from mailer.domain.errors import CODES, ErrorInfo, Problem, RequestError
from mailer.domain.provider import AT_RISK, SUSPEND_AFTER, Provider, ProviderStatus, Resumption, Sandbox, Simulation, StoredConfig

SANDBOX_MAY_BE = (
    "AWS SES may be in sandbox mode. Verify that production access has been granted in your AWS console"
    " before using this for client notifications."
)
"""Always a warning of the first verify: the text of the system that this one replaces, which callers show."""

SANDBOX_IS = (
    "The AWS SES account is in the sandbox in {region}: it sends to verified addresses only, 200 a day. Request production access:"
    " SES console, Account dashboard."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationResult:
    """What a passing verify learned, and began; None where the account did not tell."""

    at: datetime
    account: str | None = None
    sandbox: bool | None = None
    quota_rate: float | None = None
    quota_24h: float | None = None
    simulation: Simulation | None = None


def existing(row: Provider | None) -> Provider:
    """Return the row of a tenant that has a provider.

    Raises:
        RequestError: not_found.
    """
    if row is None or row.status is ProviderStatus.DELETED:
        raise _not_found()
    return row


def reserve(tenant_id: str, encrypted_external_id: bytes, now: datetime) -> Provider:
    """Return the row of a tenant that has not stored a config yet: it keeps the ExternalId only."""
    return Provider(
        tenant_id=tenant_id, status=ProviderStatus.DELETED, versions=0, encrypted_external_id=encrypted_external_id, updated_at=now
    )


def store(row: Provider, config: StoredConfig, now: datetime) -> Provider:
    """Make a config the candidate; it replaces an earlier candidate."""
    if config.version != row.versions + 1:
        raise ValueError("a config is stored under the next version")
    status = ProviderStatus.UNVERIFIED if row.status is ProviderStatus.DELETED else row.status
    return replace(row, status=status, versions=config.version, candidate=config, updated_at=now)


def to_verify(row: Provider | None) -> StoredConfig:
    """Return the config that a verify is about: the candidate, or the active one where there is none.

    Raises:
        RequestError: not_found.
    """
    config = existing(row).candidate or existing(row).active
    if config is None:
        raise _not_found()
    return config


def verify(row: Provider | None, version: int, passed: VerificationResult) -> Provider:
    """Make the version that passed the active config, or confirm that it is.

    Raises:
        RequestError: not_found, or provider_not_active where that version is not there any more.
    """
    row = existing(row)
    tested = _tested(row, version)
    status = ProviderStatus.SUSPENDED if row.at_risk else ProviderStatus.ACTIVE
    status = row.status if row.status is ProviderStatus.DISABLED else status
    # If the account does not tell now, an earlier answer does not count: the account may have left the sandbox since.
    sandbox: Sandbox = "unknown" if passed.sandbox is None else "true" if passed.sandbox else "false"
    return replace(
        row,
        status=status,
        active=replace(
            tested,
            account=passed.account or tested.account,
            quota_rate=passed.quota_rate,
            quota_24h=passed.quota_24h,
            error=None,
            simulation=passed.simulation or tested.simulation,
        ),
        candidate=None if tested is row.candidate else row.candidate,
        sandbox=sandbox,
        warnings=_warnings(row, tested, sandbox),
        verified_at=passed.at,
        updated_at=passed.at,
        error=row.error if row.at_risk else None,
        faulty_requests=frozenset(),
        release_at=passed.at if status is ProviderStatus.ACTIVE else row.release_at,
    )


def fail_verify(row: Provider | None, version: int, error: ErrorInfo, now: datetime) -> Provider:
    """Note why a version did not pass; the status stays as it was.

    Raises:
        RequestError: not_found, or provider_not_active where that version is not there any more.
    """
    row = existing(row)
    tested = replace(_tested(row, version), error=error)
    if row.candidate is not None and row.candidate.version == version:
        return replace(row, candidate=tested, updated_at=now)
    return replace(row, active=tested, updated_at=now)


def disable(row: Provider | None, now: datetime) -> Provider:
    """Stop sending, in any status.

    Raises:
        RequestError: not_found.
    """
    row = existing(row)
    return row if row.status is ProviderStatus.DISABLED else replace(row, status=ProviderStatus.DISABLED, updated_at=now)


def enable(row: Provider | None, now: datetime, resumption: Resumption | None = None) -> Provider:
    """Lift `disabled`; a provider that was suspended before is suspended again. With a resumption, lift one for the reputation too.

    Raises:
        RequestError: not_found; provider_not_active if a passing verify or a resumption is required.
    """
    row = existing(row)
    if row.at_risk and resumption is not None:
        row = replace(row, error=None, resumption=resumption, status=_resumed(row.status))
    if row.active is None or row.status is ProviderStatus.SUSPENDED:
        raise RequestError([Problem("", _lifted_by(row))], "provider_not_active", CODES[AT_RISK].hint if row.at_risk else None)
    if row.status is not ProviderStatus.DISABLED:
        return row
    if row.at_risk or len(row.faulty_requests) >= SUSPEND_AFTER:
        return replace(row, status=ProviderStatus.SUSPENDED, updated_at=now)
    return replace(row, status=ProviderStatus.ACTIVE, updated_at=now, release_at=now)


def _resumed(status: ProviderStatus) -> ProviderStatus:
    """Return the status that `enable` lifts."""
    return ProviderStatus.DISABLED if status is ProviderStatus.SUSPENDED else status


def _lifted_by(row: Provider) -> str:
    if row.at_risk:
        return "the provider is suspended for its reputation: {by, why} lifts that, and a verify alone does not"
    return f"the provider is {row.status}: a verify that passes lifts that"


def delete(row: Provider, now: datetime) -> Provider:
    """Return the tombstone: the version counter, the ExternalId, the time of the deletion, and the state of the reputation guard.

    A suspension for the reputation outlasts the config, until somebody resumes the tenant.
    """
    if row.status is ProviderStatus.DELETED:
        return row
    blank = reserve(row.tenant_id, row.encrypted_external_id, now)
    return replace(
        blank,
        versions=row.versions,
        deleted_at=now,
        release_at=now,
        has_suppressions=row.has_suppressions,
        error=row.error if row.at_risk else None,
        resumption=row.resumption,
        revision=row.revision,
    )


def erase(row: Provider) -> Provider:
    """Leave of a deleted row the version counter and when it was deleted.

    A version is never assigned twice, because caches and backups identify configs by it. The ExternalId is deleted: a later tenant with
    the same id must not get into the earlier tenant's account.
    """
    blank = reserve(row.tenant_id, b"", row.updated_at)
    return replace(
        blank,
        versions=row.versions,
        deleted_at=row.deleted_at,
        release_at=row.release_at,
        has_suppressions=row.has_suppressions,
        revision=row.revision,
    )


def _not_found() -> RequestError:
    return RequestError([Problem("", "the tenant has no provider; PUT …/provider stores one")], "not_found")


def _tested(row: Provider, version: int) -> StoredConfig:
    for config in (row.candidate, row.active):
        if config is not None and config.version == version:
            return config
    raise RequestError([Problem("", "another config was stored while this one was tested; verify again")], "provider_not_active")


def _warnings(row: Provider, tested: StoredConfig, sandbox: Sandbox) -> tuple[str, ...]:
    if tested.provider != "ses":
        return ()
    first = () if row.verified_at else (SANDBOX_MAY_BE,)
    return (*first, *((SANDBOX_IS.format(region=tested.region),) if sandbox == "true" else ()))
