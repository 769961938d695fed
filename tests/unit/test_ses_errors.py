"""The tables of SES's errors: complete, and never misled by addresses in error texts."""

import json
import re
from datetime import timedelta

import botocore.session
import pytest

from mailer.adapters.providers import ses_v2_errors
from mailer.adapters.providers.ses_errors import TABLE, Row, read_error
from mailer.domain.delivery import MaybeSent, NotSent
from mailer.domain.errors import CODES, ErrorClass
from mailer.domain.pacing import QUOTA_BACKOFF, THROTTLE_SETTLES
from mailer.domain.remediation import add_remediation
from support.fakes.ports import a_config

SENDER = "Billing@acme.example"
SIZE = 20_000_000  # bytes of a mail for v2
TABLES = {"ses": TABLE, "sesv2": ses_v2_errors.TABLE}
UNVERIFIED = "Email address is not verified. The following identities failed the check in region EU-WEST-1: "

# The API reference's "Common Errors" of SES, and errors that every AWS service may return.
COMMON_ERRORS = (
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidAction",
    "InvalidClientTokenId",
    "InvalidParameterCombination",
    "InvalidParameterValue",
    "InvalidQueryParameter",
    "MalformedHttpRequestException",
    "MalformedQueryString",
    "MissingAction",
    "MissingAuthenticationToken",
    "MissingParameter",
    "NotAuthorized",
    "OptInRequired",
    "RequestAbortedException",
    "RequestEntityTooLargeException",
    "RequestExpired",
    "RequestTimeoutException",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "Throttling",
    "ThrottlingException",
    "UnknownOperationException",
    "UnrecognizedClientException",
    "ValidationError",
)


# The SES v2 API reference's "Common Errors", with the names of its JSON protocol.
COMMON_V2_ERRORS = (
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "OptInRequired",
    "RequestEntityTooLargeException",
    "RequestExpired",
    "SerializationException",
    "SignatureDoesNotMatch",
    "ThrottlingException",
    "UnknownOperationException",
    "UnrecognizedClientException",
    "ValidationException",
)


