"""Routing of paths: below the stage's URL, and below the base path of a custom domain."""

import json
from pathlib import Path
from typing import Any

import pytest

from mailer.handlers import messages
from mailer.handlers.rest.api import normalize_event
from mailer.services.api.messages import MessagesDependencies
from support.fakes.messages import a_body, fake_deps, serve_from
from support.fakes.ports import FakeProvidersTable, a_provider
from support.servers.gateway import Gateway, proxy_event

EVENTS = sorted(path for path in (Path(__file__).parents[2] / "events").glob("*.json") if "requestContext" in json.loads(path.read_text()))
MESSAGES = "/tenants/{tenantId}/messages"
ONE = f"{MESSAGES}/{{requestId}}"

# What API Gateway puts before the path of an event: nothing on the execute-api URL and for a mapping without a base path to this stage;
# the base path of a mapping to this stage; the stage, or both, for a mapping to the whole API.
PREFIXES = ["", "/v1", "/mail", "/mail/v1", "/a/b/c"]


@pytest.fixture
def deps(monkeypatch: pytest.MonkeyPatch) -> MessagesDependencies:
    """Put fakes behind the handler, where acme and bravo have active providers."""
    fakes = fake_deps(providers=FakeProvidersTable(a_provider(), a_provider("bravo")))
    serve_from(fakes, monkeypatch)
    return fakes


@pytest.fixture
def api(deps: MessagesDependencies) -> Gateway:  # noqa: ARG001 - patched behind the handler
    return Gateway(messages.handler)


def an_event(method: str, path: str, resource: str, body: Any = None, **parameters: str) -> dict[str, Any]:
    """Make the event of a request to a resource; API Gateway writes the whole path also into `requestContext`."""
    raw = json.dumps(body) if body is not None else None
    event = proxy_event(method, path, raw, resource=resource, pathParameters=parameters or None)
    return {**event, "requestContext": {**event["requestContext"], "path": path}}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_a_route_is_found_under_any_base_path(path: Path, prefix: str) -> None:
    """Every route of the API is found, under every kind of base path mapping."""
    event = json.loads(path.read_text())
    assert normalize_event({**event, "path": prefix + event["path"]})["path"] == event["path"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_request_is_accepted_and_shown_behind_a_custom_domain(api: Gateway, prefix: str) -> None:
    """A request that is accepted under the base path is found under it."""
    accepted = api.handle(an_event("POST", f"{prefix}/tenants/acme/messages", MESSAGES, a_body("r1"), tenantId="acme"))
    shown = api.handle(an_event("GET", f"{prefix}/tenants/acme/messages/r1", ONE, tenantId="acme", requestId="r1"))
    described = api.handle(an_event("GET", f"{prefix}/openapi.json", "/openapi.json"))
    assert (accepted.status, shown.status, described.status) == (202, 200, 200)
    assert shown.json["requestId"] == "r1"


def test_a_trailing_slash_is_ignored(api: Gateway) -> None:
    """API Gateway matches such a path with the resource without it."""
    assert api.handle(an_event("GET", "/v1/tenants/acme/messages/", MESSAGES, tenantId="acme")).status == 200


@pytest.mark.parametrize("parameter", ["a%3Ab", "a:b"])
def test_an_id_may_be_percent_encoded(api: Gateway, parameter: str) -> None:
    """It may be encoded in the path, regardless of API Gateway's decoding of the parameter."""
    api.handle(an_event("POST", "/tenants/acme/messages", MESSAGES, a_body("a:b"), tenantId="acme"))
    for written in ("a%3Ab", "a%3ab", "a:b", "%61:b"):
        shown = api.handle(an_event("GET", f"/v1/tenants/acme/messages/{written}", ONE, tenantId="acme", requestId=parameter))
        assert shown.status == 200, written


@pytest.mark.parametrize("parameter", ["acme", "%61cme"])
def test_a_tenant_is_never_decoded(api: Gateway, parameter: str) -> None:
    """IAM compares the undecoded path: an id that would have to be decoded names no tenant."""
    answer = api.handle(an_event("GET", "/v1/tenants/%61cme/messages", MESSAGES, tenantId=parameter))
    assert answer.is_problem(404, "not_found")


@pytest.mark.parametrize(
    ("path", "request_id"),
    [
        ("/tenants/acme/messages/tenants/bravo/messages/r1", "tenants%2Fbravo%2Fmessages%2Fr1"),
        ("/tenants/acme/messages/tenants%2Fbravo%2Fmessages%2Fr1", "tenants/bravo/messages/r1"),
        ("/tenants/acme/messages/x/bravo/messages/r1", "x/bravo/messages/r1"),
    ],
)
def test_an_encoded_slash_leads_to_no_other_tenant(api: Gateway, path: str, request_id: str) -> None:
    """A path that API Gateway matched for acme is not read as bravo's, whether it was decoded or not."""
    api.handle(an_event("POST", "/tenants/bravo/messages", MESSAGES, a_body("r1"), tenantId="bravo"))
    answer = api.handle(an_event("GET", path, ONE, tenantId="acme", requestId=request_id))
    assert answer.is_problem(404, "not_found")


def test_a_path_that_does_not_match_its_resource_is_not_found(api: Gateway) -> None:
    """It may be neither shorter nor different."""
    for path in ("/", "", "/messages", "/tenants/acme/provider", "/tenants/bravo/messages"):
        assert api.handle(an_event("GET", path, MESSAGES, tenantId="acme")).is_problem(404, "not_found"), path
