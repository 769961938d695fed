"""Run a storm until every record has ended."""

import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import batched
from typing import Any

from mailer.adapters.dynamodb.messages_table import from_item
from mailer.domain.delivery import Delivery
from tools.local_aws import worker
from tools.local_aws.control import PublishedEvent, SentMail
from tools.local_aws.running import LocalAws
from tools.local_aws.tenants import Tenant
from tools.local_aws.worker import Pace
from tools.storm.faults import FaultSchedule
from tools.storm.requests import FILE, MARK, PlannedRequest, enqueued, file_of, plan_requests
from tools.storm.suppressions import first_reports, left_out, mailed_again, request_of
from tools.storm.verdict import Verdict, hit_by_faults, judge, overlapping
from tools.storm.workers import Role, Terminations, WorkerPool

BATCH = 10  # messages of a SendMessageBatch
BACKLOG = 300  # most requests on the queue; the emulator's queue is slow if it is long
RATE = 500  # recipients per second and account
LOOK = 1.0  # seconds between two polls of the records
FUNCTIONS: Mapping[Role, str] = {"send": "SendFunctions", "sweep": "SweepFunctions", "feedback": "FeedbackFunctions"}
REDRIVE_EVERY = 5.0  # seconds; a real operator takes longer
COMMAND = 30.0  # timeout of an operator's command, in seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Parameters of a storm."""

    requests: int
    kills: int
    """At least."""
    seed: int = 1
    tenants: int = 4
    with_feedback: int = 0
    """Number of them with feedback; their SES events arrive twice and in reverse order."""
    workers: int = 3
    kill_probability: float = 0.7
    """Probability that a SendFunction is killed, per batch."""
    speed: float = 1.0
    """Speed of the records' clock, see `local_aws.worker.Pace`."""
    hidden: int = 15
    """Visibility timeout in seconds; a terminated worker's messages are redelivered after it."""
    drain_timeout: float = 2_400.0
    """Timeout of the drain in seconds, half of it with faults and half without: a message after a fault may wait 900 s at the storm's
    speed, after a dead letter whose receipt was lost was invisible for COMMAND."""


@dataclass(slots=True)
class Report:
    """Results of a storm."""

    plan: Plan
    terminations: Terminations
    verdict: Verdict
    calls: int = 0
    """Calls to AWS services."""
    faults: int = 0
    cancels: Mapping[str, int] = field(default_factory=dict)
    """Status of the API's response to each cancel, by request id."""
    redriven: int = 0
    """Number of redrives by the operator."""
    events: int = 0
    """SES events, including copies."""
    suppressed: int = 0
    """Addresses of which FeedbackFunction acknowledged a bounce or a complaint."""
    seconds: dict[str, float] = field(default_factory=dict)

    def table(self) -> str:
        """Return the figures as a Markdown table."""
        verdict, terminations = self.verdict, self.terminations
        rows = {
            "requests": f"{self.plan.requests} of {self.plan.tenants} tenants (seed {self.plan.seed})",
            "kill -9": ", ".join(f"{terminations.kills[role]} {name}" for role, name in FUNCTIONS.items()),
            "ended by their timeout": f"{terminations.timeouts}",
            "calls to services": f"{self.calls}, {self.faults} of them with a fault ({self.faults / max(1, self.calls):.1%})",
            "redrives of dead letters": f"{self.redriven}",
            "requests in progress in a terminated worker": f"{len(terminations.hit)}",
            "cancelled by their callers": f"{len(self.cancels)}, of them {list(self.cancels.values()).count(200)} in time",
            "accepted by SES": f"{verdict.accepted}, of them {verdict.resent} resent, by onUnknown",
            "ends": ", ".join(f"{count} {end}" for end, count in sorted(verdict.ends.items())),
            "lost": f"{len(verdict.lost)}",
            "sent twice": f"{len(verdict.doubled)}",
            "wrong ends": f"{len(verdict.wrong)}",
            "unknown without a fault or termination in the window": f"{len(verdict.unexplained)}",
            **self._feedback_rows(),
            "time": ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items()),
        }
        return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])

    def _feedback_rows(self) -> dict[str, str]:
        """Compare the tenants with feedback with the others; return no rows if there are none."""
        if not self.plan.with_feedback:
            return {}
        groups = {"with feedback": self.verdict.with_feedback, "without feedback": self.verdict.without_feedback}
        return {
            "events of SES": f"{self.events}, of {self.plan.with_feedback} tenants",
            **{f"mails of tenants {what}": f"{one.accepted} of {one.requests} requests" for what, one in groups.items()},
            **{f"second mails of tenants {what}": f"{one.resent}" for what, one in groups.items()},
            **{f"ended as unknown, of tenants {what}": f"{one.unknown}" for what, one in groups.items()},
            "unknown in spite of SES events": f"{len(self.verdict.unresolved)}",
            "addresses suppressed": f"{self.suppressed}, left out of {len(self.verdict.left_out)} mails",
            "mails to an address suppressed before": f"{len(self.verdict.mailed_again)}",
            "addresses left out without an event": f"{len(self.verdict.left_out_wrongly)}",
        }

    def violations(self) -> dict[str, Sequence[str]]:
        """Return the first few requests whose guarantees were violated, by kind."""
        verdict = self.verdict
        found = {"lost": verdict.lost, "doubled": verdict.doubled, "wrong": verdict.wrong, "unexplained": verdict.unexplained}
        found |= {"unresolved": verdict.unresolved, "mailed again": verdict.mailed_again, "left out": verdict.left_out_wrongly}
        return {name: ids[:10] for name, ids in found.items() if ids}


