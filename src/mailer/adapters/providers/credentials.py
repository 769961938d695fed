"""Credentials of a tenant's config: its access key, or a session of its role.

A role is assumed with the tenant's ExternalId and a session policy that allows only what sending needs; the tenant's own policy still
decides. The session's name appears in the tenant's CloudTrail.
"""

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError

from mailer.adapters.aws import UNREADABLE
from mailer.adapters.single_flight_cache import SingleFlightCache
from mailer.domain.errors import DependencyError, ErrorInfo, NotSentError
from mailer.domain.provider import AccessKeyConfig, RoleConfig
from mailer.ports import Clock

if TYPE_CHECKING:
    from mypy_boto3_sts import STSClient

SESSION_SECONDS = 3600
"""AWS's limit for a role that is assumed by a role."""

RENEW_BEFORE = timedelta(minutes=5)
"""How long before its expiry a session is replaced: no call may last longer."""

SESSION_POLICY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": [
                    "ses:SendRawEmail",
                    "ses:SendEmail",
                    "ses:GetSendQuota",
                    "ses:GetAccount",
                    "ses:GetSuppressedDestination",
                    "ses:DeleteSuppressedDestination",
                ],
                "Resource": "*",
            }
        ],
    },
    separators=(",", ":"),
)

_SESSIONS_KEPT = 5000  # about 2 KB each


class CredentialSource(Protocol):
    """The credentials of one version of a tenant's config."""

    def current(self) -> ReadOnlyCredentials:
        """Return credentials that are good for some minutes.

        Raises:
            NotSentError: role_not_assumable.
            DependencyError: STS did not do its part.
        """
        ...

    def renewed(self, expired: ReadOnlyCredentials) -> ReadOnlyCredentials | None:
        """Return new credentials, because AWS considers these expired; None if there can be no others. Raises as `current`."""
        ...


@dataclass(frozen=True, slots=True)
class StaticCredentials:
    """An access key, good until the tenant deletes it."""

    config: AccessKeyConfig

    def current(self) -> ReadOnlyCredentials:
        """Return the access key, its secret revealed for signing."""
        return ReadOnlyCredentials(self.config.access_key_id, self.config.secret_access_key.get_secret_value(), None)

    def renewed(self, expired: ReadOnlyCredentials) -> None:  # noqa: ARG002  # the Protocol's
        """Return None: there is no other key."""
        return


@dataclass(frozen=True, slots=True)
class RoleAssumption:
    """A role, and the tenant that it is assumed for."""

    tenant_id: str
    version: int
    role_arn: str = field(repr=False)
    external_id: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RoleCredentials:
    """The credentials of a role: one session after the other."""

    roles: "AssumedRoles"
    assumption: RoleAssumption

    def current(self) -> ReadOnlyCredentials:
        """Return the session's credentials; of a new session if the old one expires soon."""
        return self.roles.session(self.assumption)

    def renewed(self, expired: ReadOnlyCredentials) -> ReadOnlyCredentials:
        """Start a new session, unless another thread has done so already."""
        return self.roles.renewed(self.assumption, expired)


