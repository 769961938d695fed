"""The console's pages with the API's real functions, on the stack in moto."""

import socket
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
import pytest

from mailer.handlers import messages, providers
from mailer_client.connection import Connection
from mailer_ops.console.server import _listen
from mailer_ops.console.sources.answers import Answer, ask
from mailer_ops.console.sources.api import query_of
from mailer_ops.stack import CommandError
from support.console_site import Site, elements, tags, words
from support.fakes.console import FakeApi, Platform
from support.servers.gateway import STAGE, Gateway

FROM, SES_REGION = "billing@acme.example", "eu-west-1"
KEY = {"by": "key", "accessKeyId": "AKIAIOSFODNN7EXAMPLE", "secretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
CONFIG = {**KEY, "region": SES_REGION, "fromAddress": FROM, "fromName": "Acme"}


@dataclass(frozen=True)
class Received:
    """A response of botocore's transport."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes


class ToFunctions:
    """Passes a signed request to the functions, in this process."""

    def __init__(self) -> None:
        self._gateway = Gateway(messages.handler, providers.handler)
        self._one_at_a_time = Lock()  # as in Lambda

    def send(self, request: Any) -> Received:
        split = urlsplit(request.url)
        target = split.path.removeprefix(f"/{STAGE}") + (f"?{split.query}" if split.query else "")
        headers = {name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()}
        with self._one_at_a_time:
            answer = self._gateway.call(request.method, target, request.body, headers)
        return Received(answer.status, answer.headers, answer.text.encode())


class RealApi(FakeApi):
    """The API's own functions instead of the fake API."""

    def __init__(self) -> None:
        super().__init__()
        self._transport = ToFunctions()

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Answer[Any]:
        credentials = botocore.session.Session().get_credentials()
        connection = Connection(
            url=f"https://api.example/{STAGE}", region="eu-central-1", credentials=credentials, transport=self._transport
        )
        return ask(lambda: connection.call(method, path + query_of(query), body), "tenantmail", what=f"{method} {path}")


@pytest.fixture
def site(aws: Mapping[str, str]) -> Site:  # noqa: ARG001 - the stack has to be there
    """Return the console, with the tenant's from-address verified in SES."""
    boto3.client("ses", region_name=SES_REGION).verify_email_identity(EmailAddress=FROM)
    return Site(Platform(api=RealApi()))


def onboarded(site: Site) -> Site:
    site.post("/tenants/acme/provider", CONFIG)
    site.post("/tenants/acme/provider/verify")
    return site


def test_a_tenant_is_onboarded(site: Site) -> None:
    """Policies and template, the config, the test mail; then the tenant is in the list."""
    first = site.get("/tenants/acme/onboarding?by=role")
    assert {"trust-policy", "iam-policy", "template", "external-id"} <= {field.get("id") for _, field in elements(first.text)}
    assert b"AWSTemplateFormatVersion" in site.get("/tenants/acme/onboarding/template").body
    stored = site.follow(site.post("/tenants/acme/provider", CONFIG))
    assert "The config is stored" in words(stored.text)
    verified = words(site.follow(site.post("/tenants/acme/provider/verify", {"back": "onboarding"})).text)
    assert "the config is active" in verified
    assert "AWS SES may be in sandbox mode" in verified
    assert FROM in words(site.get("/tenants").text)
    assert FROM in words(site.get("/tenants?q=billing").text)
    assert "acme" not in words(site.get("/tenants?status=suspended").text.partition("<main")[2])


def test_what_the_api_refuses_is_shown_by_field(site: Site) -> None:
    """With code, path and allowed values."""
    said = words(site.follow(site.post("/tenants/acme/provider", {**CONFIG, "region": "nowhere", "maxSendRate": "-1"})).text)
    assert "invalid_request" in said
    assert "config.region" in said
    assert "config.maxSendRate" in said


def test_the_result_of_a_failed_verify_is_shown(site: Site) -> None:
    """As from a real verify: the address is not verified in that region."""
    site.post("/tenants/acme/provider", {**CONFIG, "fromAddress": "nobody@acme.example"})
    said = words(site.follow(site.post("/tenants/acme/provider/verify")).text)
    assert "from_address_not_verified" in said
    assert "Tenant" in said


def test_a_message_is_previewed_sent_and_cancelled(site: Site) -> None:
    """With the API's own preview, and the given id."""
    letter = {"tenant": "acme", "to": "Jo Ünger <jo@example.com>", "subject": "Grüße", "html": "<b>Hi</b>", "requestId": "mine-1"}
    onboarded(site)
    preview = site.post("/compose", {**letter, "action": "preview"})
    assert "Jo Ünger" in words(preview.text)
    [frame] = tags(preview.text, "iframe")
    assert b"<b>Hi</b>" in site.get(str(frame["src"])).body
    assert "The request is accepted" in words(site.follow(site.post("/compose", {**letter, "action": "send"})).text)
    assert "mine-1" in words(site.get("/messages?tenant=acme&status=queued").text)
    assert "The request is cancelled" in words(site.follow(site.post("/tenants/acme/messages/mine-1/cancel")).text)
    again = words(site.follow(site.post("/tenants/acme/messages/mine-1/cancel")).text)
    assert "Cancelled" in again


def test_problems_of_a_message_are_listed(site: Site) -> None:
    """Before it is sent."""
    said = words(
        onboarded(site).post("/compose", {"tenant": "acme", "to": "nobody", "subject": "x", "text": "x", "action": "preview"}).text
    )
    assert "message.to" in said


def test_a_suppression_is_added_and_lifted(site: Site) -> None:
    """With its reason, by its address, and with the note on SES's own list."""
    page = "/tenants/acme/suppressions"
    onboarded(site).post(page, {"email": "Gone+x@example.com", "why": "asked by phone", "expiresAt": "2099-12-24"})
    listed = words(site.get(page).text)
    assert "asked by phone" in listed
    found = site.get(f"{page}?email=Gone%2Bx%40example.com")
    assert "Lift" in words(found.text)
    lifted = words(site.follow(site.post(page, {"email": "Gone+x@example.com", "why": "asked again", "action": "lift"})).text)
    assert "is off the list" in lifted
    assert "No address is suppressed" in words(site.get(page).text)


@pytest.mark.parametrize("span", ["day", "week", "month"])
def test_statistics_are_requested_with_valid_ranges(site: Site, span: str) -> None:
    """For each range; a tenant without mail gets a hint."""
    page = onboarded(site).get(f"/tenants/acme/statistics?span={span}")
    assert "Nothing in this span" in words(page.text)


@pytest.mark.parametrize("tenant", ["no.such", "x" * 65, "..", "%2E%2E", "a%2Fb", "%00", "ü"])
def test_an_invalid_id_gets_an_error_page(site: Site, tenant: str) -> None:
    """For any URL."""
    for page in ("", "/onboarding", "/suppressions", "/statistics", "/messages/r1", "/messages/%00"):
        answered = site.get(f"/tenants/{tenant}{page}")
        assert answered.status in (200, 404)
        assert "Traceback" not in answered.text


def test_a_browser_that_is_faster_than_the_server_waits() -> None:
    """The URL is printed before the server runs: an immediate request is not refused."""
    with closing(_listen(0)) as listener, socket.create_connection(listener.getsockname()[:2], timeout=1) as browser:
        browser.sendall(b"GET /now HTTP/1.1\r\n\r\n")


def test_a_port_that_cannot_be_used_is_reported() -> None:
    """With the reason: it may be taken, or one that only an administrator may use."""
    with closing(_listen(0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(CommandError, match=rf"Port {port} cannot be used \(Address already in use\): choose another"):
            _listen(port)
