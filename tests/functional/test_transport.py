"""Direct calls compared with boto3's own: the bytes on the wire, the result of each response, and of each fault."""

import json
import re
import socket
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
import botocore.session
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.endpoint import Endpoint
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailer.adapters.botocore_patches import connections
from mailer.adapters.botocore_patches.connections import use_own_connections
from mailer.adapters.botocore_patches.json_objects import NoObjectError, require_json_objects
from mailer.adapters.transport.direct_calls import call_directly
from mailer.adapters.transport.formats import DYNAMODB, SES
from support.isolation import signature
from support.servers import certificates
from support.servers.forward_proxy import ForwardProxy
from support.servers.ses_server import ACCEPTED, Answer, Close, Hang, Reaction, Reset, SesServer, accepted, refused

SECRET = "secret/of+ours"
NOW = datetime(2026, 11, 30, 9, tzinfo=UTC)
KEY = {"tenantId": {"S": "acme"}, "requestId": {"S": "r-é"}}
UPDATE = {
    "TableName": "messages",
    "Key": KEY,
    "UpdateExpression": "SET #a = :a",
    "ExpressionAttributeNames": {"#a": "a"},
    "ExpressionAttributeValues": {":a": {"M": {"B": {"B": b"\x00\xff"}, "n": {"N": "1"}, "flag": {"BOOL": False}}}},
    "ReturnValues": "ALL_NEW",
    "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
}
MAIL = {
    "Source": "a+b@x.example",
    "Destinations": ["c@y.example", "d@z.example"],
    "ConfigurationSetName": "set",
    "Tags": [{"Name": "one", "Value": "1"}, {"Name": "two", "Value": "2"}],
    "RawMessage": {"Data": bytes(range(256)) * 5},
}
CALLS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "UpdateItem": ("dynamodb", UPDATE),
    "GetItem": ("dynamodb", {"TableName": "messages", "Key": KEY, "ConsistentRead": True}),
    "BatchGetItem": ("dynamodb", {"RequestItems": {"messages": {"Keys": [KEY], "ConsistentRead": True}}}),
    "SendRawEmail": ("ses", MAIL),
}
METHODS = {"UpdateItem": "update_item", "GetItem": "get_item", "BatchGetItem": "batch_get_item", "SendRawEmail": "send_raw_email"}
FORMATS = {"dynamodb": DYNAMODB, "ses": SES}

pytestmark = pytest.mark.unwatched  # these calls mean nothing to AWS


def client_of(service: str, *, direct: bool, own: bool = True, attempts: int = 1, **options: Any) -> Any:
    """Return boto3's client of a service, over our connections, with direct calls or without."""
    keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": SECRET, **options}
    config = Config(
        retries={"total_max_attempts": attempts, "mode": "standard"},
        connect_timeout=2,
        read_timeout=0.5,
        parameter_validation=service == "ses",
        user_agent="tenantmail",
    )
    client = boto3.client(service, region_name="eu-west-1", config=config, **keys)  # type: ignore[call-overload]  # the service is a variable
    if own:
        use_own_connections(client)
    if direct:
        call_directly(client, FORMATS[service])
    return client


def make(client: Any, operation: str, **changes: Any) -> Any:
    return getattr(client, METHODS[operation])(**{**CALLS[operation][1], **changes})


def success(operation: str) -> Answer:
    item = json.dumps({"a": {"S": "x"}, "b": {"B": "AP8="}})
    return {
        "UpdateItem": Answer(f'{{"Attributes": {item}}}'),
        "GetItem": Answer(f'{{"Item": {item}}}'),
        "BatchGetItem": Answer(f'{{"Responses": {{"messages": [{item}]}}, "UnprocessedKeys": {{}}}}'),
        "SendRawEmail": accepted("0100-abc"),
    }[operation]


