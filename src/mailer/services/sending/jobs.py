"""A job of the send path, and what the steps of that path depend on."""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Self

from mailer.domain.changes import Request
from mailer.domain.errors import ErrorInfo
from mailer.domain.message import SendRequest
from mailer.ports import (
    Attachments,
    Clock,
    MessagesTable,
    Pacer,
    ParkedBodies,
    ProducerRules,
    ProviderFactory,
    ProvidersTable,
    QueueMessage,
    SendQueue,
    SuppressionsReader,
    Telemetry,
    Trials,
)
from mailer.services.sending.byte_budget import ByteBudget
from mailer.services.sending.timings import StepTimings


@dataclass(frozen=True, slots=True, kw_only=True)
class SendDependencies:
    """What the send path depends on."""

    providers: ProvidersTable
    suppressions: SuppressionsReader
    provider_factory: ProviderFactory
    messages: MessagesTable
    queue: SendQueue
    parked: ParkedBodies
    attachments: Attachments
    telemetry: Telemetry
    clock: Clock
    pacer: Pacer
    trials: Trials
    producers: ProducerRules
    workers: Executor
    """Sends the messages of a batch concurrently."""
    budget: ByteBudget
    """Limits the bytes of raw messages that are composed or sent at once."""
    new_owner: Callable[[], str]
    """Makes a token that is unique to an attempt."""
    send_timeout: timedelta
    """SendFunction's timeout: after it a worker is dead."""


@dataclass(frozen=True, slots=True)
class Received:
    """One message as SQS delivered it."""

    sqs_message_id: str
    """The id for the partial batch response."""
    queue_message: QueueMessage
    receives: int
    """How many times SQS has delivered this message, this time included."""
    sent_at: datetime | None = None
    """When SQS took it; None if the event does not say."""
    crash: ErrorInfo | None = None
    """Why it is not tried but goes to the dead-letter queue: its worker died while it was tried alone."""
    raised: bool = False
    """Whether our own code raised an unexpected error."""

    @property
    def redeliveries(self) -> int:
        """Return how often SQS has redelivered it, earlier generations counted in."""
        return self.queue_message.redeliveries + self.receives - 1


@dataclass(frozen=True, slots=True)
class Job:
    """A send request that could be read, with its queue message."""

    received: Received
    send: SendRequest
    request: Request
    send_at: datetime
    timings: StepTimings = field(default_factory=StepTimings, compare=False)

    @property
    def queue_message(self) -> QueueMessage:
        """Return the queue message it came in."""
        return self.received.queue_message

    @property
    def tenant_id(self) -> str:
        """Return its tenant."""
        return self.send.tenant_id

    def failed(self) -> Self:
        """Return it with one more failed try counted."""
        queue_message = replace(self.queue_message, failures=self.queue_message.failures + 1)
        return replace(self, received=replace(self.received, queue_message=queue_message))
