"""Credentials of a tenant's config: its access key, or a session of its role.

A role is assumed with the tenant's ExternalId and a session policy that allows only what sending needs; the tenant's own policy still
decides. The session's name appears in the tenant's CloudTrail.
"""

import json
import random
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError

from mailer.adapters.aws import UNREADABLE
from mailer.adapters.providers.shared_cache import SharedCache
from mailer.adapters.single_flight_cache import SingleFlightCache
from mailer.domain.errors import DependencyError, ErrorInfo, NotSentError
from mailer.domain.provider import AccessKeyConfig, RoleConfig
from mailer.ports import Clock

if TYPE_CHECKING:
    from mypy_boto3_sts import STSClient

SESSION_SECONDS = 3600
"""AWS's limit for a role that is assumed by a role."""

RENEW_BEFORE = timedelta(minutes=5)
"""How long before its expiry a session is used no more: no call may last longer."""

RENEW_EARLY = timedelta(minutes=10)
"""From when on before its expiry a session may be renewed by one thread, while the others still use it. The moment is random, for each
sandbox and tenant another: the first sandbox asks STS, the others find its session shared."""

_LAST_EARLY = timedelta(minutes=6)

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

_OVERHEAD = 700
"""Bytes of a cached session besides its texts. A test measures it."""

_A_FEW = 4 * 1024 * 1024
"""Bytes for the sessions of a function that need not have many."""


class CredentialSource(Protocol):
    """The credentials of one version of a tenant's config."""

    def prepare(self) -> None:
        """Get credentials before they are needed, and others for those that expire soon. Raises as `current`."""
        ...

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

    def prepare(self) -> None:
        """Do nothing: the key is there."""

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
    since: datetime | None = None
    """When its config was last verified; sessions from before are of another assumption."""

    digest: bytes = field(init=False, repr=False)
    """Of all of it: a session is for exactly that."""

    def __post_init__(self) -> None:
        since = self.since.isoformat() if self.since else None
        parts = (self.tenant_id, self.version, self.role_arn, self.external_id, since)
        object.__setattr__(self, "digest", sha256(json.dumps(parts).encode()).digest())


@dataclass(frozen=True, slots=True)
class _Session:
    """A session with a role."""

    credentials: ReadOnlyCredentials = field(repr=False)
    until: datetime
    renew_at: datetime

    @classmethod
    def of(cls, begun: Mapping[str, str], until: datetime) -> "_Session":
        """Make one of STS's words for it."""
        early = RENEW_EARLY - random.random() * (RENEW_EARLY - _LAST_EARLY)  # noqa: S311  # it spreads calls
        return cls(ReadOnlyCredentials(*(begun[name] for name in _PARTS)), until, until - early)

    def shown(self) -> bytes:
        """Return its secrets, to be encrypted."""
        return json.dumps(dict(zip(_PARTS, self.credentials, strict=False))).encode()


_PARTS = ("AccessKeyId", "SecretAccessKey", "SessionToken")


@dataclass(frozen=True, slots=True)
class RoleCredentials:
    """The credentials of a role: one session after the other."""

    roles: "AssumedRoles"
    assumption: RoleAssumption

    def prepare(self) -> None:
        """Have a session."""
        self.roles.prepare(self.assumption)

    def current(self) -> ReadOnlyCredentials:
        """Return the session's credentials; of a new session if there is none that a call cannot outlive."""
        return self.roles.session(self.assumption)

    def renewed(self, expired: ReadOnlyCredentials) -> ReadOnlyCredentials:
        """Start a new session, unless another thread has done so already."""
        return self.roles.renewed(self.assumption, expired)