def without_metadata(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


@pytest.fixture
def server() -> Iterator[SesServer]:
    with SesServer() as server:
        yield server


Pair = tuple[Any, Any]
"""A client with direct calls, and boto3's own."""


@pytest.fixture
def pair(server: SesServer) -> Callable[..., Pair]:
    def pair_(service: str, **options: Any) -> Pair:
        direct, plain = (client_of(service, direct=which, endpoint_url=server.url, **options) for which in (True, False))
        return direct, plain

    return pair_


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freeze the time of signatures."""
    for module in ("botocore.auth", "mailer.adapters.transport.direct_calls"):
        monkeypatch.setattr(f"{module}.get_current_datetime", lambda: NOW.replace(tzinfo=None))


# -- requests ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", CALLS)
def test_every_operation_is_made_directly(server: SesServer, pair: Callable[..., Pair], operation: str) -> None:
    """After the first call botocore is not used."""
    direct, _ = pair(CALLS[operation][0])
    server.react = lambda _: success(operation)
    make(direct, operation)
    with patch.object(Endpoint, "make_request", side_effect=AssertionError("botocore was asked")):
        make(direct, operation)
    assert len(server.requests) == 2


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("token", [None, "a/session+token=="], ids=["key", "session"])
@pytest.mark.parametrize("in_lambda", [True, False])
@pytest.mark.parametrize("operation", CALLS)
def test_the_wire_is_that_of_boto3(
    server: SesServer, pair: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch, operation: str, token: str | None, *, in_lambda: bool
) -> None:
    """Header by header; forms byte by byte, JSON except for its spaces, which the signature covers."""
    if in_lambda:
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "send")
        monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-é;Sampled=1")
    server.react = lambda _: success(operation)
    for client in pair(CALLS[operation][0], aws_session_token=token):
        make(client, operation)
    ours, theirs = server.requests
    assert re.fullmatch(r"[0-9a-f-]{36}", ours.headers["amz-sdk-invocation-id"])
    varying = {"amz-sdk-invocation-id"} if operation == "SendRawEmail" else {"amz-sdk-invocation-id", "content-length", "authorization"}
    ours_fixed, theirs_fixed = ({n: v for n, v in request.headers.items() if n not in varying} for request in (ours, theirs))
    assert ours_fixed == theirs_fixed
    assert ("x-amzn-trace-id" in ours.headers, "x-amz-security-token" in ours.headers) == (in_lambda, token is not None)
    if operation == "SendRawEmail":
        assert ours.body == theirs.body
    else:
        assert json.loads(ours.body) == json.loads(theirs.body)
    scopes = [request.headers["authorization"].partition("Signature=") for request in (ours, theirs)]
    assert scopes[0][0] == scopes[1][0]
    assert scopes[0][2] == signature(ours, SECRET)


@pytest.mark.usefixtures("frozen")
def test_the_trace_id_is_that_of_the_invocation(server: SesServer, pair: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lambda detects loops by it."""
    direct, _ = pair("dynamodb")
    server.react = lambda _: success("UpdateItem")
    make(direct, "UpdateItem")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "send")
    for trace in ("Root=1", "Root=2"):
        monkeypatch.setenv("_X_AMZN_TRACE_ID", trace)
        make(direct, "UpdateItem")
    assert [request.headers.get("x-amzn-trace-id") for request in server.requests] == [None, "Root=1", "Root=2"]


