"""SweepFunction on the stack in moto: leases of shards, and runs shared by several invocations."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from pydantic import ValidationError

from mailer import wiring
from mailer.adapters.dynamodb.messages_table import SWEEP_SHARDS
from mailer.adapters.dynamodb.sweep_leases import LONGEST, DynamoSweepLeases
from mailer.adapters.sweep_invocations import LambdaSweepInvocations, read_part, to_event
from mailer.domain import changes
from mailer.domain.errors import DependencyError
from mailer.domain.message import parse_request
from mailer.handlers import sweep
from mailer.ports import SweepLeases, SweepPart
from mailer.services.sweeping import parts
from mailer.services.sweeping import sweep as sweeping
from support.aws.api_calls import Context
from support.aws.canned import answer
from support.fakes.ports import FakeSweepLeases
from support.fakes.sending import a_body

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
RUN = timedelta(seconds=50)
PART = SweepPart(shards=[3, 19], share=0.25, ends_at=NOON + RUN)


# -- leases --------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["dynamodb", "fake"])
def leases(request: pytest.FixtureRequest, aws: Mapping[str, str]) -> SweepLeases:
    """Return the leases or their fake: the unit tests rely on the same behaviour."""
    return FakeSweepLeases() if request.param == "fake" else DynamoSweepLeases(wiring.dynamodb(), aws["PACING_TABLE"])


def test_a_shard_is_leased_to_one_run_at_a_time(leases: SweepLeases) -> None:
    """Until the lease is released or expires; each shard separately."""
    assert leases.take(3, "one", NOON, NOON + RUN)
    assert not leases.take(3, "two", NOON + RUN - timedelta(milliseconds=1), NOON + 2 * RUN)
    assert leases.take(4, "two", NOON, NOON + RUN)
    leases.release(3, "one")
    assert leases.take(3, "two", NOON, NOON + RUN)
    assert leases.take(3, "three", NOON + RUN, NOON + 2 * RUN)


def test_the_owner_of_a_lease_may_take_it_again(leases: SweepLeases) -> None:
    """As the SDK's retry does if a reply was lost."""
    assert leases.take(3, "one", NOON, NOON + RUN)
    assert leases.take(3, "one", NOON, NOON + RUN)


def test_only_the_owner_of_a_lease_releases_it(leases: SweepLeases) -> None:
    """A late run must not end the next one's lease."""
    leases.take(3, "one", NOON, NOON + RUN)
    leases.release(3, "late")
    assert not leases.take(3, "two", NOON, NOON + RUN)


def test_a_lease_longer_than_any_run_is_ignored(leases: SweepLeases) -> None:
    """The clock of its writer was wrong."""
    assert leases.take(3, "one", NOON, NOON + LONGEST)
    assert not leases.take(3, "two", NOON, NOON + RUN)
    assert leases.take(3, "one", NOON, NOON + LONGEST + timedelta(seconds=1))
    assert leases.take(3, "two", NOON, NOON + RUN)


def test_leases_expire(aws: Mapping[str, str]) -> None:
    """A removed shard leaves no item."""
    DynamoSweepLeases(wiring.dynamodb(), aws["PACING_TABLE"]).take(3, "one", NOON, NOON + RUN)
    [item] = boto3.client("dynamodb").scan(TableName=aws["PACING_TABLE"])["Items"]
    assert (item["account"], int(item["ttl"]["N"])) == ({"S": "sweep/3"}, int((NOON + timedelta(days=1)).timestamp()))


# -- further invocations -------------------------------------------------------------------------------------------------


def test_an_invocation_reads_its_part() -> None:
    """The payload is written and read by the same code."""
    assert read_part(to_event(PART)) == PART
    assert read_part({"source": "aws.events"}) is None


@pytest.mark.parametrize("wrong", [{}, {"shards": [], "parts": 1, "endsAt": 0}, {"shards": [1], "parts": 0, "endsAt": 0}, [1], None])
def test_an_invalid_part_is_refused(wrong: Any) -> None:
    """Nothing is swept."""
    with pytest.raises(ValidationError):
        read_part({"sweep": wrong})


