"""Errors: what went wrong and who must act; never any content of a mail.

    MailerError
    ├── RequestError      the caller must change the request; names every faulty field by its path
    ├── NotSentError      proven: SES has not accepted this message (carries an ErrorInfo)
    └── DependencyError   an AWS service of this stack failed (carries dependency_unavailable)
        └── UnreadableError   a row or record is damaged, or a later version wrote it

Every error that leaves this service has a code from `CODES`; the code's class decides what becomes of the request.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class ErrorClass(StrEnum):
    """What an error code means for the request it hit."""

    FAILED = "failed"  # this request can never be sent as it is
    TENANT = "tenant"  # the tenant's account or config is at fault: counts towards suspension, the mail waits
    DEFERRED = "deferred"  # passes by itself: try again later
    UNKNOWN = "unknown"  # SES may have accepted it
    API = "api"  # answers an API call, never on a record


@dataclass(frozen=True, slots=True)
class Code:
    """One row of the error table: the class, and the hint that says who must do what."""

    error_class: ErrorClass
    hint: str


CODES: dict[str, Code] = {
    # The request itself.
    "invalid_request": Code(ErrorClass.FAILED, "Caller: correct the fields that the message names, and send it again."),
    "message_too_large": Code(
        ErrorClass.FAILED,
        "Caller: a request has at most 1044480 bytes on the queue; upload attachments that make it larger (POST …/attachments, each up to"
        " 30650683 bytes). SES takes 41943040 bytes of raw message in all; link to files that do not fit.",
    ),
    "attachment_type_blocked": Code(ErrorClass.FAILED, "Caller: SES refuses this file type; send another type, or a link to the file."),
    "attachment_missing": Code(
        ErrorClass.FAILED,
        "Caller: upload the attachment (POST …/attachments) and send a request with the key and versionId of the answer.",
    ),
    "recipient_rejected": Code(ErrorClass.FAILED, "Caller: SES refused an address of this message; correct it."),
    "recipient_suppressed": Code(
        ErrorClass.FAILED,
        "Caller: every recipient has bounced, complained or been suppressed manually; GET …/suppressions/{email} says why, and DELETE lifts"
        " the suppression.",
    ),
    "sandbox_recipient_not_verified": Code(
        ErrorClass.FAILED,
        "Tenant: the SES account is in the sandbox, which sends to verified addresses only; request production access"
        " (SES console, Account dashboard) or verify the recipient.",
    ),
    "expired": Code(ErrorClass.FAILED, "Caller: it could not be sent before expiresAt; send it again if it still matters."),
    "dropped": Code(ErrorClass.FAILED, "Nobody: an operator withdrew it."),
    "provider_deleted": Code(
        ErrorClass.FAILED, "Tenant: the mail provider was deleted while the request waited; set one up and send it again."
    ),
    "body_missing": Code(
        ErrorClass.FAILED,
        "Operator: the parked body is not in the bucket any more; find out what deleted it. The caller has to send the request again.",
    ),
    "unclassified": Code(ErrorClass.FAILED, "Operator: SES answered an error that is not in the table; add it, as the alarm's page says."),
    # The tenant's account or config.
    "provider_not_configured": Code(
        ErrorClass.TENANT, "Tenant: store an SES config (PUT …/provider), then verify it (POST …/provider/verify)."
    ),
    "provider_not_active": Code(ErrorClass.TENANT, "Tenant: the SES config must be verified (POST …/provider/verify) and enabled."),
    "from_address_not_verified": Code(
        ErrorClass.TENANT,
        "Tenant: verify the from-address or its domain in SES, in the very region of the config (SES console, Identities).",
    ),
    "credentials_invalid": Code(
        ErrorClass.TENANT,
        "Tenant: the access key is unknown, inactive or its secret is wrong; make a new key in IAM and store it.",
    ),
    "credentials_denied": Code(
        ErrorClass.TENANT,
        'Tenant: attach {"Effect": "Allow", "Action": "ses:SendRawEmail", "Resource": "*"} to the IAM user or role of the config.',
    ),
    "role_not_assumable": Code(
        ErrorClass.TENANT,
        "Tenant: paste the trust policy that GET …/provider/onboarding gives into the role; its ExternalId must be the one shown there.",
    ),
    "config_unreadable": Code(
        ErrorClass.TENANT,
        "Operator: the stored config is not this tenant's or was damaged; store it again and look for who wrote the row.",
    ),
    "account_paused": Code(
        ErrorClass.TENANT,
        "Tenant: SES has paused sending for this account; answer AWS in the SES console (Account dashboard, Reputation).",
    ),
    "configuration_set_missing": Code(
        ErrorClass.TENANT,
        "Tenant: create the configuration set in the config's region, or store a config without it.",
    ),
    "mail_from_not_verified": Code(
        ErrorClass.TENANT,
        "Tenant: the custom MAIL FROM domain lacks its MX record; see SES console, Identities, Custom MAIL FROM.",
    ),
    "reputation_at_risk": Code(
        ErrorClass.TENANT,
        "Operator: the tenant's bounce or complaint rate is too high (GET …/statistics), so its mail waits. Have the tenant clean its list,"
        " then resume with by and why (POST …/provider/enable).",
    ),
    # Passes by itself.
    "throttled": Code(ErrorClass.DEFERRED, "Nobody: SES's sending rate was reached; it goes out by itself."),
    "daily_quota_exceeded": Code(
        ErrorClass.DEFERRED,
        "Tenant: the account's 24-hour quota is used up; mail goes out as quota becomes free. Ask AWS for a higher quota.",
    ),
    "dependency_unavailable": Code(
        ErrorClass.DEFERRED, "Operator: an AWS service of this stack did not answer; mail goes out when it does."
    ),
    "processing_crashed": Code(
        ErrorClass.DEFERRED, "Operator: the worker died or failed on this one; see its message on the dead-letter queue."
    ),
    # Nobody can know.
    "outcome_unknown": Code(
        ErrorClass.UNKNOWN,
        "Operator: SES may have accepted it; look for its messageId in the tenant's SES events, then resolve it (POST …/resolve).",
    ),
    # API answers only.
    "access_denied": Code(
        ErrorClass.API,
        "Caller: sign the request with current credentials of an IAM identity that is allowed execute-api:Invoke on this method and path.",
    ),
    "request_id_reused": Code(ErrorClass.API, "Caller: this requestId belongs to a request with other content; use a new one."),
    "tenant_mismatch": Code(ErrorClass.API, "Caller: the body's tenantId must be the one in the path."),
    "not_found": Code(ErrorClass.API, "Caller: nothing of this name exists under this tenant."),
    "not_cancellable": Code(
        ErrorClass.API, "Caller: only queued and deferred requests of which no attempt may have been sent can be cancelled."
    ),
    "not_resolvable": Code(ErrorClass.API, "Operator: only an unknown can be resolved, and sent again only while its body is kept."),
    "suppressed_again": Code(
        ErrorClass.API,
        "Caller: the address was suppressed again during the call; GET …/suppressions/{email} says why, and another DELETE lifts that too.",
    ),
    "too_many_requests": Code(ErrorClass.API, "Caller: wait as Retry-After says, then try again with jitter."),
    "internal_error": Code(
        ErrorClass.API, "Operator: internal error of this service; the log has the details under the call's request id."
    ),
}


UNLISTED = Code(ErrorClass.UNKNOWN, "Operator: a later version of this service wrote this code; see that version's documentation.")
"""Used for a code that is not in `CODES`: after a roll-back a record, a row or a proof may have one. It decides nothing."""


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """The `error` of a status record: a code of `CODES`, a message free of recipients, bodies and secrets."""

    code: str
    message: str
    remediation: str | None = None
    """A hint that is more specific than the code's, for example one that names the region."""
    rights: tuple[str, ...] = ()
    """IAM actions that were denied to a large mail and that smaller ones do not take: no evidence against the tenant's config."""

    @property
    def error_class(self) -> ErrorClass:
        """What the code means for the request."""
        return CODES.get(self.code, UNLISTED).error_class

    @property
    def retryable(self) -> bool:
        """Whether it can succeed later without a change of the request."""
        return self.error_class in (ErrorClass.TENANT, ErrorClass.DEFERRED)

    @property
    def hint(self) -> str:
        """Who must do what."""
        return self.remediation or CODES.get(self.code, UNLISTED).hint


