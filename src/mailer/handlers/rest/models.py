"""What the messages API takes and answers besides the send request itself; the OpenAPI document reads it too."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, PlainSerializer, ValidationInfo, WithJsonSchema, field_validator

from mailer.domain.delivery import Delivery, OnUnknown, Resolution, Status
from mailer.domain.errors import ErrorInfo, Problem
from mailer.domain.facts import FeedbackCounts, RecipientFeedback, RecipientStatus
from mailer.domain.message import HEADER_TEXT, RequestId, SendRequest, TenantId, UtcTime
from mailer.domain.moments import rfc3339
from mailer.domain.statistics import COLUMNS, Counts
from mailer.domain.uploads import Upload
from mailer.domain.wire import WireModel, fault, matching
from mailer.services.api.preview import Preview
from mailer.services.statistics.show import Statistics

MAX_SHOWN = 1024 * 1024
"""Bytes of a message that a preview shows: a function's answer may have 6 MB, and JSON escapes a byte to at most two."""


def _is_none(value: object) -> bool:
    return value is None


Time = Annotated[UtcTime, PlainSerializer(rfc3339, when_used="json"), WithJsonSchema({"type": "string", "format": "date-time"})]


# ── what is sent to us ──────────────────────────────────────────────────────────────────────────────────────────────────


class PostedRequest(SendRequest):
    """A send request as it is posted: the tenant is that of the path, and an id is made where none is given."""

    # Optional, but never null; this only describes the JSON, which `read_request` parses.
    tenant_id: TenantId = Field(default_factory=str)
    request_id: RequestId = Field(default_factory=str)


Note = Annotated[str, Field(min_length=1, max_length=500), HEADER_TEXT]


class ResolveRequest(WireModel):
    """An operator's word on an `unknown`: it was sent, with SES's messageId if that is known, or it shall be sent again."""

    outcome: Literal["sent", "resend"]
    message_id: Annotated[str, matching(r"[!-~]{1,200}", "1 to 200 printable ASCII characters without blanks", longest=200)] | None = None
    by: Note
    why: Note

    @field_validator("message_id")
    @classmethod
    def _is_of_something_sent(cls, message_id: str | None, info: ValidationInfo) -> str | None:
        if message_id is not None and info.data.get("outcome") == "resend":
            raise fault("must not be given where outcome is resend")
        return message_id


# ── what we answer ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Error(WireModel):
    """Why a request failed or waits; `hint` says who must do what."""

    code: str
    message: str
    retryable: bool
    hint: str

    @classmethod
    def of(cls, error: ErrorInfo) -> Self:
        """Show an error."""
        return cls(code=error.code, message=error.message, retryable=error.retryable, hint=error.hint)


class ResolutionRecord(WireModel):
    """How an operator resolved an `unknown`; `principal` is the ARN of the IAM identity that called, `by` whom it named."""

    outcome: Literal["sent", "resend"]
    by: str
    why: str
    at: Time
    principal: Annotated[str | None, Field(exclude_if=_is_none)] = None

    @classmethod
    def of(cls, resolution: Resolution) -> Self:
        """Show a resolution."""
        return cls(outcome=resolution.outcome, by=resolution.by, why=resolution.why, at=resolution.at, principal=resolution.principal)


class Feedback(WireModel):
    """SES's reports of a sent mail: recipients by status, each counted once."""

    delivered: int
    delayed: int
    bounced: int
    soft_bounced: int
    complained: int
    rejected: int
    first_at: Time
    last_at: Time

    @classmethod
    def of(cls, counts: FeedbackCounts) -> Self:
        """Show counts."""
        return cls(**{name: getattr(counts, name) for name in cls.model_fields})


class StatusRecord(WireModel):
    """The state of a request; `attempts` counts the times it was handed to SES."""

    tenant_id: str
    request_id: str
    status: Status
    provider: str
    message_id: str | None
    attempts: int
    recipients: int
    error: Error | None
    created_at: Time
    updated_at: Time
    sent_at: Time | None
    on_unknown: OnUnknown
    feedback: Feedback | None
    suppressed: int
    due_at: Annotated[Time | None, Field(exclude_if=_is_none)] = None
    resolution: Annotated[ResolutionRecord | None, Field(exclude_if=_is_none)] = None
    cancelled_by: Annotated[str | None, Field(exclude_if=_is_none)] = None

    @classmethod
    def of(cls, record: Delivery, send_timeout: timedelta) -> Self:
        """Show a record; after `send_timeout` a worker is dead."""
        return cls(
            tenant_id=record.tenant_id,
            request_id=record.request_id,
            status=record.status,
            provider=record.provider,
            message_id=record.message_id,
            attempts=record.attempt,
            recipients=record.recipients,
            error=Error.of(error) if (error := record.shown_error) else None,
            created_at=record.created_at,
            updated_at=record.updated_at,
            sent_at=record.sent_at,
            on_unknown=record.on_unknown,
            feedback=Feedback.of(record.feedback) if record.feedback else None,
            suppressed=record.suppressed,
            due_at=record.next_try_at(send_timeout),
            resolution=ResolutionRecord.of(record.resolution) if record.resolution else None,
            cancelled_by=record.cancelled_by,
        )


