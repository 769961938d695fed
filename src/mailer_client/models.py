"""The API's answers as frozen dataclasses; docs/openapi.json describes each under the same name.

Their fields are the JSON's in snake_case. Unknown fields, of a later version of the API, are ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

Model = TypeVar("Model")


class Status(StrEnum):
    """The status of a send request; the last four are ends."""

    QUEUED = "queued"
    DEFERRED = "deferred"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"


END_STATUSES = frozenset({Status.SENT, Status.FAILED, Status.UNKNOWN, Status.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """Why a request failed or waits; `hint` says who must do what."""

    code: str
    message: str
    retryable: bool
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolutionRecord:
    """How an operator settled an `unknown`; `principal` is the ARN of the IAM identity that called, `by` whom it named."""

    outcome: Literal["sent", "resend"]
    by: str
    why: str
    at: datetime
    principal: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """SES's reports of a sent mail: recipients by status, each counted once."""

    delivered: int
    delayed: int
    bounced: int
    soft_bounced: int
    complained: int
    rejected: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRecord:
    """The state of a request; `attempts` counts the times it was handed to SES."""

    tenant_id: str
    request_id: str
    status: Status
    provider: str
    message_id: str | None
    attempts: int
    recipients: int
    error: Error | None
    created_at: datetime
    updated_at: datetime
    sent_at: datetime | None
    on_unknown: Literal["hold", "resend"]
    feedback: Feedback | None
    suppressed: int
    due_at: datetime | None = None
    resolution: ResolutionRecord | None = None
    cancelled_by: str | None = None

    @property
    def ended(self) -> bool:
        """Whether it has ended; an `unknown` with `due_at` has not, because it is sent again."""
        return self.status in END_STATUSES and not (self.status is Status.UNKNOWN and self.due_at is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusPage:
    """A page of records, newest first; `cursor` leads to the next one and is None on the last."""

    messages: list[StatusRecord]
    cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemAt:
    """One fault of what was sent: its JSON path, and what is allowed there."""

    path: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemDocument:
    """An error as RFC 9457 has it; `code` is what programs go by, `errors` lists every fault."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    hint: str
    errors: list[ProblemAt]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchAnswer:
    """The response that `send` would have given for one request of a batch: its status with the record, or with the problem."""

    status: int
    replayed: bool = False
    record: StatusRecord | None = None
    problem: ProblemDocument | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewAnswer:
    """The raw message, truncated to 1 MiB; None if a problem prevents building it. `size` is that of the whole message."""

    mime: str | None
    truncated: bool
    size: int | None
    problems: list[ProblemAt]


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadTo:
    """The one request that uploads the file: to this URL with these headers, and the file as its body."""

    method: Literal["PUT"] = "PUT"
    url: str = field(repr=False)
    headers: Mapping[str, str]
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedAs:
    """The value of the attachment's `s3`, without the `versionId` that the upload returns."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadAnswer:
    """Where to upload a file, and how the message refers to it."""

    upload: UploadTo
    s3: UploadedAs


SuppressionReason = Literal["hard_bounce", "soft_bounces", "complaint", "manual", "ses_list"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppressionRecord:
    """Why an address is suppressed for a tenant."""

    email: str = field(repr=False)
    reason: SuppressionReason
    request_id: str | None = None
    at: datetime
    expires_at: datetime | None = None
    by: str | None = None
    why: str | None = None
    may_have_complained: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppressionList:
    """A page of suppressed addresses, newest first; `cursor` leads to the next one and is None on the last."""

    suppressions: list[SuppressionRecord]
    cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SesListState:
    """Whether the address may still be on the account's own list at SES, and the command that removes it."""

    may_hold: bool
    command: str | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiftedSuppression(SuppressionRecord):
    """A suppression that was lifted, as it was."""

    ses_list: SesListState


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppressionBatchAnswer:
    """The response that `put` would have given for one address of a batch: its status with the record, or with the problem."""

    status: int
    record: SuppressionRecord | None = None
    problem: ProblemDocument | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsBucket:
    """Recipients by outcome, of the hour or day that begins at `from_`."""

    from_: datetime
    sent: int
    delivered: int
    bounced: int
    soft_bounced: int
    complained: int
    failed: int
    unknown: int
    suppressed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountStatistics:
    """The counts of all tenants that send from the tenant's AWS account, in one region."""

    account: str
    region: str
    buckets: list[StatisticsBucket]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsAnswer:
    """A tenant's counts, and those of its account, which SES judges; `account` is None if that is not known."""

    buckets: list[StatisticsBucket]
    account: AccountStatistics | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationRecord:
    """A bounce and a complaint that `verify` had SES simulate, and when SES's events of them arrived."""

    started_at: datetime
    bounce_reported_at: datetime | None
    complaint_reported_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumptionRecord:
    """Who resumed a provider that the reputation guard suspended, and why."""

    by: str
    why: str
    at: datetime
    principal: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One version of a provider's config, without its secrets."""

    provider: Literal["ses", "smtp"]
    version: int
    region: str | None
    from_address: str
    from_name: str
    credentials: Mapping[str, str] = field(repr=False)
    configuration_set: str | None
    max_send_rate: float | None
    feedback: Literal["off", "unproven", "proven", "silent"]
    last_feedback_at: datetime | None
    feedback_hint: str | None
    simulation: SimulationRecord | None
    error: Error | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantRecord(Config):
    """A tenant and its provider: the active config, and a candidate that is not verified yet; `error` is why it was suspended."""

    tenant_id: str
    status: Literal["unverified", "active", "disabled", "suspended"]
    sandbox: Literal["true", "false", "unknown"]
    verified_at: datetime | None
    updated_at: datetime
    updated_by: str | None
    warnings: list[str]
    candidate: Config | None
    resumption: ResumptionRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantPage:
    """A page of tenants; `cursor` leads to the next one and is None on the last."""

    tenants: list[TenantRecord]
    cursor: str | None


def parse(model: type[Model], answer: Any) -> Model:
    """Make a model of an answer's JSON object.

    Raises:
        LookupError, TypeError, ValueError: it is not one of the API's.
    """
    hints = get_type_hints(model)
    names = {f.name: json_name(f.name) for f in fields(model)}  # type: ignore[arg-type]  # every model is a dataclass
    return model(**{name: _value(hints[name], answer[key]) for name, key in names.items() if key in answer})


def json_name(name: str) -> str:
    """Return a field's name as the JSON has it: `tenant_id` is `tenantId`."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def _value(hint: Any, value: Any) -> Any:
    """Read a value of the type that its field has."""
    if value is None or get_origin(hint) is Literal:
        return value
    if NoneType in get_args(hint):
        return _value(next(kind for kind in get_args(hint) if kind is not NoneType), value)
    if get_origin(hint) is list:
        return [_value(get_args(hint)[0], entry) for entry in value]
    if is_dataclass(hint):
        return parse(hint, value)  # type: ignore[arg-type]  # a class, not one of its objects
    if hint is datetime:
        return datetime.fromisoformat(value)
    return Status(value) if hint is Status else value