def test_the_endpoint_is_the_one_that_botocore_resolves() -> None:
    """Regional, with TLS; nothing else of the URL is known to our code."""
    seen: list[str] = []

    def answer(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        seen.append(request.url)
        return AWSResponse(request.url, 200, HTTPHeaders(), _Body(ACCEPTED.format(id="x").encode()))

    for direct in (True, False):
        client = client_of("ses", direct=direct)
        client.meta.events.register("before-send.ses", answer)
        make(client, "SendRawEmail")
    assert set(seen) == {"https://email.eu-west-1.amazonaws.com/"}


class Session:
    """STS keys that expire earlier than botocore allows: each request gets new ones."""

    def __init__(self) -> None:
        self.number = 0

    def refresh(self) -> dict[str, str]:
        self.number += 1
        ends = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
        return {"access_key": f"ASIA{self.number}", "secret_key": SECRET, "token": f"token-{self.number}", "expiry_time": ends}


def test_our_own_credentials_are_refreshed(server: SesServer, pair: Callable[..., Pair]) -> None:
    """As in botocore, before each signature that needs it."""
    direct, _ = pair("dynamodb")
    direct._request_signer._credentials = RefreshableCredentials.create_from_metadata(
        Session().refresh(), refresh_using=(session := Session()).refresh, method="test"
    )
    server.react = lambda _: success("UpdateItem")
    for _ in range(3):
        make(direct, "UpdateItem")
    used = [(request.access_key, request.headers["x-amz-security-token"]) for request in server.requests]
    assert len(set(used)) == 3
    assert used[-1] == (f"ASIA{session.number}", f"token-{session.number}")


# -- left to botocore ----------------------------------------------------------------------------------------------------


def is_botocores(client: Any, operation: str) -> bool:
    """Return whether botocore makes a call after the first one."""
    sent: list[str] = []
    send = Endpoint.make_request

    def make_request(self: Endpoint, operation_model: Any, request_dict: Any) -> Any:
        sent.append(operation_model.name)
        return send(self, operation_model, request_dict)

    with patch.object(Endpoint, "make_request", make_request):
        make(client, operation)
    return sent == [operation]


def test_calls_through_a_proxy_are_botocore_s(server: SesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It handles tunnels and proxy passwords."""
    server.react = lambda _: success("UpdateItem")
    with ForwardProxy(("127.0.0.1", server.port)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        client = client_of("dynamodb", direct=True, endpoint_url=server.url)
        make(client, "UpdateItem")
        assert is_botocores(client, "UpdateItem")
        assert proxy.asked


def test_a_request_with_an_unknown_header_is_botocore_s(server: SesServer, pair: Callable[..., Pair]) -> None:
    """A later botocore may sign or send more than our code does."""
    direct, _ = pair("dynamodb")
    server.react = lambda _: success("UpdateItem")
    direct.meta.events.register("before-sign.dynamodb", lambda request, **_: request.headers.add_header("X-New", "1"))
    make(direct, "UpdateItem")
    assert is_botocores(direct, "UpdateItem")
    assert server.requests[-1].headers["x-new"] == "1"


def test_an_endpoint_with_a_path_is_botocore_s(server: SesServer) -> None:
    """Our code does not implement its canonical form."""
    server.react = lambda _: success("GetItem")
    client = client_of("dynamodb", direct=True, endpoint_url=f"{server.url}/aws")
    make(client, "GetItem")
    assert is_botocores(client, "GetItem")


def test_calls_over_other_connections_are_botocore_s(server: SesServer) -> None:
    """They would not show how much of a request was written."""
    server.react = lambda _: success("GetItem")
    client = client_of("dynamodb", direct=True, own=False, endpoint_url=server.url)
    make(client, "GetItem")
    assert is_botocores(client, "GetItem")


def test_other_operations_are_botocore_s(server: SesServer, pair: Callable[..., Pair]) -> None:
    """With botocore's result."""
    direct, plain = pair("dynamodb")
    server.react = lambda _: Answer('{"Items": [], "Count": 0}')
    answers = [client.query(TableName="t", KeyConditionExpression="a = :a") for client in (direct, plain)]
    assert answers[0]["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert without_metadata(answers[0]) == without_metadata(answers[1])


@pytest.mark.parametrize("changes", [{"Source": 7}, {"Destinations": [b"a"]}, {"RawMessage": {}}, {"Tags": [{"Name": "a", "Value": None}]}])
def test_invalid_parameters_are_not_sent(server: SesServer, pair: Callable[..., Pair], changes: dict[str, Any]) -> None:
    """Botocore raises before the first byte, before and after a valid call."""
    direct, _ = pair("ses")
    for _ in range(2):
        with pytest.raises(ParamValidationError):
            make(direct, "SendRawEmail", **changes)
        make(direct, "SendRawEmail")
    assert len(server.requests) == 2


def test_credentials_with_a_line_break_are_not_sent(server: SesServer, pair: Callable[..., Pair]) -> None:
    """It would inject a header; the call is left to botocore, which raises."""
    direct, plain = pair("ses")
    make(direct, "SendRawEmail")
    for client in (direct, plain):
        client._request_signer._credentials = Credentials("AKID\r\nX-Amz-Target: other", SECRET)
    errors = [seen(lambda client=client: make(client, "SendRawEmail")) for client in (direct, plain)]  # type: ignore[misc]
    assert errors[0] == errors[1]
    assert errors[0].error
    assert len(server.requests) == 1


# -- responses: items ----------------------------------------------------------------------------------------------------

compared = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
octets = st.binary(max_size=10)
leaves = st.one_of(
    st.builds(lambda text: {"S": text}, st.text(max_size=10)),
    st.builds(lambda number: {"N": str(number)}, st.integers()),
    st.builds(lambda data: {"B": data}, octets),
    st.builds(lambda flag: {"BOOL": flag}, st.booleans()),
    st.just({"NULL": True}),
    st.builds(lambda texts: {"SS": texts}, st.lists(st.text(max_size=5), min_size=1, max_size=3)),
    st.builds(lambda data: {"BS": data}, st.lists(octets, min_size=1, max_size=3)),
)
# With the names of types, because an attribute may have such a name.
names = st.sampled_from(["B", "BS", "S", "M", "tenantId", "é"]) | st.text(min_size=1, max_size=5)
values = st.recursive(
    leaves,
    lambda inner: (
        st.builds(lambda found: {"L": found}, st.lists(inner, max_size=3))
        | st.builds(lambda found: {"M": found}, st.dictionaries(names, inner, max_size=3))
    ),
    max_leaves=8,
)
items = st.dictionaries(names, values, min_size=1, max_size=5)


class _Body:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self) -> Any:
        yield self._content


class Wire:
    """A client whose requests end here; `answer` is the response."""

    def __init__(self, service: str, *, direct: bool) -> None:
        self.client = client_of(service, direct=direct)
        send: Any = self._send
        self.client.meta.events.register(f"before-send.{service}", send)
        self.status, self.answer = 200, b"{}"
        self.asked: Any = None

    def _send(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        self.asked = request.body
        return AWSResponse(request.url, self.status, HTTPHeaders(), _Body(self.answer))


@pytest.fixture(scope="module")
def wires() -> tuple[Wire, Wire]:
    return Wire("dynamodb", direct=True), Wire("dynamodb", direct=False)


@pytest.fixture(scope="module")
def forms() -> tuple[Wire, Wire]:
    return Wire("ses", direct=True), Wire("ses", direct=False)


def on_the_wire(value: Any) -> bytes:
    return json.dumps(value, default=lambda data: b64encode(data).decode()).encode()


@compared
@given(operands=items, attributes=items)
def test_an_update_is_the_same_as_boto3_s(wires: tuple[Wire, Wire], operands: dict[str, Any], attributes: dict[str, Any]) -> None:
    """With bytes, nested maps, and attributes named like a type."""
    answers = []
    for wire in wires:
        wire.answer = on_the_wire({"Attributes": attributes, "ConsumedCapacity": {"CapacityUnits": 1.5}})
        answers.append(without_metadata(make(wire.client, "UpdateItem", ExpressionAttributeValues=operands)))
    assert answers[0] == answers[1]
    assert answers[0]["Attributes"] == attributes
    assert json.loads(wires[0].asked) == json.loads(wires[1].asked)


@compared
@given(found=items | st.none(), several=st.lists(items, max_size=3))
def test_reads_are_the_same_as_boto3_s(wires: tuple[Wire, Wire], found: dict[str, Any] | None, several: list[dict[str, Any]]) -> None:
    """Also with a missing item and unprocessed keys."""
    one = {} if found is None else {"Item": found}
    many = {"Responses": {"messages": several}, "UnprocessedKeys": {"messages": {"Keys": [KEY]}} if several else {}}
    for operation, answer in (("GetItem", one), ("BatchGetItem", many)):
        for wire in wires:
            wire.answer = on_the_wire(answer)
        answers = [without_metadata(make(wire.client, operation)) for wire in wires]
        assert answers == [answer, answer]


addresses = st.text(max_size=20)


@compared
@given(
    source=addresses,
    to=st.lists(addresses, min_size=1, max_size=3),
    tags=st.dictionaries(addresses, addresses, max_size=3),
    raw=st.binary(max_size=100),
)
def test_a_form_is_the_same_as_boto3_s(forms: tuple[Wire, Wire], source: str, to: list[str], tags: dict[str, str], raw: bytes) -> None:
    """With any text and any bytes, byte for byte."""
    named = [{"Name": name, "Value": value} for name, value in tags.items()]
    changes = {"Source": source, "Destinations": to, "Tags": named, "RawMessage": {"Data": raw}}
    for wire in forms:
        wire.answer = ACCEPTED.format(id="m").encode()
        make(wire.client, "SendRawEmail", **changes)
    ours, theirs = (wire.asked for wire in forms)
    assert ours == (theirs.encode() if isinstance(theirs, str) else theirs)


# -- responses: successes and errors -------------------------------------------------------------------------------------


def model(service: str, operation: str) -> Any:
    return botocore.session.get_session().get_service_model(service).operation_model(operation)


COMMON = {
    "dynamodb": ["ExpiredTokenException", "InvalidSignatureException", "ValidationException", "BrandNew"],
    "ses": [
        *("Throttling", "ExpiredToken", "RequestExpired", "SignatureDoesNotMatch", "InvalidClientTokenId"),
        *("AccessDenied", "InvalidParameterValue", "BrandNew"),
    ],
}
"""Errors that no operation's model lists: those of every service."""

ERRORS = [
    (operation, code)
    for operation, (service, _) in CALLS.items()
    for code in [*sorted(shape.error_code for shape in model(service, operation).error_shapes), *COMMON[service]]
]


def error_answer(service: str, code: str, status: int = 400) -> Answer:
    if service == "ses":
        return refused(code, "Signature expired: it is now 20261130T090000Z", status)
    shown = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "no", "Item": {"a": {"B": "AP8="}}, "CancellationReasons": []}
    return Answer(json.dumps(shown), status)


@dataclass(frozen=True)
class Seen:
    """The result of a call: a response, or the type and content of the exception."""

    answer: Any = None
    error: str | None = None
    content: Any = None
    says: str = ""


def seen(call: Callable[[], Any]) -> Seen:
    try:
        return Seen(without_metadata(call()))
    except ClientError as error:
        response = dict(error.response)
        metadata = {n: v for n, v in response.pop("ResponseMetadata").items() if n not in ("RetryAttempts", "MaxAttemptsReached")}
        return Seen(error=type(error).__name__, content=(response, metadata), says=re.sub(r" \(reached max retries: \d\)", "", str(error)))
    except Exception as error:  # noqa: BLE001  # it is compared
        return Seen(error=type(error).__name__)


@pytest.mark.parametrize(("operation", "code"), ERRORS)
def test_every_modelled_error_is_that_of_boto3(server: SesServer, pair: Callable[..., Pair], operation: str, code: str) -> None:
    """Its class, which is the client's own, its members and its text; a mail and a failed condition are requested once."""
    service = CALLS[operation][0]
    direct, plain = pair(service)
    server.react = lambda _: error_answer(service, code)
    ours = seen(lambda: make(direct, operation))
    asked = len(server.requests)
    assert ours == seen(lambda: make(plain, operation))
    assert ours.error
    is_answer = service == "ses" or code == "ConditionalCheckFailedException"
    assert asked == (1 if is_answer else 2)
    assert (ours.error == "ClientError") == (code in COMMON[service])


BODIES: dict[str, Answer] = {
    "500": Answer("<html>oops</html>", 500),
    "503": Answer("no xml at all", 503),
    "a redirect": Answer("", 307),
    "an empty error": Answer("", 400),
    "an unreadable error": Answer("<oops", 400),
    "empty": Answer(""),
    "no XML": Answer("\x00\x01"),
    "another document": Answer("<html><body>OK</body></html>"),
    "no MessageId": Answer(ACCEPTED.replace("<MessageId>{id}</MessageId>", "")),
    "an empty MessageId": accepted(""),
    "no namespace": Answer(ACCEPTED.format(id="m").replace(' xmlns="http://ses.amazonaws.com/doc/2010-12-01/"', "")),
    "a declaration": Answer('<?xml version="1.0"?>\n' + ACCEPTED.format(id="m")),
    "spaces": Answer(ACCEPTED.format(id="m").replace("><", ">\n  <")),
    "an entity": accepted("a&amp;b"),
    "a comment": Answer(ACCEPTED.format(id="m") + "<!-- -->"),
}


@pytest.mark.parametrize("case", BODIES)
def test_responses_of_ses_are_parsed_as_by_boto3(server: SesServer, pair: Callable[..., Pair], case: str) -> None:
    """Whatever they contain; each mail is sent once."""
    direct, plain = pair("ses")
    server.react = lambda _: BODIES[case]
    ours, theirs = (seen(lambda client=client: make(client, "SendRawEmail")) for client in (direct, plain))  # type: ignore[misc]
    assert ours == theirs
    assert len(server.requests) == 2


@pytest.mark.parametrize("body", ["", "null", "[]", '{"Attributes": {"a', "<html>"])
def test_a_response_that_is_no_object_is_retried(server: SesServer, pair: Callable[..., Pair], body: str) -> None:
    """And then refused: a record would seem not to exist."""
    direct, _ = pair("dynamodb")
    require_json_objects(direct)
    server.react = lambda _: Answer(body)
    with pytest.raises(NoObjectError):
        make(direct, "GetItem")
    assert len(server.requests) == 2


def test_after_a_lost_reply_botocore_makes_the_configured_retries(server: SesServer, pair: Callable[..., Pair]) -> None:
    """An update is conditional, so it can be repeated; a throttled table gets backoff."""
    direct, _ = pair("dynamodb", attempts=3)
    server.react = lambda _: success("UpdateItem")
    make(direct, "UpdateItem")
    reactions: list[Reaction] = [Reset(), error_answer("dynamodb", "ThrottlingException"), Close(), success("UpdateItem")]
    server.react = lambda _: reactions.pop(0)
    assert make(direct, "UpdateItem")["Attributes"]["a"] == {"S": "x"}
    assert len(server.requests) == 5


# -- responses: framing --------------------------------------------------------------------------------------------------

CONTENT = success("UpdateItem").body


class Raw(Answer):
    """A response given byte by byte; it ends with its connection if it says so."""

    def encoded(self) -> bytes:
        return self.body.encode()


def framed(head: str, body: str = CONTENT, *, close: bool = True) -> Raw:
    return Raw(head.replace("\n", "\r\n") + "\r\n\r\n" + body, close=close)


LENGTH = f"Content-Length: {len(CONTENT)}"
FRAMES: dict[str, Raw] = {
    "plain": framed(f"HTTP/1.1 200 OK\n{LENGTH}"),
    "no reason": framed(f"HTTP/1.1 200\n{LENGTH}"),
    "chunks": framed("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", f"{len(CONTENT):x}\r\n{CONTENT}\r\n0\r\n\r\n"),
    "no length": framed("HTTP/1.1 200 OK"),
    "HTTP/1.0": framed(f"HTTP/1.0 200 OK\n{LENGTH}"),
    "an interim answer": framed(f"HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\n{LENGTH}"),
    "a length that is given twice": framed(f"HTTP/1.1 200 OK\n{LENGTH}\n{LENGTH}"),
    "a folded header": framed(f"HTTP/1.1 200 OK\nX-A: a\n b\n{LENGTH}"),
    "more than was announced": framed(f"HTTP/1.1 200 OK\n{LENGTH}", CONTENT + "HTTP/1.1 500 No\r\n\r\n", close=False),
    "a long header": framed(f"HTTP/1.1 200 OK\nX-A: {'a' * 60_000}\n{LENGTH}"),
    "the last answer": framed(f"HTTP/1.1 200 OK\nConnection: Close\n{LENGTH}"),
}


@pytest.mark.parametrize("case", FRAMES)
def test_a_response_is_read_with_every_framing(server: SesServer, pair: Callable[..., Pair], case: str) -> None:
    """Once, and nothing of it is left for the next call."""
    direct, plain = pair("dynamodb")
    server.react = lambda _: success("UpdateItem")
    for client in (direct, plain):
        make(client, "UpdateItem")
    server.react = lambda _: FRAMES[case]
    ours, theirs = (seen(lambda client=client: make(client, "UpdateItem")) for client in (direct, plain))  # type: ignore[misc]
    assert ours == theirs
    assert ours.answer["Attributes"]["b"] == {"B": b"\x00\xff"}
    server.react = lambda _: success("UpdateItem")
    assert make(direct, "UpdateItem") == ours.answer
    assert len(server.requests) == 5


def test_a_response_may_arrive_in_pieces(pair: Callable[..., Pair], server: SesServer) -> None:
    """A large item takes many reads."""
    direct, _ = pair("dynamodb")
    large = {"Attributes": {"a": {"S": "x" * 300_000}}}
    server.react = lambda _: Answer(json.dumps(large))
    assert make(direct, "UpdateItem") == make(direct, "UpdateItem") == large
    assert server.connections == 1


# -- faults --------------------------------------------------------------------------------------------------------------

MISHAPS: dict[str, Reaction] = {
    "hang": Hang(),
    "reset": Reset(),
    "close": Close(),
    "no HTTP": Raw("hello\r\n\r\n", close=True),
    "half a head": Raw("HTTP/1.1 200 OK\r\nContent-", close=True),
    "half a body": framed("HTTP/1.1 200 OK\nContent-Length: 500"),
    "half a chunk": framed("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", "40\r\n<SendRawEmailResponse"),
    "a head without end": Raw("HTTP/1.1 200 OK\r\n" + "X-A: a\r\n" * 200_000, close=True),
}


@pytest.mark.parametrize("case", MISHAPS)
@pytest.mark.parametrize("tls", [True, False], ids=["TLS", "plain"])
def test_faults_are_those_of_boto3(tmp_path: Path, case: str, *, tls: bool) -> None:
    """The same exception, and no second mail."""
    pem = certificates.make(tmp_path) if tls else None
    with SesServer(tls=pem and certificates.server_context(pem)) as server:
        clients = [client_of("ses", direct=direct, endpoint_url=server.url) for direct in (True, False)]
        for client in clients:
            use_own_connections(client, pem and str(pem))
            make(client, "SendRawEmail")
        server.react = lambda _: MISHAPS[case]
        ours, theirs = (seen(lambda client=client: make(client, "SendRawEmail")) for client in clients)  # type: ignore[misc]
        assert ours == theirs
        assert ours.error
        assert len(server.requests) == 4


def unreachable(stack: ExitStack, monkeypatch: pytest.MonkeyPatch, how: str, tmp_path: Path) -> tuple[str, str | None]:
    """Return an endpoint that cannot be reached, and the CA bundle to trust there."""
    if how == "a stranger":
        pem = certificates.make(tmp_path)
        return stack.enter_context(SesServer(tls=certificates.server_context(pem))).url, None
    if how in ("a handshake that hangs", "a handshake that ends"):
        reaction = Hang() if how.endswith("hangs") else Reset()
        return stack.enter_context(SesServer(lambda _: reaction, swallow=50, scheme="https")).url, None
    with SesServer() as gone:
        url = gone.url
    if how == "no such name":

        def unknown(*_: object, **__: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
    if how == "lost packets":
        stack.enter_context(socket.create_server(("127.0.0.1", gone.port), backlog=0))
        for _ in range(3):  # with a full backlog the kernel drops further connections
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", gone.port))
    return url, None


UNREACHABLE = ["nobody listens", "no such name", "lost packets", "a stranger", "a handshake that hangs", "a handshake that ends"]


@pytest.mark.parametrize("how", UNREACHABLE)
def test_an_unreachable_endpoint_fails_as_with_boto3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """For names, packets and certificates: the exception is the same."""
    with ExitStack() as stack:
        url, trusted = unreachable(stack, monkeypatch, how, tmp_path)
        clients = [client_of("ses", direct=direct, endpoint_url=url) for direct in (True, False)]
        for client in clients:
            use_own_connections(client, trusted)
        ours, theirs = (seen(lambda client=client: make(client, "SendRawEmail")) for client in clients)  # type: ignore[misc]
    assert ours == theirs
    assert ours.error


LARGE = {"RawMessage": {"Data": b"x" * 8_000_000}}


TOO_LARGE = refused("RequestEntityTooLargeException", status=413)


@pytest.mark.parametrize("reaction", [Reset(), Hang(), TOO_LARGE], ids=["reset", "hang", "answer"])
def test_a_partly_read_request_fails_as_with_boto3(monkeypatch: pytest.MonkeyPatch, reaction: Reaction) -> None:
    """The other side closes the connection, stops reading, or responds before it has read everything."""
    monkeypatch.setattr(connections, "WRITE_TIMEOUT", 0.5)
    with SesServer(lambda _: reaction, swallow=100_000) as server:
        clients = [client_of("ses", direct=direct, endpoint_url=server.url) for direct in (True, False)]
        ours, theirs = (seen(lambda client=client: make(client, "SendRawEmail", **LARGE)) for client in clients)  # type: ignore[misc]
    assert ours.error == theirs.error
    assert ours.error


def test_a_connection_is_not_reused_after_a_failure(server: SesServer, pair: Callable[..., Pair]) -> None:
    """The rest of its response would be taken for the next one's."""
    direct, _ = pair("ses")
    make(direct, "SendRawEmail")
    reactions: list[Reaction] = [Hang(), accepted("next")]
    server.react = lambda _: reactions.pop(0)
    with pytest.raises(BotoCoreError):
        make(direct, "SendRawEmail")
    assert make(direct, "SendRawEmail") == {"MessageId": "next"}
    assert server.connections == 2
