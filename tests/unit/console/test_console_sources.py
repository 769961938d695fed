"""The console's sources: their calls, and how they handle responses and failures."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from mailer.domain.errors import DependencyError
from mailer_client import ApiError
from mailer_client.models import ProblemAt, ProblemDocument
from mailer_ops.adapters.outcome_log import CloudWatchLog
from mailer_ops.console.sources import requests
from mailer_ops.console.sources.answers import ask
from mailer_ops.console.sources.api import SignedApi, path_of, query_of
from mailer_ops.console.sources.dead_letters import Selection, StackDeadLetters, Work
from mailer_ops.console.sources.health import OUTCOMES, AwsHealth, Window
from mailer_ops.console.sources.requests import CloudWatchRequestLog
from mailer_ops.operations.dead_letters import DeadLetterDependencies, DeadLetterResult, summarize
from support.fakes.console import NOW, Platform
from support.fakes.console_scene import dead_letter


def client_error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "FilterLogEvents")


def problem(status: int) -> ApiError:
    document = ProblemDocument(
        type="t", title="t", status=status, code="not_found", detail="d", hint="h", errors=[ProblemAt(path="p", problem="w")]
    )
    return ApiError(status, document)


FAILURES = {
    "IAM denies the route": (ApiError(403, None), "denied"),
    "IAM denies the service": (client_error("AccessDeniedException"), "denied"),
    "IAM denies behind an adapter": (DependencyError("CloudWatch Logs", "FilterLogEvents"), "unreached"),
    "the resource is missing": (problem(404), "missing"),
    "the request is rejected": (problem(409), "refused"),
    "a proxy responds": (ApiError(502, None), "unreached"),
    "no response": (EndpointConnectionError(endpoint_url="http://x"), "unreached"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_has_a_kind_and_a_text(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """Each has its own kind; the page shows its other data."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    failure, kind = FAILURES[case]

    def fail() -> None:
        raise failure

    answer = ask(fail, "tenantmail", what="GET /tenants")
    assert answer.value is None
    assert answer.trouble
    assert answer.trouble.kind == kind
    assert answer.trouble.text


@pytest.mark.parametrize(("refusal", "why"), [(problem(403), "d"), (ApiError(403, None), "they lack execute-api:Invoke on it")])
def test_a_denial_says_why(refusal: ApiError, why: str) -> None:
    """Credentials may have expired, which is no missing right."""

    def fail() -> None:
        raise refusal

    answer = ask(fail, "tenantmail", what="GET /tenants")
    assert answer.trouble
    assert answer.trouble.text == f"Your credentials may not call GET /tenants: {why}."


def test_a_denial_behind_an_adapter_is_a_denial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters chain the cause."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")

    def fail() -> None:
        raise DependencyError("CloudWatch Logs", "FilterLogEvents") from client_error("AccessDeniedException")

    answer = ask(fail, "tenantmail")
    assert answer.trouble
    assert answer.trouble.kind == "denied"


def test_the_problems_of_a_rejection_are_kept() -> None:
    """Each problem keeps its path."""

    def fail() -> None:
        raise problem(400)

    answer = ask(fail, "tenantmail")
    assert answer.trouble
    assert (answer.trouble.faults, answer.trouble.hint) == ((("p", "w"),), "h")


class Transport:
    """Responds to each request, and stores it."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, request: Any) -> Any:
        self.sent.append(request)
        return type("Answer", (), {"status_code": 200, "headers": {}, "content": b'{"a": 1}'})()


def signed_api(monkeypatch: pytest.MonkeyPatch, *, keys: bool = True) -> tuple[SignedApi, Transport]:
    transport = Transport()
    monkeypatch.setattr("mailer_ops.console.sources.api.URLLib3Session", lambda **_: transport)
    session = botocore.session.Session()
    session.set_config_variable("region", "eu-central-1")
    if keys:
        session.set_credentials("AKIDEXAMPLE", "secret")
    return SignedApi("https://x.example/v1/", "tenantmail", session), transport


def test_calls_are_signed_with_the_operator_s_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature is SigV4 for execute-api and includes the query."""
    api, transport = signed_api(monkeypatch)
    assert api.call("GET", path_of("acme", "messages"), status="sent", cursor=None).value == {"a": 1}
    [request] = transport.sent
    assert request.url == "https://x.example/v1/tenants/acme/messages?status=sent"
    assert "AKIDEXAMPLE" in request.headers["Authorization"]
    assert "/eu-central-1/execute-api/" in request.headers["Authorization"]


