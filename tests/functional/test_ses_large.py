"""Mails that are too large for SES v1, over real sockets: sent by SES v2, with the same rules."""

import json
import tracemalloc
from base64 import b64encode
from collections.abc import Callable, Iterator
from time import monotonic

import pytest

from mailer.adapters.botocore_patches import connections
from mailer.adapters.providers.acting import TenantClients
from mailer.adapters.providers.credentials import SESSION_POLICY
from mailer.domain import large_mail
from mailer.domain.delivery import MaybeSent, NotSent, Outcome, Sent
from mailer.domain.large_mail import LARGE_BYTES, SMALL_BYTES
from mailer.domain.mime import compose
from mailer.domain.onboarding import Platform, onboarding_template
from mailer.domain.tags import tagged
from mailer.domain.uploads import MAX_UPLOAD
from support import tenants
from support.fakes.messages import a_send
from support.fakes.ports import NOON
from support.servers.ses_server import Answer, Close, Hang, Reaction, Request, Reset, SesServer, accepted, accepted_by_v2, refused_by_v2

LARGE = b"x" * (SMALL_BYTES + 1)
DENIED = "User `arn:aws:iam::1:user/mail' is not authorized to perform `ses:SendEmail' on resource `arn:…'"


def opened(server: SesServer) -> TenantClients:
    """Return clients that call this server as SES v1 and v2."""
    clients = TenantClients(width=4, connect_timeout=2.0, read_timeout=2.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_SES", server.url)
        patch.setenv("AWS_ENDPOINT_URL_SESV2", server.url)
        clients.ses(tenants.REGION)
        clients.sesv2(tenants.REGION)
    return clients


def accept(request: Request) -> Reaction:
    return accepted_by_v2() if request.body.startswith(b"{") else accepted()


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[SesServer, TenantClients]]:
    with SesServer(accept) as server:
        yield server, opened(server)


@pytest.fixture
def ses(shared: tuple[SesServer, TenantClients]) -> SesServer:
    """Reset the server: it accepts everything."""
    server = shared[0]
    server.react = accept
    server.requests.clear()
    return server


@pytest.fixture
def clients(shared: tuple[SesServer, TenantClients]) -> TenantClients:
    return shared[1]


@pytest.fixture
def send(clients: TenantClients) -> Callable[[], Outcome]:
    provider = tenants.ses(clients)
    return lambda: provider.send(tenants.mail(LARGE), tags={})


# ── the operation ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_size_decides_the_operation(ses: SesServer, clients: TenantClients) -> None:
    """Up to SES v1's limit a mail is sent by v1, which needs one right; one byte more, by v2."""
    provider = tenants.ses(clients)
    assert provider.send(tenants.mail(LARGE[:-1]), tags={}) == Sent("id-1")
    assert provider.send(tenants.mail(LARGE), tags={}) == Sent("id-2")
    assert [request.body.startswith(b"{") for request in ses.requests] == [False, True]


def test_the_request_has_the_envelope_and_the_message(ses: SesServer, clients: TenantClients) -> None:
    """All recipients, bcc included, are in the destination; the message arrives byte for byte."""
    mime = (b"Subject: \xff\r\n\r\n" + bytes(range(256)) * 41_000)[: SMALL_BYTES + 2]
    tenants.ses(clients).send(tenants.mail(mime, recipients=("jo@customer.example", "ann+x@customer.example")), tags={"a": "b"})
    [request] = ses.requests
    assert request.mime == mime
    assert request.document == {
        "FromEmailAddress": tenants.FROM,
        "Destination": {"ToAddresses": ["jo@customer.example", "ann+x@customer.example"]},
    }
    assert request.access_key == tenants.ACCESS_KEY_ID


def test_tags_are_sent_only_with_a_configuration_set(ses: SesServer, clients: TenantClients) -> None:
    """The same tags as for every mail, so that SES's events match its request."""
    tags = tagged({"campaign": "spring"}, tenant_id="acme", request_id="r.1", attempt=2)
    tenants.ses(clients, configuration_set="marketing").send(tenants.mail(LARGE), tags=tags)
    document = ses.requests[0].document
    assert document["ConfigurationSetName"] == "marketing"
    assert {tag["Name"]: tag["Value"] for tag in document["EmailTags"]} == dict(tags)


# ── the same outcome rules ──────────────────────────────────────────────────────────────────────────────────────────────

