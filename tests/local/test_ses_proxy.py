"""The proxy in front of SES: it forwards unchanged, rejects what SES rejects, and injects faults exactly as configured."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from email.message import EmailMessage
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.exceptions
import pytest
from aiosmtpd.controller import Controller
from botocore.config import Config

from tools.local_aws import wire
from tools.local_aws.control import ControlError, PublishedEvent
from tools.local_aws.proxy import Listener, reserve_port
from tools.local_aws.ses import Bandwidth, RefusedError
from tools.local_aws.standalone import StandaloneSes, standalone_ses

FROM, TO = "billing@acme.example", "jo@example.com"
MAIL = f"From: {FROM}\r\nTo: {TO}\r\nSubject: Invoice\r\n\r\nHello\r\n".encode()
KEY = "AKIATENANT0000000001"


@pytest.fixture(scope="module")
def proxies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandaloneSes]:
    with standalone_ses(tmp_path_factory.mktemp("mail")) as alone:
        yield alone


@pytest.fixture
def ses(proxies: StandaloneSes) -> Iterator[StandaloneSes]:
    """One SES for the module, reset between tests."""
    yield proxies
    proxies.control.reset_all()
    proxies.control.forget_mails()
    proxies.control.forget_requests()


def client_for(url: str, access_key: str = KEY, *, service: str = "ses", read_timeout: float = 5.0, connect_timeout: float = 5.0) -> Any:
    """Return a client without retries, so that a test sees each request that it caused."""
    config = Config(retries={"total_max_attempts": 1}, read_timeout=read_timeout, connect_timeout=connect_timeout, max_pool_connections=50)
    session = boto3.Session(access_key, "secret", region_name="eu-central-1")
    return session.client(service, endpoint_url=url, config=config)  # type: ignore[call-overload]  # the service is a variable


def send(client: Any, raw: bytes = MAIL, to: tuple[str, ...] = (TO,), **more: Any) -> str:
    return str(client.send_raw_email(Source=FROM, Destinations=list(to), RawMessage={"Data": raw}, **more)["MessageId"])


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    """Return the code and text of SES's error."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call()
    return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]


# The ledger


def test_the_ledger_stores_the_exact_bytes(ses: StandaloneSes) -> None:
    """Every byte value, bare line ends and base64's `+` and `/` arrive unchanged."""
    raw = MAIL + bytes(range(256)) + b"\n\r>?>?" * 50
    message_id = send(client_for(ses.url), raw)
    [mail] = ses.control.mails()
    assert (mail.raw, mail.message_id, mail.size) == (raw, message_id, len(raw))
    assert mail.eml.with_suffix(".json").exists()


def test_the_ledger_stores_the_envelope(ses: StandaloneSes) -> None:
    """Sender and recipients come from the call, not from the headers."""
    ses.control.set_account(KEY, "222222222222")
    tags = [{"Name": "campaign", "Value": "spring"}]
    send(client_for(ses.url), to=("a@x.example", "b@x.example"), ConfigurationSetName="news", Tags=tags)
    [mail] = ses.control.mails(account="222222222222")
    assert (mail.source, mail.destinations) == (FROM, ["a@x.example", "b@x.example"])
    assert (mail.access_key, mail.region, mail.configuration_set, mail.tags) == (KEY, "eu-central-1", "news", {"campaign": "spring"})


def test_without_destinations_the_headers_decide(ses: StandaloneSes) -> None:
    """SES uses To, Cc and Bcc if the call names no recipients."""
    raw = b"From: a@x.example\r\nTo: B <b@x.example>,\r\n c@x.example\r\nBcc: d@x.example\r\n\r\n."
    client_for(ses.url).send_raw_email(RawMessage={"Data": raw})
    [mail] = ses.control.mails()
    assert mail.destinations == ["b@x.example", "c@x.example", "d@x.example"]


