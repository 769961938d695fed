"""Say what each error of SES v2's SendEmail means, as `ses_errors` does for v1: other codes for the same conditions.

Sources: the model of SendEmail, the SES v2 API's common errors. The texts are v1's where AWS shows any; where it shows none, a row without
a text follows.
"""

from datetime import timedelta

from mailer.adapters.providers.ses_errors import BAD_FIELD, CLOCK, OURS, PASSING, UNVERIFIED, Row, names_sender, says
from mailer.domain.large_mail import LARGE_BYTES, SMALL_BYTES
from mailer.domain.pacing import QUOTA_BACKOFF, THROTTLE_SETTLES

_ASKED_AGAIN = timedelta(hours=1)
"""Each try of a mail that the account's policy denies costs its whole upload."""

_DENIED = ("AccessDeniedException", "AccessDenied", "NotAuthorized", "ForbiddenException")
_THROTTLED = ("TooManyRequestsException", "LimitExceededException", "ThrottlingException", "Throttling", "RequestLimitExceeded")
_BAD_SIGNATURE = ("InvalidSignatureException", "SignatureDoesNotMatch")
_BAD_INPUT = ("BadRequestException", "InvalidParameterValue")
_TOO_LARGE = f"SES refused the message, which has {{size}} bytes, for its size; SendEmail takes {LARGE_BYTES}"
_LARGE_ONLY = f"which mails of more than {SMALL_BYTES} bytes take; this one has {{size}}"

TABLE = (
    # Passes by itself.
    Row(_THROTTLED, "daily_quota_exceeded", "the SES account's quota of 24 hours is used up in {region}",
        says=says(r"daily|24.?hour"), retry_after=timedelta(seconds=QUOTA_BACKOFF)),
    Row(_THROTTLED, "throttled", "the SES account's sending rate or bandwidth was reached in {region}",
        retry_after=timedelta(seconds=THROTTLE_SETTLES)),
    Row(_BAD_SIGNATURE, "dependency_unavailable", "SES took the request for one of another time",
        says=says(r"expired|not yet current"), remediation=CLOCK),
    *PASSING,

    # The tenant's account or config.
    Row(("MessageRejected",), "from_address_not_verified", "SES has not verified the from-address in {region}", says=names_sender),
    Row(("MailFromDomainNotVerifiedException",), "mail_from_not_verified", "SES found no MX record of the custom MAIL FROM domain"),
    Row(("AccountSuspendedException",), "account_paused", "sending is suspended for the SES account in {region}"),
    Row(("SendingPausedException",), "account_paused", "sending is paused for the configuration set in {region}",
        says=says(r"configuration ?set"),
        remediation="Tenant: switch sending on again for the config's configuration set, in SES in {region}."),
    Row(("SendingPausedException",), "account_paused", "sending is paused for the SES account in {region}"),
    Row(("NotFoundException",), "from_address_not_verified", "SES does not know the from-address in {region}", says=says(r"identity")),
    Row(("NotFoundException",), "configuration_set_missing", "SES has no such configuration set in {region}"),
    Row(("InvalidClientTokenId", "UnrecognizedClientException"), "credentials_invalid", "AWS does not know the access key"),
    Row(_BAD_SIGNATURE, "credentials_invalid", "the secret does not belong to the access key"),
    Row(_DENIED, "credentials_denied", "AWS denied ses:SendRawEmail in {region}", says=says(r"\bses:SendRawEmail\b")),
    Row(_DENIED, "credentials_denied", f"AWS denied ses:SendEmail in {{region}}, {_LARGE_ONLY}", says=says(r"\bses:SendEmail\b"),
        retry_after=_ASKED_AGAIN, rights=("ses:SendEmail",)),
    Row(_DENIED, "credentials_denied", f"AWS denied SendEmail of SES v2 in {{region}}, {_LARGE_ONLY}",
        retry_after=_ASKED_AGAIN, rights=("ses:SendRawEmail", "ses:SendEmail")),
    Row(("OptInRequired", "SubscriptionRequiredException"), "credentials_denied", "the AWS account may not use SES in {region}",
        remediation="Tenant: finish the activation of the AWS account, or enable the region {region} in it."),

    # The message.
    Row(("MessageRejected",), "sandbox_recipient_not_verified",
        "the SES account is in the sandbox in {region} and a recipient is not verified", says=says(UNVERIFIED.pattern)),
    Row(("MessageRejected",), "account_paused", "sending is paused for the SES account in {region}",
        says=says(r"\b(?:paused|suspended|shut ?down)\b")),
    Row(("MessageRejected", *_BAD_INPUT), "message_too_large", _TOO_LARGE, says=says(r"message length|size limit|too large")),
    Row(("MessageRejected",), "attachment_type_blocked", "SES refuses the type of an attachment",
        says=says(r"attachment|file (?:type|extension|name)")),
    Row(("MessageRejected",), "invalid_request", "SES refused the content of the message",
        remediation="Caller: SES takes it for malformed or for a virus; change the content."),
    Row(("RequestEntityTooLargeException", "RequestTooLongException", "PayloadTooLargeException"), "message_too_large", _TOO_LARGE),
    Row(_BAD_INPUT, "recipient_rejected", "SES refused the form of an address", says=says(r"\b(?:address|domain|local name)\b")),
    Row(_BAD_INPUT, "invalid_request", "SES refused a field or header of the message",
        remediation=BAD_FIELD),

    # These can only be caused by bugs of this service.
    Row(("IncompleteSignature", "IncompleteSignatureException", "InvalidAction", "InvalidParameterCombination", "InvalidQueryParameter",
         "MalformedHttpRequestException", "MalformedQueryString", "MissingAction", "MissingAuthenticationToken",
         "MissingAuthenticationTokenException", "MissingParameter", "SerializationException", "UnknownOperationException",
         "ValidationError", "ValidationException"),
        "unclassified", "SES did not understand the request", remediation=OURS),
)  # fmt: skip  # a table is read by its columns