class Storm:
    """One storm on a running local AWS, whose own SendFunction is paused."""

    def __init__(self, aws: LocalAws, plan: Plan) -> None:
        self._aws, self._plan = aws, plan
        self._dice = random.Random(plan.seed)  # noqa: S311  # seeded
        send = worker.environment(aws, "SendFunction")
        queue, timeout = aws.stack.outputs["FeedbackQueueUrl"], str(self._feedback_function()["Timeout"])
        feedback = worker.environment(aws, "FeedbackFunction", FEEDBACK_QUEUE_URL=queue, FEEDBACK_TIMEOUT=timeout)
        self._env: dict[Role, dict[str, str]] = {"send": send, "sweep": send, "feedback": feedback}
        self._log = aws.directory / "storm.log"
        opened = [self._open_tenant(has_feedback=number < plan.with_feedback) for number in range(plan.tenants)]
        self._tenants = {tenant.tenant_id: tenant for tenant in opened}
        self._with_feedback = opened[: plan.with_feedback]
        self._planned = plan_requests(plan.requests, list(self._tenants), self._dice)
        self._cancels: dict[str, int] = {}
        self._enqueued: set[str] = set()
        self._redriven = 0

    def _open_tenant(self, *, has_feedback: bool) -> Tenant:
        """Create a tenant with a known high rate: an unknown one would be learned from 1/s on."""
        if has_feedback:
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

    def run(self) -> Report:
        """Run until every record has ended; raise TimeoutError with the open ones if that takes too long."""
        self._aws.control.forget_requests()
        self._aws.control.mark(MARK)
        with contextlib.ExitStack() as afterwards:
            # Restore the stack for later users, each part even if another fails.
            afterwards.callback(self._operate, "resume")
            self._operate("pause")
            afterwards.callback(self._switch_feedback, is_on=True)
            self._switch_feedback(is_on=False)
            afterwards.callback(self._purge_queues)
            began = time.monotonic()
            schedule = FaultSchedule(self._aws.control, self._dice)
            afterwards.callback(schedule.clear)
            pool = self._start_pool(Pace(self._plan.speed, time.time()))
            afterwards.callback(pool.stop)
            self._produce(pool)
            self._wait(pool, lambda: len(pool.seen) == self._plan.requests and pool.terminations.killed >= self._plan.kills)
            self._cancel(pool)
            pool.stop_killing()
            drain_began = time.monotonic()
            self._drain(pool, schedule)
        return self._report(pool, schedule, {"storm": drain_began - began, "drain": time.monotonic() - drain_began})

    def _start_pool(self, pace: Pace) -> WorkerPool:
        plan = self._plan
        return WorkerPool(
            self._env,
            self._log,
            plan.workers,
            pace=pace,
            hidden=plan.hidden,
            kill_probability=plan.kill_probability,
            dice=self._dice,
        )

    def _purge_queues(self) -> None:
        for queue in ("SendQueueUrl", "DeadLetterQueueUrl"):
            self._aws.client("sqs").purge_queue(QueueUrl=self._aws.stack.outputs[queue])

    def _switch_feedback(self, *, is_on: bool) -> None:
        """Have the emulator call FeedbackFunction, or our own worker."""
        functions = self._aws.client("lambda")
        name = self._feedback_function()["FunctionName"]
        [mapping] = functions.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]
        functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=is_on)

    def _feedback_function(self) -> Any:
        name = self._aws.stack.function_name(self._aws.addresses.aws, "FeedbackFunction")
        return self._aws.client("lambda").get_function_configuration(FunctionName=name)

    # -- producing ---------------------------------------------------------------------------------------------------------

    def _produce(self, pool: WorkerPool) -> None:
        """Enqueue the requests in batches, as producers do, and cancel some."""
        for batch in batched(enqueued(self._planned, self._dice), BATCH, strict=False):
            self._wait(pool, lambda: len(self._enqueued - pool.seen) < BACKLOG)
            self._send(batch)
            self._enqueued.update(one.request_id for one in batch)
            self._cancel(pool)

    def _cancel(self, pool: WorkerPool) -> None:
        """Cancel the planned requests once a worker has received them: before that the API may have no record of them."""
        for one in self._planned:
            if one.is_cancelled and one.request_id in pool.seen and one.request_id not in self._cancels:
                answer = self._aws.api.call("POST", f"/tenants/{one.tenant_id}/messages/{one.request_id}/cancel")
                self._cancels[one.request_id] = answer.status

    def _send(self, batch: Iterable[PlannedRequest]) -> None:
        entries: list[Any] = [
            {"Id": str(number), "MessageBody": one.body(), "MessageGroupId": one.tenant_id} for number, one in enumerate(batch)
        ]
        answer = self._aws.client("sqs").send_message_batch(QueueUrl=self._aws.stack.outputs["SendQueueUrl"], Entries=entries)
        assert not answer.get("Failed")

    def _wait(self, pool: WorkerPool, reached: Any) -> None:
        with pool.changed:
            if not pool.changed.wait_for(reached, self._plan.drain_timeout):
                taken, killed = len(pool.seen), pool.terminations.killed
                raise TimeoutError(f"{taken} of {self._plan.requests} requests were received, {killed} workers killed")

    # -- draining --------------------------------------------------------------------------------------------------------

    def _drain(self, pool: WorkerPool, schedule: FaultSchedule) -> None:
        """Wait until every record has ended and no message is left."""
        began, redrive_at = time.monotonic(), 0.0
        while left := self._left():
            if time.monotonic() > began + self._plan.drain_timeout / 2:
                schedule.clear()
            if time.monotonic() > began + self._plan.drain_timeout:
                raise TimeoutError(f"left after {self._plan.drain_timeout} s: {dict(left)}\n{self._described()}")
            if self._depth("DeadLetterQueueUrl") and time.monotonic() > redrive_at:
                self._redrive()
                redrive_at = time.monotonic() + REDRIVE_EVERY
            with pool.changed:
                pool.changed.wait(LOOK)

    def _left(self) -> Counter[str]:
        records = self._records()
        open_ones = Counter(record.status.value for record in records.values() if not record.ended)
        nowhere = {"without a record": self._plan.requests - len(records), "on the queue": self._depth("SendQueueUrl")}
        nowhere |= {"mails without their events": self._without_events(), "events on the queue": self._depth("FeedbackQueueUrl")}
        return +(open_ones + Counter(nowhere))

    def _without_events(self) -> int:
        """Count the accepted mails that still lack their Send or Delivery event."""
        accounts = [tenant.account for tenant in self._with_feedback]
        published = Counter(
            event.message_id for account in accounts for kind in ("Send", "Delivery") for event in self._once(account, kind)
        )
        return sum(published[mail.message_id] < 2 for account in accounts for mail in self._aws.control.mails(account=account))

    def _once(self, account: str, kind: str) -> Iterable[PublishedEvent]:
        return {event.message_id: event for event in self._aws.control.events(account=account, kind=kind)}.values()

    def _described(self) -> str:
        """Describe the dead letters and the first open records."""
        open_ones = [record for record in self._records().values() if not record.ended]
        letters = f"{self._depth('DeadLetterQueueUrl')} dead letters, visible or not"
        return "\n".join([letters, *(f"now {datetime.now(UTC)}: {record}" for record in open_ones[:10])])

    def _depth(self, queue: str) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed"]
        answer = self._aws.client("sqs").get_queue_attributes(QueueUrl=self._aws.stack.outputs[queue], AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)

    def _redrive(self) -> None:
        """Redrive the dead letters; those of requests that have ended stay."""
        with (
            contextlib.suppress(EOFError),  # a fault ended the command; it is repeated later
            worker.start(worker.redrive, int(COMMAND), env=self._env["send"], log=self._log) as operator,
        ):
            operator.next_result(COMMAND)
            self._redriven += 1

    def _operate(self, *arguments: str) -> int:
        with worker.start(worker.operate, *arguments, env=self._env["send"], log=self._log) as one:
            return int(one.next_result(COMMAND))

    # -- judging ---------------------------------------------------------------------------------------------------------

    def _records(self) -> dict[str, Delivery]:
        pages = self._aws.client("dynamodb").get_paginator("scan")
        return {
            record.request_id: record
            for page in pages.paginate(TableName=self._aws.stack.outputs["MessagesTableName"], ConsistentRead=True)
            for record in map(from_item, (item for item in page["Items"] if item.get("tenantId", {}).get("S") in self._tenants))
        }

    def _report(self, pool: WorkerPool, schedule: FaultSchedule, seconds: dict[str, float]) -> Report:
        wire = self._aws.control.requests()
        mails = [mail for tenant in self._tenants.values() for mail in self._aws.control.mails(account=tenant.account)]
        excused = pool.terminations.hit | hit_by_faults(wire) | overlapping(pool.spans, schedule.refusals)
        with_feedback = {tenant.tenant_id for tenant in self._with_feedback}
        verdict = judge(self._planned, self._records(), mails, self._cancels, excused, with_feedback)
        self._judge_suppressions(verdict, mails, pool)
        faults = sum(1 for call in wire if call.faults)
        events = sum(len(self._aws.control.events(account=tenant.account)) for tenant in self._with_feedback)
        return Report(
            self._plan,
            pool.terminations,
            verdict,
            calls=len(wire),
            faults=faults,
            cancels=self._cancels,
            redriven=self._redriven,
            events=events,
            suppressed=len(pool.acknowledged),
            seconds=seconds,
        )

    def _judge_suppressions(self, verdict: Verdict, mails: Sequence[SentMail], pool: WorkerPool) -> None:
        events = [event for tenant in self._with_feedback for event in self._aws.control.events(account=tenant.account)]
        planned = {one.request_id: one for one in self._planned}
        mails = [mail for mail in mails if request_of(mail) in planned]
        verdict.left_out, verdict.left_out_wrongly = left_out(mails, planned, first_reports(events))
        since_start = time.time() - time.monotonic()
        mails = [replace(mail, time=mail.time - since_start) for mail in mails]
        verdict.mailed_again = mailed_again(mails, pool.acknowledged, pool.spans)
