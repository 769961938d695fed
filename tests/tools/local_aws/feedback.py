"""Route SES's events: from the tenant's configuration set, by the tenant's rule, to our bus, and from there to a queue.

The emulator stores event destinations but publishes nothing, rejects events of `aws.ses`, and drops events between accounts. So this module
reads the configured rules (`EventBridgeRules`), and puts each event on the queue of the last rule. Faults on the way are data, like network
faults.
"""

import asyncio
import json
import logging
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cache
from itertools import count
from typing import Any, Protocol, Self

import boto3

from tools.local_aws.proxy import Changes
from tools.local_aws.ses_events import AcceptedMail, Event, RecipientOutcome, events_of

CACHED = 5.0
"""Seconds for which found queues are cached; without any, each event looks them up."""


class EventAction(StrEnum):
    """Faults of an event between SES and us."""

    LOSE = "lose"
    DUPLICATE = "duplicate"  # `copies` of it in total
    DELAY = "delay"  # arrives `seconds` later
    REORDER = "reorder"  # the events of one mail arrive in reverse order
    FOREIGN_ACCOUNT = "foreign account"  # the envelope names `as_account`
    FORGED_TAGS = "forged tags"  # `tags` replace those of the mail


@dataclass(slots=True)
class EventFault:
    """One rule; empty fields match every event, `times` 0 means until cleared."""

    action: EventAction
    account: str = ""
    kind: str = ""
    recipient: str = ""
    times: int = 0
    copies: int = 2
    seconds: float = 0.0
    as_account: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    id: int = 0
    hits: int = 0

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Parse a rule from a control request.

        Raises: `ValueError` for an unknown action.
        """
        return cls(**{**data, "action": EventAction(data["action"])})

    def applies(self, event: Event) -> bool:
        """Count a matching event, and return whether the fault applies to it."""
        told = event.envelope["detail"]["mail"]
        fits = self.account in ("", event.envelope["account"]) and self.kind in ("", event.kind)
        if not fits or (self.recipient and self.recipient not in told["destination"]) or (self.times and self.hits >= self.times):
            return False
        self.hits += 1
        return True


@dataclass(frozen=True, slots=True)
class Published:
    """One event as it was put on the queue; `routed`: destination and rules lead to a queue; `lost`: a fault dropped it."""

    number: int
    time: float
    account: str
    kind: str
    message_id: str
    routed: bool
    lost: bool
    faults: list[int]
    envelope: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Routing(Protocol):
    """Destination queues of a configuration set's events."""

    def queues(self, event: Event) -> list[str]:
        """Return the ARNs of an event's queues."""

    def put(self, queue: str, bodies: list[str]) -> None:
        """Put events on a queue, at most ten at a time."""


class Feedback:
    """Publish the events of accepted mails, each mail's in its own task."""

    def __init__(self, routing: Routing, changes: Changes) -> None:
        self.faults: list[EventFault] = []
        self.outcomes: dict[str, RecipientOutcome] = {}
        """Outcomes set for addresses, which override the mailbox simulator's."""
        self.published: list[Published] = []
        self._routing = routing
        self._changes = changes
        self._ids, self._numbers = count(1), count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, fault: EventFault) -> EventFault:
        fault.id = next(self._ids)
        self.faults.append(fault)
        return fault

    def clear(self) -> None:
        self.faults.clear()
        self.outcomes.clear()

    def accepted(self, mail: AcceptedMail) -> None:
        """Start publishing the events of a mail; without a configuration set there are none."""
        if mail.configuration_set:
            task = asyncio.create_task(self._run(mail))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """Stop publishing."""
        for task in self._tasks:
            task.cancel()

    async def _run(self, mail: AcceptedMail) -> None:
        try:
            events = events_of(mail, self.outcomes)
            queues = {event.kind: await asyncio.to_thread(self._routing.queues, event) for event in events}
            span = events[0].after + events[-1].after
            due = [(after, item) for event in events for after, item in self._scheduled(event, span)]
            began = time.monotonic()
            for after in sorted({after for after, _ in due}):
                await asyncio.sleep(max(0.0, began + after - time.monotonic()))
                await self._publish([item for when, item in due if when == after], queues)
        except Exception:  # a test would wait in vain; the log has the reason
            logging.getLogger(__name__).exception("the events of %s were not published", mail.message_id)

    def _scheduled(self, event: Event, span: float) -> Iterable[tuple[float, "_Delivery"]]:
        """Yield the times at which an event arrives; in reverse order its time is `span` minus its own."""
        hit = [fault for fault in self.faults if fault.applies(event)]
        actions = {fault.action: fault for fault in hit}
        after = span - event.after if EventAction.REORDER in actions else event.after
        after += sum(fault.seconds for fault in hit if fault.action is EventAction.DELAY)
        envelope = _changed(event.envelope, actions)
        copies = actions[EventAction.DUPLICATE].copies if EventAction.DUPLICATE in actions else 1
        for _ in range(copies):
            yield after, _Delivery(event.kind, envelope, EventAction.LOSE in actions, [fault.id for fault in hit])

    async def _publish(self, items: list["_Delivery"], queues: Mapping[str, list[str]]) -> None:
        bodies: dict[str, list[str]] = {}
        now = time.time()  # before anybody can have received one
        for item in items:
            for queue in queues[item.kind] if not item.lost else ():
                bodies.setdefault(queue, []).append(json.dumps(item.envelope))
        for queue, texts in bodies.items():
            for start in range(0, len(texts), 10):
                await asyncio.to_thread(self._routing.put, queue, texts[start : start + 10])
        for item in items:
            told = item.envelope["detail"]["mail"]
            who = (told["sendingAccountId"], item.kind, told["messageId"])
            state = (bool(queues[item.kind]), item.lost, item.faults)
            self.published.append(Published(next(self._numbers), now, *who, *state, item.envelope))
        self._changes.notify()


