"""A backup, further work, a restore of the old table, and a replay of the log: nothing is sent twice, and nothing is lost."""

import io
import json
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import boto3
import pytest
from aws_lambda_powertools import Logger

from mailer import wiring
from mailer.adapters.dynamodb.messages_table import SWEEP_SHARDS
from mailer.domain import changes
from mailer.domain.delivery import Delivery, Outcome, Resolution, Sent, Status
from mailer.domain.message import parse_request, schedule
from mailer.domain.mime import Mail
from mailer.domain.provider import ProviderStatus
from mailer.observability import LogTelemetry
from mailer.ports import QueueMessage
from mailer.services.api.messages import MessagesDependencies, cancel
from mailer.services.api.resolve import resolve
from mailer.services.requests.queue_messages import pointer_to
from mailer.services.sweeping.sweep import sweep
from mailer_ops.adapters.outcome_restore import DynamoOutcomeRestore
from mailer_ops.operations.replay import ReplayDependencies, replay
from support.fakes.ports import FakeFeedbackTable
from support.fakes.sending import REJECTED, SEND_TIMEOUT, THROTTLED, VANISHED, Bench, FakeReleases, ScriptedProvider, a_body
from support.fakes.suppressions import FakeSuppressionsTable

_numbers = count(1)


class RequestLog(io.StringIO):
    """The functions' log, with the bench's clock."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self._bench = bench

    def write(self, text: str) -> int:
        shown = json.loads(text) if text.strip() else None
        if shown:
            shown["timestamp"] = self._bench.clock.now().strftime("%Y-%m-%d %H:%M:%S,%f")[:-3] + "+0000"
        return super().write(f"{json.dumps(shown)}\n" if shown else "")


@dataclass
class Ses(ScriptedProvider):
    """Counts what it accepts."""

    accepted: Counter[str] = field(default_factory=Counter)

    def send(self, mail: Mail, *, tags: Mapping[str, str]) -> Outcome:
        outcome = super().send(mail, tags=tags)
        if isinstance(outcome, Sent):
            self.accepted[tags["tenantmail-request"]] += 1
        return outcome


class ReplayBench(Bench):
    """The send path with the real tables, bucket and log; each message that was ever on the queue may be redelivered."""

    def __init__(self) -> None:
        super().__init__()
        self.ses = self.provider_factory.provider = self.provider = Ses()
        self.clock.time = datetime.now(UTC)
        self.log = RequestLog(self)
        telemetry = LogTelemetry(Logger(service=f"bench-{next(_numbers)}", stream=self.log, level="ERROR"))
        real: Any = {"messages": wiring.messages_table(), "parked": wiring.parked_bodies(), "telemetry": telemetry}
        self.deps = replace(self.deps, **real)
        self.sweep_deps = replace(self.sweep_deps, shards=SWEEP_SHARDS, releases=FakeReleases(["acme"], young=True), **real)
        self.messages_deps = MessagesDependencies(
            providers=self.providers,
            suppressions=FakeSuppressionsTable(),
            feedback=FakeFeedbackTable(),
            queue=self.queue,
            attachments=self.attachments,
            uploads=self.attachments,
            clock=self.clock,
            workers=self.deps.workers,
            send_timeout=SEND_TIMEOUT,
            **real,
        )
        self.ever: list[QueueMessage] = []

    def ask(self, request_id: str, *outcomes: Outcome, **fields: Any) -> None:
        """Put a request on the queue and process it once."""
        self.provider.outcomes[:] = outcomes
        self.handle(QueueMessage(body=a_body(request_id, **fields), tenant_id="acme", created_at=self.clock.now()))
        self.clock.advance(timedelta(seconds=1))

    def handle(self, queue_message: QueueMessage) -> None:
        self.ever.append(queue_message)
        self.receive(queue_message)

    def queued(self, request_id: str) -> QueueMessage:
        """Record a request whose message stays on the queue."""
        queue_message = QueueMessage(body=a_body(request_id), tenant_id="acme", created_at=self.clock.now())
        self.queue.sent.append((queue_message, timedelta()))
        self.deps.messages.apply(changes.queue(requested(queue_message), queue_message.created_at))
        return queue_message

    def switch(self, status: ProviderStatus) -> None:
        row = self.providers.rows["acme"]
        self.providers.rows["acme"] = replace(row, status=status)

    def run_four_hours(self) -> None:
        """Let everything that waits go out, for four hours; deliver every message twice."""
        for _ in range(12):
            sweep(self.sweep_deps, ends_at=self.clock.now() + timedelta(minutes=1))
            while self.queue.sent:
                self.handle(self.queue.sent.pop(0)[0])
            self.clock.advance(timedelta(minutes=20))
        for queue_message in list(self.ever):
            self.receive(queue_message)

    def records(self) -> dict[str, Delivery]:
        found = self.deps.messages.list("acme", status=None, limit=100, cursor=None).deliveries
        return {record.request_id: record for record in found}


def requested(queue_message: QueueMessage) -> changes.Request:
    send = parse_request(queue_message.body)
    return changes.Request.of(send, created_at=queue_message.created_at, expires_at=schedule(send, queue_message.created_at).expires_at)


@pytest.fixture
def bench(aws: Mapping[str, str]) -> ReplayBench:
    assert aws["MESSAGES_TABLE"]
    return ReplayBench()


class Backup:
    """The table's content at one time."""

    def __init__(self, bench: ReplayBench) -> None:
        self.moment = bench.clock.now()
        self._items = boto3.client("dynamodb").scan(TableName="MessagesTable")["Items"]

    def restore(self) -> None:
        client = boto3.client("dynamodb")
        for item in client.scan(TableName="MessagesTable")["Items"]:
            client.delete_item(TableName="MessagesTable", Key={name: item[name] for name in ("tenantShard", "requestId")})
        for item in self._items:
            client.put_item(TableName="MessagesTable", Item=item)