EXPIRED = ErrorInfo("expired", "it could not be sent before its expiresAt")


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a request: where (a JSON path such as `message.to[0].email`) and what is allowed there."""

    path: str
    problem: str


class MailerError(Exception):
    """Any error of this service that a caller or operator can act on."""


@dataclass(eq=False)
class RequestError(MailerError):
    """The request is refused; `problems` lists every fault, never a value."""

    problems: Sequence[Problem]
    code: str = field(default="invalid_request")
    remediation: str | None = None
    """A hint that is more specific than the code's."""

    def __str__(self) -> str:
        return "; ".join(f"{p.path}: {p.problem}" if p.path else p.problem for p in self.problems)


@dataclass(eq=False)
class NotSentError(MailerError):
    """Raised before or instead of the SES call: SES has provably not accepted the message."""

    error: ErrorInfo

    def __str__(self) -> str:
        return f"{self.error.code}: {self.error.message}"


class DependencyError(MailerError):
    """One of this service's own AWS services failed, throttled or did not answer; the call may or may not have had its effect."""

    def __init__(self, service: str, operation: str) -> None:
        super().__init__(f"{service} did not complete {operation}")
        self.service = service
        self.error = ErrorInfo("dependency_unavailable", str(self))


class UnreadableError(DependencyError):
    """A row or record cannot be read by this version; the requests or the tenant that need it wait until it can."""

    def __init__(self, place: str, *ids: str) -> None:
        super().__init__("DynamoDB", "a read")
        self.args = (f"what the {place} has of {'/'.join(ids)} cannot be read",)
        remediation = "Operator: it is damaged, or a later version of this service wrote it; repair it, or deploy that version again."
        self.error = ErrorInfo("dependency_unavailable", str(self), remediation)