def test_accepted_mail_is_relayed_to_an_smtp_inbox_if_configured(ses: StandaloneSes) -> None:
    """The relay gets the same bytes with the same envelope."""
    inbox: list[Any] = []

    class Inbox:
        async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
            inbox.append(envelope)
            return "250 OK"

    with reserve_port() as held:
        smtp = Controller(Inbox(), hostname="127.0.0.1", port=held.getsockname()[1], ready_timeout=30)
        smtp.start()
        try:
            ses.control.relay_to("127.0.0.1", smtp.port)
            send(client_for(ses.url))
            wait_until(lambda: bool(inbox))
        finally:
            smtp.stop()
    assert (inbox[0].mail_from, inbox[0].rcpt_tos, inbox[0].content) == (FROM, [TO], MAIL)


# What SES rejects

REFUSALS = {
    "no From": (b"To: a@x.example\r\n\r\n.", (TO,), "Missing required header 'From'."),
    "two subjects": (b"Subject: a\r\n" + MAIL, (TO,), "Duplicate header 'Subject'."),
    "51 recipients": (MAIL, tuple(f"r{n}@x.example" for n in range(51)), "Recipient count exceeds 50."),
    "no domain": (MAIL, ("jo",), "Missing final '@domain'"),
    "local part with Unicode": (MAIL, ("jö@x.example",), "Local address contains control or whitespace"),
    "domain with Unicode": (MAIL, ("jo@ö.example",), "Domain contains illegal character"),
    "one byte too many": (MAIL.ljust(10_485_761, b"\n"), (TO,), "Message length is more than 10485760 bytes long: '10485761'."),
    "a line of 999 bytes": (MAIL + b"x" * 999, (TO,), "Line is longer than 998 bytes."),
}


@pytest.mark.parametrize(("raw", "to", "text"), REFUSALS.values(), ids=REFUSALS)
def test_a_malformed_message_is_rejected_as_by_ses(ses: StandaloneSes, raw: bytes, to: tuple[str, ...], text: str) -> None:
    """With SES's code and text, and without an entry in the ledger."""
    assert refusal(lambda: send(client_for(ses.url), raw, to)) == ("InvalidParameterValue", text)
    assert ses.control.mails() == []


def test_the_limits_themselves_are_allowed(ses: StandaloneSes) -> None:
    """10485760 bytes, 50 recipients and a line of 998 bytes pass."""
    raw = MAIL + (b"x" * 998 + b"\r\n") * 10_485
    raw += b"x" * (10_485_760 - len(raw))
    send(client_for(ses.url), raw, tuple(f"r{n}@x.example" for n in range(50)))
    [mail] = ses.control.mails()
    assert (mail.size, len(mail.destinations)) == (10_485_760, 50)


def test_a_sending_rate_counts_recipients_and_allows_debt(ses: StandaloneSes) -> None:
    """One message may exceed the rate; the next one is throttled until that is made up for."""
    ses.control.limit("333333333333", max_send_rate=4)
    client = client_for(ses.url, "333333333333")
    send(client, to=tuple(f"r{n}@x.example" for n in range(7)))
    assert refusal(lambda: send(client)) == ("Throttling", "Maximum sending rate exceeded.")
    wait_until(lambda: sends(client))
    first, second = ses.control.mails()
    assert second.time - first.time >= 0.95  # 3 recipients of debt and the next one, at 4 per second


def test_another_account_is_not_throttled(ses: StandaloneSes) -> None:
    """Each account has its own limits."""
    ses.control.limit("333333333334", max_send_rate=1)
    send(client_for(ses.url, "333333333334"))
    assert refusal(lambda: send(client_for(ses.url, "333333333334")))[0] == "Throttling"
    assert send(client_for(ses.url, "333333333335"))


def test_a_daily_quota_counts_recipients(ses: StandaloneSes) -> None:
    """A message that would exceed the quota is rejected, a smaller one still fits; only the text differs from the rate's error."""
    ses.control.limit("444444444444", max_24_hour_send=3)
    client = client_for(ses.url, "444444444444")
    send(client, to=("a@x.example", "b@x.example"))
    assert refusal(lambda: send(client, to=("c@x.example", "d@x.example"))) == ("Throttling", "Daily message quota exceeded.")
    assert send(client)


# SES v2