def test_without_credentials_no_call_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page says what to do."""
    monkeypatch.setattr(botocore.session.Session, "get_credentials", lambda _: None)
    api, transport = signed_api(monkeypatch, keys=False)
    answer = api.call("GET", "/tenants")
    assert answer.trouble
    assert "There are no AWS credentials" in answer.trouble.text
    assert not transport.sent


def test_paths_and_queries_are_escaped() -> None:
    """Parameters without a value are omitted."""
    assert path_of("a/b", "messages", "x:1?#") == "/tenants/a%2Fb/messages/x:1%3F%23"
    assert query_of({"a": "ü&", "b": "", "c": None, "d": 0}) == "?a=%C3%BC%26&d=0"


# ── CloudWatch and SQS ──────────────────────────────────────────────────────────────────────────────────────────────────


class Client:
    """An AWS client with canned responses that stores its calls."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.calls: list[dict[str, Any]] = []

    def get_paginator(self, operation: str) -> Any:
        def paginate(**call: Any) -> list[Any]:
            self.calls.append(call)
            return list(self.answers[operation])

        return type("Paginator", (), {"paginate": staticmethod(paginate)})()

    def get_queue_attributes(self, **call: Any) -> Any:
        self.calls.append(call)
        return {"Attributes": self.answers["attributes"]}


def health(client: Client) -> AwsHealth:
    return AwsHealth("tenantmail", {"Send queue": "https://sqs/send"}, lambda _: client)


def test_queue_counts_are_split_by_message_state() -> None:
    """The states are visible, in flight and delayed."""
    kinds = {"": "3", "NotVisible": "2", "Delayed": "1"}
    client = Client(attributes={f"ApproximateNumberOfMessages{kind}": count for kind, count in kinds.items()})
    [queue] = health(client).queues().value or []
    assert (queue.waiting, queue.in_flight, queue.delayed) == (3, 2, 1)


def test_active_alarms_are_listed_with_their_runbook_section() -> None:
    """Newest first, without inactive ones and those of other stacks."""
    alarm = {"AlarmDescription": "It waits. https://x/runbook.md#unknown", "StateValue": "ALARM", "StateUpdatedTimestamp": NOW}
    older = {**alarm, "AlarmName": "tenantmail-SweepLagAlarm-X1", "StateUpdatedTimestamp": NOW - timedelta(hours=1)}
    inactive = {**alarm, "AlarmName": "tenantmail-QuietAlarm-X3", "StateValue": "OK"}
    client = Client(describe_alarms=[{"MetricAlarms": [older, {**alarm, "AlarmName": "tenantmail-UnknownAlarm-X2"}, inactive]}])
    found = health(client).alarms().value or []
    assert [alarm.name for alarm in found] == ["UnknownAlarm", "SweepLagAlarm"]
    assert (found[0].text, found[0].section) == ("It waits.", "unknown")
    assert client.calls[0]["AlarmNamePrefix"] == "tenantmail-"


def test_metrics_are_grouped_by_the_steps_of_the_window() -> None:
    """Each outcome has its own query with this stack's dimension."""
    window = Window.of(1, NOW)
    result = {"Id": "m0", "Timestamps": [window.starts[2], window.starts[5]], "Values": [4.0, 1.0]}
    client = Client(get_metric_data=[{"MetricDataResults": [result]}])
    counts = health(client).counts(window).value
    assert counts
    assert [step for step, value in enumerate(counts.series["sent"]) if value] == [2, 5]
    [call] = client.calls
    assert len(call["MetricDataQueries"]) == len(OUTCOMES)
    assert call["MetricDataQueries"][0]["MetricStat"]["Metric"]["Dimensions"] == [{"Name": "service", "Value": "tenantmail"}]


LINE = {
    "message": "request recorded",
    "tenant_id": "acme",
    "request_id": "r1",
    "status": "sent",
    "timestamp": "2026-11-24 10:00:00,000+0000",
}