class AssumedRoles:
    """Assumes tenants' roles, once per tenant and version even if many threads ask, and caches the sessions until they expire."""

    def __init__(
        self,
        sts: Callable[[], "STSClient"],
        *,
        own_account: str,
        platform: str,
        clock: Clock,
        shared: SharedCache | None = None,
        size: int = _A_FEW,
    ) -> None:
        """`sts` returns a client of the function's own region: sessions of a regional endpoint are valid in every region.

        `shared` has the sessions that other sandboxes have begun; `size` is the memory that sessions may take, in bytes.
        """
        self._sts = sts
        self._own_account = own_account
        self._platform = platform
        self._clock = clock
        self._shared = shared
        self._sessions: SingleFlightCache[bytes, _Session] = SingleFlightCache(size, clock.now, _weight)
        self._replaced: set[bytes] = set()
        """Digests whose shared session AWS has called expired: the one in its place is still to be shared."""

    def prepare(self, assumption: RoleAssumption) -> None:
        """Have a session ready for a call: one that another sandbox has begun, or a new one, also where the old one expires soon.

        Raises:
            NotSentError: role_not_assumable.
            DependencyError: STS did not do its part.
        """
        session = self._sessions.get(assumption.digest, lambda: self._shared_or_new(assumption), _usable_until, _renew_at)
        if self._shared and assumption.digest in self._replaced:
            self._replaced.discard(assumption.digest)
            self._shared.keep(_SHARED, self._shared_as(assumption), session.shown(), session.until)

    def session(self, assumption: RoleAssumption) -> ReadOnlyCredentials:
        """Return the credentials of the session that is ready; begins one if there is none, without a look at the shared ones.

        Raises:
            NotSentError: role_not_assumable.
            DependencyError: STS did not do its part.
        """
        return self._ready(assumption).credentials

    def _ready(self, assumption: RoleAssumption) -> _Session:
        ready = self._sessions.find(assumption.digest)
        return ready or self._sessions.get(assumption.digest, lambda: self._begin(assumption), _usable_until, _renew_at)

    def renewed(self, assumption: RoleAssumption, expired: ReadOnlyCredentials) -> ReadOnlyCredentials:
        """Return the credentials of another session than the expired one; raises as `session`."""
        ready = self._ready(assumption)
        if ready.credentials == expired:
            self._sessions.forget(assumption.digest, ready)
            if self._shared:
                self._replaced.add(assumption.digest)
        return self._ready(assumption).credentials

    def _shared_or_new(self, assumption: RoleAssumption) -> _Session:
        if self._shared is None:
            return self._begin(assumption)
        found = self._shared.find(_SHARED, self._shared_as(assumption))
        if found and found.until - RENEW_EARLY > self._clock.now():
            return _Session.of(json.loads(found.plaintext), found.until)
        begun = self._begin(assumption)
        self._shared.keep(_SHARED, self._shared_as(assumption), begun.shown(), begun.until)
        return begun

    def _shared_as(self, assumption: RoleAssumption) -> bytes:
        """Return what a shared session is bound to: its rights and name too, which may be others in another version of this service."""
        return sha256(b"\0".join((assumption.digest, self._platform.encode(), SESSION_POLICY.encode()))).digest()

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

    def _begin(self, assumption: RoleAssumption) -> _Session:
        self._refuse_own(assumption.role_arn)
        name = f"{self._platform}-{assumption.tenant_id}-v{assumption.version}"
        return self._assume(assumption.role_arn, name, {"ExternalId": assumption.external_id})

    def _refuse_own(self, role_arn: str) -> None:
        """Refuse to assume a role of our own account for a tenant; IAM denies it too."""
        if role_arn.split(":")[4] == self._own_account:
            raise NotSentError(ErrorInfo("role_not_assumable", "the role is one of this service's own AWS account", _OTHER_ROLE))

    def _assume(self, role_arn: str, session_name: str, claim: Mapping[str, str]) -> _Session:
        with _sts_errors():
            answer = self._sts().assume_role(
                RoleArn=role_arn,
                RoleSessionName=re.sub(r"[^\w+=,.@-]", "-", session_name, flags=re.ASCII)[:64],
                Policy=SESSION_POLICY,
                DurationSeconds=SESSION_SECONDS,
                **claim,  # type: ignore[arg-type]  # ExternalId, a str, or nothing at all
            )
            begun = answer["Credentials"]
            return _Session.of({name: begun[name] for name in _PARTS}, begun["Expiration"])  # type: ignore[literal-required]  # see _PARTS


_SHARED = "session"


def _usable_until(session: _Session) -> datetime:
    return session.until - RENEW_BEFORE


def _renew_at(session: _Session) -> datetime:
    return session.renew_at


def _weight(_: bytes, session: _Session) -> int:
    return _OVERHEAD + len(session.shown())


_DENIED_TO_US = re.compile(r"identity-based policy|permissions boundary|service control policy", re.IGNORECASE | re.ASCII)
"""AWS names these if our own role may not assume the tenant's: not the tenant's fault, and no reason to suspend all tenants."""


_OTHER_ROLE = "Tenant: store the ARN of a role of your own AWS account, as IAM shows it (PUT …/provider)."


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
            raise NotSentError(ErrorInfo("role_not_assumable", "STS does not accept the role's ARN", _OTHER_ROLE)) from error
        if code == "RegionDisabledException":
            remediation = "Tenant: activate STS in this service's region (IAM console, Account settings), or store an access key."
            raise NotSentError(
                ErrorInfo("role_not_assumable", "the role's account has deactivated STS in our region", remediation)
            ) from error
        raise DependencyError("STS", f"AssumeRole ({code})") from error
    except (BotoCoreError, *UNREADABLE) as error:
        raise DependencyError("STS", f"AssumeRole ({type(error).__name__})") from error
