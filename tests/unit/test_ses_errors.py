"""The tables of SES's errors: complete, and read so that a text never blames the wrong party."""

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
SIZE = 20_000_000  # bytes of what v2 is given
TABLES = {"ses": TABLE, "sesv2": ses_v2_errors.TABLE}
UNVERIFIED = "Email address is not verified. The following identities failed the check in region EU-WEST-1: "

# The API reference's "Common Errors" of SES, and what the front of every AWS service may answer.
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


# The SES v2 API reference's "Common Errors", and the names that its JSON front gives them.
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
def test_every_common_aws_error_stands_in_the_table(service: str, code: str) -> None:
    """An error that any AWS service may answer is never met unprepared."""
    assert any(code in row.codes for row in TABLES[service])


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_row_means_something_that_exists_and_matches_its_kind(table: tuple[Row, ...]) -> None:
    """Rows use codes of ours; none of them claims `unknown`, for a 4xx is proof."""
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
def test_an_error_of_v2_means_what_its_table_says(code: str, text: str, means: str) -> None:
    """The same conditions under other codes; each is proof that SES did not accept."""
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
def test_a_denied_large_mail_says_exactly_which_right_is_missing(text: str, rights: tuple[str, ...]) -> None:
    """As AWS names it; the one that every mail takes is no right of large mails, and where AWS names none both are told."""
    outcome = read("AccessDeniedException", text, service="sesv2")
    assert isinstance(outcome, NotSent)
    assert (outcome.error.code, outcome.error.rights) == ("credentials_denied", rights)
    assert (outcome.retry_after is None) is (not rights)
    hint = add_remediation(outcome.error, a_config()).hint
    statement = json.loads(hint[hint.index("{") :])
    assert statement["Action"] == (list(rights) or "ses:SendRawEmail")


@pytest.mark.parametrize(("service", "limit"), [("ses", "10485760"), ("sesv2", "41943040")])
def test_what_ses_takes_for_too_large_is_told_with_both_numbers(service: str, limit: str) -> None:
    """The message's size, and what the operation takes."""
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
def test_an_error_means_what_the_table_says(code: str, text: str, means: str) -> None:
    """Code, and where the code says too little the text, decide; each is proof that SES did not accept."""
    outcome = read(code, text)
    assert isinstance(outcome, NotSent)
    assert outcome.error.code == means


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
def test_an_unverified_sender_is_the_tenants_matter(identities: str) -> None:
    """However SES names the From identity, alone or among others, the from-address is what is not verified."""
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
def test_recipients_named_alone_prove_the_sandbox(identities: str) -> None:
    """Only in the sandbox does SES check recipients; an address that merely resembles the sender's is not the sender's."""
    assert code_of("MessageRejected", UNVERIFIED + identities) == "sandbox_recipient_not_verified"


def test_an_address_that_talks_of_a_pause_pauses_nobody() -> None:
    """Texts hold addresses that strangers choose: they are never searched for other meanings."""
    assert code_of("MessageRejected", UNVERIFIED + "paused@suspended.example") == "sandbox_recipient_not_verified"


@pytest.mark.parametrize(
    ("service", "row"), [(service, row) for service in TABLES for row in TABLES[service]], ids=lambda of: getattr(of, "means", of)
)
def test_what_ses_says_goes_no_further(service: str, row: Row) -> None:
    """No text of SES, which may name recipients, gets into our error; only region and size are filled in."""
    for code in row.codes:
        for text in (UNVERIFIED + "jo@customer.example", "daily jo@customer.example", "paused jo@customer.example"):
            shown = read(code, text, service=service).error
            assert "customer" not in f"{shown} {shown.hint}"
            assert not re.search(r"[{}]", f"{shown.message} {shown.hint}".replace('{"Effect"', "").replace('"*"}', ""))


def test_an_unlisted_error_shows_its_code_only_if_it_looks_like_one() -> None:
    """The alarm names what to add to the table, without trusting the other side."""
    assert "SomethingNew" in read("SomethingNew").error.message
    assert "jo@" not in read("jo@customer.example\n").error.message


@pytest.mark.parametrize("status", [500, 502, 503, 504, 302, 0])
@pytest.mark.parametrize("code", ["InternalFailure", "ServiceUnavailable", "Throttling", "MessageRejected", ""])
def test_without_a_client_error_nobody_can_know(code: str, status: int) -> None:
    """Whatever the code, a status outside 4xx proves nothing: SES may have accepted the message."""
    outcome = read(code, "", status)
    assert isinstance(outcome, MaybeSent)
    assert outcome.error.code == "outcome_unknown"


def test_what_ses_refuses_for_its_limits_comes_back_when_the_account_goes_on() -> None:
    """A used-up quota rests the account, a throttle silences it for seconds: until then another try would be one for nothing."""
    quota, rate = read("Throttling", "Daily message quota exceeded."), read("Throttling", "Maximum sending rate exceeded.")
    assert isinstance(quota, NotSent)
    assert isinstance(rate, NotSent)
    assert quota.retry_after == timedelta(seconds=QUOTA_BACKOFF)
    assert rate.retry_after == timedelta(seconds=THROTTLE_SETTLES)


def test_the_doctor_is_not_shadowed() -> None:
    """The table advises only where SES's answer tells more than its code: elsewhere the tenant gets what fits its config."""
    narrower = {"ConfigurationSetSendingPausedException", "OptInRequired", "SubscriptionRequiredException"}
    with_remediation = {
        code for row in TABLE if row.remediation and CODES[row.means].error_class is ErrorClass.TENANT for code in row.codes
    }
    assert with_remediation == narrower
    assert not [row for row in TABLE if row.remediation and row.means == "sandbox_recipient_not_verified"]
    error = add_remediation(read("MessageRejected", UNVERIFIED + SENDER).error, a_config(from_address=SENDER))
    assert {SENDER, "acme.example", "eu-west-1"} <= set(re.findall(r"[\w.@-]+", error.hint))
