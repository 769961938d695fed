"""What the erasure of a request, a tenant or an address leaves in the real tables, bucket and queue."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any

import boto3
import pytest

from mailer import wiring
from mailer.adapters.dynamodb.feedback_table import DynamoFeedbackTable
from mailer.adapters.dynamodb.messages_table import record_key, tenant_shard
from mailer.domain import changes
from mailer.domain.changes import Fence, Request, SentBy
from mailer.domain.delivery import Delivery, Status
from mailer.domain.errors import DependencyError, ErrorInfo, UnreadableError
from mailer.domain.facts import Fact, Facts, RecipientStatus
from mailer.domain.feedback import MailRef
from mailer.domain.message import parse_request
from mailer.domain.pacing import account_key
from mailer.domain.provider import ProviderStatus
from mailer.domain.statistics import Bucket, Counts, account_series
from mailer.domain.suppressions import Entry
from mailer.handlers import feedback
from mailer.ports import Counted, MergedFacts, QueueMessage, RefusedError
from mailer.services.providers.providers import onboard, put_config
from mailer_ops.adapters import dead_letters
from mailer_ops.adapters.address_erasure import DynamoAddressEraser
from mailer_ops.adapters.dead_letters import SqsDeadLetters
from mailer_ops.adapters.erasure import AwsEraser, Tables
from mailer_ops.operations import erasure
from mailer_ops.operations.erasure import ErasureDependencies, StillOpenError, erase_address, erase_request, erase_tenant
from mailer_ops.stack import explain
from support.aws.api_calls import Context, event
from support.fakes.ports import NOON, FakeClock, FakeTelemetry, a_config, a_provider
from support.fakes.sending import a_body
from support.fakes.suppressions import an_entry

LONG_AGO = NOON - timedelta(days=20)
REJECTED = ErrorInfo("recipient_rejected", "SES refused an address")


class Stack:
    """A stack with an eraser, and helpers that create the data of requests and tenants."""

    def __init__(self, aws: Mapping[str, str]) -> None:
        self._aws = aws
        self.bucket = aws["ATTACHMENTS_BUCKET"]
        self.clock = FakeClock()
        self.dead_letters = SqsDeadLetters(wiring.sqs(), wiring.signer(), aws["DEAD_LETTER_QUEUE_URL"])
        self.eraser = AwsEraser(
            wiring.dynamodb(),
            wiring.s3(),
            Tables(
                messages=aws["MESSAGES_TABLE"],
                providers=aws["PROVIDERS_TABLE"],
                pacing=aws["PACING_TABLE"],
                feedback=aws["FEEDBACK_TABLE"],
                statistics=aws["STATISTICS_TABLE"],
            ),
            bucket=self.bucket,
        )
        self.deps = ErasureDependencies(
            eraser=self.eraser,
            addresses=DynamoAddressEraser(
                wiring.dynamodb(),
                suppressions=aws["SUPPRESSIONS_TABLE"],
                feedback=aws["FEEDBACK_TABLE"],
                providers=aws["PROVIDERS_TABLE"],
            ),
            providers=wiring.providers_table(),
            messages=wiring.messages_table(),
            dead_letters=self.dead_letters,
            parked=wiring.parked_bodies(),
            telemetry=FakeTelemetry(),
            clock=self.clock,
        )

    def request(self, request_id: str = "r1", tenant_id: str = "acme") -> Request:
        send = parse_request(a_body(request_id, tenant_id))
        return Request.of(send, created_at=NOON, expires_at=NOON + timedelta(hours=1))

    def parked(self, request_id: str = "r1", tenant_id: str = "acme") -> Delivery:
        """Create a waiting request with its body in the bucket."""
        key = wiring.parked_bodies().park(tenant_id, request_id, a_body(request_id, tenant_id))
        deferral = changes.Deferral(until=NOON, generation=1, parked=key, on_queue=False)
        return wiring.messages_table().apply(changes.defer(self.request(request_id, tenant_id), NOON, deferral))

    def failed(self, request_id: str = "r1", tenant_id: str = "acme", *, parked: bool = True, at: Any = NOON) -> Delivery:
        """Create an ended request; its body was discarded, which leaves a version in the bucket."""
        record = self.parked(request_id, tenant_id) if parked else None
        ended = wiring.messages_table().apply(changes.fail_unsent(replace(self.request(request_id, tenant_id), generation=1), at, REJECTED))
        if record and record.parked:
            wiring.parked_bodies().discard(record.parked)
        return ended

    def dead_letter(self, request_id: str = "r1", tenant_id: str = "acme") -> None:
        wiring.send_queue().dead_letter(
            QueueMessage(body=a_body(request_id, tenant_id), tenant_id=tenant_id, created_at=NOON), reason="x", detail="y"
        )

    def unreadable_letter(self, tenant_id: str) -> None:
        wiring.send_queue().dead_letter(QueueMessage(body="{", tenant_id=tenant_id, created_at=NOON), reason="invalid_request", detail="y")

    def upload(self, key: str) -> None:
        boto3.client("s3").put_object(Bucket=self.bucket, Key=f"attachments/{key}", Body=b"%PDF")

    def provide(self, tenant_id: str = "acme", **fields: Any) -> None:
        wiring.providers_table().replace(a_provider(tenant_id, **fields))

    def item(self, table: str, **key: str) -> dict[str, Any]:
        found: dict[str, Any] = boto3.client("dynamodb").get_item(
            TableName=self._aws[table], Key={name: {"S": value} for name, value in key.items()}
        )
        return {name: next(iter(value.values())) for name, value in found.get("Item", {}).items()}

    def versions(self, prefix: str = "") -> list[str]:
        listed: Any = boto3.client("s3").list_object_versions(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for entry in [*listed.get("Versions", []), *listed.get("DeleteMarkers", [])]]

    def fed_back(self, request_id: str = "r1", tenant_id: str = "acme", message_id: str = "0100-one") -> None:
        """Create the feedback items of a request."""
        mail, table = MailRef(tenant_id, request_id, 1), wiring.feedback_table()
        table.remember("111122223333", "eu-west-1", message_id, mail, NOON)
        table.merge(tenant_id, request_id, {"jo@example.com": {RecipientStatus.BOUNCED: Fact(NOON)}})

    def feedback(self) -> list[str]:
        return sorted(item["pk"]["S"] for item in boto3.client("dynamodb").scan(TableName=self._aws["FEEDBACK_TABLE"])["Items"])

    def name(self, table: str) -> str:
        return self._aws[table]

    def dead(self) -> list[str]:
        taken = list(self.dead_letters.receive_all())
        self.dead_letters.put_back(taken)
        return sorted(dead_letter.queue_message.body for dead_letter in taken)


@pytest.fixture
def stack(aws: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Stack:
    monkeypatch.setattr(dead_letters, "_WAIT_SECONDS", 0)  # in one process every message is available at once
    return Stack(aws)


# ── a request ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_event_that_is_recorded_meanwhile_leaves_no_address(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """FeedbackFunction read the record before its erasure, and writes the facts after it."""
    sent_by = SentBy("ses", 1, "111122223333", "eu-central-1")
    request = replace(stack.request(), request_id="invoice-2026-0001")
    monkeypatch.setattr(wiring, "clock", lambda: FakeClock(NOON + timedelta(minutes=1)))
    wiring.messages_table().apply(changes.begin(request, NOON, owner="w1", deadline=NOON, sent_by=sent_by))
    wiring.messages_table().apply(changes.accept(request, NOON, Fence(1, "w1"), "0100019391a1b2c3-example"))
    merge = DynamoFeedbackTable.merge

    def erase_first(*arguments: Any) -> MergedFacts:
        assert erase_request("acme", "invoice-2026-0001", stack.deps, cancel=False)
        return merge(*arguments)

    monkeypatch.setattr(DynamoFeedbackTable, "merge", erase_first)
    [failure] = feedback.handler(event("feedback-bounced"), Context())["batchItemFailures"]
    assert failure["itemIdentifier"] == event("feedback-bounced")["Records"][0]["messageId"]
    for table in ("FEEDBACK_TABLE", "MESSAGES_TABLE", "SUPPRESSIONS_TABLE"):
        assert "jo@example.com" not in repr(boto3.client("dynamodb").scan(TableName=stack.name(table))["Items"])
    assert "messageId" not in stack.item(
        "MESSAGES_TABLE", tenantShard=tenant_shard("acme", "invoice-2026-0001"), requestId="invoice-2026-0001"
    )


def test_of_an_erased_request_ids_and_status_stay_while_a_message_may_arrive(stack: Stack) -> None:
    """Everything else is deleted, in every version; other requests keep theirs."""
    for request_id in ("r1", "r10"):
        stack.failed(request_id)
        stack.dead_letter(request_id)
    erased = erase_request("acme", "r1", stack.deps, cancel=False)
    assert erased == {erasure.REDUCED: 1, erasure.BODIES: 2, erasure.DEAD_LETTERS: 1}
    item = stack.item("MESSAGES_TABLE", tenantShard=tenant_shard("acme", "r1"), requestId="r1")
    assert (item["tenantId"], item["requestId"], item["status"]) == ("acme", "r1", "failed")
    assert int(item["ttl"]) == int((NOON + erasure.COPIES_LAST).timestamp())
    assert not item.keys() & {"messageId", "error", "correlationId", "resolution", "parked", "createdKey", "statusShard", "sweepShard"}
    assert [key.split("/")[2] for key in stack.versions("parked/")] == ["r10", "r10"]
    assert stack.dead() == [a_body("r10")]
    listed = wiring.messages_table().list("acme", status=None, limit=10, cursor=None).deliveries
    assert [record.request_id for record in listed] == ["r10"]


def test_the_feedback_of_a_request_is_erased_with_it(stack: Stack) -> None:
    """Its recipients, and the item of SES's messageId; other requests keep theirs."""
    sent = {"account": "111122223333", "region": "eu-west-1", "message_id": "0100-one", "attempt": 1}
    stack.failed("r1", parked=False)
    boto3.client("dynamodb").update_item(
        TableName=wiring.settings().messages_table,
        Key=record_key("acme", "r1"),
        UpdateExpression="SET account = :account, #region = :region, messageId = :id",
        ExpressionAttributeNames={"#region": "region"},
        ExpressionAttributeValues={":account": {"S": sent["account"]}, ":region": {"S": sent["region"]}, ":id": {"S": sent["message_id"]}},
    )
    stack.fed_back("r1")
    stack.fed_back("r10", message_id="0100-ten")
    erased = erase_request("acme", "r1", stack.deps, cancel=False)
    assert erased[erasure.FEEDBACK] == 2
    assert stack.feedback() == ["acme#r10", "message#111122223333#eu-west-1#0100-ten"]
    assert erase_request("acme", "r10", stack.deps, cancel=False)[erasure.FEEDBACK] == 1  # of one whose record was deleted


