"""Run a storm from the first request to the last record's end."""

import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import batched
from typing import Any

from mailer.adapters.dynamodb.messages_table import from_item
from mailer.domain.delivery import Delivery
from tools.local_aws import worker
from tools.local_aws.control import PublishedEvent
from tools.local_aws.running import LocalAws
from tools.local_aws.tenants import Tenant
from tools.local_aws.worker import Pace
from tools.storm.crowd import Crowd, Deaths
from tools.storm.mail import FILE, MARK, Asked, ask, enqueued, file_of
from tools.storm.verdict import Verdict, judge, met, struck
from tools.storm.weather import Weather

BATCH = 10  # messages of a SendMessageBatch
BACKLOG = 300  # requests that producers are ahead of the workers at most; the emulator's queue is slow when it is long
RATE = 500  # recipients per second and account
LOOK = 1.0  # seconds between two looks at the records: they tell nobody when they change
REDRIVE_EVERY = 5.0  # seconds; an operator takes longer
COMMAND = 30.0  # seconds that an operator's command may take
EVENTS_HIDDEN = 180  # seconds, as in template.yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What kind of storm."""

    requests: int
    kills: int
    """At least."""
    seed: int = 1
    tenants: int = 4
    told: int = 0
    """Tenants of them whose account tells us of its mail: SES's events come back, doubled and in reverse order."""
    workers: int = 3
    deadly: float = 0.7
    """How likely it is that a SendFunction is killed in a batch."""
    speed: float = 1.0
    """How fast time passes for the records, see `local_aws.worker.Pace`."""
    hidden: int = 15
    """Visibility timeout of what a worker receives, in seconds; after a death its messages come back."""
    patience: float = 2_400.0
    """Seconds that the drain may take, half of them in the storm and half in calm: a message that a fault has just hit may wait 900 s at
    the storm's speed, after a dead letter whose receipt was lost has been hidden for COMMAND."""


@dataclass(slots=True)
class ReportFailure:
    """What happened."""

    plan: Plan
    deaths: Deaths
    verdict: Verdict
    calls: int = 0
    """Requests on the wire, and how many of them a fault hit."""
    faults: int = 0
    withdrawn: Mapping[str, int] = field(default_factory=dict)
    """What the API answered to each cancel."""
    redriven: int = 0
    """Rounds in which an operator put dead letters back."""
    events: int = 0
    """Events of SES, copies too."""
    seconds: dict[str, float] = field(default_factory=dict)

    def table(self) -> str:
        """Write the figures as a Markdown table."""
        verdict, deaths = self.verdict, self.deaths
        rows = {
            "requests": f"{self.plan.requests} of {self.plan.tenants} tenants (seed {self.plan.seed})",
            "kill -9": f"{deaths.kills['send']} SendFunctions, {deaths.kills['sweep']} SweepFunctions",
            "ended by their timeout": f"{deaths.timeouts}",
            "calls on the wire": f"{self.calls}, {self.faults} of them hit by a fault ({self.faults / max(1, self.calls):.1%})",
            "dead letters put back": f"{self.redriven} times",
            "requests in the hands of one that died": f"{len(deaths.hit)}",
            "withdrawn by their callers": f"{len(self.withdrawn)}, of them {list(self.withdrawn.values()).count(200)} in time",
            "accepted by SES": f"{verdict.accepted}, of them {verdict.resent} again, as onUnknown: resend allows",
            "ends": ", ".join(f"{count} {end}" for end, count in sorted(verdict.ends.items())),
            "lost": f"{len(verdict.lost)}",
            "doubled": f"{len(verdict.doubled)}",
            "wrong ends": f"{len(verdict.wrong)}",
            "unknown without a fault or a death in the window": f"{len(verdict.unexplained)}",
            **self._told_rows(),
            "time": ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items()),
        }
        return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])

    def _told_rows(self) -> dict[str, str]:
        """Compare the tenants whose events come back with the others; nothing where there are none."""
        if not self.plan.told:
            return {}
        groups = {"with feedback": self.verdict.told, "without": self.verdict.untold}
        return {
            "events of SES": f"{self.events}, of {self.plan.told} tenants",
            **{f"mails of tenants {what}": f"{one.accepted} of {one.requests} requests" for what, one in groups.items()},
            **{f"second mails of tenants {what}": f"{one.resent}" for what, one in groups.items()},
            **{f"ended as unknown, of tenants {what}": f"{one.unknown}" for what, one in groups.items()},
            "unknown though SES told of the mail": f"{len(self.verdict.unsettled)}",
        }

    def wrongs(self) -> dict[str, Sequence[str]]:
        """Name the requests whose promise was broken, the first few of each kind."""
        verdict = self.verdict
        found = {"lost": verdict.lost, "doubled": verdict.doubled, "wrong": verdict.wrong, "unexplained": verdict.unexplained}
        found["unsettled"] = verdict.unsettled
        return {name: ids[:10] for name, ids in found.items() if ids}