def send_large(client: Any, raw: bytes, to: tuple[str, ...] = (TO,)) -> str:
    return str(client.send_email(FromEmailAddress=FROM, Destination={"ToAddresses": list(to)}, Content={"Raw": {"Data": raw}})["MessageId"])


def lines(size: int) -> bytes:
    """Return a mail of `size` bytes."""
    return (MAIL + (b"x" * 76 + b"\r\n") * (size // 78 + 1))[:size]


def test_v2_accepts_a_raw_message_with_its_envelope_and_tags(ses: StandaloneSes) -> None:
    """It is in the ledger like any other, byte for byte."""
    tags = [{"Name": "campaign", "Value": "spring"}]
    message_id = client_for(ses.url, service="sesv2").send_email(
        FromEmailAddress=FROM,
        Destination={"ToAddresses": [TO], "BccAddresses": ["hidden@x.example"]},
        Content={"Raw": {"Data": MAIL}},
        ConfigurationSetName="news",
        EmailTags=tags,
    )["MessageId"]
    [mail] = ses.control.mails()
    assert (mail.message_id, mail.source, mail.destinations) == (message_id, FROM, [TO, "hidden@x.example"])
    assert (mail.raw, mail.configuration_set, mail.tags) == (MAIL, "news", {"campaign": "spring"})
    assert ses.control.requests(operation="SendEmail")


def test_v2_rejects_what_v1_rejects_with_its_own_code(ses: StandaloneSes) -> None:
    """Another code and the same texts, with four times the size."""
    client = client_for(ses.url, service="sesv2", read_timeout=60)
    for raw, to, text in REFUSALS.values():
        if len(raw) < 1_000_000:
            assert refusal(lambda raw=raw, to=to: send_large(client, raw, to)) == ("BadRequestException", text)  # type: ignore[misc]
    too_large = refusal(lambda: send_large(client, lines(41_943_041)))
    assert too_large == ("BadRequestException", "Message length is more than 41943040 bytes long: '41943041'.")
    assert ses.control.mails() == []
    assert send_large(client, lines(41_943_040))


def test_large_mails_count_towards_a_bandwidth_and_small_ones_do_not() -> None:
    """Forty megabytes per second and account, with a burst of one second's worth."""
    bandwidth = Bandwidth()
    for now in (100.0, 100.06, 102.0):
        bandwidth.take(41_943_040, now)
    bandwidth.take(41_943_040, 102.5)
    with pytest.raises(RefusedError):
        bandwidth.take(10_485_761, 102.5)
    bandwidth.take(10_485_760, 102.5)


def test_v2_is_throttled_with_its_own_code(ses: StandaloneSes) -> None:
    """Both operations count towards the same limits."""
    ses.control.limit("555555555555", max_send_rate=1)
    send(client_for(ses.url, "555555555555"))
    client = client_for(ses.url, "555555555555", service="sesv2")
    assert refusal(lambda: send_large(client, MAIL)) == ("TooManyRequestsException", "Maximum sending rate exceeded.")


# Network faults

# A reset right after the accept may arrive before the client sees the connection as established.
CUT = (botocore.exceptions.ConnectionClosedError, botocore.exceptions.HTTPClientError, botocore.exceptions.EndpointConnectionError)


def test_an_injected_error_has_the_given_code_status_and_text(ses: StandaloneSes) -> None:
    """Any error can be injected, for an exact number of requests."""
    fault = ses.control.inject("error", code="Throttling", message="Maximum <sending> rate", status=400, times=2)
    client = client_for(ses.url)
    assert [refusal(lambda: send(client)) for _ in range(2)] == [("Throttling", "Maximum <sending> rate")] * 2
    assert send(client)
    assert ses.control.hits(fault) == 2


@pytest.mark.parametrize(("when", "accepted"), [("before", 0), ("after", 1)])
def test_a_5xx_may_hide_an_accepted_mail(ses: StandaloneSes, when: str, accepted: int) -> None:
    """The same 500 is returned whether the mail is accepted or not."""
    ses.control.inject("error", when=when, status=500, code="InternalFailure")
    assert refusal(lambda: send(client_for(ses.url)))[0] == "InternalFailure"
    assert len(ses.control.mails()) == accepted


@pytest.mark.parametrize(("when", "accepted"), [("before", 0), ("after", 1)])
def test_a_hang_is_one_request_that_is_never_answered(ses: StandaloneSes, when: str, accepted: int) -> None:
    """The client's read timeout ends it; SES has received one request."""
    ses.control.inject("hang", when=when)
    with pytest.raises(botocore.exceptions.ReadTimeoutError):
        send(client_for(ses.url, read_timeout=0.2))
    [request] = ses.control.wait_for_requests(1, outcome="hung")
    assert (request.operation, request.access_key, len(ses.control.mails())) == ("SendRawEmail", KEY, accepted)


@pytest.mark.parametrize(("when", "accepted"), [("connect", 0), ("head", 0), ("before", 0), ("after", 1)])
@pytest.mark.parametrize("action", ["reset", "close"])
def test_a_connection_may_end_at_any_moment(ses: StandaloneSes, action: str, when: str, accepted: int) -> None:
    """The client only sees the end of the connection; whether the mail is accepted depends on the moment."""
    ses.control.inject(action, when=when)
    with pytest.raises(CUT):
        send(client_for(ses.url))
    assert len(ses.control.mails()) == accepted


def test_a_request_cut_off_after_its_head_is_still_recorded_with_its_ids(ses: StandaloneSes) -> None:
    """Its client has written all of it, and cannot distinguish this from a later cut."""
    ses.control.mark("billing")
    ses.control.inject("reset", when="head")
    with pytest.raises(CUT):
        send(client_for(ses.url))
    [request] = ses.control.requests(outcome="reset")
    assert (request.operation, request.marks) == ("SendRawEmail", ["billing"])


def test_a_reset_is_a_reset(ses: StandaloneSes) -> None:
    """`reset` sends a TCP RST, not a FIN."""
    ses.control.inject("reset")
    with socket.create_connection(address_of(ses.url)) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


@pytest.mark.parametrize("action", ["truncate", "garbage"])
def test_an_unreadable_200_may_hide_an_accepted_mail(ses: StandaloneSes, action: str) -> None:
    """The response has a success status and cannot be parsed; the mail is accepted."""
    ses.control.inject(action, when="after")
    with pytest.raises((*CUT, botocore.parsers.ResponseParserError)):
        send(client_for(ses.url))
    assert len(ses.control.mails()) == 1


def test_a_delayed_response_is_complete(ses: StandaloneSes) -> None:
    """A delay changes nothing else."""
    ses.control.inject("delay", seconds=0.2)
    began = time.monotonic()
    assert send(client_for(ses.url))
    assert time.monotonic() - began >= 0.2


def test_a_slow_response_is_complete(ses: StandaloneSes) -> None:
    """It arrives in small pieces, so each read is short."""
    ses.control.inject("slow", when="after", seconds=1.5)
    assert send(client_for(ses.url, read_timeout=1.0))


def test_a_fault_may_affect_one_caller_only(ses: StandaloneSes) -> None:
    """A fault for one access key does not affect others."""
    ses.control.inject("reset", access_key=KEY)
    assert send(client_for(ses.url, "AKIAOTHER"))
    with pytest.raises(CUT):
        send(client_for(ses.url))


def test_a_fault_may_affect_one_account_only(ses: StandaloneSes) -> None:
    """A fault for an account affects all of its keys, and no other account's."""
    ses.control.set_account("ASIATEMPORARY", "555555555555")
    ses.control.inject("error", code="X", account="555555555555")
    assert refusal(lambda: send(client_for(ses.url, "ASIATEMPORARY")))[0] == "X"
    assert send(client_for(ses.url, "555555555556"))


def test_a_fault_may_skip_the_first_requests(ses: StandaloneSes) -> None:
    """With `skip` a fault starts at the n-th request."""
    ses.control.inject("error", code="X", skip=2, times=1)
    client = client_for(ses.url)
    assert [sends(client) for _ in range(4)] == [True, True, False, True]


def test_a_seeded_probability_is_reproducible(ses: StandaloneSes) -> None:
    """The same seed affects the same requests."""
    client = client_for(ses.url)

    def pattern() -> list[bool]:
        fault = ses.control.inject("error", code="X", probability=0.5, seed=7)
        hits = [sends(client) for _ in range(20)]
        ses.control.clear_faults(id=fault)
        return hits

    first = pattern()
    assert first == pattern()
    assert {True, False} == set(first)


def test_clearing_the_faults_ends_hanging_connections(ses: StandaloneSes) -> None:
    """At once, so that no test waits for a timeout."""
    ses.control.inject("hang")
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send, client_for(ses.url, read_timeout=60))
        ses.control.wait_for_requests(1, outcome="hung")
        ses.control.clear_faults()
        with pytest.raises(CUT):
            sending.result(timeout=5)


@pytest.mark.parametrize(
    "rule", [{"action": "explode"}, {"action": "truncate", "when": "before"}, {"action": "reset", "when": "connect", "access_key": KEY}]
)
def test_an_invalid_fault_is_rejected(ses: StandaloneSes, rule: dict[str, str]) -> None:
    """A mistake in a test is reported at once."""
    with pytest.raises(ControlError):
        ses.control.inject(**rule)


def test_a_fault_may_depend_on_the_request_body(ses: StandaloneSes) -> None:
    """Only for requests whose body contains its text."""
    ses.control.inject("error", text="blue", code="Throttling", message="slow down")
    assert send(client_for(ses.url), to=("red@customer.example",))
    assert refusal(lambda: send(client_for(ses.url), to=("blue@customer.example",)))[0] == "Throttling"


def test_the_log_has_the_marks_of_a_request_if_configured(ses: StandaloneSes) -> None:
    """Matches of the pattern in its body; without a pattern nothing of a body is recorded."""
    send(client_for(ses.url), to=("r-17@customer.example",))
    ses.control.mark(r"r-\d+")
    send(client_for(ses.url), to=("r-18@customer.example",))
    assert [call.marks for call in ses.control.requests()] == [[], ["r-18"]]


def test_connections_can_be_refused_and_accepted_again(ses: StandaloneSes) -> None:
    """A refused connection carries no request; afterwards the same address works again."""
    ses.control.set_listening("ses", "refuse")
    with pytest.raises(botocore.exceptions.EndpointConnectionError):
        send(client_for(ses.url))
    ses.control.set_listening("ses", "accept")
    assert send(client_for(ses.url))
    assert len(ses.control.requests()) == 1


def test_an_ignoring_listener_makes_the_connect_time_out(ses: StandaloneSes) -> None:
    """After a connect timeout no request was written."""
    ses.control.set_listening("ses", "ignore")
    with pytest.raises(botocore.exceptions.ConnectTimeoutError):
        send(client_for(ses.url, connect_timeout=0.3))
    assert ses.control.requests() == []


def test_resetting_a_closed_connection_does_nothing() -> None:
    """Its client may have just closed it: the socket is closed, and its task has not run yet."""

    async def both_at_once() -> None:
        connected: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
        server = await asyncio.start_server(lambda _, writer: connected.set_result(writer), "127.0.0.1")
        _, client = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer = await connected
        writer.transport.abort()
        await asyncio.sleep(0)
        assert writer.get_extra_info("socket").fileno() == -1
        wire.reset(writer)
        client.close()
        server.close()

    asyncio.run(both_at_once())


def test_a_listener_that_failed_to_close_can_be_switched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One failure does not leave the service unavailable for later tests."""

    async def fail_once() -> bytes:
        listener = Listener(greet)
        port = await listener.listen(0)
        with monkeypatch.context() as patched:
            patched.setattr(wire, "reset", refuse_to)
            with pytest.raises(OSError, match="not now"):
                async with greeted(port):
                    await listener.switch("refuse", port)
        await listener.switch("accept", port)
        async with greeted(port) as greeting:
            pass
        await listener.stop()
        return greeting

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await reader.read()

    def refuse_to(_: object) -> None:
        raise OSError("not now")

    @asynccontextmanager
    async def greeted(port: int) -> AsyncIterator[bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield await reader.readexactly(5)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    assert asyncio.run(fail_once()) == b"hello"


def test_a_port_stays_reserved_while_nothing_listens(ses: StandaloneSes) -> None:
    """Otherwise another socket could get it."""
    ses.control.set_listening("ses", "refuse")
    with socket.socket() as another, pytest.raises(OSError, match="in use"):
        another.bind(address_of(ses.url))


def test_a_failing_command_returns_its_error(ses: StandaloneSes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller gets it, and the next command works."""

    async def break_down(*_: object) -> None:
        raise OSError("no more sockets")

    with monkeypatch.context() as patched:
        patched.setattr(Listener, "switch", break_down)
        with pytest.raises(ControlError, match="no more sockets"):
            ses.control.set_listening("ses", "refuse")
        with pytest.raises(ControlError, match="still accept no connections"):
            ses.control.reset_all()
    ses.control.reset_all()
    assert send(client_for(ses.url))


# Speed and other services


def test_a_load_of_parallel_mails_is_recorded_completely(ses: StandaloneSes) -> None:
    """Many threads lose no mail and share connections."""
    client = client_for(ses.url)
    with ThreadPoolExecutor(32) as pool:
        ids = set(pool.map(lambda _: send(client), range(1000)))
    assert {mail.message_id for mail in ses.control.mails()} == ids
    assert len(ids) == 1000


class Echo(BaseHTTPRequestHandler):
    """A service that responds with the request."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = f"{self.headers['Host']} {self.headers.get('Expect')} ".encode() + body
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x;ext=1\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(answer), answer))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[StandaloneSes]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    with standalone_ses(tmp_path, {"s3": ("127.0.0.1", server.server_port)}) as alone:
        yield alone
    server.shutdown()
    thread.join()
    server.server_close()


def put(url: str, headers: dict[str, str] | None = None) -> bytes:
    connection = HTTPConnection(*address_of(url))
    try:
        connection.request("PUT", "/bucket/key", b"data", headers or {})
        return connection.getresponse().read()
    finally:
        connection.close()


def test_any_service_is_forwarded_unchanged(echo: StandaloneSes) -> None:
    """Including the signed Host header, chunked responses with trailers, and `Expect: 100-continue`."""
    assert put(echo.urls["s3"], {"Host": "signed.example", "Expect": "100-continue"}) == b"signed.example None data"


def test_any_service_can_fail(echo: StandaloneSes) -> None:
    """An error of one service and operation has that service's format, and affects no other."""
    echo.control.inject("error", service="s3", operation="PUT", path="/bucket/", status=503, code="SlowDown")
    assert b"<Error><Code>SlowDown</Code>" in put(echo.urls["s3"])
    assert send(client_for(echo.url))


def address_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


def sends(client: Any) -> bool:
    try:
        send(client)
    except botocore.exceptions.ClientError:
        return False
    return True


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"


def test_mail_built_by_the_standard_library_is_accepted(ses: StandaloneSes) -> None:
    """No valid mail is rejected."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = FROM, TO, "Grüße"
    message.set_content("text")
    message.add_attachment(b"\x00" * 100, maintype="application", subtype="pdf", filename="a.pdf")
    assert send(client_for(ses.url), message.as_bytes())


# The events

SIMULATOR = "simulator.amazonses.com"
TAGS = [{"Name": "tenantmail-tenant", "Value": "acme"}, {"Name": "tenantmail-request", "Value": "invoice-1"}]


def events_of(ses: StandaloneSes, *to: str, at_least: int, **wanted: Any) -> list[PublishedEvent]:
    """Send a mail with a configuration set, and return its events."""
    message_id = send(client_for(ses.url), to=to or (TO,), ConfigurationSetName="news", Tags=TAGS)
    return ses.control.wait_for_events(at_least, message_id=message_id, **wanted)


def kinds(events: list[PublishedEvent]) -> list[str]:
    return [event.kind for event in events]


def test_ses_publishes_a_send_event_and_then_the_outcome(ses: StandaloneSes) -> None:
    """In EventBridge's envelope: the account is outside, the mail inside."""
    ses.control.set_account(KEY, "222222222222")
    sent, delivered = events_of(ses, at_least=2)
    assert (sent.kind, sent.envelope["detail-type"]) == ("Send", "Email Sent")
    envelope = delivered.envelope
    assert {name: envelope[name] for name in ("version", "detail-type", "source", "account", "region")} == {
        "version": "0",
        "detail-type": "Email Delivered",
        "source": "aws.ses",
        "account": "222222222222",
        "region": "eu-central-1",
    }
    detail = envelope["detail"]
    assert (detail["eventType"], detail["delivery"]["recipients"]) == ("Delivery", [TO])
    mail = detail["mail"]
    assert (mail["messageId"], mail["sendingAccountId"], mail["destination"]) == (delivered.message_id, "222222222222", [TO])
    assert (mail["tags"]["tenantmail-tenant"], mail["tags"]["ses:configuration-set"]) == (["acme"], ["news"])
    assert mail["commonHeaders"]["subject"] == "Invoice"
    assert sent.envelope["id"] != envelope["id"]


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        ("success", ["Send", "Delivery"]),
        ("bounce", ["Send", "Bounce"]),
        ("complaint", ["Send", "Delivery", "Complaint"]),
        ("ooto", ["Send", "Delivery", "Bounce"]),
        ("suppressionlist", ["Send", "Bounce"]),
        ("Complaint+Label", ["Send", "Delivery", "Complaint"]),
    ],
)
def test_the_simulator_s_addresses_behave_as_at_ses(ses: StandaloneSes, local: str, expected: list[str]) -> None:
    """With a label or without, in any case."""
    address = f"{local}@{SIMULATOR}"
    events = events_of(ses, address, at_least=len(expected))
    assert kinds(events) == expected
    last = events[-1].envelope["detail"]
    who = {
        "Delivery": ("delivery", "recipients"),
        "Bounce": ("bounce", "bouncedRecipients"),
        "Complaint": ("complaint", "complainedRecipients"),
    }
    part, name = who[events[-1].kind]
    assert [one if isinstance(one, str) else one["emailAddress"] for one in last[part][name]] == [address]