def sent_twice(stack: Stack) -> None:
    """Create a request whose first attempt ended unknown, and of both of whose mails SES has reported."""
    messages, request = wiring.messages_table(), replace(stack.request(), on_unknown="resend")
    sent_by = SentBy("ses", 1, "111122223333", "eu-west-1")
    messages.apply(changes.begin(request, NOON, owner="w1", deadline=NOON, sent_by=sent_by))
    lost = messages.apply(changes.mark_unknown(request, NOON, Fence(1, "w1"), ErrorInfo("outcome_unknown", "no answer")))
    later = NOON + timedelta(minutes=5)
    messages.apply(changes.resend(lost, later, timedelta(seconds=60)))
    messages.apply(changes.begin(request, later, owner="w2", deadline=later, sent_by=sent_by))
    messages.apply(changes.accept(request, later, Fence(2, "w2"), "0100-two"))
    for message_id in ("0100-one", "0100-two"):
        stack.fed_back("r1", message_id=message_id)


def test_the_message_ids_of_all_attempts_are_erased(stack: Stack) -> None:
    """The record has only the last one; another request's stay."""
    sent_twice(stack)
    stack.fed_back("r10", message_id="0100-ten")
    assert erase_request("acme", "r1", stack.deps, cancel=False)[erasure.FEEDBACK] == 3
    assert stack.feedback() == ["acme#r10", "message#111122223333#eu-west-1#0100-ten"]