class Storm:
    """One storm on a running local AWS, whose own SendFunction is paused meanwhile."""

    def __init__(self, aws: LocalAws, plan: Plan) -> None:
        self._aws, self._plan = aws, plan
        self._dice = random.Random(plan.seed)  # noqa: S311  # a seeded story
        self._env = worker.environment(aws, "SendFunction")
        self._log = aws.directory / "storm.log"
        opened = [self._open_tenant(is_told=number < plan.told) for number in range(plan.tenants)]
        self._tenants = {tenant.tenant_id: tenant for tenant in opened}
        self._told = opened[: plan.told]
        self._asked = ask(plan.requests, list(self._tenants), self._dice)
        self._withdrawn: dict[str, int] = {}
        self._fed: set[str] = set()
        self._redriven = 0

    def _open_tenant(self, *, is_told: bool) -> Tenant:
        """Open one whose account is known to send fast: an unknown rate would be learned from one a second upwards."""
        if is_told:
            tenant = self._aws.tenant_with_feedback(config={"maxSendRate": RATE})
            for action, more in (("duplicate", {"copies": 2}), ("reorder", {})):
                self._aws.control.inject_event_fault(action, account=tenant.account, **more)
        else:
            tenant = self._aws.tenants.open()
            stored = self._aws.api.put_provider(tenant.tenant_id, tenant.provider(maxSendRate=RATE))
            verified = self._aws.api.verify(tenant.tenant_id)
            assert (stored.status, verified.status) == (200, 200), (stored.body, verified.body)
        bucket, key = self._aws.stack.outputs["AttachmentsBucketName"], f"attachments/{file_of(tenant.tenant_id)}"
        self._aws.client("s3").put_object(Bucket=bucket, Key=key, Body=bytes(FILE))
        return tenant

    def run(self) -> ReportFailure:
        """Let it rage until every record has an end; raise TimeoutError with a look at what is left where it does not come."""
        self._aws.control.forget_requests()
        self._aws.control.mark(MARK)
        with contextlib.ExitStack() as afterwards:
            afterwards.callback(self._clean_up)
            self._operate("pause")
            self._hide_events(self._plan.hidden)
            began = time.monotonic()
            weather = Weather(self._aws.control, self._dice)
            afterwards.callback(weather.clear)
            crowd = self._gather(Pace(self._plan.speed, time.time()))
            afterwards.callback(crowd.stop)
            self._feed(crowd)
            self._wait(crowd, lambda: len(crowd.seen) == self._plan.requests and crowd.deaths.killed >= self._plan.kills)
            self._withdraw(crowd)
            crowd.spare()
            raged = time.monotonic()
            self._drain(crowd, weather)
        return self._report(crowd, weather, {"storm": raged - began, "drain": time.monotonic() - raged})

    def _gather(self, pace: Pace) -> Crowd:
        plan = self._plan
        return Crowd(self._env, self._log, plan.workers, pace=pace, hidden=plan.hidden, deadly=plan.deadly, dice=self._dice)

    def _clean_up(self) -> None:
        """Leave nothing for those who use the stack after this."""
        try:
            for queue in ("SendQueueUrl", "DeadLetterQueueUrl"):
                self._aws.client("sqs").purge_queue(QueueUrl=self._aws.stack.outputs[queue])
        finally:
            self._hide_events(EVENTS_HIDDEN)
            self._operate("resume")

    def _hide_events(self, seconds: int) -> None:
        """Say after how long an event comes again that FeedbackFunction could not write down."""
        url, attributes = self._aws.stack.outputs["FeedbackQueueUrl"], {"VisibilityTimeout": str(seconds)}
        self._aws.client("sqs").set_queue_attributes(QueueUrl=url, Attributes=attributes)

    # -- feeding ---------------------------------------------------------------------------------------------------------

    def _feed(self, crowd: Crowd) -> None:
        """Enqueue as producers do, in batches, and withdraw what their callers take back."""
        for batch in batched(enqueued(self._asked, self._dice), BATCH, strict=False):
            self._wait(crowd, lambda: len(self._fed - crowd.seen) < BACKLOG)
            self._send(batch)
            self._fed.update(one.request_id for one in batch)
            self._withdraw(crowd)

    def _withdraw(self, crowd: Crowd) -> None:
        """Cancel what its caller takes back, once a worker has had it in its hands: before that the API may know nothing of it."""
        for one in self._asked:
            if one.is_withdrawn and one.request_id in crowd.seen and one.request_id not in self._withdrawn:
                answer = self._aws.api.call("POST", f"/tenants/{one.tenant_id}/messages/{one.request_id}/cancel")
                self._withdrawn[one.request_id] = answer.status

    def _send(self, batch: Iterable[Asked]) -> None:
        entries: list[Any] = [
            {"Id": str(number), "MessageBody": one.body(), "MessageGroupId": one.tenant_id} for number, one in enumerate(batch)
        ]
        answer = self._aws.client("sqs").send_message_batch(QueueUrl=self._aws.stack.outputs["SendQueueUrl"], Entries=entries)
        assert not answer.get("Failed")

    def _wait(self, crowd: Crowd, reached: Any) -> None:
        with crowd.moved:
            if not crowd.moved.wait_for(reached, self._plan.patience):
                taken, killed = len(crowd.seen), crowd.deaths.killed
                raise TimeoutError(f"{taken} of {self._plan.requests} requests have been taken off the queue, {killed} workers killed")

    # -- draining --------------------------------------------------------------------------------------------------------

    def _drain(self, crowd: Crowd, weather: Weather) -> None:
        """Wait until every record has an end and no message is left that could still do something."""
        began, redrive_at = time.monotonic(), 0.0
        while left := self._left():
            if time.monotonic() > began + self._plan.patience / 2:
                weather.clear()
            if time.monotonic() > began + self._plan.patience:
                raise TimeoutError(f"left after {self._plan.patience} s: {dict(left)}\n{self._described()}")
            if self._depth("DeadLetterQueueUrl") and time.monotonic() > redrive_at:
                self._redrive()
                redrive_at = time.monotonic() + REDRIVE_EVERY
            with crowd.moved:
                crowd.moved.wait(LOOK)

    def _left(self) -> Counter[str]:
        records = self._records()
        open_ones = Counter(record.status.value for record in records.values() if not record.ended)
        nowhere = {"without a record": self._plan.requests - len(records), "on the queue": self._depth("SendQueueUrl")}
        nowhere |= {"mails without their events": self._untold(), "events on the queue": self._depth("FeedbackQueueUrl")}
        return +(open_ones + Counter(nowhere))

    def _untold(self) -> int:
        """Count mails that SES has accepted and has not told of yet: each has a Send and a Delivery."""
        accounts = [tenant.account for tenant in self._told]
        told = Counter(event.message_id for account in accounts for kind in ("Send", "Delivery") for event in self._once(account, kind))
        return sum(told[mail.message_id] < 2 for account in accounts for mail in self._aws.control.mails(account=account))

    def _once(self, account: str, kind: str) -> Iterable[PublishedEvent]:
        return {event.message_id: event for event in self._aws.control.events(account=account, kind=kind)}.values()

    def _described(self) -> str:
        """Tell what an open record waits for."""
        open_ones = [record for record in self._records().values() if not record.ended]
        letters = f"{self._depth('DeadLetterQueueUrl')} dead letters, seen or hidden"
        return "\n".join([letters, *(f"now {datetime.now(UTC)}: {record}" for record in open_ones[:10])])

    def _depth(self, queue: str) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed"]
        answer = self._aws.client("sqs").get_queue_attributes(QueueUrl=self._aws.stack.outputs[queue], AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)

    def _redrive(self) -> None:
        """Put back what lies on the dead-letter queue; what has ended meanwhile stays there."""
        with (
            contextlib.suppress(EOFError),  # a fault hit the operator, who will try again
            worker.start(worker.redrive, int(COMMAND), env=self._env, log=self._log) as operator,
        ):
            operator.told(COMMAND)
            self._redriven += 1

    def _operate(self, *arguments: str) -> int:
        with worker.start(worker.operate, *arguments, env=self._env, log=self._log) as one:
            return int(one.told(COMMAND))

    # -- judging ---------------------------------------------------------------------------------------------------------

    def _records(self) -> dict[str, Delivery]:
        pages = self._aws.client("dynamodb").get_paginator("query")
        return {
            record.request_id: record
            for tenant_id in self._tenants
            for page in pages.paginate(
                TableName=self._aws.stack.outputs["MessagesTableName"],
                ConsistentRead=True,
                KeyConditionExpression="tenantId = :tenant",
                ExpressionAttributeValues={":tenant": {"S": tenant_id}},
            )
            for record in map(from_item, page["Items"])
        }

    def _report(self, crowd: Crowd, weather: Weather, seconds: dict[str, float]) -> ReportFailure:
        wire = self._aws.control.requests()
        mails = [mail for tenant in self._tenants.values() for mail in self._aws.control.mails(account=tenant.account)]
        excused = crowd.deaths.hit | struck(wire) | met(crowd.spans, weather.refusals)
        told = {tenant.tenant_id for tenant in self._told}
        verdict = judge(self._asked, self._records(), mails, self._withdrawn, excused, told)
        faults = sum(1 for call in wire if call.faults)
        events = sum(len(self._aws.control.events(account=tenant.account)) for tenant in self._told)
        return ReportFailure(self._plan, crowd.deaths, verdict, len(wire), faults, self._withdrawn, self._redriven, events, seconds)
