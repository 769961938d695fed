"""A function in a process of its own that may be killed at any moment: the real handler, the real environment, the local AWS.

    process = worker.start(worker.handle, sqs_event(body), env=environment(aws, "SendFunction"))
    process.told(60.0)          what the function answered
    process.kill()              kill -9

Processes are forked off one that has imported everything, and importing opens nothing: a killed worker is replaced within milliseconds
by one as new as any. MiniStack's own workers cannot be killed without taking the server's books along.
"""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

from mailer import wiring
from mailer.adapters.clock import SystemClock
from mailer.adapters.sqs.send_queue import Entry, SqsSendQueue
from mailer.handlers.providers import handler as providers
from mailer.handlers.send import handler as send
from mailer.handlers.sweep import handler as sweep
from mailer.ports import QueueMessage
from mailer.settings import settings
from mailer_ops.adapters import dead_letters
from mailer_ops.operate import main as operate_main
from support.aws import api_calls
from tools.local_aws.running import LocalAws
from tools.local_aws.server import NO_OWN_SETUP, PLATFORM, ROOT, endpoints
from tools.local_aws.stack import platform_session

BATCH = 10
"""Messages of one ReceiveMessage (SQS's limit)."""

SWEEP = timedelta(seconds=1)
"""Between two runs of the sweeper, a minute on AWS."""

Tell = Callable[[Any], None]
Work = Callable[..., None]


# -- the processes -------------------------------------------------------------------------------------------------------

_FORKS = multiprocessing.get_context("forkserver")
# What wiring imports only where it is built.
_FORKS.set_forkserver_preload(
    [__name__, "mailer.adapters.providers.acting", "mailer.adapters.providers.encryption", "mailer.adapters.providers.provider_factory"]
)


class Worker:
    """A running process, and what it tells."""

    def __init__(self, work: Work, arguments: Sequence[Any], env: Mapping[str, str], log: Path | None) -> None:
        self._told, tells = _FORKS.Pipe(duplex=False)
        self._process = _FORKS.Process(target=_be, args=(work, arguments, dict(env), log or Path(os.devnull), tells), daemon=True)
        self._process.start()
        tells.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def told(self, seconds: float) -> Any:
        """Return the next thing that it tells.

        Raises:
            TimeoutError: it told nothing in time.
            EOFError: it is dead.
        """
        if not self._told.poll(seconds):
            raise TimeoutError(f"nothing in {seconds} s")
        try:
            return self._told.recv()
        except OSError:  # killed in the middle of a word
            raise EOFError from None

    def kill(self) -> None:
        """End it as nothing can prevent, and wait until it is gone."""
        self._process.kill()
        self._process.join()


def start(work: Work, *arguments: Any, env: Mapping[str, str], log: Path | None = None) -> Worker:
    """Start one of the works below; `log` takes what it prints."""
    return Worker(work, arguments, env, log)


def _be(work: Work, arguments: Sequence[Any], env: Mapping[str, str], log: Path, tells: Connection) -> None:
    os.environ.clear()
    os.environ.update(env)
    with log.open("ab") as file:
        for standard in (1, 2):
            os.dup2(file.fileno(), standard)
    work(tells.send, *arguments)


def environment(aws: LocalAws, function: str, **more: str) -> dict[str, str]:
    """Return the environment of a deployed function, for a process on this machine; its calls pass the fault proxies."""
    name = aws.stack.function_name(aws.addresses.aws, function)
    variables = aws.client("lambda").get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    local = {"AWS_ENDPOINT_URL": aws.addresses.aws, **endpoints(aws.addresses.services)}
    python = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}"}
    return {**python, **PLATFORM, **NO_OWN_SETUP, **variables, **local, **more}