def test_an_interrupted_erasure_of_a_request_leaves_no_message_id(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the record is reduced, nothing tells the messageId any more."""
    request = stack.request()
    sent_by = SentBy("ses", 1, "111122223333", "eu-west-1")
    wiring.messages_table().apply(changes.begin(request, NOON, owner="w1", deadline=NOON, sent_by=sent_by))
    wiring.messages_table().apply(changes.accept(request, NOON, Fence(1, "w1"), "0100-one"))
    stack.fed_back("r1")
    erase_record = stack.eraser.erase_record

    def stop_after(*arguments: Any, **named: Any) -> None:
        erase_record(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stack.eraser, "erase_record", stop_after)
        with pytest.raises(KeyboardInterrupt):
            erase_request("acme", "r1", stack.deps, cancel=False)
    erase_request("acme", "r1", stack.deps, cancel=False)
    assert stack.feedback() == []


def test_the_feedback_of_a_tenant_is_erased_with_it(stack: Stack) -> None:
    """Also of requests whose records have expired."""
    stack.provide()
    stack.failed("r1", parked=False)
    stack.fed_back("r1")
    stack.fed_back("forgotten", message_id="0100-two")
    stack.fed_back("r1", "acme2", message_id="0100-three")
    assert erase_tenant("acme", stack.deps, cancel=False)[erasure.FEEDBACK] == 4
    assert stack.feedback() == ["acme2#r1", "message#111122223333#eu-west-1#0100-three"]


def test_a_late_message_of_an_erased_request_is_not_sent(stack: Stack) -> None:
    """The fence still has its record."""
    stack.failed()
    erase_request("acme", "r1", stack.deps, cancel=False)
    begin = changes.begin(replace(stack.request(), generation=9), NOON, owner="w1", deadline=NOON, sent_by=SentBy("ses", 1))
    with pytest.raises(RefusedError) as refused:
        wiring.messages_table().apply(begin)
    assert refused.value.current
    assert refused.value.current.status is Status.FAILED


def test_a_request_that_ended_long_ago_is_deleted(stack: Stack) -> None:
    """No message of it can be on the queue any more."""
    stack.failed(at=LONG_AGO)
    assert erase_request("acme", "r1", stack.deps, cancel=False)[erasure.RECORDS] == 1
    assert stack.item("MESSAGES_TABLE", tenantShard=tenant_shard("acme", "r1"), requestId="r1") == {}


def test_an_open_request_is_erased_only_once_it_is_cancelled(stack: Stack) -> None:
    """Until then nothing is changed; then its body is deleted too."""
    stack.parked()
    with pytest.raises(StillOpenError, match="1 deferred not ended: wait, or add --cancel"):
        erase_request("acme", "r1", stack.deps, cancel=False)
    assert len(stack.versions()) == 1
    erased = erase_request("acme", "r1", stack.deps, cancel=True)
    assert erased == {erasure.CANCELLED: 1, erasure.REDUCED: 1, erasure.BODIES: 2}
    assert stack.item("MESSAGES_TABLE", tenantShard=tenant_shard("acme", "r1"), requestId="r1")["status"] == "cancelled"
    assert stack.versions() == []


def test_a_request_that_may_be_at_ses_cannot_be_cancelled(stack: Stack) -> None:
    """Its worker needs the record."""
    wiring.messages_table().apply(changes.begin(stack.request(), NOON, owner="w1", deadline=NOON, sent_by=SentBy("ses", 1)))
    with pytest.raises(StillOpenError, match="1 sending may be at SES now"):
        erase_request("acme", "r1", stack.deps, cancel=True)
    assert stack.item("MESSAGES_TABLE", tenantShard=tenant_shard("acme", "r1"), requestId="r1")["owner"] == "w1"


def test_only_named_uploads_are_erased_with_a_request(stack: Stack) -> None:
    """One upload may belong to many requests."""
    stack.failed(parked=False)
    stack.upload("acme/" + "a" * 32)
    stack.upload("acme/" + "b" * 32)
    assert erase_request("acme", "r1", stack.deps, cancel=False, uploads=["acme/" + "a" * 32])[erasure.UPLOADS] == 1
    assert stack.versions() == ["attachments/acme/" + "b" * 32]


@pytest.mark.parametrize("key", ["", "acme/", "a" * 31, "acme/" + "a" * 31], ids=["none", "tenant", "part", "tenant and part"])
def test_an_upload_is_named_by_its_whole_key(stack: Stack, key: str) -> None:
    """Part of a key, or none, erases no upload: it may be a prefix of others."""
    stack.failed(parked=False)
    stack.upload("acme/" + "a" * 32)
    assert erase_request("acme", "r1", stack.deps, cancel=False, uploads=[key])[erasure.UPLOADS] == 0
    assert stack.versions() == ["attachments/acme/" + "a" * 32]


def test_an_erasure_can_be_repeated(stack: Stack) -> None:
    """It finds nothing, also of an unknown request."""
    stack.failed()
    stack.dead_letter()
    erase_request("acme", "r1", stack.deps, cancel=False)
    assert +erase_request("acme", "r1", stack.deps, cancel=False) == Counter()
    assert +erase_request("acme", "never", stack.deps, cancel=True) == Counter()


# ── a tenant ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def a_full_tenant(stack: Stack, tenant_id: str) -> None:
    stack.provide(tenant_id, active=replace(a_config(), account="111122223333"))
    stack.failed("ended", tenant_id)
    stack.failed("old", tenant_id, at=LONG_AGO)
    stack.parked("waiting", tenant_id)
    stack.dead_letter("ended", tenant_id)
    stack.unreadable_letter(tenant_id)
    stack.upload(f"{tenant_id}/" + "a" * 32)


def test_of_an_erased_tenant_the_version_counter_stays(stack: Stack) -> None:
    """And of recently ended requests the ids and the status; another tenant keeps everything."""
    for tenant_id in ("acme", "acme-2"):
        a_full_tenant(stack, tenant_id)
    erased = erase_tenant("acme", stack.deps, cancel=True)
    assert erased == {
        erasure.CONFIG: 1,
        erasure.CANCELLED: 1,
        erasure.RECORDS: 1,
        erasure.REDUCED: 2,
        erasure.DEAD_LETTERS: 2,
        erasure.BODIES: 6,
        erasure.UPLOADS: 1,
    }
    row = stack.item("PROVIDERS_TABLE", tenantId="acme")
    assert (row["status"], row["versions"], row["encryptedExternalId"]) == ("deleted", "1", b"")
    assert not row.keys() & {"active", "candidate", "verifiedAt", "error", "faultyRequests", "updatedBy"}
    assert {key.split("/")[1] for key in stack.versions()} == {"acme-2"}
    assert len(stack.dead()) == 2
    assert len(list(stack.eraser.records("acme-2"))) == 3
    assert stack.item("PROVIDERS_TABLE", tenantId="acme-2")["active"]


def test_a_tenant_with_open_requests_is_not_erased(stack: Stack) -> None:
    """Unless they are to be cancelled; its provider still sends."""
    a_full_tenant(stack, "acme")
    with pytest.raises(StillOpenError, match="1 deferred not ended"):
        erase_tenant("acme", stack.deps, cancel=False)
    assert stack.item("PROVIDERS_TABLE", tenantId="acme")["status"] == "active"
    assert len(list(stack.eraser.records("acme"))) == 3


def test_a_later_tenant_with_the_same_id_gets_the_next_version_and_another_external_id(stack: Stack) -> None:
    """Neither matches the earlier tenant's."""
    deps = wiring.provider_dependencies()
    role = {"roleArn": "arn:aws:iam::111122223333:role/mail", "region": "eu-central-1", "fromAddress": "a@b.example", "fromName": "A"}
    config = json.dumps({"provider": "ses", "config": role})
    before = onboard("acme", deps).external_id
    put_config("acme", config, deps)
    erase_tenant("acme", stack.deps, cancel=False)
    shown = {onboarded.external_id for onboarded in (onboard("acme", deps), onboard("acme", deps))}
    assert len(shown) == 1
    assert not shown & {"", before}
    row = put_config("acme", config, deps)
    assert (row.versions, row.status) == (2, ProviderStatus.UNVERIFIED)


def test_a_second_erasure_keeps_a_later_tenant_s_row(stack: Stack) -> None:
    """A row whose ExternalId a later tenant has been shown is not changed."""
    a_full_tenant(stack, "acme")
    erase_tenant("acme", stack.deps, cancel=True)
    before = onboard("acme", wiring.provider_dependencies()).external_id
    assert erase_tenant("never", stack.deps, cancel=True) == Counter()
    assert before == onboard("acme", wiring.provider_dependencies()).external_id


def test_a_deleted_tenant_without_an_external_id_is_erased(stack: Stack) -> None:
    """A row that somebody wrote or restored manually is not an erased one."""
    stack.provide(status=ProviderStatus.DELETED, active=None, encrypted_external_id=b"", updated_by="arn:aws:iam::111122223333:user/jo")
    assert erase_tenant("acme", stack.deps, cancel=False) == {erasure.CONFIG: 1}
    assert "updatedBy" not in stack.item("PROVIDERS_TABLE", tenantId="acme")
    assert erase_tenant("acme", stack.deps, cancel=False) == Counter()


def test_a_record_that_cannot_be_read_is_named(stack: Stack) -> None:
    """An operator must repair or delete it: repeating the command would not help."""
    stack.failed("r1", parked=False)
    boto3.client("dynamodb").update_item(
        TableName=stack.name("MESSAGES_TABLE"),
        Key=record_key("acme", "r1"),
        UpdateExpression="SET #status = :status",
        ExpressionAttributeNames={"#status": "status"},
        ExpressionAttributeValues={":status": {"S": "evaporated"}},
    )
    for erase in (lambda: erase_tenant("acme", stack.deps, cancel=True), lambda: erase_request("acme", "r1", stack.deps, cancel=True)):
        with pytest.raises(UnreadableError, match="what the messages table has of acme/r1 cannot be read") as failure:
            erase()
        assert "repair it" in explain(failure.value, "tenantmail")
        assert "Run it again" not in explain(failure.value, "tenantmail")


@pytest.mark.parametrize("stops_at", ["delete_objects", "put_item", "delete_item", "query"])
def test_an_interrupted_erasure_can_be_continued(stack: Stack, monkeypatch: pytest.MonkeyPatch, stops_at: str) -> None:
    """After a failure of the first call of each kind, the second run deletes the rest."""
    a_full_tenant(stack, "acme")
    client: Any = wiring.s3() if stops_at == "delete_objects" else wiring.dynamodb()
    real, calls = getattr(client, stops_at), []

    def stop_once(**call: Any) -> Any:
        calls.append(call)
        if len(calls) == 1:
            raise boto3.client("s3").exceptions.ClientError({"Error": {"Code": "SlowDown"}}, stops_at)
        return real(**call)

    with monkeypatch.context() as patch:
        patch.setattr(client, stops_at, stop_once)
        if stops_at == "query":
            patch.setattr(client, "get_paginator", lambda _: Paginator(stop_once))
        with pytest.raises(DependencyError):
            erase_tenant("acme", stack.deps, cancel=True)
    erase_tenant("acme", stack.deps, cancel=True)
    assert (list(stack.eraser.records("acme")), stack.versions(), stack.dead()) == ([], [], [])
    assert stack.item("PROVIDERS_TABLE", tenantId="acme")["encryptedExternalId"] == b""


class Paginator:
    """One page."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def paginate(self, **call: Any) -> Any:
        yield self._call(**call)


def places(stack: Stack, text: str) -> Counter[str]:
    """Count the items of each table, and the versions in the bucket, that have a text in them."""
    client = boto3.client("dynamodb")
    items = [(table, item) for table in client.list_tables()["TableNames"] for item in client.scan(TableName=table)["Items"]]
    return Counter([*(table for table, item in items if text in repr(item)), *(stack.bucket for key in stack.versions() if text in key)])


def test_nothing_else_names_an_erased_tenant(stack: Stack) -> None:
    """Every table had something of the tenant: a new table fails here until its erasure is defined."""
    a_full_tenant(stack, "acme")
    stack.fed_back("ended")
    suppress(an_entry("jo@example.com"))
    wiring.statistics_table().add(Bucket("acme", NOON), "a", [Counted("1", Counts(sent=1))])
    row = wiring.providers_table().get("acme")
    assert row is not None
    assert wiring.providers_table().replace(replace(row, candidate=replace(a_config(), version=2, account=None)))
    rate = account_key("acme", a_config().region, None)
    boto3.client("dynamodb").put_item(TableName=stack.name("PACING_TABLE"), Item={"account": {"S": rate}})
    tables = set(boto3.client("dynamodb").list_tables()["TableNames"]) - {stack.name("SESSIONS_TABLE")}  # its keys are digests
    assert places(stack, "acme").keys() == tables | {stack.bucket}
    erase_tenant("acme", stack.deps, cancel=True)
    assert places(stack, "acme") == {stack.name("PROVIDERS_TABLE"): 1, stack.name("MESSAGES_TABLE"): 2}  # the row, and what is reduced


def test_the_account_rate_of_only_this_tenant_is_erased(stack: Stack, aws: Mapping[str, str]) -> None:
    """Not the rate of an account that other tenants use too."""
    for tenant_id, account in (("acme", "111122223333"), ("globex", "444455556666"), ("initech", "444455556666")):
        stack.provide(tenant_id, active=replace(a_config(), account=account))
    region = a_config().region
    for account in ("111122223333", "444455556666"):
        boto3.client("dynamodb").put_item(TableName=aws["PACING_TABLE"], Item={"account": {"S": f"{account}/{region}"}})
    assert erase_tenant("acme", stack.deps, cancel=False)[erasure.ACCOUNT_RATES] == 1
    assert erase_tenant("globex", stack.deps, cancel=False)[erasure.ACCOUNT_RATES] == 0
    assert stack.item("PACING_TABLE", account=f"111122223333/{region}") == {}
    assert stack.item("PACING_TABLE", account=f"444455556666/{region}") != {}


@pytest.mark.parametrize("account", ["111122223333", None])
def test_a_repeated_erasure_finds_the_account_rate(stack: Stack, aws: Mapping[str, str], account: str | None) -> None:
    """The first one had to stop for a mail that is at SES; its worker has written the rate again, and the config is gone."""
    stack.provide(active=replace(a_config(), account=account))
    region, key = a_config().region, account_key("acme", a_config().region, account)

    def pace() -> None:
        boto3.client("dynamodb").put_item(TableName=aws["PACING_TABLE"], Item={"account": {"S": key}})

    sent_by = SentBy("ses", 1, account, region)
    wiring.messages_table().apply(changes.begin(stack.request(), NOON, owner="w1", deadline=NOON, sent_by=sent_by))
    pace()
    with pytest.raises(StillOpenError, match="1 sending"):
        erase_tenant("acme", stack.deps, cancel=True)
    pace()
    wiring.messages_table().apply(changes.accept(stack.request(), NOON, Fence(1, "w1"), "0100-one"))
    assert erase_tenant("acme", stack.deps, cancel=True)[erasure.ACCOUNT_RATES] == 1
    assert stack.item("PACING_TABLE", account=key) == {}


def test_the_account_rate_is_erased_before_the_config_that_names_it(
    stack: Stack, aws: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An erasure that is stopped afterwards has left none; the tenant has no requests."""
    stack.provide(active=replace(a_config(), account="111122223333"))
    key = account_key("acme", a_config().region, "111122223333")
    boto3.client("dynamodb").put_item(TableName=aws["PACING_TABLE"], Item={"account": {"S": key}})
    replaced = stack.deps.providers.replace

    def stop_after(row: Any) -> bool:
        replaced(row)
        raise KeyboardInterrupt

    monkeypatch.setattr(stack.deps.providers, "replace", stop_after)
    with pytest.raises(KeyboardInterrupt):
        erase_tenant("acme", stack.deps, cancel=True)
    assert stack.item("PROVIDERS_TABLE", tenantId="acme")["status"] == "deleted"
    assert stack.item("PACING_TABLE", account=key) == {}


# ── an address ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def facts_of(*addresses: str) -> Facts:
    return {address: {RecipientStatus.BOUNCED: Fact(NOON, "5.1.1", "smtp; 550 5.1.1 user unknown")} for address in addresses}


def suppress(*entries: Entry) -> None:
    assert all(wiring.suppressions_table().replace(entry) for entry in entries)


def listed() -> set[tuple[str, str]]:
    pages = wiring.dynamodb().get_paginator("scan").paginate(TableName=wiring.suppressions_table()._table)
    return {(item["tenantId"]["S"], item["email"]["S"]) for page in pages for item in page["Items"]}


@pytest.fixture
def two_tenants(stack: Stack) -> Stack:
    """Jo has bounced for acme and for globex, in different spellings; ann for acme."""
    for tenant_id in ("acme", "globex"):
        assert stack.deps.providers.replace(a_provider(tenant_id))
    counted = Entry(tenant_id="globex", email="jo@example.com", soft_bounces={"r1": NOON})
    suppress(an_entry("jo@example.com"), an_entry("ann@example.com"), counted)
    for tenant_id, request_id, addresses in (
        ("acme", "both", ("Jo@Example.com", "ann@example.com")),
        ("acme", "ann", ("ann@example.com",)),
        ("globex", "jo", ("jo@example.com",)),
    ):
        wiring.feedback_table().merge(tenant_id, request_id, facts_of(*addresses))
    return stack


def test_an_address_is_erased_for_all_tenants_in_every_spelling(two_tenants: Stack) -> None:
    """Data of other addresses stays."""
    assert erase_address("JO@example.com", two_tenants.deps) == {erasure.SUPPRESSIONS: 2, erasure.FACTS: 2}
    assert listed() == {("acme", "ann@example.com")}
    assert {request_id: set(wiring.feedback_table().facts("acme", request_id)) for request_id in ("both", "ann")} == {
        "both": {"ann@example.com"},
        "ann": {"ann@example.com"},
    }
    assert not wiring.feedback_table().facts("globex", "jo")
    assert erase_address("jo@example.com", two_tenants.deps) == {}


def test_the_other_facts_of_a_mail_are_kept(two_tenants: Stack) -> None:
    """A later event is merged into them."""
    erase_address("jo@example.com", two_tenants.deps)
    wiring.feedback_table().merge("acme", "both", facts_of("bob@example.com"))
    assert set(wiring.feedback_table().facts("acme", "both")) == {"ann@example.com", "bob@example.com"}


def test_a_concurrent_event_is_not_overwritten(two_tenants: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The erasure fails and must be repeated."""
    eraser: Any = two_tenants.deps.addresses
    read = list(eraser._facts())
    wiring.feedback_table().merge("acme", "both", facts_of("bob@example.com"))
    monkeypatch.setattr(eraser, "_facts", lambda: iter(read))
    with pytest.raises(DependencyError):
        erase_address("jo@example.com", two_tenants.deps)
    assert "bob@example.com" in wiring.feedback_table().facts("acme", "both")


def test_the_counts_of_a_tenant_are_erased_with_it(two_tenants: Stack) -> None:
    """Of every hour and shard; neither another tenant's nor the account's."""
    table = wiring.statistics_table()
    series = ("acme", "globex", account_series("111122223333", "eu-west-1"))
    for name, hours, shard in product(series, range(3), ("a", "b")):
        table.add(Bucket(name, NOON + timedelta(hours=hours)), shard, [Counted("1", Counts(sent=1))])
    assert erase_tenant("acme", two_tenants.deps, cancel=False)[erasure.STATISTICS] == 6
    left = {name: len(table.read(name, NOON, NOON + timedelta(days=1))) for name in series}
    assert left == {"acme": 0, "globex": 3, series[2]: 3}


def test_the_suppressions_of_a_tenant_are_erased_with_it(two_tenants: Stack) -> None:
    """And no other tenant's."""
    assert erase_tenant("acme", two_tenants.deps, cancel=False)[erasure.SUPPRESSIONS] == 2
    assert listed() == {("globex", "jo@example.com")}
