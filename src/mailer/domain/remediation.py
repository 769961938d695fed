"""Add remediation to a tenant's error, exact for its config: the statement to attach, the identity to verify, the page to open.

A role's ARN, its ExternalId and its trust policy appear only in answers of the provider API: records, events and log lines are read by
others than the tenant's managers.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from mailer.domain.addresses import ascii_address
from mailer.domain.errors import ErrorInfo
from mailer.domain.large_mail import SMALL_BYTES
from mailer.domain.onboarding import Platform, console_page, large_statement, send_statement, trust_policy
from mailer.domain.provider import AssumableRole, Provider, StoredConfig


@dataclass(frozen=True, slots=True)
class Disclosed:
    """A tenant's role, decrypted for an answer of the provider API, and the platform that it must trust."""

    role: AssumableRole
    platform: Platform


@dataclass(frozen=True, slots=True)
class _Case:
    config: StoredConfig
    disclosed: Disclosed | None
    rights: tuple[str, ...]

    @property
    def domain(self) -> str:
        return ascii_address(self.config.from_address).rpartition("@")[2]

    @property
    def holder(self) -> str:
        """Return the IAM identity that needs the rights, as the tenant finds it in IAM."""
        shown = self.config.credentials
        if shown["type"] != "role":
            return f"the IAM user of the access key {shown['accessKeyId']}"
        return f"the role {self.disclosed.role.role_arn}" if self.disclosed else "the role of the config"


def provider_with_remediation(row: Provider) -> Provider:
    """Add to what suspended a provider the remediation that fits its config."""
    return replace(row, error=with_remediation(row.error, row)) if row.error else row


def with_remediation(error: ErrorInfo, row: Provider | None) -> ErrorInfo:
    """Add to an error of a tenant's mail the remediation that fits the config it was sent with."""
    return add_remediation(error, row.active) if row and row.active else error


def add_remediation(error: ErrorInfo, config: StoredConfig, disclosed: Disclosed | None = None) -> ErrorInfo:
    """Add to an error the remediation that fits the tenant's config; one that it already has is kept."""
    remediate = _REMEDIATIONS.get(error.code)
    if error.remediation or remediate is None or config.provider != "ses":
        return error
    try:
        return replace(error, remediation=remediate(_Case(config, disclosed, error.rights)))
    except (LookupError, ValueError):  # a later version wrote the config; the code has a hint of its own
        return error


def _credentials_denied(case: _Case) -> str:
    statement = large_statement(case.config, case.rights) if case.rights else send_statement(case.config)
    why = f" for mails of more than {SMALL_BYTES} bytes, which wait until it is there" if case.rights else ""
    return f"Tenant: attach this statement to {case.holder}{why}: {json.dumps(statement)}"


def _credentials_invalid(case: _Case) -> str:
    if case.config.credentials["type"] == "role":
        return (
            f"Tenant: AWS does not take the session of {case.holder} in {case.config.region}. Enable that region in the account (AWS"
            " console, Account, AWS Regions), or store a config of another region (PUT …/provider)."
        )
    return (
        f"Tenant: {case.holder} is unknown, inactive, or its secret is another. Make a new key (IAM console, Users, Security credentials)"
        " and store it (PUT …/provider)."
    )


def _role_not_assumable(case: _Case) -> str | None:
    if case.disclosed is None:
        return None
    role, platform = case.disclosed.role, case.disclosed.platform
    return (
        f"Tenant: make this the trust policy of {role.role_arn}, which must exist: {json.dumps(trust_policy(platform, role.external_id))}"
    )


def _from_address_not_verified(case: _Case) -> str:
    region, address = case.config.region, ascii_address(case.config.from_address)
    return (
        f"Tenant: verify {address} or {case.domain} in SES in {region}, where the config sends from: {console_page(region, 'identities')}"
    )


def _mail_from_not_verified(case: _Case) -> str:
    page = console_page(case.config.region, f"identities/{case.domain}")
    return f"Tenant: publish the MX record of the custom MAIL FROM domain of {case.domain}, or take that domain off: {page}"


def _configuration_set_missing(case: _Case) -> str | None:
    region, name = case.config.region, case.config.configuration_set
    if name is None:
        return None
    page = console_page(region, "configuration-sets")
    return f"Tenant: make the configuration set {name} in {region} ({page}), or store a config without it (PUT …/provider)."


def _account_paused(case: _Case) -> str:
    page = console_page(case.config.region, "reputation")
    return f"Tenant: SES has paused this account in {case.config.region}; see why, and answer AWS: {page}"


def _sandbox(case: _Case) -> str:
    page = console_page(case.config.region, "account")
    return f"Tenant: the account is in the sandbox in {case.config.region}. Request production access ({page}), or verify the recipient."


_REMEDIATIONS: Mapping[str, Callable[[_Case], str | None]] = {
    "credentials_denied": _credentials_denied,
    "credentials_invalid": _credentials_invalid,
    "role_not_assumable": _role_not_assumable,
    "from_address_not_verified": _from_address_not_verified,
    "mail_from_not_verified": _mail_from_not_verified,
    "configuration_set_missing": _configuration_set_missing,
    "account_paused": _account_paused,
    "sandbox_recipient_not_verified": _sandbox,
}