def replayed(bench: ReplayBench, backup: Backup, seed: int) -> Counter[str]:
    """Replay the log, with its lines in random order."""
    lines = bench.log.getvalue().splitlines()
    deps = ReplayDependencies(
        outcomes=DynamoOutcomeRestore(wiring.dynamodb(), "MessagesTable"),
        messages=bench.deps.messages,
        parked=bench.deps.parked,
        bodies=wiring.parked_bodies(),
        clock=bench.clock,
    )
    random.Random(seed).shuffle(lines)  # noqa: S311 - no secret
    return replay(lines, deps, since=backup.moment)


def work_before(bench: ReplayBench) -> QueueMessage:
    """Create requests in each state that a table can be restored to; return a message that is on the queue then."""
    bench.ask("sent-before")
    bench.ask("held-before", VANISHED)
    bench.switch(ProviderStatus.DISABLED)
    for request_id in ("parked-then-sent", "parked-then-cancelled", "parked"):
        bench.ask(request_id)
    bench.switch(ProviderStatus.ACTIVE)
    bench.queued("queued-then-sent")
    bench.queue.sent.clear()
    return bench.queued("queued-then-parked")


def work_after(bench: ReplayBench, on_queue: QueueMessage) -> None:
    """Continue: ends, parked bodies, failed sends."""
    bench.clock.advance(timedelta(minutes=3))
    bench.queue.sent.clear()
    bench.ask("sent-since")
    bench.ask("failed-since", REJECTED)
    bench.ask("held-since", VANISHED)
    bench.ask("queued-then-sent")
    bench.ask("resent-since", VANISHED, onUnknown="resend")
    resolution = Resolution("resend", "op", "nothing came", bench.clock.now())
    resolve("acme", "held-before", resolution, bench.messages_deps)
    cancel("acme", "parked-then-cancelled", bench.messages_deps)
    bench.switch(ProviderStatus.DISABLED)
    bench.handle(on_queue)
    bench.ask("parked-since")
    bench.ask("parked-since-for-later", sendAt=(bench.clock.now() + timedelta(hours=3)).isoformat())
    bench.clock.advance(timedelta(minutes=5))
    for queue_message in [bench.queue.sent.pop(0)[0] for _ in range(len(bench.queue.sent))]:
        bench.handle(queue_message)  # the body of a resend is parked too
    bench.switch(ProviderStatus.ACTIVE)
    waiting = bench.records()["parked-then-sent"]
    bench.handle(pointer_to(bench.deps.messages.apply(changes.reschedule(waiting, bench.clock.now(), due_at=bench.clock.now()))))
    bench.ask("throttled-since", THROTTLED)


WAITING = {"parked", "queued-then-parked", "parked-since", "parked-since-for-later", "held-before", "resent-since", "throttled-since"}


@pytest.mark.parametrize("seed", range(3))
def test_after_a_restore_nothing_is_sent_twice_and_nothing_is_lost(bench: ReplayBench, seed: int) -> None:
    """Every end is restored, and waiting requests are sent once, whatever messages still exist."""
    on_queue = work_before(bench)
    backup = Backup(bench)
    work_after(bench, on_queue)
    truth, sent = bench.records(), bench.ses.accepted.copy()
    assert {record.request_id for record in truth.values() if record.status is Status.SENT} == set(sent)

    backup.restore()
    assert "sent-since" not in bench.records()
    results = replayed(bench, backup, seed)
    restored = bench.records()
    for request_id, record in truth.items():
        if record.ended:
            assert (restored[request_id].status, restored[request_id].message_id) == (record.status, record.message_id), request_id
    waiting = {request_id for request_id, record in truth.items() if not record.ended}
    assert waiting == {
        "parked",
        "queued-then-parked",
        "parked-since",
        "parked-since-for-later",
        "held-before",
        "resent-since",
        "throttled-since",
    }
    for request_id in waiting - {"parked", "throttled-since"}:
        assert restored[request_id].parked == truth[request_id].parked, request_id
        assert (restored[request_id].maybe_sent, restored[request_id].expires_at) == (
            truth[request_id].maybe_sent,
            truth[request_id].expires_at,
        ), request_id
    assert restored["held-since"].parked == truth["held-since"].parked
    assert results == {"sent": 3, "failed": 1, "cancelled": 1, "unknown": 1, "reopened": 6, "known": results["known"], "on the queue": 1}
    assert set(replayed(bench, backup, seed + 1)) == {"known", "on the queue"}

    bench.run_four_hours()
    assert bench.ses.accepted == sent + Counter(waiting)
    assert {record.status for request_id, record in bench.records().items() if request_id in waiting} == {Status.SENT}
