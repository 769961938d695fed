"""For any request the response is not a 5xx, nothing of ours fails, and the consumer can read what was accepted."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mailer.domain.message import content_hash, parse_request
from mailer.handlers import messages
from mailer.services.api.messages import MessagesDependencies
from support.fakes.messages import a_body, fake_deps, serve_from
from support.fakes.ports import FakeAttachments, FakeProvidersTable, a_config, a_provider
from support.servers.gateway import Gateway, proxy_event

ACME = "/tenants/acme/messages"
ROUTES = [ACME, f"{ACME}/batch", f"{ACME}/preview", f"{ACME}/r1", f"{ACME}/r1/cancel", f"{ACME}/r1/resolve", "/tenants/acme/attachments"]

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ANYTHING = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=10)

WHOLE = a_body(
    "r1",
    onUnknown="resend",
    sendAt="2026-11-24T12:30:00Z",
    expiresAt="2026-11-25T12:00:00Z",
    message={
        "cc": [{"email": "cc@example.com", "name": "Jo Ünger"}],
        "bcc": [],
        "replyTo": {"email": "reply@example.com"},
        "html": "<p>Hello",
        "headers": {"X-Campaign": "42"},
        "attachments": [
            {"filename": "a.txt", "content": "aGVsbG8="},
            {"filename": "b.png", "contentType": "image/png", "contentId": "b", "s3": {"key": "acme/b", "versionId": "1"}},
        ],
        "listUnsubscribe": {"url": "https://example.com/u", "mailto": "u@example.com", "oneClick": True},
        "calendar": {"method": "REQUEST", "content": "BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n"},
        "tags": {"campaign": "spring"},
    },
)
"""A valid request with every field."""

lightly = settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container of a document with each of its keys."""
    children = list(node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ())
    for key, child in children:
        yield node, key
        yield from places(child)


@pytest.fixture
def deps(monkeypatch: pytest.MonkeyPatch) -> MessagesDependencies:
    files = FakeAttachments({}, {("acme/b", "1"): b"PNG"})
    fakes = fake_deps(providers=FakeProvidersTable(a_provider(active=a_config(configuration_set="events"))), attachments=files)
    serve_from(fakes, monkeypatch)
    return fakes


def check(deps: MessagesDependencies, event: dict[str, Any]) -> None:
    deps.queue.sent.clear()
    deps.messages.records.clear()
    answer = Gateway(messages.handler).handle(event)
    assert answer.status < 500
    assert not [entry for entry in deps.telemetry.entries if entry[0] == "failed"]
    for queue_message in deps.queue.messages:
        request = parse_request(queue_message.body)
        assert content_hash(request) == deps.messages.get(request.tenant_id, request.request_id).content_hash


def test_the_full_request_is_valid(deps: MessagesDependencies) -> None:
    """The tests below change an accepted request."""
    assert Gateway(messages.handler).call("POST", ACME, WHOLE).status == 202
    check(deps, proxy_event("POST", ACME, json.dumps(WHOLE)))


@lightly
@given(data=st.data(), value=ANYTHING, route=st.sampled_from([ACME, f"{ACME}/preview", f"{ACME}/batch"]))
def test_any_value_in_any_field(deps: MessagesDependencies, data: st.DataObject, value: Any, route: str) -> None:
    """One field, name or element of a valid request is replaced."""
    body = json.loads(json.dumps(WHOLE))
    container, key = data.draw(st.sampled_from(list(places(body))))
    match data.draw(st.sampled_from(["replace", "drop", "rename"])):
        case "replace":
            container[key] = value
        case "drop":
            del container[key]
        case "rename" if isinstance(container, dict):
            container[data.draw(st.text())] = container.pop(key)
    document = [body] if route.endswith("batch") else body
    check(deps, proxy_event("POST", route, json.dumps(document)))


@lightly
@given(body=st.none() | st.text() | st.binary() | ANYTHING.map(json.dumps), route=st.sampled_from(ROUTES))
def test_any_body_to_any_route(deps: MessagesDependencies, body: str | bytes | None, route: str) -> None:
    """Bodies are text, bytes and JSON of any kind."""
    check(deps, proxy_event("POST", route, body))


@lightly
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS"]),
    steps=st.lists(
        st.sampled_from(["tenants", "acme", "messages", "r1", "cancel", "..", "%2e%2e", "%00", "batch"]) | st.text(), max_size=6
    ),
    query=st.dictionaries(st.sampled_from(["limit", "cursor", "status"]) | st.text(), st.text(), max_size=3),
    headers=st.dictionaries(st.sampled_from(["Idempotency-Key", "Content-Type", "cookie"]) | st.text(), st.text(), max_size=3),
)
def test_any_path_query_and_headers(
    deps: MessagesDependencies, method: str, steps: list[str], query: dict[str, str], headers: dict[str, str]
) -> None:
    """They cover everything that API Gateway may pass, and more."""
    event = proxy_event(method, ACME, json.dumps(WHOLE), headers.items())
    path = "/" + "/".join(steps)
    event |= {"path": path, "queryStringParameters": query, "multiValueQueryStringParameters": {n: [v] for n, v in query.items()}}
    check(deps, event)


@lightly
@given(
    nothing=st.sets(
        st.sampled_from(["headers", "multiValueHeaders", "queryStringParameters", "multiValueQueryStringParameters", "body"]), min_size=1
    ),
    route=st.sampled_from(ROUTES),
    method=st.sampled_from(["GET", "POST"]),
)
def test_any_field_of_an_event_may_be_missing(deps: MessagesDependencies, nothing: set[str], route: str, method: str) -> None:
    """API Gateway writes null for missing parts of a request."""
    event = proxy_event(method, route, json.dumps(WHOLE), [("Idempotency-Key", "r1")])
    check(deps, event | dict.fromkeys(nothing))


@lightly
@given(key=st.text())
@example("r1")
def test_any_idempotency_key(deps: MessagesDependencies, key: str) -> None:
    """It is a valid id, or rejected."""
    check(deps, proxy_event("POST", ACME, json.dumps(WHOLE), [("Idempotency-Key", key)]))
