"""A tenant's provider: its configs, the row that has them encrypted, and whether the tenant's mail may be sent."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator

from mailer.domain.errors import ErrorInfo, Problem, RequestError
from mailer.domain.message import Address, DisplayName
from mailer.domain.regions import SES_REGIONS, partition_of
from mailer.domain.statistics import Counts
from mailer.domain.wire import WireModel, fault, load_object, matching, parse

ProviderType = Literal["ses", "smtp"]
Tls = Literal["none", "starttls", "implicit"]
Sandbox = Literal["true", "false", "unknown"]

SUSPEND_AFTER = 3
"""Distinct requests with tenant-class errors that suspend a version."""


def _secret(pattern: str, allowed: str) -> AfterValidator:
    """Make a validator for a secret that matches the whole pattern; `allowed` says in words what that is."""
    compiled = re.compile(pattern)

    def check(secret: SecretStr) -> SecretStr:
        if not compiled.fullmatch(secret.get_secret_value()):
            raise fault(f"must be {allowed}")
        return secret

    return AfterValidator(check)


_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"

# IAM documents 16 to 128 word characters; local AWSes also take a bare account id, of 12 digits.
AccessKeyId = Annotated[
    str,
    matching(
        "(?!ASIA)[A-Za-z0-9_]{12,128}",
        "the id of a long-term access key (AKIA…); a temporary one (ASIA…) needs a session token to work",
        longest=128,
    ),
    Field(repr=False),
]
SecretKey = Annotated[SecretStr, Field(max_length=256), _secret("[!-~]{1,256}", "the secret as AWS showed it: no spaces, no line breaks")]
# Any partition; a path has slashes around its parts.
RoleArn = Annotated[
    str,
    matching(
        "arn:aws[a-z0-9-]{0,20}:iam::[0-9]{12}:role/(?:[!-.0-~]{1,128}/){0,16}[A-Za-z0-9_+=,.@-]{1,64}",
        "the ARN of an IAM role: arn:aws:iam::123456789012:role/name",
        longest=2_048,
    ),  # STS takes no longer one
]
Region = Annotated[
    str,
    matching(
        "|".join(name for names in SES_REGIONS.values() for name in names),
        "an AWS region that has Amazon SES, such as eu-west-1",
        longest=max(len(name) for names in SES_REGIONS.values() for name in names),
    ),
]
ConfigurationSet = Annotated[str, matching("[A-Za-z0-9_-]{1,64}", "1 to 64 letters, digits, hyphens and underscores", longest=64)]
# Recipients per second: from one in a quarter of an hour (DynamoDB takes no number close to zero) to far more than SES allows.
MaxSendRate = Annotated[float, Field(strict=True, ge=0.001, le=100_000, allow_inf_nan=False)]
Host = Annotated[
    str, matching(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*|[0-9a-fA-F:.]{{2,45}}", "a host name or an IP address", longest=253)
]
Login = Annotated[str, matching("[ -~]{1,256}", "1 to 256 printable ASCII characters", longest=256)]
Password = Annotated[SecretStr, Field(max_length=256), _secret("[ -~]{1,256}", "1 to 256 printable ASCII characters")]


class _Config(WireModel):
    """The fields of every config: the sender."""

    from_address: Address
    from_name: DisplayName

    def plaintext(self) -> bytes:
        """Return the JSON that is encrypted: the one place where the secrets are revealed."""
        fields = self.model_dump(by_alias=True, exclude_none=True)
        revealed = {name: v.get_secret_value() if isinstance(v, SecretStr) else v for name, v in fields.items()}
        return json.dumps(revealed, separators=(",", ":")).encode()


class _SesConfig(_Config):
    """The fields of both kinds of SES config."""

    region: Region
    configuration_set: ConfigurationSet | None = None
    max_send_rate: MaxSendRate | None = None
    """Recipients per second."""


class AccessKeyConfig(_SesConfig):
    """An access key of an IAM user in the tenant's AWS account."""

    access_key_id: AccessKeyId
    secret_access_key: SecretKey

    def shown(self) -> Mapping[str, str]:
        """Return what may be stored in clear of the credentials."""
        return {"type": "accessKey", "accessKeyId": f"…{self.access_key_id[-4:]}"}


class RoleConfig(_SesConfig):
    """A role in the tenant's AWS account that this service may assume with the tenant's ExternalId."""

    role_arn: Annotated[RoleArn, Field(repr=False)]

    @field_validator("role_arn")
    @classmethod
    def _is_of_the_regions_partition(cls, role_arn: str, info: ValidationInfo) -> str:
        partition = partition_of(info.data.get("region", ""))
        if "region" in info.data and role_arn.split(":")[1] != partition:
            raise fault(f"must be of the region's own AWS partition: arn:{partition}:…")
        return role_arn

    @property
    def partition(self) -> str:
        """The AWS partition that the role is of."""
        return self.role_arn.split(":")[1]

    @property
    def account(self) -> str:
        """The id of the AWS account that the role is of."""
        return self.role_arn.split(":")[4]

    def shown(self) -> Mapping[str, str]:
        """Return what may be stored in clear: neither ARN nor ExternalId, which are all that is needed besides our own role's rights."""
        return {"type": "role"}