def test_a_hard_bounce_is_permanent_and_an_out_of_office_reply_is_not(ses: StandaloneSes) -> None:
    """With status and diagnostic code if a server responded."""
    bounce = events_of(ses, f"bounce@{SIMULATOR}", at_least=2)[1].envelope["detail"]["bounce"]
    assert (bounce["bounceType"], bounce["bounceSubType"], bounce["bouncedRecipients"][0]["status"]) == ("Permanent", "General", "5.1.1")
    listed = events_of(ses, f"suppressionlist@{SIMULATOR}", at_least=2)[1].envelope["detail"]["bounce"]
    assert (listed["bounceType"], listed["bounceSubType"]) == ("Permanent", "Suppressed")
    reply = events_of(ses, f"ooto@{SIMULATOR}", at_least=3)[2].envelope["detail"]["bounce"]
    assert reply["bounceType"] == "Transient"
    assert "status" not in reply["bouncedRecipients"][0]


def test_each_recipient_of_a_mail_has_its_own_outcome(ses: StandaloneSes) -> None:
    """Domains are reported separately; a complaint names all recipients of the mail at its domain."""
    to = (f"bounce@{SIMULATOR}", f"complaint@{SIMULATOR}", f"success@{SIMULATOR}", TO)
    details = [event.envelope["detail"] for event in events_of(ses, *to, at_least=5)]
    assert [detail["eventType"] for detail in details] == ["Send", "Bounce", "Delivery", "Delivery", "Complaint"]
    assert [detail["delivery"]["recipients"] for detail in details[2:4]] == [[to[1], to[2]], [TO]]
    assert [one["emailAddress"] for one in details[4]["complaint"]["complainedRecipients"]] == [to[1], to[2]]


