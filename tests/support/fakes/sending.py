"""The send path with fakes, and a provider with scripted outcomes."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from mailer.domain.delivery import Delivery, MaybeSent, NotSent, Outcome, Sent, Status
from mailer.domain.errors import DependencyError, ErrorInfo, NotSentError
from mailer.domain.message import content_hash, parse_request
from mailer.domain.mime import Mail, Sender
from mailer.domain.provider import StoredConfig
from mailer.ports import AccountFacts, Cleared, QueueMessage
from mailer.services.sending.byte_budget import ByteBudget
from mailer.services.sending.jobs import Received, SendDependencies
from mailer.services.sending.send import send_batch
from mailer.services.sweeping.dependencies import SweepDependencies
from support.fakes.pacing import FakePacingTable
from support.fakes.ports import (
    NOON,
    FakeAttachments,
    FakeClock,
    FakeEventSource,
    FakeMessagesTable,
    FakePacer,
    FakeParkedBodies,
    FakeProducerRules,
    FakeProvidersTable,
    FakeSendQueue,
    FakeSweepInvocations,
    FakeSweepLeases,
    FakeTelemetry,
    FakeTrials,
    InlineExecutor,
    a_delivery,
    a_provider,
)
from support.fakes.suppressions import FakeSuppressionsTable

SEND_TIMEOUT = timedelta(seconds=60)
BUDGET = 1_000_000  # bytes in progress, less than one message may have: a larger one is sent alone

THROTTLED = NotSent(ErrorInfo("throttled", "Maximum sending rate exceeded."))
QUOTA = NotSent(ErrorInfo("daily_quota_exceeded", "Daily message quota exceeded."), timedelta(hours=3))
REJECTED = NotSent(ErrorInfo("recipient_rejected", "SES refused an address"))
UNVERIFIED = NotSent(ErrorInfo("from_address_not_verified", "the identity is not verified in eu-west-1"))
VANISHED = MaybeSent(ErrorInfo("outcome_unknown", "the connection was lost after the request was written"))


@dataclass
class ScriptedProvider:
    """Returns its outcomes in order, then accepts; stores the mails."""

    outcomes: list[Outcome | Callable[[], Outcome]] = field(default_factory=list)
    mails: list[Mail] = field(default_factory=list)
    tags: list[Mapping[str, str]] = field(default_factory=list)
    name: str = "ses"
    sender: Sender = field(default_factory=lambda: Sender("hello@acme.example", "Acme"))

    def send(self, mail: Mail, *, tags: Mapping[str, str]) -> Outcome:
        self.mails.append(mail)
        self.tags.append(tags)
        outcome = self.outcomes.pop(0) if self.outcomes else Sent(f"m{len(self.mails)}")
        return outcome() if callable(outcome) else outcome

    def clear_suppression(self, email: str) -> Cleared:
        raise NotImplementedError

    def account_facts(self) -> AccountFacts:
        return AccountFacts()


@dataclass
class FakeProviderFactory:
    """Returns the one provider, or fails as configured."""

    provider: ScriptedProvider
    error: DependencyError | NotSentError | None = None
    opened: list[tuple[str, int]] = field(default_factory=list)
    since: list[datetime | None] = field(default_factory=list)

    def create(self, tenant_id: str, config: StoredConfig, since: datetime | None = None) -> ScriptedProvider:
        self.opened.append((tenant_id, config.version))
        self.since.append(since)
        if self.error is not None:
            raise self.error
        return self.provider


class Bench:
    """Fakes of every port of the send path, the dependencies built from them, and methods that act as SQS."""

    def __init__(self, *records: Delivery, outcomes: Iterable[Outcome | Callable[[], Outcome]] = ()) -> None:
        self.clock = FakeClock()
        self.messages = FakeMessagesTable(*records)
        self.queue = FakeSendQueue()
        self.parked = FakeParkedBodies()
        self.providers = FakeProvidersTable(a_provider())
        self.suppressions = FakeSuppressionsTable()
        self.provider = ScriptedProvider(list(outcomes))
        self.provider_factory = FakeProviderFactory(self.provider)
        self.attachments = FakeAttachments()
        self.telemetry = FakeTelemetry()
        self.budget = ByteBudget(BUDGET)
        self.pacer = FakePacer()
        self.producers = FakeProducerRules()
        self.event_source = FakeEventSource()
        self.trials = FakeTrials()
        self.account_rates = FakePacingTable()
        self.invocations = FakeSweepInvocations()
        self.leases = FakeSweepLeases()
        owners = count(1)
        self.deps = SendDependencies(
            providers=self.providers,
            suppressions=self.suppressions,
            provider_factory=self.provider_factory,
            messages=self.messages,
            queue=self.queue,
            parked=self.parked,
            attachments=self.attachments,
            telemetry=self.telemetry,
            clock=self.clock,
            pacer=self.pacer,
            producers=self.producers,
            trials=self.trials,
            workers=InlineExecutor(),
            budget=self.budget,
            new_owner=lambda: f"worker-{next(owners)}",
            send_timeout=SEND_TIMEOUT,
        )
        self.sweep_deps = SweepDependencies(
            releases=FakeReleases(),
            providers=self.providers,
            account_rates=self.account_rates,
            messages=self.messages,
            queue=self.queue,
            event_source=self.event_source,
            parked=self.parked,
            telemetry=self.telemetry,
            clock=self.clock,
            workers=InlineExecutor(),
            invocations=self.invocations,
            leases=self.leases,
            new_owner=lambda: f"run-{next(owners)}",
            shards=1,
            concurrency=1,
        )

    def receive(self, *received: Received | QueueMessage, time_left: timedelta = SEND_TIMEOUT) -> list[str]:
        """Deliver a batch to the real service; return the message ids that SQS must redeliver."""
        batch = [r if isinstance(r, Received) else Received(f"message-{n}", r, 1) for n, r in enumerate(received)]
        return send_batch(batch, self.deps, ends_at=self.clock.now() + time_left)

    def take(self) -> tuple[QueueMessage, timedelta]:
        """Remove and return the only message of the queue, with its delay."""
        [taken] = self.queue.sent
        self.queue.sent.clear()
        return taken

    def record(self, request_id: str = "r1") -> Delivery:
        """Return the record of a request of tenant acme."""
        return self.messages.records["acme", request_id]

    def events(self, name: str) -> list[tuple[Any, ...]]:
        """Return the telemetry's events of one name."""
        return [arguments for event, arguments in self.telemetry.entries if event == name]