class AssumableRole(RoleConfig):
    """A role as it is encrypted, with its ExternalId."""

    external_id: Annotated[str, Field(min_length=2, max_length=1224, repr=False)]

    @classmethod
    def of(cls, config: RoleConfig, external_id: str) -> "AssumableRole":
        """Add the tenant's ExternalId to what it stored."""
        return cls(**dict(config), external_id=external_id)

    def disclosed(self) -> Mapping[str, str]:
        """Return what the provider API shows of the credentials."""
        return {"type": "role", "roleArn": self.role_arn, "externalId": self.external_id}


def _tls(value: Any) -> Any:
    """Take true for STARTTLS and false for none, as many SMTP clients do."""
    return {True: "starttls", False: "none"}[value] if isinstance(value, bool) else value


class SmtpConfig(_Config):
    """An SMTP server, on development stacks: Mailpit and its like."""

    host: Host
    port: Annotated[int, Field(strict=True, ge=1, le=65535)]
    username: Login | None = None
    password: Password | None = None
    tls: Annotated[Tls, BeforeValidator(_tls, json_schema_input_type=Tls | bool)] = "none"

    @model_validator(mode="after")
    def _login_is_whole(self) -> "SmtpConfig":
        if (self.username is None) != (self.password is None):
            raise fault("must have both username and password, or neither")
        return self

    def shown(self) -> Mapping[str, str]:
        """Return what may be stored in clear of the credentials."""
        return {"type": "smtp", "host": f"{self.host}:{self.port}"}


SesConfig = AccessKeyConfig | RoleConfig
ProviderConfig = AccessKeyConfig | RoleConfig | SmtpConfig
"""As a caller stores it."""
DecryptedConfig = AccessKeyConfig | AssumableRole | SmtpConfig
"""As it is encrypted and decrypted."""


class ProviderPut(WireModel):
    """What a caller stores."""

    provider: ProviderType
    config: ProviderConfig


class _AccessKeyPut(ProviderPut):
    config: AccessKeyConfig


class _RolePut(ProviderPut):
    config: RoleConfig


class _SmtpPut(ProviderPut):
    config: SmtpConfig


def parse_put(body: str | bytes) -> tuple[ProviderType, ProviderConfig]:
    """Read what a caller stores: `{"provider": …, "config": …}`.

    Raises:
        RequestError: names every faulty field.
    """
    document, unreadable = load_object(body)
    config = document.get("config")
    given = frozenset(config) if isinstance(config, dict) else frozenset()
    if "roleArn" in given and given & {"accessKeyId", "secretAccessKey"}:
        raise RequestError([Problem("config", "must have either accessKeyId and secretAccessKey, or roleArn")])
    ses = _RolePut if "roleArn" in given else _AccessKeyPut
    model: type[ProviderPut] = _SmtpPut if document.get("provider") == "smtp" else ses
    put = parse(model, document, unreadable)
    return put.provider, put.config


def parse_config(provider_type: ProviderType, plaintext: str | bytes) -> DecryptedConfig:
    """Read a config as `plaintext` wrote it.

    Raises:
        RequestError: names every faulty field.
    """
    document, unreadable = load_object(plaintext)
    model: type[DecryptedConfig] = SmtpConfig if provider_type == "smtp" else AssumableRole if "roleArn" in document else AccessKeyConfig
    return parse(model, document, unreadable)


