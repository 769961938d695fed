"""Classify the errors of SES v1: one table from SES's code, and its text if the code is ambiguous, to one of our codes.

Sources: the model of SendRawEmail, the SES API's common errors, "Amazon SES email sending errors" in the developer guide.
The table of v2 is in `ses_v2_errors`. SES's texts are only read here and not passed on, because they name recipients.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mailer.domain.delivery import MaybeSent, NotSent
from mailer.domain.errors import ErrorInfo
from mailer.domain.large_mail import SMALL_BYTES
from mailer.domain.pacing import QUOTA_BACKOFF, THROTTLE_SETTLES

EXPIRED_SESSION = frozenset({"ExpiredToken", "ExpiredTokenException"})
"""The role's session has expired, so a new one is started. If SES says so of a new one, the clocks must differ."""

Says = Callable[[str, str], bool]
"""Returns whether a row applies to SES's text, given the sender's address."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table; `{region}` and `{size}` in its texts are filled in."""

    codes: tuple[str, ...]
    means: str
    message: str
    says: Says | None = None
    remediation: str | None = None
    """A hint that is more specific than that of the code."""
    retry_after: timedelta | None = None
    rights: tuple[str, ...] = ()
    """IAM actions that smaller mails do not take."""


def says(pattern: str) -> Says:
    """Return whether a text has this pattern in it, whatever its case."""
    compiled = re.compile(pattern, re.IGNORECASE | re.ASCII)
    return lambda text, _: compiled.search(text) is not None


UNVERIFIED = re.compile(
    r"is not verified(?:.*?failed the check[^:]*:(?P<identities>.*))?"  # SES, MiniStack
    r"|did not have authority to send from",  # moto, LocalStack
    re.IGNORECASE | re.ASCII | re.DOTALL,
)
_ARN = re.compile(r"arn:[^\s,]*?:identity/")
_ADDRESS = re.compile(r"[^\s<>,;:\"]+@[^\s<>,;:\"]+")
_DOMAIN = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+")


def names_sender(text: str, sender: str) -> bool:
    """Whether an unverified identity is the sender's address or domain, or none is named at all."""
    found = UNVERIFIED.search(text)
    if not found:
        return False
    address = sender.lower()
    domain = address.rpartition("@")[2]
    named = set(_identities(found["identities"] or ""))
    return not named or address in named or any(domain == other or domain.endswith(f".{other}") for other in named if "@" not in other)


def _identities(listed: str) -> Iterator[str]:
    """Extract the addresses and domains from SES's list: bare, as `Name <address>` or as an identity's ARN; it may end in an ellipsis."""
    plain = _ARN.sub("", listed.lower())
    for address in _ADDRESS.findall(plain):
        yield address.rstrip(".…")
    for item in plain.split(","):
        if _DOMAIN.fullmatch(candidate := item.strip().rstrip(".…")):
            yield candidate


CLOCK = "Operator: the clock of the function and that of AWS differ; mail goes on when they agree. Look at the alarm."
OURS = "Operator: the request to SES was not built as SES wants it, which is our mistake; look at the alarm."

BAD_FIELD = (
    "Caller: look at the headers and tags of this mail (POST …/messages/preview), and change what is unusual. SES's text is not kept, as it"
    " may name recipients."
)

_TOO_LARGE = f"SES refused the message, which has {{size}} bytes, for its size; SendRawEmail takes {SMALL_BYTES}"

PASSING = (
    Row(
        ("RequestExpired", "RequestTimeTooSkewed"),
        "dependency_unavailable",
        "SES took the request for one of another time",
        remediation=CLOCK,
    ),
    Row(
        ("RequestAbortedException", "RequestTimeoutException", "RequestTimeout"),
        "dependency_unavailable",
        "SES gave up reading the request",
    ),
    Row(tuple(sorted(EXPIRED_SESSION)), "dependency_unavailable", "SES took the role's new session for an old one", remediation=CLOCK),
)
"""Errors of both operations that pass by themselves."""