def test_a_test_may_set_the_outcome_of_an_address(ses: StandaloneSes) -> None:
    """Also outcomes without a simulator address. A delay has none of the sender's tags, as in SES's sample."""
    for name, outcome in {"slow": "delayed", "full": "mailbox full", "virus": "rejected"}.items():
        ses.control.set_outcome(f"{name}@x.example", outcome)
    slow = events_of(ses, "Slow@x.example", at_least=3)
    assert kinds(slow) == ["Send", "DeliveryDelay", "Delivery"]
    assert slow[1].envelope["detail"]["mail"]["tags"] == {"ses:configuration-set": ["news"]}
    full = events_of(ses, "full@x.example", at_least=2)
    assert full[1].envelope["detail"]["bounce"]["bounceSubType"] == "MailboxFull"
    assert kinds(events_of(ses, "virus@x.example", TO, at_least=2)) == ["Send", "Reject"]


def test_without_a_configuration_set_there_are_no_events(ses: StandaloneSes) -> None:
    """Only the next mail, which has one, has events."""
    silent = send(client_for(ses.url))
    events_of(ses, at_least=2)
    assert ses.control.events(message_id=silent) == []


def test_events_can_be_lost_duplicated_and_delayed(ses: StandaloneSes) -> None:
    """For one account, kind and recipient, a given number of times."""
    ses.control.set_account(KEY, "222222222222")
    lost = ses.control.inject_event_fault("lose", account="222222222222", kind="Send", times=1)
    ses.control.inject_event_fault("lose", account="333333333333")
    twice = ses.control.inject_event_fault("duplicate", kind="Delivery", copies=3, recipient=TO)
    late = ses.control.inject_event_fault("delay", kind="Complaint", seconds=0.7)
    events = events_of(ses, f"complaint@{SIMULATOR}", TO, at_least=8)
    assert [(event.kind, event.lost) for event in events] == [("Send", True), *[("Delivery", False)] * 6, ("Complaint", False)]
    *_, delivered, complained = events_of(ses, f"complaint@{SIMULATOR}", at_least=3)
    assert complained.time - delivered.time > 0.7
    assert [ses.control.event_fault_hits(fault) for fault in (lost, twice, late)] == [1, 2, 2]


