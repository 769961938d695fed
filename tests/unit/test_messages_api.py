"""The messages API from event to response, with fakes: accepted and rejected requests, and the problems."""

import base64
import json
import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest

from mailer import wiring
from mailer.domain.delivery import Status
from mailer.handlers import messages
from mailer.handlers.rest.models import MAX_SHOWN
from mailer.services.api.messages import MessagesDependencies
from support.fakes.messages import a_body, fake_deps, serve_from
from support.fakes.ports import FakeProvidersTable, a_delivery, a_provider
from support.servers.gateway import Gateway

ACME = "/tenants/acme/messages"


@pytest.fixture
def deps(monkeypatch: pytest.MonkeyPatch) -> MessagesDependencies:
    """Put fakes behind the handler, where acme and bravo have active providers."""
    fakes = fake_deps(providers=FakeProvidersTable(a_provider(), a_provider("bravo")))
    serve_from(fakes, monkeypatch)
    return fakes


@pytest.fixture
def api(deps: MessagesDependencies) -> Gateway:  # noqa: ARG001 - patched behind the handler
    return Gateway(messages.handler)


# ── send ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_id_may_be_a_header(api: Gateway) -> None:
    """`Idempotency-Key` is the requestId, with its name in any case."""
    for name in ("Idempotency-Key", "idempotency-key"):
        assert api.call("POST", ACME, a_body(None), {name: "key-1"}).json["requestId"] == "key-1"
    assert api.call("POST", ACME, a_body("key-2"), {"Idempotency-Key": "key-2"}).status == 202


def test_two_different_ids_are_refused(api: Gateway) -> None:
    """The ids of body and header must be equal."""
    answer = api.call("POST", ACME, a_body("one"), {"Idempotency-Key": "two"})
    assert answer.is_problem(400, "invalid_request")
    assert answer.paths == ["requestId"]


def test_a_missing_id_is_generated(api: Gateway) -> None:
    """It is a UUIDv7: unique, and ordered by time."""
    ids = [UUID(api.call("POST", ACME, a_body(None)).json["requestId"]) for _ in range(2)]
    assert ids[0] != ids[1]
    assert {i.version for i in ids} == {7}
    assert ids[0].int >> 80 <= ids[1].int >> 80


def test_an_id_with_other_content_is_a_conflict(api: Gateway) -> None:
    """The response is a 409 that names the id."""
    api.call("POST", ACME, a_body("r1"))
    answer = api.call("POST", ACME, a_body("r1", message={"subject": "Other"}))
    assert answer.is_problem(409, "request_id_reused")
    assert answer.paths == ["requestId"]


def test_the_tenant_is_that_of_the_path(api: Gateway) -> None:
    """A body may name the same tenant, but not another."""
    assert api.call("POST", ACME, a_body(tenantId="bravo")).is_problem(400, "tenant_mismatch")
    assert api.call("POST", ACME, a_body(tenantId="acme")).status == 202


def test_every_problem_is_listed_without_values(api: Gateway) -> None:
    """Each problem has its path, and no value of the request."""
    secret = "S3CR3T"
    body = {
        "message": {"to": [{"email": secret}], "subject": f"{secret}\n", "text": 1, secret.lower(): 1, "headers": {"From": secret}},
        "onUnknown": secret,
    }
    answer = api.call("POST", ACME, body)
    assert answer.is_problem(400, "invalid_request")
    assert {"onUnknown", "message.to[0].email", "message.subject", "message.text", "message.headers.From"} <= set(answer.paths)
    assert secret not in answer.text


def test_a_request_of_a_tenant_without_a_provider_is_refused(api: Gateway) -> None:
    """The response is a 409 with the code that its record would get."""
    assert api.call("POST", "/tenants/nobody/messages", a_body()).is_problem(409, "provider_not_configured")