def read(code: str, text: str = "", status: int = 400, sender: str = SENDER, service: str = "ses") -> NotSent | MaybeSent:
    response = {"Error": {"Code": code, "Message": text}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return read_error(response, sender=sender, region="eu-west-1", size=SIZE, table=TABLES[service])


def code_of(code: str, text: str = "", service: str = "ses") -> str:
    return read(code, text, service=service).error.code


@pytest.mark.parametrize(
    ("service", "operation", "some"),
    [
        ("ses", "SendRawEmail", {"MessageRejected", "ConfigurationSetDoesNotExist", "AccountSendingPausedException"}),
        ("sesv2", "SendEmail", {"MessageRejected", "BadRequestException", "TooManyRequestsException", "SendingPausedException"}),
    ],
)
def test_every_modelled_ses_error_is_classified(service: str, operation: str, some: set[str]) -> None:
    """A new error of one of the operations in botocore's model fails here, not in production."""
    shapes = botocore.session.get_session().get_service_model(service).operation_model(operation).error_shapes
    modelled = {shape.error_code for shape in shapes} | {shape.name for shape in shapes}
    assert modelled >= some
    for code in modelled:
        assert code_of(code, service=service) != "unclassified", code


@pytest.mark.parametrize(("service", "code"), [*(("ses", code) for code in COMMON_ERRORS), *(("sesv2", code) for code in COMMON_V2_ERRORS)])
def test_every_common_aws_error_is_in_the_table(service: str, code: str) -> None:
    """Errors that every AWS service may return are classified too."""
    assert any(code in row.codes for row in TABLES[service])


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_row_has_an_existing_code_of_its_kind(table: tuple[Row, ...]) -> None:
    """No row means `unknown`, because a 4xx proves that SES did not accept."""
    assert all(CODES[row.means].error_class in {ErrorClass.FAILED, ErrorClass.TENANT, ErrorClass.DEFERRED} for row in table)


@pytest.mark.parametrize(
    ("code", "text", "means"),
    [
        ("TooManyRequestsException", "Too many requests.", "throttled"),
        ("TooManyRequestsException", "Daily message quota exceeded.", "daily_quota_exceeded"),
        ("LimitExceededException", "Maximum sending rate exceeded.", "throttled"),
        ("LimitExceededException", "Daily message quota exceeded.", "daily_quota_exceeded"),
        ("AccountSuspendedException", "", "account_paused"),
        ("SendingPausedException", "Sending is paused for this account.", "account_paused"),
        ("SendingPausedException", "Sending is paused for configuration set marketing.", "account_paused"),
        ("MailFromDomainNotVerifiedException", "", "mail_from_not_verified"),
        ("NotFoundException", "Configuration set <x> does not exist.", "configuration_set_missing"),
        ("NotFoundException", "Email identity acme.example does not exist.", "from_address_not_verified"),
        ("MessageRejected", UNVERIFIED + "billing@acme.example", "from_address_not_verified"),
        ("MessageRejected", UNVERIFIED + "jo@customer.example", "sandbox_recipient_not_verified"),
        ("MessageRejected", "Sending suspended for this account.", "account_paused"),
        ("MessageRejected", "Message contained a virus.", "invalid_request"),
        ("BadRequestException", "Message length is more than 41943040 bytes long: '50000000'.", "message_too_large"),
        ("MessageRejected", "Message length is more than 41943040 bytes long: '50000000'.", "message_too_large"),
        ("RequestEntityTooLargeException", "", "message_too_large"),
        ("BadRequestException", "Missing final '@domain'", "recipient_rejected"),
        ("BadRequestException", "Duplicate header 'Subject'.", "invalid_request"),
        ("InvalidSignatureException", "The request signature we calculated does not match", "credentials_invalid"),
        ("InvalidSignatureException", "Signature expired: 20250101T000000Z is now earlier than …", "dependency_unavailable"),
        ("UnrecognizedClientException", "The security token included in the request is invalid.", "credentials_invalid"),
        ("SomethingNew", "whatever", "unclassified"),
    ],
)
def test_an_error_of_v2_has_the_code_of_its_table(code: str, text: str, means: str) -> None:
    """v2 has other names for the same conditions; each proves that SES did not accept."""
    outcome = read(code, text, service="sesv2")
    assert isinstance(outcome, NotSent)
    assert outcome.error.code == means


@pytest.mark.parametrize(
    ("text", "rights"),
    [
        ("User `arn:…' is not authorized to perform `ses:SendEmail' on resource …", ("ses:SendEmail",)),
        ("User: arn:… is not authorized to perform: ses:SendEmail on resource: …", ("ses:SendEmail",)),
        ("User `arn:…' is not authorized to perform `ses:SendRawEmail' on resource …", ()),
        ("not authorized", ("ses:SendRawEmail", "ses:SendEmail")),
    ],
)
def test_a_denied_large_mail_has_the_missing_right(text: str, rights: tuple[str, ...]) -> None:
    """It is the right that AWS names, unless that is the one for every mail; if AWS names none, it is both."""
    outcome = read("AccessDeniedException", text, service="sesv2")
    assert isinstance(outcome, NotSent)
    assert (outcome.error.code, outcome.error.rights) == ("credentials_denied", rights)
    assert (outcome.retry_after is None) is (not rights)
    hint = add_remediation(outcome.error, a_config()).hint
    statement = json.loads(hint[hint.index("{") :])
    assert statement["Action"] == (list(rights) or "ses:SendRawEmail")


@pytest.mark.parametrize(("service", "limit"), [("ses", "10485760"), ("sesv2", "41943040")])
def test_too_large_has_both_sizes(service: str, limit: str) -> None:
    """The error has the message's size and the operation's limit."""
    message = read("RequestEntityTooLargeException", service=service).error.message
    assert str(SIZE) in message
    assert limit in message


@pytest.mark.parametrize(
    ("code", "text", "means"),
    [
        ("Throttling", "Maximum sending rate exceeded.", "throttled"),
        ("Throttling", "Daily message quota exceeded.", "daily_quota_exceeded"),
        ("ThrottlingException", "Rate exceeded", "throttled"),
        ("MailFromDomainNotVerifiedException", "", "mail_from_not_verified"),
        ("AccountSendingPausedException", "", "account_paused"),
        ("ConfigurationSetSendingPausedException", "", "account_paused"),
        ("ConfigurationSetDoesNotExist", "Configuration set <x> does not exist.", "configuration_set_missing"),
        ("InvalidClientTokenId", "The security token included in the request is invalid.", "credentials_invalid"),
        ("SignatureDoesNotMatch", "The request signature we calculated does not match", "credentials_invalid"),
        ("SignatureDoesNotMatch", "Signature expired: 20250101T000000Z is now earlier than …", "dependency_unavailable"),
        ("SignatureDoesNotMatch", "Signature not yet current: 20250101T000000Z is still later than …", "dependency_unavailable"),
        ("RequestExpired", "", "dependency_unavailable"),
        ("RequestTimeTooSkewed", "", "dependency_unavailable"),
        ("ExpiredToken", "", "dependency_unavailable"),
        ("AccessDenied", "User `arn:…' is not authorized to perform `ses:SendRawEmail'", "credentials_denied"),
        ("OptInRequired", "", "credentials_denied"),
        ("MessageRejected", "Sending paused for this account. For more information, please check the inbox …", "account_paused"),
        ("MessageRejected", "Sending suspended for this account.", "account_paused"),
        ("MessageRejected", "Unsupported file extension 'exe'", "attachment_type_blocked"),
        ("MessageRejected", "Message contained a virus.", "invalid_request"),
        ("InvalidParameterValue", "Message length is more than 10485760 bytes long: '14000000'.", "message_too_large"),
        ("InvalidParameterValue", "Missing final '@domain'", "recipient_rejected"),
        ("InvalidParameterValue", "Local address contains control or whitespace", "recipient_rejected"),
        ("InvalidParameterValue", "Duplicate header 'Subject'.", "invalid_request"),
        ("SomethingNew", "whatever", "unclassified"),
        ("", "", "unclassified"),
    ],
)
def test_an_error_has_the_code_of_the_table(code: str, text: str, means: str) -> None:
    """SES's code decides, or the text if the code is ambiguous; each proves that SES did not accept."""
    outcome = read(code, text)
    assert isinstance(outcome, NotSent)
    assert outcome.error.code == means


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_refused_mail_has_a_hint_of_its_own(table: tuple[Row, ...]) -> None:
    """The code's hint is about the fields that a message of ours names; SES's text is not passed on, so this one names none."""
    rows = [row for row in table if row.means == "invalid_request"]
    assert len(rows) == 2
    assert all(row.remediation and row.remediation.startswith("Caller: ") for row in rows)


@pytest.mark.parametrize(
    "identities",
    [
        "billing@acme.example",
        "BILLING@ACME.EXAMPLE",
        "acme.example",
        "Billing <billing@acme.example>, billing@acme.example",
        '"Doe, Jane" <billing@acme.example>',
        "jo@customer.example, billing@acme.example",
        "arn:aws:ses:eu-west-1:111122223333:identity/billing@acme.example",
        "arn:aws:ses:eu-west-1:111122223333:identity/acme.example, jo@customer.example",
        "billing@acme.example, someone@custo...",
        "",
    ],
)
def test_an_unverified_sender_is_a_tenant_error(identities: str) -> None:
    """If SES names the From identity, alone or among others, the from-address is not verified."""
    assert code_of("MessageRejected", UNVERIFIED + identities) == "from_address_not_verified"


def test_a_parent_domain_of_the_sender_counts_as_its_identity() -> None:
    """An identity for a domain covers its subdomains, so a named parent domain is the sender's."""
    outcome = read("MessageRejected", UNVERIFIED + "acme.example", sender="no-reply@mail.acme.example")
    assert outcome.error.code == "from_address_not_verified"


@pytest.mark.parametrize(
    "identities",
    [
        "jo@customer.example",
        "jo@customer.example, ann@customer.example, ...",
        "Jo <jo@customer.example>",
        "xbilling@acme.example",
        "billing@acme.example.evil.example",
        "notacme.example",
        "arn:aws:ses:eu-west-1:111122223333:identity/jo@customer.example",
    ],
)
def test_only_recipients_in_the_text_prove_the_sandbox(identities: str) -> None:
    """SES checks recipients only in the sandbox; a similar address is not the sender's."""
    assert code_of("MessageRejected", UNVERIFIED + identities) == "sandbox_recipient_not_verified"


def test_an_address_with_the_text_of_a_pause_is_not_a_pause() -> None:
    """Texts may contain addresses that others choose, so they are not searched for other conditions."""
    assert code_of("MessageRejected", UNVERIFIED + "paused@suspended.example") == "sandbox_recipient_not_verified"


@pytest.mark.parametrize(
    ("service", "row"), [(service, row) for service in TABLES for row in TABLES[service]], ids=lambda of: getattr(of, "means", of)
)
def test_the_text_of_ses_is_not_passed_on(service: str, row: Row) -> None:
    """SES's text may name recipients; our error has only region and size."""
    for code in row.codes:
        for text in (UNVERIFIED + "jo@customer.example", "daily jo@customer.example", "paused jo@customer.example"):
            shown = read(code, text, service=service).error
            assert "customer" not in f"{shown} {shown.hint}"
            assert not re.search(r"[{}]", f"{shown.message} {shown.hint}".replace('{"Effect"', "").replace('"*"}', ""))


def test_an_unlisted_error_shows_its_code_only_if_it_looks_like_one() -> None:
    """The alarm names the error to add to the table; other text is not trusted."""
    assert "SomethingNew" in read("SomethingNew").error.message
    assert "jo@" not in read("jo@customer.example\n").error.message


@pytest.mark.parametrize("status", [500, 502, 503, 504, 302, 0])
@pytest.mark.parametrize("code", ["InternalFailure", "ServiceUnavailable", "Throttling", "MessageRejected", ""])
def test_other_statuses_than_4xx_are_unknown(code: str, status: int) -> None:
    """With any code, another status than 4xx proves nothing: SES may have accepted the message."""
    outcome = read(code, "", status)
    assert isinstance(outcome, MaybeSent)
    assert outcome.error.code == "outcome_unknown"


def test_limits_of_the_account_have_a_retry_time() -> None:
    """After a used-up quota or a throttle the account is not called until then."""
    quota, rate = read("Throttling", "Daily message quota exceeded."), read("Throttling", "Maximum sending rate exceeded.")
    assert isinstance(quota, NotSent)
    assert isinstance(rate, NotSent)
    assert quota.retry_after == timedelta(seconds=QUOTA_BACKOFF)
    assert rate.retry_after == timedelta(seconds=THROTTLE_SETTLES)


def test_the_table_has_hints_only_for_specific_errors() -> None:
    """Only errors that say more than their code have a hint in the table; the others get the remediation for the config."""
    narrower = {"ConfigurationSetSendingPausedException", "OptInRequired", "SubscriptionRequiredException"}
    with_remediation = {
        code for row in TABLE if row.remediation and CODES[row.means].error_class is ErrorClass.TENANT for code in row.codes
    }
    assert with_remediation == narrower
    assert not [row for row in TABLE if row.remediation and row.means == "sandbox_recipient_not_verified"]
    error = add_remediation(read("MessageRejected", UNVERIFIED + SENDER).error, a_config(from_address=SENDER))
    assert {SENDER, "acme.example", "eu-west-1"} <= set(re.findall(r"[\w.@-]+", error.hint))