class AssumedRoles:
    """Assumes tenants' roles, once per tenant and version even if many threads ask, and caches the sessions until they expire."""

    def __init__(self, sts: Callable[[], "STSClient"], *, own_account: str, platform: str, clock: Clock) -> None:
        """`sts` returns a client of the function's own region: sessions of a regional endpoint are valid in every region."""
        self._sts = sts
        self._own_account = own_account
        self._platform = platform
        self._sessions: SingleFlightCache[RoleAssumption, tuple[ReadOnlyCredentials, datetime]] = SingleFlightCache(
            _SESSIONS_KEPT, clock.now
        )

    def session(self, assumption: RoleAssumption) -> ReadOnlyCredentials:
        """Return the credentials of a session with the role.

        Raises:
            NotSentError: role_not_assumable.
            DependencyError: STS did not do its part.
        """
        return self._session(assumption)[0]

    def _session(self, assumption: RoleAssumption) -> tuple[ReadOnlyCredentials, datetime]:
        return self._sessions.get(assumption, lambda: self._begin(assumption), lambda begun: begun[1] - RENEW_BEFORE)

    def renewed(self, assumption: RoleAssumption, expired: ReadOnlyCredentials) -> ReadOnlyCredentials:
        """Return the credentials of another session than the expired one; raises as `session`."""
        kept = self._session(assumption)
        if kept[0] == expired:
            self._sessions.forget(assumption, kept)
        return self.session(assumption)

    def refuses_foreign_external_id(self, config: RoleConfig) -> bool:
        """Return whether the role's trust policy refuses both a wrong ExternalId and none; else anyone could make us send as this tenant.

        Raises:
            NotSentError: role_not_assumable: the role is one of our own account.
            DependencyError: STS did not answer.
        """
        self._refuse_own(config.role_arn)
        wrong = {"ExternalId": f"not-{secrets.token_hex(16)}"}
        return all(self._is_refused(config.role_arn, claim) for claim in (wrong, {}))

    def _is_refused(self, role_arn: str, claim: Mapping[str, str]) -> bool:
        try:
            self._assume(role_arn, f"{self._platform}-trust-policy-check", claim)
        except NotSentError:
            return True
        return False

    def _begin(self, assumption: RoleAssumption) -> tuple[ReadOnlyCredentials, datetime]:
        self._refuse_own(assumption.role_arn)
        name = f"{self._platform}-{assumption.tenant_id}-v{assumption.version}"
        return self._assume(assumption.role_arn, name, {"ExternalId": assumption.external_id})

    def _refuse_own(self, role_arn: str) -> None:
        """Refuse to assume a role of our own account for a tenant; IAM denies it too."""
        if role_arn.split(":")[4] == self._own_account:
            raise NotSentError(ErrorInfo("role_not_assumable", "the role is one of this service's own AWS account"))

    def _assume(self, role_arn: str, session_name: str, claim: Mapping[str, str]) -> tuple[ReadOnlyCredentials, datetime]:
        with _sts_errors():
            answer = self._sts().assume_role(
                RoleArn=role_arn,
                RoleSessionName=re.sub(r"[^\w+=,.@-]", "-", session_name, flags=re.ASCII)[:64],
                Policy=SESSION_POLICY,
                DurationSeconds=SESSION_SECONDS,
                **claim,  # type: ignore[arg-type]  # ExternalId, a str, or nothing at all
            )
            begun = answer["Credentials"]
            return ReadOnlyCredentials(begun["AccessKeyId"], begun["SecretAccessKey"], begun["SessionToken"]), begun["Expiration"]


_DENIED_TO_US = re.compile(r"identity-based policy|permissions boundary|service control policy", re.IGNORECASE | re.ASCII)
"""AWS names these if our own role may not assume the tenant's: not the tenant's fault, and no reason to suspend all tenants."""


@contextmanager
def _sts_errors() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        details = error.response.get("Error", {})
        code, text = details.get("Code", ""), details.get("Message", "")
        if code == "AccessDenied" and not _DENIED_TO_US.search(text):
            raise NotSentError(ErrorInfo("role_not_assumable", "the role's trust policy does not admit this service")) from error
        if code == "ValidationError":
            raise NotSentError(ErrorInfo("role_not_assumable", "STS does not accept the role's ARN")) from error
        if code == "RegionDisabledException":
            remediation = "Tenant: activate STS in this service's region (IAM console, Account settings), or store an access key."
            raise NotSentError(
                ErrorInfo("role_not_assumable", "the role's account has deactivated STS in our region", remediation)
            ) from error
        raise DependencyError("STS", f"AssumeRole ({code})") from error
    except (BotoCoreError, *UNREADABLE) as error:
        raise DependencyError("STS", f"AssumeRole ({type(error).__name__})") from error