def session_of(aws: LocalAws, function: str) -> dict[str, str]:
    """Return credentials of a function's role, as variables of a process: what trusts that role trusts them."""
    name = aws.stack.function_name(aws.addresses.aws, function)
    role = aws.client("lambda").get_function_configuration(FunctionName=name)["Role"]
    begun = aws.client("sts").assume_role(RoleArn=role, RoleSessionName=function)["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": begun["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": begun["SecretAccessKey"],
        "AWS_SESSION_TOKEN": begun["SessionToken"],
    }


# -- time ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pace:
    """How time passes for the records and on the queue; the wire's timeouts stay what they are.

    A record waits up to two and a half minutes for its worker to be dead; a storm of one minute lets them pass faster.
    """

    speed: float = 1.0
    began: float = 0.0
    """When it was the same time everywhere, in seconds of the machine's clock."""
    skew: float = 0.0
    """Seconds by which this worker's clock is ahead."""


@dataclass(frozen=True)
class PacedClock(SystemClock):
    """`ports.Clock` at a pace."""

    pace: Pace

    def now(self) -> datetime:
        passed = (time.time() - self.pace.began) * self.pace.speed
        return datetime.fromtimestamp(self.pace.began + passed + self.pace.skew, UTC)

    def wait_until(self, moment: datetime) -> None:
        time.sleep(max(0.0, (moment - self.now()).total_seconds() / self.pace.speed))


class PacedQueue(SqsSendQueue):
    """`ports.SendQueue` whose delays pass at a pace."""

    speed = 1.0

    def send(self, queue_messages: Iterable[Entry]) -> Sequence[QueueMessage]:
        return super().send((queue_message, delay / self.speed) for queue_message, delay in queue_messages)


@contextlib.contextmanager
def paced(pace: Pace) -> Any:
    """Let what wiring builds live at a pace."""

    @cache
    def queue() -> PacedQueue:
        built = PacedQueue(wiring.sqs(), wiring.signer(), settings().send_queue_url, settings().dead_letter_queue_url)
        built.speed = pace.speed
        return built

    with patch.object(wiring, "clock", cache(lambda: PacedClock(pace))), patch.object(wiring, "send_queue", queue):
        yield


@dataclass(frozen=True, slots=True)
class Context:
    """What Lambda tells of an invocation."""

    seconds: float
    speed: float = 1.0
    began: float = field(default_factory=time.monotonic)

    def get_remaining_time_in_millis(self) -> int:
        return int((self.seconds - (time.monotonic() - self.began) * self.speed) * 1000)


@contextlib.contextmanager
def invocation(pace: Pace) -> Any:
    """Give an invocation its context, and kill the process when its time is over, as Lambda does."""
    seconds = settings().send_timeout_seconds
    signal.setitimer(signal.ITIMER_REAL, seconds / pace.speed)
    try:
        yield Context(seconds, pace.speed)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


# -- what they do --------------------------------------------------------------------------------------------------------


def handle(publish: Tell, event: Mapping[str, Any]) -> None:
    """Let SendFunction handle one event, and tell its answer."""
    with invocation(Pace()) as context:
        publish(send(event, context))


def operate(publish: Tell, *arguments: str) -> None:
    """Run an operator's command, and tell its exit code."""
    publish(operate_main(arguments))


def redrive(publish: Tell, hidden: int) -> None:
    """Let an operator put back all dead letters, and tell the exit code; one whose receipt is lost is seen again after `hidden` seconds."""
    with patch.object(dead_letters, "_HIDDEN_SECONDS", hidden):
        publish(operate_main(("dlq", "redrive")))


def verify(publish: Tell, tenant_id: str) -> None:
    """Let ProvidersFunction answer `POST …/provider/verify`, and tell status, media type and body."""
    got = api_calls.call(providers, api_calls.event("provider-verify"), tenant=tenant_id)
    publish((got.status, got.headers["Content-Type"], got.json))


def sweep_on(publish: Tell, pace: Pace) -> None:
    """Let SweepFunction run again and again."""
    with paced(pace):
        while True:
            publish([])
            with invocation(pace) as context:
                sweep({}, context)
            time.sleep(SWEEP / timedelta(seconds=1))


def poll(publish: Tell, pace: Pace, hidden: int) -> None:
    """Take batches off the queue as Lambda's poller does, and tell which messages a batch holds before and after SendFunction got it.

    What is received is hidden from others for `hidden` seconds.
    """
    # The poller is Lambda's, not ours: it meets no fault.
    sqs = platform_session().client("sqs", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    url = os.environ["SEND_QUEUE_URL"]
    asked: Any = {"MaxNumberOfMessages": BATCH, "WaitTimeSeconds": 1, "VisibilityTimeout": hidden}
    with paced(pace):
        wiring.send_dependencies()
        while True:
            answer = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"], **asked)
            if not (messages := answer.get("Messages", [])):
                continue
            publish([message["Body"] for message in messages])
            with invocation(pace) as context:
                failed = send({"Records": [_record(message) for message in messages]}, context)["batchItemFailures"]
            kept = {failure["itemIdentifier"] for failure in failed}
            for message in messages:
                if message["MessageId"] not in kept:
                    with contextlib.suppress(sqs.exceptions.ReceiptHandleIsInvalid):  # it has been handed out to another meanwhile
                        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            publish([])


def _record(message: Mapping[str, Any]) -> dict[str, Any]:
    """Write a message as the event source does."""
    attributes = message.get("MessageAttributes", {})
    return {
        "messageId": message["MessageId"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {name: {"stringValue": value.get("StringValue"), "dataType": "String"} for name, value in attributes.items()},
    }


def sqs_event(*bodies: str, receives: int = 1) -> dict[str, Any]:
    """Make the event of a batch, as SQS gives it to a function."""
    now = str(int(time.time() * 1000))
    return {
        "Records": [
            {
                "messageId": f"m-{number}",
                "body": body,
                "attributes": {"ApproximateReceiveCount": str(receives), "SentTimestamp": now},
                "messageAttributes": {},
            }
            for number, body in enumerate(bodies)
        ]
    }