def test_events_of_a_mail_can_arrive_in_reverse_order(ses: StandaloneSes) -> None:
    """As they may from SES."""
    ses.control.inject_event_fault("reorder")
    assert kinds(events_of(ses, f"complaint@{SIMULATOR}", at_least=3)) == ["Complaint", "Delivery", "Send"]


def test_events_of_other_accounts_can_be_forged(ses: StandaloneSes) -> None:
    """Another account's with our tags, and ours with another's tags."""
    ses.control.set_account(KEY, "222222222222")
    foreign = ses.control.inject_event_fault("foreign account", kind="Send", as_account="444444444444", times=1)
    forged = ses.control.inject_event_fault("forged tags", kind="Delivery", tags={"tenantmail-tenant": "globex"}, times=1)
    sent, delivered = events_of(ses, at_least=2)
    assert (sent.envelope["account"], sent.account, sent.faults) == ("444444444444", "222222222222", [foreign])
    mail = delivered.envelope["detail"]["mail"]
    assert (delivered.envelope["account"], mail["tags"]["tenantmail-tenant"], delivered.faults) == ("222222222222", ["globex"], [forged])
    assert mail["tags"]["tenantmail-request"] == ["invoice-1"]


def test_a_reset_removes_faults_and_outcomes_of_events(ses: StandaloneSes) -> None:
    """Later events are as at SES."""
    ses.control.inject_event_fault("lose")
    ses.control.set_outcome(TO, "bounced")
    ses.control.reset_all()
    assert [(event.kind, event.lost) for event in events_of(ses, at_least=2)] == [("Send", False), ("Delivery", False)]


@pytest.mark.parametrize("rule", [{"action": "eat"}, {"action": "lose", "colour": "red"}])
def test_an_invalid_fault_of_events_is_rejected(ses: StandaloneSes, rule: dict[str, Any]) -> None:
    """A mistyped fault would invalidate a test silently."""
    with pytest.raises(ControlError):
        ses.control.inject_event_fault(**rule)