TABLE = (
    # Passes by itself. SES does not say when: the message is retried when its account, which is slowed down or paused, sends again.
    Row(("Throttling", "ThrottlingException"), "daily_quota_exceeded", "the SES account's quota of 24 hours is used up in {region}",
        says=says(r"daily|24.?hour"), retry_after=timedelta(seconds=QUOTA_BACKOFF)),
    Row(("Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"), "throttled",
        "the SES account's sending rate was reached in {region}", retry_after=timedelta(seconds=THROTTLE_SETTLES)),
    Row(("SignatureDoesNotMatch",), "dependency_unavailable", "SES took the request for one of another time",
        says=says(r"expired|not yet current"), remediation=CLOCK),
    *PASSING,

    # The tenant's account or config.
    # A remediation only where SES says more than the code does: else `domain.remediation` adds the one that fits the tenant's config.
    Row(("MessageRejected",), "from_address_not_verified", "SES has not verified the from-address in {region}", says=names_sender),
    Row(("MailFromDomainNotVerifiedException",), "mail_from_not_verified", "SES found no MX record of the custom MAIL FROM domain"),
    Row(("AccountSendingPausedException",), "account_paused", "sending is paused for the SES account in {region}"),
    Row(("ConfigurationSetSendingPausedException",), "account_paused", "sending is paused for the configuration set in {region}",
        remediation="Tenant: switch sending on again for the config's configuration set, in SES in {region}."),
    Row(("ConfigurationSetDoesNotExist", "ConfigurationSetDoesNotExistException"), "configuration_set_missing",
        "SES has no such configuration set in {region}"),
    Row(("InvalidClientTokenId", "UnrecognizedClientException"), "credentials_invalid", "AWS does not know the access key"),
    Row(("SignatureDoesNotMatch",), "credentials_invalid", "the secret does not belong to the access key"),
    Row(("AccessDenied", "AccessDeniedException", "NotAuthorized"), "credentials_denied", "AWS denied ses:SendRawEmail in {region}"),
    Row(("OptInRequired", "SubscriptionRequiredException"), "credentials_denied", "the AWS account may not use SES in {region}",
        remediation="Tenant: finish the activation of the AWS account, or enable the region {region} in it."),

    # The message.
    Row(("MessageRejected",), "sandbox_recipient_not_verified",
        "the SES account is in the sandbox in {region} and a recipient is not verified", says=says(UNVERIFIED.pattern)),
    Row(("MessageRejected",), "account_paused", "sending is paused for the SES account in {region}",
        says=says(r"\b(?:paused|suspended|shut ?down)\b")),
    Row(("MessageRejected",), "attachment_type_blocked", "SES refuses the type of an attachment",
        says=says(r"attachment|file (?:type|extension|name)")),
    Row(("MessageRejected",), "invalid_request", "SES refused the content of the message",
        remediation="Caller: SES takes it for malformed or for a virus; change the content."),
    Row(("InvalidParameterValue",), "message_too_large", _TOO_LARGE,
        says=says(r"message length|size limit")),
    Row(("RequestEntityTooLargeException",), "message_too_large", _TOO_LARGE),
    Row(("InvalidParameterValue",), "recipient_rejected", "SES refused the form of an address",
        says=says(r"\b(?:address|domain|local name)\b")),
    Row(("InvalidParameterValue",), "invalid_request", "SES refused a field or header of the message",
        remediation=BAD_FIELD),

    # These can only be caused by bugs of this service.
    Row(("IncompleteSignature", "InvalidAction", "InvalidParameterCombination", "InvalidQueryParameter", "MalformedHttpRequestException",
         "MalformedQueryString", "MissingAction", "MissingAuthenticationToken", "MissingAuthenticationTokenException", "MissingParameter",
         "UnknownOperationException", "ValidationError", "ValidationException"),
        "unclassified", "SES did not understand the request", remediation=OURS),
)  # fmt: skip  # a table is read by its columns

_UNLISTED = Row((), "unclassified", "SES answered an error that is not in the table")


def read_error(response: Mapping[str, Any], *, sender: str, region: str, size: int, table: Sequence[Row] = TABLE) -> NotSent | MaybeSent:
    """Tell what an error answer means for a message of so many bytes; `response` is what botocore's ClientError holds.

    `table` is that of the operation that answered.
    """
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    error = response.get("Error", {})
    code = str(error.get("Code", ""))
    if not 400 <= status < 500:  # noqa: PLR2004  # HTTP's client errors
        return MaybeSent(ErrorInfo("outcome_unknown", f"SES in {region} answered with HTTP status {status}"))
    row = next((row for row in table if _fits(row, code, str(error.get("Message", "")), sender)), _UNLISTED)
    message = row.message.format(region=region, size=size)
    if row.means == "unclassified":
        message += f" ({_printable(code)})"
    remediation = row.remediation and row.remediation.format(region=region)
    return NotSent(ErrorInfo(row.means, message, remediation, row.rights), row.retry_after)


def _fits(row: Row, code: str, text: str, sender: str) -> bool:
    return code in row.codes and (row.says is None or row.says(text, sender))


def _printable(code: str) -> str:
    """Return a code of SES if it looks like one: it comes from outside."""
    return code if re.fullmatch(r"[A-Za-z0-9.]{1,64}", code) else "an unreadable code"