class ProviderStatus(StrEnum):
    """The status of a tenant's provider record; `deleted` marks the tombstone that DELETE leaves."""

    UNVERIFIED = "unverified"
    ACTIVE = "active"
    DISABLED = "disabled"
    SUSPENDED = "suspended"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """A bounce and a complaint that `verify` had SES's mailbox simulator make, and when SES's events of them came."""

    started_at: datetime
    """Also the simulation's id: its mails are tagged with it, so that events of an earlier one do not count for it."""
    bounce_reported_at: datetime | None = None
    complaint_reported_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredConfig:
    """One version of a tenant's config as it is stored: some fields in clear, the rest encrypted."""

    provider: ProviderType
    version: int
    ciphertext: bytes = field(repr=False)
    """AWS Encryption SDK message over the config's JSON, bound to {tenant_id, provider, version}."""
    region: str
    """Of SES; empty for SMTP."""
    from_address: str
    from_name: str
    credentials: Mapping[str, str]
    """In clear: {"type": "accessKey", "accessKeyId": "…last 4"} or {"type": "role"}, whose ARN and ExternalId are encrypted."""
    configuration_set: str | None = None
    max_send_rate: float | None = None
    """Recipients per second, as the config says."""
    account: str | None = None
    """The sending AWS account's id, from the role's ARN or learned by verify; tenants that share it are paced together."""
    quota_rate: float | None = None
    """Recipients per second, from GetSendQuota at verify; None: the tenant's policy does not allow that call."""
    quota_24h: float | None = None
    """Recipients in 24 hours, from GetSendQuota at verify; None: as above."""
    error: ErrorInfo | None = None
    """Why its last verify failed."""
    feedback_at: datetime | None = None
    """When the last SES event of its mail arrived, to HEARD_EVERY."""
    unheard_since: datetime | None = None
    """When it sent the first mail since its last event."""
    silent_since: datetime | None = None
    """When it had sent for SILENT_AFTER without an event."""
    simulation: Simulation | None = None
    """The last one that verify started."""


@dataclass(frozen=True, slots=True)
class Resumption:
    """The resumption of a provider that the reputation guard suspended; the guard judges only what is counted after it."""

    by: str
    why: str
    at: datetime
    principal: str | None = None
    """The ARN of the IAM identity that called; `by` may name somebody else."""
    answered: Counts | None = None
    """The counts of that hour at the resumption, which are not judged again; None: not known, and the whole hour is not judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A tenant's provider row: at most one active config and one candidate beside it."""

    tenant_id: str
    status: ProviderStatus
    versions: int
    """The highest version ever assigned; never reused, also after DELETE."""
    encrypted_external_id: bytes = field(repr=False)
    """The ExternalId that a role's trust policy must require: made once per tenant, never changed, encrypted as a config is."""
    active: StoredConfig | None = None
    candidate: StoredConfig | None = None
    sandbox: Sandbox = "unknown"
    verified_at: datetime | None = None
    updated_at: datetime
    updated_by: str | None = None
    """The ARN of the IAM identity whose call changed it last; None where the service did."""
    deleted_at: datetime | None = None
    """When the provider was last deleted; kept when another is stored, because requests from before then are not sent."""
    warnings: tuple[str, ...] = ()
    error: ErrorInfo | None = None
    """What suspended it."""
    faulty_requests: frozenset[str] = frozenset()
    """Distinct requests that met a tenant-class error under the active version since the last success; at most SUSPEND_AFTER."""
    resumption: Resumption | None = None
    release_at: datetime | None = None
    """When its waiting mail was last released; None once the sweeper has requeued all of it."""
    has_suppressions: bool = False
    """Whether the tenant ever had a suppression: marked before the first is written, as mail of others is sent without a look-up."""
    revision: int = 0
    """Counts the writes to the row: a row can only be replaced by a writer that has read its latest revision."""

    @property
    def at_risk(self) -> bool:
        """Whether the reputation guard suspended it and nobody has resumed it since; also while it is disabled or deleted."""
        return self.error is not None and self.error.code == AT_RISK


AT_RISK = "reputation_at_risk"


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why a tenant's mail does not go out now, and whether it waits for that to change or fails."""

    error: ErrorInfo
    waits: bool


_NOT_CONFIGURED = Blocked(ErrorInfo("provider_not_configured", "the tenant has no mail provider"), waits=False)
_DELETED = Blocked(ErrorInfo("provider_deleted", "the tenant's mail provider was deleted"), waits=False)
_NEVER_VERIFIED = Blocked(ErrorInfo("provider_not_active", "the tenant's mail provider was never verified"), waits=False)
_ENABLE = "Tenant: switch the provider on again (POST …/provider/enable); waiting mail then goes out by itself."
_DISABLED = Blocked(ErrorInfo("provider_not_active", "the tenant's mail provider is disabled", _ENABLE), waits=True)


def sending_state(provider: Provider | None, requested_at: datetime | None = None) -> StoredConfig | Blocked:
    """Return the config to send with, or why the tenant's mail is blocked.

    `requested_at` is when the request was made: DELETE fails requests from before it, even if another provider has been stored since.
    Without it the request counts as one from before.
    """
    if provider is None:
        return _NOT_CONFIGURED
    if provider.deleted_at and (requested_at or provider.deleted_at) <= provider.deleted_at:
        return _DELETED
    if provider.active is None:
        return _NOT_CONFIGURED if provider.status is ProviderStatus.DELETED else _NEVER_VERIFIED
    match provider.status:
        case ProviderStatus.SUSPENDED:
            return Blocked(provider.error or ErrorInfo("provider_not_active", "the tenant's mail provider is suspended"), waits=True)
        case ProviderStatus.DISABLED:
            return _DISABLED
        case _:
            return provider.active