def test_a_request_above_the_queue_s_limit_is_refused_with_a_hint(api: Gateway) -> None:
    """The hint names the upload."""
    answer = api.call("POST", ACME, a_body(message={"text": "x" * 1_050_000}))
    assert answer.is_problem(413, "message_too_large")
    assert "POST …/attachments" in answer.json["detail"]


# ── events of API Gateway ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_body_may_be_in_base64(api: Gateway) -> None:
    """API Gateway encodes binary bodies."""
    body = base64.b64encode(json.dumps(a_body("r1")).encode()).decode()
    assert api.call("POST", ACME, body, isBase64Encoded=True).status == 202


NO_JSON = [None, "", "not json", "1" * 5000, "[" * 100_000, '{"a":' * 50_000, '{"message": NaN}']
AMBIGUOUS = ['{"message": 1, "message": 2}', '{"message": "\\ud800"}']
NO_OBJECT = ["[]", '"text"', "null", "1"]
NO_TEXT = ["not base64", base64.b64encode(b"\x00\x01").decode(), base64.b64encode(b'{"message\xff": 1}').decode()]
BODIES = [(body, False) for body in (*NO_JSON, *AMBIGUOUS, *NO_OBJECT)] + [(body, True) for body in NO_TEXT]


@pytest.mark.parametrize(("body", "encoded"), BODIES)
@pytest.mark.parametrize("path", [ACME, f"{ACME}/batch", f"{ACME}/r1/resolve", "/tenants/acme/attachments"])
def test_a_malformed_body_is_refused(api: Gateway, path: str, body: str | None, encoded: bool) -> None:  # noqa: FBT001
    """The response is a 400 for any bytes."""
    assert api.call("POST", path, body, isBase64Encoded=encoded).is_problem(400, "invalid_request")


@pytest.mark.parametrize("body", [*NO_JSON, *NO_OBJECT])
def test_a_preview_of_malformed_json_is_refused(api: Gateway, body: str | None) -> None:
    """A preview lists problems of a request; malformed JSON is an error instead."""
    assert api.call("POST", f"{ACME}/preview", body).is_problem(400, "invalid_request")


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "multipart/form-data; boundary=x", "\x00"]
)
def test_another_media_type_is_refused(api: Gateway, media_type: str) -> None:
    """The API accepts only JSON; forms are rejected without an exception."""
    assert api.call("POST", ACME, "--x\r\nĀ", {"Content-Type": media_type}).status == 415


@pytest.mark.parametrize("media_type", ["application/json", "APPLICATION/JSON; charset=utf-8", "", None])
def test_json_media_types_are_accepted(api: Gateway, media_type: str | None) -> None:
    """The type may have parameters, be in any case, or be missing."""
    assert api.call("POST", ACME, a_body(), {"content-type": media_type}).status == 202  # type: ignore[dict-item]  # as events have it


def test_a_request_id_may_be_percent_encoded(api: Gateway) -> None:
    """Clients encode the colon, and API Gateway does not decode the path."""
    api.call("POST", ACME, a_body("a:1"))
    assert api.call("GET", f"{ACME}/a%3A1").json["requestId"] == "a:1"


@pytest.mark.parametrize(
    "path",
    [
        "/tenants/ac%6De/messages",
        "/tenants/acme%2F/messages",
        "/tenants/%00/messages",
        "/tenants/../messages",
        "/tenants//messages",
        f"/tenants/{'a' * 65}/messages",
        f"{ACME}/%00",
        f"{ACME}/a%2Fb",
        f"{ACME}/%FF",
        f"{ACME}/{'a' * 129}",
        f"{ACME}/batch",
        f"{ACME}/preview",
        f"{ACME}/%ED%A0%80",
        f"{ACME}/r1\n",
        "/",
        "/tenants",
        "/v1/tenants/acme/messages",
    ],
)
def test_invalid_ids_in_the_path_are_not_found(api: Gateway, path: str) -> None:
    """The response is a 404 before any read; a tenant is never decoded."""
    assert api.call("GET", path).is_problem(404, "not_found")