@dataclass(frozen=True, slots=True)
class _Delivery:
    kind: str
    envelope: dict[str, Any]
    lost: bool
    faults: list[int]


def _changed(envelope: dict[str, Any], actions: Mapping[EventAction, EventFault]) -> dict[str, Any]:
    if fault := actions.get(EventAction.FOREIGN_ACCOUNT):
        envelope = {**envelope, "account": fault.as_account}
    if fault := actions.get(EventAction.FORGED_TAGS):
        told = envelope["detail"]["mail"]
        tags = {**told["tags"], **{name: [value] for name, value in fault.tags.items()}}
        envelope = {**envelope, "detail": {**envelope["detail"], "mail": {**told, "tags": tags}}}
    return envelope


class NoRouting:
    """`Routing` of a standalone SES: events are published and reach no queue."""

    def queues(self, _event: Event) -> list[str]:
        return ["nowhere"]

    def put(self, queue: str, bodies: list[str]) -> None:
        pass


class EventBridgeRules:
    """`Routing` by the emulator's event destinations, rules and targets."""

    def __init__(self, aws: str) -> None:
        self._aws = aws
        self._cached: dict[tuple[str, str, str, str], tuple[list[str], float]] = {}

    def queues(self, event: Event) -> list[str]:
        """Follow an event from its configuration set: destination, the tenant's rules, our bus, our rules."""
        account, region = event.envelope["account"], event.envelope["region"]
        [configuration_set] = event.envelope["detail"]["mail"]["tags"]["ses:configuration-set"]
        key = (account, region, configuration_set, event.kind)
        cached, until = self._cached.get(key, ([], 0.0))
        if cached and time.monotonic() < until:
            return cached
        found = list(self._follow(event, account, region, configuration_set))
        self._cached[key] = (found, time.monotonic() + CACHED)
        return found

    def put(self, queue: str, bodies: list[str]) -> None:
        entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)]
        _, _, _, region, account, name = queue.split(":", 5)
        sqs = _client("sqs", account, region, self._aws)
        answer = sqs.send_message_batch(QueueUrl=sqs.get_queue_url(QueueName=name)["QueueUrl"], Entries=entries)
        if answer.get("Failed"):
            raise RuntimeError(answer["Failed"])

    def _follow(self, event: Event, account: str, region: str, configuration_set: str) -> Iterable[str]:
        if not self._publishes(event.kind, account, region, configuration_set):
            return
        for bus in self._targets("default", account, region, event, with_role=True):
            _, _, service, bus_region, bus_account, name = bus.split(":", 5)
            if service == "events" and name.startswith("event-bus/"):
                ends = self._targets(name.removeprefix("event-bus/"), bus_account, bus_region, event)
                yield from (arn for arn in ends if arn.split(":")[2] == "sqs")

    def _publishes(self, kind: str, account: str, region: str, configuration_set: str) -> bool:
        """Return whether the set has a destination for this kind of event that is the account's default bus."""
        sesv2 = _client("sesv2", account, region, self._aws)
        wanted = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).upper()
        default = f":{region}:{account}:event-bus/default"
        destinations = sesv2.get_configuration_set_event_destinations(ConfigurationSetName=configuration_set)["EventDestinations"]
        return any(
            one["Enabled"] and wanted in one["MatchingEventTypes"] and one["EventBridgeDestination"]["EventBusArn"].endswith(default)
            for one in destinations
            if "EventBridgeDestination" in one
        )

    def _targets(self, bus: str, account: str, region: str, event: Event, *, with_role: bool = False) -> Iterable[str]:
        """Yield the targets of a bus's rules that match an event; a target in another account needs a role."""
        events = _client("events", account, region, self._aws)
        for rule in events.list_rules(EventBusName=bus)["Rules"]:
            pattern = rule.get("EventPattern")
            if rule["State"] != "ENABLED" or not pattern:
                continue
            if events.test_event_pattern(EventPattern=pattern, Event=json.dumps(event.envelope))["Result"]:
                for target in events.list_targets_by_rule(Rule=rule["Name"], EventBusName=bus)["Targets"]:
                    if "RoleArn" in target or not with_role:
                        yield target["Arn"]


@cache
def _client(service: Any, account: str, region: str, aws: str) -> Any:
    """Return a client with the credentials of an account's root user."""
    return boto3.Session(account, "root", region_name=region).client(service, endpoint_url=aws)
