"""The client's calls for suppressions, tenants and statistics, over the real handlers and the stack's tables in moto."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import botocore.session
import pytest

from mailer import wiring
from mailer.domain.provider import ProviderStatus
from mailer.domain.statistics import Bucket, Counts, account_series, floor
from mailer.handlers import messages, providers
from mailer.ports import Counted
from mailer_client import ApiError, SuppressionsClient, TenantsClient
from mailer_client.connection import ApiClient
from support.fakes.ports import a_config, a_provider
from support.fakes.suppressions import an_entry
from support.servers.gateway import STAGE, Gateway

pytestmark = pytest.mark.usefixtures("aws")

JO, ODD = "jo@example.com", "jo+a/b%41#c?d&e'@example.com"


@dataclass
class Answer:
    status_code: int
    content: bytes
    headers: Mapping[str, str]


@dataclass
class InProcess:
    """Passes requests to the handlers; keeps the requested paths."""

    gateway: Gateway = field(default_factory=lambda: Gateway(messages.handler, providers.handler))
    asked: list[str] = field(default_factory=list)

    def send(self, request: Any) -> Answer:
        url = urlsplit(request.url)
        self.asked.append(url.path)
        body = request.body.decode() if request.body else None
        answer = self.gateway.call(request.method, f"{url.path.removeprefix(f'/{STAGE}')}?{url.query}", body, dict(request.headers.items()))
        return Answer(answer.status, answer.text.encode(), answer.headers)


def a_client[Client: ApiClient](kind: type[Client], wire: InProcess | None = None) -> Client:
    session = botocore.session.Session()
    session.set_credentials("AKIACALLER", "secret")
    return kind(f"https://api.example/{STAGE}/", region="eu-central-1", session=session, transport=wire or InProcess())


@pytest.fixture
def suppressions() -> SuppressionsClient:
    assert wiring.providers_table().replace(a_provider())
    return a_client(SuppressionsClient)


# ── suppressions ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("email", [JO, ODD])
def test_an_address_is_suppressed_shown_and_lifted(suppressions: SuppressionsClient, email: str) -> None:
    """In any spelling: it is one path segment."""
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    put = suppressions.put("acme", email, why="asked by phone", expires_at=ends)
    assert (put.email, put.reason, put.why, put.expires_at, put.request_id) == (email.lower(), "manual", "asked by phone", ends, None)
    assert suppressions.get("acme", email) == put
    lifted = suppressions.delete("acme", email, why="mailbox is back & well")
    assert (lifted.email, lifted.at) == (put.email, put.at)
    assert lifted.ses_list.may_hold
    assert lifted.ses_list.command is not None
    with pytest.raises(ApiError) as refusal:
        suppressions.get("acme", email)
    assert refusal.value.code == "not_found"
    [entry] = wiring.suppressions_table().get_many([("acme", email.lower())]).values()
    assert "mailbox is back & well" in str(entry)


def test_expires_at_may_have_any_time_zone(suppressions: SuppressionsClient) -> None:
    """The API returns UTC."""
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    zone = datetime.fromisoformat("2026-01-01T00:00:00+05:30").tzinfo
    assert suppressions.put("acme", JO, why="x", expires_at=ends.astimezone(zone)).expires_at == ends


def test_no_address_is_in_the_repr_of_a_response(suppressions: SuppressionsClient) -> None:
    """Callers log responses."""
    assert JO not in repr(suppressions.put("acme", JO, why="x"))
    assert JO not in repr(suppressions.delete("acme", JO))


def test_a_list_reads_all_pages(suppressions: SuppressionsClient) -> None:
    """Of one reason or of all; no page is fetched before it is needed."""
    table = wiring.suppressions_table()
    for number in range(105):
        assert table.replace(an_entry(f"{number}@example.com"))
    suppressions.put("acme", JO, why="x")
    wire = InProcess()
    listing = a_client(SuppressionsClient, wire).list("acme")
    next(listing)
    assert len(wire.asked) == 1
    assert len({record.email for record in listing}) == 105
    assert [record.email for record in suppressions.list("acme", reason="manual")] == [JO]


def test_a_batch_returns_a_result_for_each_in_order(suppressions: SuppressionsClient) -> None:
    """A refused one does not affect the others."""
    good, bad = suppressions.put_batch("acme", [{"email": JO, "why": "from the old system"}, {"email": "nobody", "why": "x"}])
    assert good.status == 200
    assert good.record is not None
    assert good.record.email == JO
    assert bad.problem is not None
    assert (bad.status, bad.problem.code, [at.path for at in bad.problem.errors]) == (400, "invalid_request", ["email"])


# ── tenants and statistics ──────────────────────────────────────────────────────────────────────────────────────────────


def test_tenants_are_listed_with_their_providers() -> None:
    """By status, through all pages, with the active and the candidate config."""
    for number in range(102):
        assert wiring.providers_table().replace(a_provider(f"t{number:03}"))
    candidate = a_config(version=2)
    assert wiring.providers_table().replace(a_provider("acme", status=ProviderStatus.DISABLED, candidate=candidate, versions=2))
    tenants = a_client(TenantsClient)
    assert len(list(tenants.list())) == 103
    [acme] = tenants.list(status="disabled")
    assert (acme.tenant_id, acme.status, acme.version) == ("acme", "disabled", 1)
    assert acme.candidate is not None
    assert acme.candidate.version == 2
    assert acme.updated_at.tzinfo is not None


def test_statistics_are_counts_by_hour_or_day_with_the_account_s() -> None:
    """Of the requested range."""
    assert wiring.providers_table().replace(a_provider(active=a_config(account="111122223333")))
    hour = floor(datetime.now(UTC))
    for series, sent in (("acme", 3), (account_series("111122223333", "eu-west-1"), 7)):
        wiring.statistics_table().add(Bucket(series, hour), "shard", [Counted("1", Counts(sent=sent, soft_bounced=1))])
    tenants = a_client(TenantsClient)
    shown = tenants.statistics("acme", since=hour, until=hour + timedelta(hours=1))
    [bucket] = shown.buckets
    assert (bucket.from_, bucket.sent, bucket.soft_bounced, bucket.bounced) == (hour, 3, 1, 0)
    assert shown.account is not None
    assert (shown.account.account, shown.account.region, shown.account.buckets[0].sent) == ("111122223333", "eu-west-1", 7)
    assert len(tenants.statistics("acme", by="day").buckets) == 30
    with pytest.raises(ApiError) as refusal:
        tenants.statistics("acme", since=hour - timedelta(days=200))
    assert refusal.value.code == "invalid_request"