# ── list ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "limit=", "limit=1&limit=2", "status=done", "status=", "status=sent&status=sent"]
)
def test_a_query_out_of_bounds_is_refused(api: Gateway, query: str) -> None:
    """The response is a 400 that names the parameter."""
    answer = api.call("GET", f"{ACME}?{query}")
    assert answer.is_problem(400, "invalid_request")
    assert answer.paths == [query.partition("=")[0]]


# ── batch ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_request_of_a_batch_has_its_own_response(api: Gateway) -> None:
    """The response is a 207 with each request's own response, in order."""
    batch = [a_body("a"), a_body("a"), a_body("a", message={"subject": "Other"}), {}, 1, a_body("b", tenantId="bravo"), a_body(None)]
    answer = api.call("POST", f"{ACME}/batch", batch)
    assert answer.status == 207
    assert [item["status"] for item in answer.json] == [202, 202, 409, 400, 400, 400, 202]
    assert [item.get("replayed", False) for item in answer.json] == [False, True, False, False, False, False, False]
    assert [item["problem"]["code"] for item in answer.json if "problem" in item] == [
        "request_id_reused",
        "invalid_request",
        "invalid_request",
        "tenant_mismatch",
    ]
    assert answer.json[0]["record"] == api.call("GET", f"{ACME}/a").json


def test_a_batch_has_1_to_100_requests(api: Gateway) -> None:
    """None or 101 are rejected; a hundred are accepted."""
    for size in (0, 101):
        assert api.call("POST", f"{ACME}/batch", [a_body(f"r{n}") for n in range(size)]).is_problem(400, "invalid_request")
    answer = api.call("POST", f"{ACME}/batch", [a_body(f"r{n}") for n in range(100)])
    assert {item["status"] for item in answer.json} == {202}
    assert [item["record"]["requestId"] for item in answer.json] == [f"r{n}" for n in range(100)]


# ── cancel, preview, resolve ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_time_too_far_ahead_is_refused(api: Gateway) -> None:
    """The response is a 400 that names the field."""
    answer = api.call("POST", ACME, a_body("r1", sendAt="2999-01-01T00:00:00Z"))
    assert answer.is_problem(400, "invalid_request")
    assert answer.paths == ["sendAt"]


def test_a_preview_shows_the_mail_and_sends_nothing(api: Gateway, deps: MessagesDependencies) -> None:
    """The response has the raw message and its size; no record or queue message is written."""
    shown = api.call("POST", f"{ACME}/preview", a_body("r1")).json
    assert "Subject: Hello\r\n" in shown["mime"]
    assert (shown["truncated"], shown["size"], shown["problems"]) == (False, len(shown["mime"]), [])
    assert not deps.queue.messages
    assert api.call("GET", f"{ACME}/r1").status == 404


def test_a_preview_lists_every_problem(api: Gateway) -> None:
    """An invalid request is not an error here; the response lists its problems."""
    answer = api.call("POST", f"{ACME}/preview", {"message": {"to": [{"email": "x"}]}, "more": 1})
    assert answer.status == 200
    assert answer.json["mime"] is None
    assert {"message.to[0].email", "message.subject", "more"} <= {problem["path"] for problem in answer.json["problems"]}


def test_a_long_preview_is_truncated(api: Gateway, deps: MessagesDependencies) -> None:
    """It is truncated at 1 MiB, so the response is within Lambda's limit even if JSON escapes every byte."""
    deps.attachments.files["acme/a"] = b'"\\' * 600_000
    attachment = {"filename": "a.eml", "contentType": "message/rfc822", "s3": {"key": "acme/a"}}
    answer = api.call("POST", f"{ACME}/preview", a_body(message={"attachments": [attachment]}))
    assert (len(answer.json["mime"]), answer.json["truncated"]) == (MAX_SHOWN, True)
    assert answer.json["size"] > MAX_SHOWN
    assert len(answer.text.encode()) < 6_000_000