def log(*lines: str) -> tuple[CloudWatchRequestLog, Client]:
    client = Client(filter_log_events=[{"events": [{"message": line} for line in lines]}])
    return CloudWatchRequestLog("tenantmail", CloudWatchLog(client, ["group"])), client


def test_the_log_is_filtered_by_the_request() -> None:
    """CloudWatch filters it; for emulators that ignore the filter the result is filtered again."""
    read, client = log(json.dumps(LINE), json.dumps({**LINE, "request_id": "r2"}), "no JSON", json.dumps({"message": "request recorded"}))
    found = read.read(NOW - timedelta(hours=1), until=NOW, request_id="r1").value
    assert found
    assert [state.request_id for state in found.states] == ["r1"]
    [call] = client.calls
    assert '$.request_id = "r1"' in call["filterPattern"]
    assert call["endTime"] == int(NOW.timestamp() * 1000)


def test_a_long_log_is_truncated_and_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page must respond in time."""
    monkeypatch.setattr(requests, "LINES", 2)
    read, _ = log(*[json.dumps(LINE)] * 3)
    found = read.read(NOW - timedelta(hours=1)).value
    assert found
    assert (len(found.lines), found.cut) == (2, True)
    monkeypatch.setattr(requests, "SECONDS", -1.0)
    cut = read.read(NOW - timedelta(hours=1)).value
    assert cut
    assert (len(cut.lines), cut.cut) == (0, True)


# ── dead letters ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_work_runs_in_the_background_and_reports_its_result() -> None:
    """The page may be closed meanwhile."""
    platform = Platform()
    platform.dead_letters.messages = [dead_letter("acme", f"r{number}", None, handle=str(number)) for number in range(3)]
    desk = platform.sources().dead_letters
    work = desk.start("redrive", Selection(tenant="acme"))
    wait_for(work)
    assert work.counts == [("redriven", 3)]
    assert desk.work(work.id) is work
    assert desk.work("another") is None


def wait_for(work: Any) -> None:
    for thread in threading.enumerate():
        if thread.name.endswith("dead letters"):
            thread.join(10)
    assert work.done


def test_failed_work_reports_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as done."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")

    @contextmanager
    def denied() -> Iterator[DeadLetterDependencies]:
        raise client_error("AccessDenied")
        yield

    work = StackDeadLetters("tenantmail", denied).start("drop", Selection(tenant="acme"))
    wait_for(work)
    assert work.trouble
    assert "lack a right" in work.trouble.text


class _EndsWhileRead(list[Any]):
    """The results of a redrive that ends, with another result, while they are read."""

    work: Work

    def __iter__(self) -> Iterator[Any]:
        seen = iter(list[Any]())
        self.work.results, self.work.done = [(summarize(dead_letter("acme", "r", None)), DeadLetterResult.REDRIVEN)], True
        return seen


def test_a_redrive_that_ends_while_its_page_is_made_is_shown_in_progress() -> None:
    """Its last results would be missing."""
    work = Work("1", "redrive", Selection())
    work.results = results = _EndsWhileRead()
    results.work = work
    assert (work.snapshot().done, work.snapshot().done) == (False, True)


def test_the_dead_letter_queue_has_one_reader_at_a_time() -> None:
    """Received messages are invisible to others: two concurrent pages would each see half."""
    platform = Platform()
    platform.dead_letters.messages = [dead_letter("acme", "r", None)]
    readers, maximum = 0, 0
    sources = platform.sources()
    opened = sources.dead_letters._open  # type: ignore[attr-defined]

    @contextmanager
    def watched() -> Iterator[DeadLetterDependencies]:
        nonlocal readers, maximum
        readers += 1
        maximum = max(maximum, readers)
        with opened() as deps:
            yield deps
        readers -= 1

    desk = StackDeadLetters("tenantmail", watched)
    threads = [threading.Thread(target=desk.read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert maximum == 1


def test_the_time_of_a_log_line_is_converted_to_utc() -> None:
    """Powertools writes it with an offset."""
    read, _ = log(json.dumps({**LINE, "timestamp": "2026-11-24 12:00:00,000+0200"}))
    found = read.read(NOW).value
    assert found
    assert found.states[0].at == datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
