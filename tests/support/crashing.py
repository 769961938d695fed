"""SQS with poison messages, which crash the worker that handles them, among a hundred others."""

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

from mailer.domain.message import S3Object
from mailer.domain.provider import StoredConfig
from mailer.ports import QueueMessage
from mailer.services.sending.jobs import Received
from support.fakes.sending import Bench, ScriptedProvider, a_queue_message

VISIBILITY = timedelta(seconds=360)
MAX_RECEIVES = 10
STEPS = ("read", "prepare", "render")
"""Steps at which a message may crash its worker."""


class WorkerCrash(BaseException):
    """The end of a worker: no code may catch it, as with `kill -9`."""


class CrashingBody(str):
    """A body that crashes the worker when it is parsed."""

    __slots__ = ()

    def startswith(self, *_: Any) -> bool:
        """Called by `json.loads`."""
        raise WorkerCrash


@dataclass
class Message:
    """A message on the queue."""

    number: int
    queue_message: QueueMessage
    visible_at: datetime
    receives: int = 0


@dataclass
class Queue:
    """One tenant's mail with some poison messages, and successive workers that receive it."""

    poison: int
    seed: int
    messages: int = 100
    batch: int = 10
    step: str | None = None
    """Step at which all poison messages crash; None: random."""
    crashes: int = 0
    moved: list[str] = field(default_factory=list)
    """Requests that SQS itself moved to the dead-letter queue."""

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)  # noqa: S311 - seeded, so that runs can be repeated
        self.bench = bench = Bench()
        bench.attachments.files["acme/poison"] = b"x"
        bench.attachments.fetch = self._fetch  # type: ignore[method-assign]
        bench.provider_factory.create = self._open  # type: ignore[method-assign]
        bench.providers.rows["mallory"] = bench.providers.rows["acme"]
        self.poison_steps = {str(n): self.step or self.rng.choice(STEPS) for n in self.rng.sample(range(self.messages), self.poison)}
        self.waiting: list[Message] = []
        self.count = 0
        for number in range(self.messages):
            self._put(self._copy(str(number)), timedelta())

    def _copy(self, request_id: str) -> QueueMessage:
        step = self.poison_steps.get(request_id)
        queue_message = a_queue_message(request_id, tenant_id="mallory" if step == "prepare" else "acme")
        body = json.loads(queue_message.body)
        if step == "render":
            body["message"]["attachments"] = [{"filename": "a.txt", "s3": {"key": "acme/poison"}}]
        text = json.dumps(body)
        return QueueMessage(
            body=CrashingBody(text) if step == "read" else text, tenant_id=queue_message.tenant_id, created_at=queue_message.created_at
        )

    def _fetch(self, tenant_id: str, ref: S3Object, *, at_most: int | None = None) -> bytes:  # noqa: ARG002 - as the port has it
        raise WorkerCrash

    def _open(self, tenant_id: str, config: StoredConfig, since: datetime | None = None) -> ScriptedProvider:  # noqa: ARG002 - as the port has it
        if tenant_id == "mallory":
            raise WorkerCrash
        return self.bench.provider

    def _put(self, queue_message: QueueMessage, delay: timedelta) -> None:
        self.count += 1
        self.waiting.append(Message(self.count, queue_message, self.bench.clock.now() + delay))

    def run(self) -> "Queue":
        """Deliver the messages until none is left."""
        while self.waiting:
            now = max(self.bench.clock.now(), min(message.visible_at for message in self.waiting))
            self.bench.clock.time = now
            visible = [message for message in self.waiting if message.visible_at <= now]
            self.rng.shuffle(visible)
            self._deliver(visible[: self.batch])
        return self

    def _deliver(self, batch: list[Message]) -> None:
        for message in batch:
            message.receives += 1
            message.visible_at = self.bench.clock.now() + VISIBILITY
        self.moved += [_request_id(message.queue_message) for message in batch if message.receives > MAX_RECEIVES]
        self.waiting = [message for message in self.waiting if message.receives <= MAX_RECEIVES]
        batch = [message for message in batch if message.receives <= MAX_RECEIVES]
        try:
            returned = self.bench.receive(*(Received(str(message.number), message.queue_message, message.receives) for message in batch))
        except WorkerCrash:
            self.crashes += 1
        else:
            self.waiting = [message for message in self.waiting if message not in batch or str(message.number) in returned]
        for queue_message, delay in self.bench.queue.sent:
            self._put(queue_message, delay)
        self.bench.queue.sent.clear()

    @property
    def dead_letters(self) -> list[str]:
        """Return the requests on the dead-letter queue."""
        return [
            _request_id(dead_letter.queue_message)
            for dead_letter in self.bench.queue.dead_letters
            if dead_letter.reason == "processing_crashed"
        ]

    @property
    def sent(self) -> set[str]:
        """Return the requests that were sent."""
        return {record.request_id for record in self.bench.messages.records.values() if record.message_id}


def _request_id(queue_message: QueueMessage) -> str:
    request_id: str = json.loads(str(queue_message.body))["requestId"]
    return request_id