@pytest.mark.parametrize(
    ("resolution_body", "path"),
    [
        ({"outcome": "lost", "by": "me", "why": "so"}, "outcome"),
        ({"outcome": "sent", "why": "so"}, "by"),
        ({"outcome": "sent", "by": "", "why": "so"}, "by"),
        ({"outcome": "sent", "by": "me", "why": "a\nb"}, "why"),
        ({"outcome": "sent", "by": "me", "why": "so", "messageId": "a b"}, "messageId"),
        ({"outcome": "resend", "by": "me", "why": "so", "messageId": "0100"}, "messageId"),
        ({"outcome": "sent", "by": "me", "why": "so", "force": True}, "force"),
    ],
)
def test_a_resolution_is_validated_strictly(api: Gateway, resolution_body: dict[str, Any], path: str) -> None:
    """Who and why are required; other fields are rejected."""
    answer = api.call("POST", f"{ACME}/r1/resolve", resolution_body)
    assert answer.is_problem(400, "invalid_request")
    assert answer.paths == [path]


def test_no_response_may_be_cached(api: Gateway) -> None:
    """A preview has the mail, and an upload's URL is enough to use it."""
    file = {"filename": "a.pdf", "size": 10}
    answers = [
        api.call("POST", f"{ACME}/preview", a_body("r1")),
        api.call("POST", "/tenants/acme/attachments", file),
        api.call("GET", f"{ACME}/r1"),
        api.call("GET", f"{ACME}?limit=0"),
    ]
    assert {answer.headers["Cache-Control"] for answer in answers} == {"no-store"}


OPERATOR = "arn:aws:sts::123456789012:assumed-role/operators/jo"


def test_the_principal_of_resolve_and_cancel_is_recorded(api: Gateway, deps: MessagesDependencies) -> None:
    """The record has the authenticated identity of the first call, besides the given name."""
    first_call = {"requestContext": {"stage": "v1", "requestId": "c-1", "identity": {"userArn": OPERATOR}}}
    second_call = {"requestContext": {"stage": "v1", "requestId": "c-2", "identity": {"userArn": f"{OPERATOR}-2"}}}
    deps.messages.records |= {
        ("acme", "r1"): a_delivery("r1", Status.UNKNOWN, attempt=1, owner="w"),
        ("acme", "r2"): a_delivery("r2"),
        ("acme", "r3"): a_delivery("r3"),
    }
    resolution_body = {"outcome": "sent", "by": "Jo", "why": "seen in the events"}
    for fields in (first_call, second_call):
        resolved = api.call("POST", f"{ACME}/r1/resolve", resolution_body, **fields).json
        assert (resolved["resolution"]["by"], resolved["resolution"]["principal"]) == ("Jo", OPERATOR)
        assert api.call("POST", f"{ACME}/r2/cancel", **fields).json["cancelledBy"] == OPERATOR
    logged = [arguments[0].principal for name, arguments in deps.telemetry.entries if name == "recorded"]
    assert logged == [OPERATOR, OPERATOR]
    assert "cancelledBy" not in api.call("POST", f"{ACME}/r3/cancel").json


def test_an_internal_error_returns_500_without_details(api: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The response has no text of the exception."""

    def failing() -> None:
        raise ValueError("jo@example.com")

    monkeypatch.setattr(wiring, "messages_dependencies", failing)
    answer = api.call("GET", f"{ACME}/r1")
    assert answer.is_problem(500, "internal_error")
    assert "jo@" not in answer.text


def test_the_function_loads_no_encryption_sdk() -> None:
    """It cannot decrypt anything, so its cold start must not load the SDK, nor OpenAPI's models."""
    program = (
        "import sys, mailer.handlers.messages;"
        "print([m for m in sys.modules if m.startswith(('aws_encryption_sdk', 'aws_cryptographic', 'mailer.handlers.rest.openapi'))])"
    )
    shown = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": "src"}, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