class RecipientFeedbackRecord(WireModel):
    """SES's most significant report about one recipient."""

    email: Annotated[str, Field(repr=False)]
    status: RecipientStatus
    at: Time
    smtp_status: Annotated[str | None, Field(exclude_if=_is_none)] = None
    diagnostic: Annotated[str | None, Field(exclude_if=_is_none, repr=False)] = None

    @classmethod
    def of(cls, recipient: RecipientFeedback) -> Self:
        """Show a recipient."""
        fact = recipient.fact
        return cls(
            email=recipient.email,
            status=recipient.status,
            at=fact.at,
            smtp_status=fact.smtp_status or None,
            diagnostic=fact.diagnostic or None,
        )


class FeedbackAnswer(WireModel):
    """SES's reports of a mail, by recipient."""

    recipients: list[RecipientFeedbackRecord]

    @classmethod
    def of(cls, recipients: Iterable[RecipientFeedback]) -> Self:
        """Show recipients."""
        return cls(recipients=[RecipientFeedbackRecord.of(recipient) for recipient in recipients])


class StatusPage(WireModel):
    """A page of records, newest first; `cursor` leads to the next one and is null on the last."""

    messages: list[StatusRecord]
    cursor: str | None


class StatisticsBucket(WireModel):
    """Recipients by outcome, of mail that was sent, or ended otherwise, in one hour or day."""

    from_: Annotated[Time, Field(alias="from")]
    sent: int
    delivered: int
    bounced: int
    soft_bounced: int
    complained: int
    failed: int
    unknown: int
    suppressed: int

    @classmethod
    def all(cls, buckets: Mapping[datetime, Counts]) -> list[Self]:
        """Show buckets, the earliest first."""
        return [cls(from_=start, **{name: getattr(counts, name) for name in COLUMNS}) for start, counts in buckets.items()]


class AccountStatistics(WireModel):
    """The same counts of all tenants that send from the tenant's AWS account and region."""

    account: str
    region: str
    buckets: list[StatisticsBucket]


class StatisticsAnswer(WireModel):
    """A tenant's counts and its account's; `account` is null if the sending account is not known."""

    buckets: list[StatisticsBucket]
    account: AccountStatistics | None

    @classmethod
    def of(cls, shown: Statistics) -> Self:
        """Show statistics."""
        whole = shown.account
        account = whole and AccountStatistics(account=whole.account, region=whole.region, buckets=StatisticsBucket.all(whole.buckets))
        return cls(buckets=StatisticsBucket.all(shown.buckets), account=account)


class ProblemAt(WireModel):
    """One fault of what was sent: its JSON path, and what is allowed there."""

    path: str
    problem: str

    @classmethod
    def all(cls, problems: Iterable[Problem]) -> list[Self]:
        """Show faults."""
        return [cls(path=problem.path, problem=problem.problem) for problem in problems]


class ProblemDocument(WireModel):
    """An error as RFC 9457 has it; `code` is what programs go by, `errors` lists every fault."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    hint: str
    errors: list[ProblemAt]


class BatchAnswer(WireModel):
    """What `POST messages` would have answered for one request of a batch: its status with the record, or with the problem."""

    status: int
    replayed: Annotated[bool, Field(exclude_if=lambda replayed: not replayed)] = False
    record: Annotated[StatusRecord | None, Field(exclude_if=_is_none)] = None
    problem: Annotated[ProblemDocument | None, Field(exclude_if=_is_none)] = None


class PreviewAnswer(WireModel):
    """The raw message, cut at 1 MiB; null where one of the problems keeps it from being built."""

    mime: str | None
    truncated: bool
    size: int | None
    """Bytes of the whole message."""
    problems: list[ProblemAt]

    @classmethod
    def of(cls, built: Preview) -> Self:
        """Show a preview."""
        size = len(built.mime) if built.mime is not None else None
        mime = built.mime[:MAX_SHOWN].decode("ascii") if built.mime is not None else None
        return cls(mime=mime, truncated=bool(size and size > MAX_SHOWN), size=size, problems=ProblemAt.all(built.problems))


class UploadTo(WireModel):
    """The one request that uploads the file: to this URL with these headers, and the file as its body."""

    method: Literal["PUT"] = "PUT"
    url: Annotated[str, Field(repr=False)]
    headers: Mapping[str, str]
    expires_at: Time


class UploadedAs(WireModel):
    """What goes into the attachment's `s3`; add the `versionId` that the upload answered in `x-amz-version-id`."""

    key: str


class UploadAnswer(WireModel):
    """Where to upload a file, and how to refer to it then."""

    upload: UploadTo
    s3: UploadedAs

    @classmethod
    def of(cls, upload: Upload) -> Self:
        """Show an upload."""
        to = UploadTo(url=upload.url, headers=upload.headers, expires_at=upload.expires_at)
        return cls(upload=to, s3=UploadedAs(key=upload.key))