def invoked(status: int) -> tuple[LambdaSweepInvocations, list[AWSPreparedRequest]]:
    """Return a client that gets this status for every call, and its requests."""
    client, asked = boto3.client("lambda", region_name="eu-central-1", aws_access_key_id="AKIAOWN", aws_secret_access_key="secret"), []

    def reply(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        asked.append(request)
        return answer(request, status, b"")

    client.meta.events.register_first("before-send.lambda.Invoke", reply)
    return LambdaSweepInvocations(client, "mail-sweep:live"), asked


def test_an_invocation_is_asynchronous_and_of_the_alias() -> None:
    """The caller does not wait, and the invocation runs the same version as the schedule."""
    invocations, asked = invoked(202)
    invocations.begin(PART)
    [request] = asked
    body: Any = request.body
    assert request.url.endswith("/functions/mail-sweep%3Alive/invocations")
    assert (request.headers["X-Amz-Invocation-Type"], read_part(json.loads(body))) == (b"Event", PART)


def test_an_invocation_that_lambda_refuses_is_a_failure() -> None:
    """The run then does the work itself."""
    invocations, _ = invoked(403)
    with pytest.raises(DependencyError, match="Lambda did not complete Invoke"):
        invocations.begin(PART)


# -- a whole run ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def due(aws: Mapping[str, str]) -> list[str]:  # noqa: ARG001 - where they are
    """Create due parked requests of a tenant whose provider is deleted: each is requeued, to fail."""
    now = wiring.clock().now() - timedelta(minutes=2)
    made = []
    for number in range(100):
        request = changes.Request.of(parse_request(a_body(f"r{number}")), created_at=now, expires_at=now + timedelta(days=1))
        deferral = changes.Deferral(until=now, generation=1, parked=f"parked/acme/r{number}/1.json", on_queue=False)
        wiring.messages_table().apply(changes.defer(request, now, deferral))
        made.append(f"r{number}")
    return made


class Lambda:
    """Calls the handler itself, on demand."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def begin(self, part: SweepPart) -> None:
        self.events.append(json.dumps(to_event(part)))


@pytest.fixture
def sweeper(monkeypatch: pytest.MonkeyPatch) -> Lambda:
    """Let four invocations share a run from a shard's second request on."""
    invocations = Lambda()
    monkeypatch.setattr(parts, "PAGE", 2)
    monkeypatch.setattr(sweeping, "PAGE", 2)
    deps = replace(wiring.sweep_dependencies(), invocations=invocations, concurrency=4)
    monkeypatch.setattr(wiring, "sweep_dependencies", lambda: deps)
    return invocations


def pointers(aws: Mapping[str, str]) -> list[str]:
    """Receive everything from the queue; return the request ids."""
    found: list[str] = []
    sqs = boto3.client("sqs")
    while got := sqs.receive_message(QueueUrl=aws["SEND_QUEUE_URL"], MaxNumberOfMessages=10).get("Messages"):
        found += [json.loads(message["Body"])["requestId"] for message in got]
    return found


def test_a_shared_run_requeues_each_request_once(aws: Mapping[str, str], due: list[str], sweeper: Lambda) -> None:
    """The scheduled invocation and those that it started, each with its shards, over the real index; a duplicate does nothing."""
    moved = [sweep.handler({}, Context(seconds_left=55))["moved"]]
    assert 0 < moved[0] < len(due)
    assert len(sweeper.events) == 3
    moved += [sweep.handler(json.loads(event), Context(seconds_left=55))["moved"] for event in sweeper.events * 2]
    assert all(moved[:4])
    assert (sum(moved), moved[4:]) == (len(due), [0, 0, 0])
    assert sorted(pointers(aws)) == sorted(due)


def test_a_part_ends_before_its_function_s_timeout(due: list[str], sweeper: Lambda) -> None:
    """Even if the run that started it ends later."""
    event = to_event(SweepPart(shards=range(SWEEP_SHARDS), share=1.0, ends_at=wiring.clock().now() + timedelta(minutes=5)))
    assert sweep.handler(event, Context(seconds_left=5))["moved"] == 0
    assert sweep.handler(event, Context(seconds_left=55))["moved"] == len(due)
    assert sweeper.events == []
