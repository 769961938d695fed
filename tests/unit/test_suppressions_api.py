"""The suppressions API as API Gateway calls it: paths, bodies and responses, and no addresses in logs."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from mailer import wiring
from mailer.domain.delivery import Sent
from mailer.domain.errors import ErrorInfo, NotSentError
from mailer.domain.suppressions import Entry
from mailer.handlers import messages, providers
from mailer.services.suppressions.lists import SuppressionDependencies
from support.aws.tables import template
from support.fakes.messages import fake_deps, serve_from
from support.fakes.ports import FakeClock, FakeTelemetry, InlineExecutor, a_provider
from support.fakes.providers import FakeAccount, FakeProviderFactory, FakeStore
from support.fakes.suppressions import FakeMarks, FakeSuppressionsTable
from support.servers.gateway import Gateway, proxy_event

ROOT = "/tenants/acme/suppressions"
JO = "jo@example.com"
RESOURCE = "/tenants/{tenantId}/suppressions/{email}"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> FakeSuppressionsTable:
    """Serve the API with fakes, in which acme has a provider."""
    clock, store = FakeClock(datetime.now(UTC)), FakeStore(a_provider())
    deps = SuppressionDependencies(
        suppressions=(table := FakeSuppressionsTable()),
        marks=FakeMarks(unknown={"globex"}),
        providers=store,
        provider_factory=FakeProviderFactory(FakeAccount(Sent("m")), NotSentError(ErrorInfo("config_unreadable", ""))),
        clock=clock,
        workers=InlineExecutor(),
    )
    monkeypatch.setattr(wiring, "suppression_dependencies", lambda: deps)
    monkeypatch.setattr(wiring, "telemetry", FakeTelemetry)
    serve_from(fake_deps(), monkeypatch)
    return table


@pytest.fixture
def api(table: FakeSuppressionsTable) -> Gateway:  # noqa: ARG001 - patched behind the handler
    return Gateway(messages.handler, providers.handler)


def path_of(address: str) -> str:
    return f"{ROOT}/{quote(address, safe='')}"


def call(api: Gateway, method: str, address: str, body: Any = None, query: str = "") -> Any:
    """Call a route as API Gateway does, with the parameter decoded and the path undecoded."""
    path = path_of(address)
    raw = None if body is None else json.dumps(body)
    parameters = {"tenantId": "acme", "email": address}
    event = proxy_event(method, path + query, raw, [("Content-Type", "application/json")], resource=RESOURCE, pathParameters=parameters)
    event["requestContext"]["identity"] = {"userArn": "arn:aws:iam::111111111111:user/ann"}
    return api.handle(event)


# ── one address ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_address_is_suppressed_shown_and_lifted(api: Gateway, table: FakeSuppressionsTable) -> None:
    """The suppression has who and why."""
    assert call(api, "GET", JO).is_problem(404, "not_found")
    put = call(api, "PUT", JO, {"why": "asked by phone"})
    assert put.status == 200
    assert put.json.keys() == {"email", "reason", "at", "by", "why"}
    assert put.json | {"at": ""} == {
        "email": JO,
        "reason": "manual",
        "at": "",
        "by": "arn:aws:iam::111111111111:user/ann",
        "why": "asked by phone",
    }
    assert call(api, "GET", "Jo@Example.COM").json == put.json
    lifted = call(api, "DELETE", JO, query="?why=mailbox%20is%20back")
    assert lifted.status == 200
    assert {**put.json, "sesList": lifted.json["sesList"]} == lifted.json
    assert call(api, "DELETE", JO).is_problem(404, "not_found")
    entry = table.entries["acme", JO]
    assert entry.lifted is not None
    assert (entry.lifted.by, entry.lifted.why) == ("arn:aws:iam::111111111111:user/ann", "mailbox is back")


def test_a_concurrent_suppression_makes_a_lift_a_conflict(api: Gateway, table: FakeSuppressionsTable) -> None:
    """A suppressed address never gets a 200."""
    call(api, "PUT", JO, {"why": "asked by phone"})
    before = table.before

    def suppress_concurrently(_: Entry) -> None:
        table.before = before
        wiring.suppression_dependencies().clock.advance(timedelta(seconds=1))  # type: ignore[attr-defined]  # the fake's
        assert call(api, "PUT", JO, {"why": "asked again"}).status == 200

    table.before = suppress_concurrently
    answer = call(api, "DELETE", JO)
    assert answer.is_problem(409, "suppressed_again")
    assert JO not in answer.text
    assert call(api, "GET", JO).json["why"] == "asked again"


def test_an_expiry_is_shown_and_must_be_in_the_future(api: Gateway) -> None:
    """It is shown in UTC."""
    ahead = (datetime.now(UTC) + timedelta(days=3)).replace(microsecond=0)
    assert call(api, "PUT", JO, {"why": "x", "expiresAt": ahead.isoformat()}).json["expiresAt"] == ahead.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    past = call(api, "PUT", JO, {"why": "x", "expiresAt": "2020-01-01T00:00:00Z"})
    assert past.is_problem(400, "invalid_request")
    assert past.json["errors"] == [{"path": "expiresAt", "problem": "must be later than now"}]


@pytest.mark.parametrize("body", [{}, {"why": ""}, {"why": "a\nb"}, {"why": "x", "by": "me"}, {"why": "x", "expiresAt": "soon"}, []])
def test_an_invalid_suppression_is_refused(api: Gateway, body: Any) -> None:
    """Each problem has its path; `by` is the caller and cannot be given."""
    assert call(api, "PUT", JO, body).is_problem(400, "invalid_request")


@pytest.mark.parametrize(
    "address",
    ["jo+news@example.com", "o'neil@example.com", "a/b@example.com", "100%@example.com", "a%41b@example.com", "a#b?c=d&e@example.com"],
)
def test_any_percent_encoded_address_may_be_in_the_path(api: Gateway, table: FakeSuppressionsTable, address: str) -> None:
    """A plus is not a space, and nothing is decoded twice."""
    assert call(api, "PUT", address, {"why": "x"}).json["email"] == address.lower()
    assert call(api, "GET", address).status == 200
    assert list(table.entries) == [("acme", address.lower())]


@pytest.mark.parametrize("address", ["o'neil&a=b#{c}@example.com", "a?b`c@example.com", "#%41@example.com"])
def test_an_address_is_found_in_a_path_that_the_gateway_decoded(api: Gateway, table: FakeSuppressionsTable, address: str) -> None:
    """It may have characters that are invalid in paths, and is not decoded twice."""
    parameters = {"tenantId": "acme", "email": address}
    body, headers = json.dumps({"why": "x"}), [("Content-Type", "application/json")]
    event = {**proxy_event("PUT", ROOT, body, headers, resource=RESOURCE, pathParameters=parameters), "path": f"{ROOT}/{address}"}
    assert api.handle(event).status == 200
    assert list(table.entries) == [("acme", address.lower())]


def test_an_unencoded_plus_is_a_plus(api: Gateway) -> None:
    """Only in queries would it be a space."""
    call(api, "PUT", "jo+news@example.com", {"why": "x"})
    event = proxy_event(
        "GET", f"{ROOT}/jo+news@example.com", resource=RESOURCE, pathParameters={"tenantId": "acme", "email": "jo+news@example.com"}
    )
    assert api.handle(event).status == 200


@pytest.mark.parametrize("address", ["jo", "jo@localhost", "jö@example.com", "a" * 400 + "@example.com", "@example.com"])
def test_an_invalid_address_is_not_found_and_not_shown(api: Gateway, address: str) -> None:
    """The response is the same as for other invalid paths."""
    for method, body in (("GET", None), ("PUT", {"why": "x"}), ("DELETE", None)):
        answer = call(api, method, address, body)
        assert answer.is_problem(404, "not_found")
        assert address not in answer.text.replace("jo@", "")


def test_another_tenant_s_suppression_is_not_found(api: Gateway) -> None:
    """Each tenant has its own list."""
    call(api, "PUT", JO, {"why": "x"})
    event = proxy_event("GET", path_of(JO).replace("acme", "globex"), resource=RESOURCE, pathParameters={"tenantId": "globex", "email": JO})
    assert api.handle(event).is_problem(404, "not_found")


def test_a_tenant_without_a_provider_is_refused(api: Gateway) -> None:
    """The mark of suppressions is on its row."""
    path = path_of(JO).replace("acme", "globex")
    event = proxy_event("PUT", path, '{"why": "x"}', resource=RESOURCE, pathParameters={"tenantId": "globex", "email": JO})
    assert api.handle(event).is_problem(409, "provider_not_configured")


# ── batches and lists ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_batch_is_stored_and_listed_page_by_page(api: Gateway) -> None:
    """A list can be imported from another system."""
    batch = [{"email": f"{n}@example.com", "why": "from the old system"} for n in range(100)]
    answer = api.call("POST", f"{ROOT}/batch", batch)
    assert answer.status == 207
    assert [one["status"] for one in answer.json] == [200] * 100
    listed, cursor = [], ""
    while True:
        page = api.call("GET", f"{ROOT}?limit=40{cursor}").json
        listed.append(len(page["suppressions"]))
        if page["cursor"] is None:
            break
        assert "@" not in page["cursor"]
        cursor = f"&cursor={page['cursor']}"
    assert listed == [40, 40, 20]
    assert api.call("GET", f"{ROOT}?reason=complaint").json == {"suppressions": [], "cursor": None}


def test_each_item_of_a_batch_is_accepted_or_rejected_separately(api: Gateway) -> None:
    """The results are in the order of the items."""
    batch = [{"email": "Jo@Bücher.example", "why": "x"}, {"email": "nobody", "why": "x"}, "x", {"email": JO}, {"email": JO, "why": "x"}]
    answer = api.call("POST", f"{ROOT}/batch", batch)
    assert [one["status"] for one in answer.json] == [200, 400, 400, 400, 200]
    assert answer.json[0]["record"]["email"] == "jo@xn--bcher-kva.example"
    assert answer.json[1]["problem"]["errors"][0]["path"] == "email"


@pytest.mark.parametrize(
    "batch", [[], {}, [{"email": JO, "why": "x"}] * 101, '[{"email": "a@b.example", "email": "c@d.example", "why": "x"}]']
)
def test_a_batch_must_be_a_list_of_1_to_100(api: Gateway, batch: Any) -> None:
    """It must be plain JSON."""
    assert api.call("POST", f"{ROOT}/batch", batch).is_problem(400, "invalid_request")


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "reason=whim"])
def test_an_invalid_query_is_refused(api: Gateway, query: str) -> None:
    """The problem names the allowed values."""
    assert api.call("GET", f"{ROOT}?{query}").is_problem(400, "invalid_request")


def test_a_cursor_of_another_list_is_not_found(api: Gateway) -> None:
    """Other lists are those of messages, or of a reason."""
    api.call("POST", f"{ROOT}/batch", [{"email": f"{n}@example.com", "why": "x"} for n in range(3)])
    cursor = api.call("GET", f"{ROOT}?limit=1").json["cursor"]
    assert api.call("GET", f"{ROOT}?limit=1&cursor={cursor}").status == 200
    assert api.call("GET", f"{ROOT}?reason=manual&cursor={cursor}").is_problem(404, "not_found")
    assert api.call("GET", f"/tenants/acme/messages?cursor={cursor}").is_problem(404, "not_found")


# ── no addresses in logs ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        for name in list(logging.root.manager.loggerDict):
            logging.getLogger(name).setLevel(logging.DEBUG)
        yield caplog
    for name in list(logging.root.manager.loggerDict):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_no_address_reaches_a_log(api: Gateway, everything_logged: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """This holds at any log level, for every route."""
    canary = "canary-in-the-mine@example.com"
    call(api, "PUT", canary, {"why": "x"})
    call(api, "GET", canary)
    api.call("GET", ROOT)
    api.call("POST", f"{ROOT}/batch", [{"email": canary, "why": "x"}])
    call(api, "DELETE", canary)
    call(api, "DELETE", canary)
    our_records = [record for record in everything_logged.records if not record.name.startswith(("moto", "werkzeug"))]
    assert our_records
    assert not [record.name for record in our_records if "canary-in-the-mine" in record.getMessage() + str(record.__dict__)]
    assert "canary-in-the-mine" not in "".join(capsys.readouterr())


def test_access_logs_have_the_route_instead_of_the_path() -> None:
    """The path contains the address."""
    log_format = json.loads(template()["Resources"]["Api"]["Properties"]["AccessLogSetting"]["Fn::If"][1]["Format"])
    assert log_format["route"] == "$context.resourcePath"
    assert not {"$context.path", "$context.requestOverride.path"} & set(log_format.values())
    assert not [value for value in log_format.values() if "querystring" in value.lower()]