UNKNOWN: dict[str, Reaction] = {
    "hang": Hang(),
    "reset": Reset(),
    "close": Close(),
    "truncated answer": Answer('{"Mess', length=60, close=True),
    "garbage": Answer("\x00\x01 not json"),
    "empty": Answer(""),
    "a list": Answer("[]"),
    "no MessageId": Answer("{}"),
    "redirect": Answer("", status=307),
    "500": refused_by_v2("InternalServiceErrorException", status=500),
    "throttling as 503": refused_by_v2("TooManyRequestsException", status=503),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_without_a_readable_response_the_outcome_is_unknown(ses: SesServer, send: Callable[[], Outcome], case: str) -> None:
    """SES got the whole request: one request, and the outcome is unknown."""
    ses.react = lambda _: UNKNOWN[case]
    outcome = send()
    assert isinstance(outcome, MaybeSent)
    assert outcome.error.code == "outcome_unknown"
    assert len(ses.requests) == 1


@pytest.mark.parametrize(
    ("code", "text", "status", "means"),
    [
        ("TooManyRequestsException", "Too many requests", 429, "throttled"),
        ("BadRequestException", "Message length is more than 41943040 bytes long: '50000000'.", 400, "message_too_large"),
        ("AccessDeniedException", DENIED, 403, "credentials_denied"),
        ("NotFoundException", "Configuration set <x> does not exist.", 404, "configuration_set_missing"),
        ("BrandNewException", "…", 400, "unclassified"),
    ],
)
def test_an_error_response_proves_that_nothing_was_sent(
    ses: SesServer, send: Callable[[], Outcome], code: str, text: str, status: int, means: str
) -> None:
    """Codes and texts pass through botocore's parser to the error table."""
    ses.react = lambda _: refused_by_v2(code, text, status)
    outcome = send()
    assert isinstance(outcome, NotSent)
    assert outcome.error.code == means


def is_proven_not_sent(outcome: Outcome) -> bool:
    return isinstance(outcome, NotSent) and outcome.error.code == "dependency_unavailable"


def test_an_interrupted_upload_proves_that_nothing_was_sent() -> None:
    """SES cannot accept half a request."""
    with SesServer(lambda _: Reset(), swallow=5_000_000) as server:
        assert is_proven_not_sent(tenants.ses(opened(server)).send(tenants.mail(LARGE), tags={}))


def test_an_upload_that_is_too_slow_proves_that_nothing_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends after a time that depends on its size: with bytes left, and so proven not sent."""
    monkeypatch.setattr(connections, "WRITE_TIMEOUT", 0.2)
    monkeypatch.setattr(large_mail, "UPLOAD_SPEED", len(LARGE))  # one second more
    with SesServer(lambda _: Hang(), swallow=100_000) as server:
        clients = opened(server)
        began = monotonic()
        assert is_proven_not_sent(tenants.ses(clients).send(tenants.mail(LARGE), tags={}))
        assert 1.2 <= monotonic() - began < 5


def test_an_upload_whose_last_byte_was_written_is_unknown() -> None:
    """However slowly it was written, SES may have accepted it."""
    with SesServer(lambda _: Reset(), swallow=len(b64encode(LARGE)), pause=0.001) as server:
        assert isinstance(tenants.ses(opened(server)).send(tenants.mail(LARGE), tags={}), MaybeSent)


# ── settings ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_call_is_one_attempt_over_a_pool_as_wide_as_the_threads() -> None:
    """As with v1; read from the client's SDK settings."""
    clients = TenantClients(width=32)
    config = clients.sesv2("eu-west-1").meta.config
    assert config.retries == {"total_max_attempts": 1, "mode": "standard"}
    assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (3.0, 10.0, 32)
    assert clients.sesv2("eu-west-1") is clients.sesv2("eu-west-1")


def test_an_expired_session_is_renewed_and_the_message_goes_out(ses: SesServer, clients: TenantClients) -> None:
    """As with v1."""

    class Sessions:
        number = 1

        def current(self) -> object:
            return tenants.session(f"ASIASESSION{self.number}")

        def renewed(self, _: object) -> object:
            self.number += 1
            return self.current()

    expired = refused_by_v2("ExpiredTokenException", status=403)
    ses.react = lambda request: expired if request.access_key == "ASIASESSION1" else accept(request)
    assert tenants.ses(clients, Sessions()).send(tenants.mail(LARGE), tags={}) == Sent("id-2")  # type: ignore[arg-type]  # a small one
    assert [request.access_key for request in ses.requests] == ["ASIASESSION1", "ASIASESSION2"]


def test_no_log_contains_recipient_or_body(ses: SesServer, send: Callable[[], Outcome], caplog: pytest.LogCaptureFixture) -> None:
    """With every logger of the process at DEBUG."""
    with caplog.at_level("DEBUG"):
        send()
    assert len(ses.requests) == 1
    assert not [record for record in caplog.records if "customer.example" in record.getMessage() or "xxxxxxxx" in record.getMessage()]


def test_the_rights_of_large_mails_are_granted_in_both_names() -> None:
    """A role's session and the onboarding template allow both; the minimum policy still has one right."""
    [statement] = json.loads(SESSION_POLICY)["Statement"]
    assert {"ses:SendRawEmail", "ses:SendEmail"} <= set(statement["Action"])
    template = json.loads(onboarding_template(Platform("Acme", "aws", "1"), {}))
    [policy] = template["Resources"]["SendingRole"]["Properties"]["Policies"]
    statements = {one["Sid"]: one for one in policy["PolicyDocument"]["Statement"] if "Sid" in one}
    assert statements["SendRawEmail"]["Action"] == "ses:SendRawEmail"
    assert statements["SendLargeMail"]["Action"] == ["ses:SendEmail"]
    assert statements["SendLargeMail"]["Resource"] == statements["SendRawEmail"]["Resource"] == {"Ref": "SendAs"}


@pytest.mark.unwatched
def test_forty_megabytes_take_at_most_four_times_their_size() -> None:
    """Loading, composing, encoding, signing and writing the largest mail of SES v2: the byte budget assumes this."""
    file = {"filename": "a.pdf", "s3": {"key": "acme/1"}}
    message = a_send(message={"attachments": [file]}).message
    with SesServer(lambda _: accepted_by_v2(), keep=False) as server:
        provider = tenants.ses(opened(server))
        tracemalloc.start()
        mail = compose(message, provider.sender, date=NOON, load=lambda _: bytes(MAX_UPLOAD - 10_000))
        outcome = provider.send(mail, tags={})
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert outcome == Sent("id-2")
    assert LARGE_BYTES - 20_000 < len(mail.mime) <= LARGE_BYTES
    assert peak <= 4 * LARGE_BYTES, f"{peak / LARGE_BYTES:.1f} × the message"