@dataclass
class FakeReleases:
    """Tenants whose parked mail is to be released; marks of `young` ones are kept."""

    marked: list[str] = field(default_factory=list)
    young: bool = False

    def releasing(self) -> list[str]:
        return list(self.marked)

    def released(self, tenant_id: str, now: datetime) -> bool:  # noqa: ARG002 - as the port has it
        if not self.young:
            self.marked.remove(tenant_id)
        return not self.young


def a_body(request_id: str = "r1", tenant_id: str = "acme", **fields: Any) -> str:
    """Return the body of a valid request."""
    message = {"to": [{"email": "jo@example.com"}], "subject": "Hi", "text": "Hello."}
    return json.dumps({"tenantId": tenant_id, "requestId": request_id, "message": message, **fields})


def a_queue_message(
    request_id: str = "r1", *, generation: int = 0, attributes: Mapping[str, Any] | None = None, **fields: Any
) -> QueueMessage:
    """Return a producer's message of noon; `attributes` are fields of the message, the others of the request."""
    first = QueueMessage(
        body=a_body(request_id, **fields), tenant_id=fields.get("tenant_id", "acme"), created_at=NOON, generation=generation
    )
    return replace(first, **(attributes or {}))


def a_record(status: Status = Status.QUEUED, request_id: str = "r1", *, body: str | None = None, **fields: Any) -> Delivery:
    """Return the record of the request of `a_queue_message`, or of another body."""
    request = parse_request(body or a_body(request_id))
    return a_delivery(request_id, status, **{"content_hash": content_hash(request), **fields})


def attempted(status: Status = Status.SENDING, **fields: Any) -> Delivery:
    """Return the record of a request with one attempt, begun at noon by another worker."""
    attempt = {"attempt": 1, "owner": "another", "deadline": NOON + timedelta(seconds=20)}
    return a_record(status, **{**attempt, **fields})
