"""A function in its own process, which may be killed at any moment: the real handler and environment on the local AWS.

    process = worker.start(worker.handle, sqs_event(body), env=environment(aws, "SendFunction"))
    process.next_result(60.0)   the function's return value
    process.kill()              kill -9

Processes are forked from one that has imported everything, and imports open no connections: a killed worker is replaced by a new one
within milliseconds. MiniStack's own workers cannot be killed without damaging the server's state.
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
from mailer.handlers.feedback import handler as feedback
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
"""Messages per ReceiveMessage (SQS's limit)."""

SWEEP = timedelta(seconds=1)
"""Interval between two runs of the sweeper; a minute on AWS."""

Publish = Callable[[Any], None]
Handler = Callable[[Mapping[str, Any], Any], Mapping[str, Any]]
Work = Callable[..., None]


# -- the processes -------------------------------------------------------------------------------------------------------

_FORKS = multiprocessing.get_context("forkserver")
# Modules that wiring imports lazily.
_FORKS.set_forkserver_preload(
    [__name__, "mailer.adapters.providers.acting", "mailer.adapters.providers.encryption", "mailer.adapters.providers.provider_factory"]
)


class Worker:
    """A running process and its results."""

    def __init__(self, work: Work, arguments: Sequence[Any], env: Mapping[str, str], log: Path | None) -> None:
        self._results, connection = _FORKS.Pipe(duplex=False)
        self._process = _FORKS.Process(target=_run, args=(work, arguments, dict(env), log or Path(os.devnull), connection), daemon=True)
        self._process.start()
        connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def next_result(self, seconds: float) -> Any:
        """Return its next result.

        Raises:
            TimeoutError: it sent none in time.
            EOFError: it has ended.
        """
        if not self._results.poll(seconds):
            raise TimeoutError(f"nothing in {seconds} s")
        try:
            return self._results.recv()
        except OSError:  # killed while writing
            raise EOFError from None

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait for its end."""
        self._process.kill()
        self._process.join()


def start(work: Work, *arguments: Any, env: Mapping[str, str], log: Path | None = None) -> Worker:
    """Start one of the tasks below; its output goes to `log`."""
    return Worker(work, arguments, env, log)


def _run(work: Work, arguments: Sequence[Any], env: Mapping[str, str], log: Path, connection: Connection) -> None:
    os.environ.clear()
    os.environ.update(env)
    with log.open("ab") as file:
        for standard in (1, 2):
            os.dup2(file.fileno(), standard)
    work(connection.send, *arguments)


def environment(aws: LocalAws, function: str, **more: str) -> dict[str, str]:
    """Return the environment of a deployed function, for a local process; its calls go through the fault proxies."""
    name = aws.stack.function_name(aws.addresses.aws, function)
    variables = aws.client("lambda").get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    local = {"AWS_ENDPOINT_URL": aws.addresses.aws, **endpoints(aws.addresses.services)}
    python = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}"}
    return {**python, **PLATFORM, **NO_OWN_SETUP, **variables, **local, **more}


def session_of(aws: LocalAws, function: str) -> dict[str, str]:
    """Return credentials of a function's role, as environment variables."""
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
    """Speed of the records' and the queue's clock; network timeouts are not affected.

    A record waits up to two and a half minutes until its worker counts as dead, too long for a storm of one minute.
    """

    speed: float = 1.0
    began: float = 0.0
    """Time at which all clocks were equal, in seconds of the machine's clock."""
    skew: float = 0.0
    """Seconds by which this worker's clock is ahead."""


@dataclass(frozen=True)
class PacedClock(SystemClock):
    """`ports.Clock` with a pace."""

    pace: Pace

    def now(self) -> datetime:
        passed = (time.time() - self.pace.began) * self.pace.speed
        return datetime.fromtimestamp(self.pace.began + passed + self.pace.skew, UTC)

    def wait_until(self, moment: datetime) -> None:
        time.sleep(max(0.0, (moment - self.now()).total_seconds() / self.pace.speed))


class PacedQueue(SqsSendQueue):
    """`ports.SendQueue` with delays scaled by a pace."""

    speed = 1.0

    def send(self, queue_messages: Iterable[Entry]) -> Sequence[QueueMessage]:
        return super().send((queue_message, delay / self.speed) for queue_message, delay in queue_messages)


@contextlib.contextmanager
def paced(pace: Pace) -> Any:
    """Patch wiring to use the clock and queue of a pace."""

    @cache
    def queue() -> PacedQueue:
        built = PacedQueue(wiring.sqs(), wiring.signer(), settings().send_queue_url, settings().dead_letter_queue_url)
        built.speed = pace.speed
        return built

    with patch.object(wiring, "clock", cache(lambda: PacedClock(pace))), patch.object(wiring, "send_queue", queue):
        yield


@dataclass(frozen=True, slots=True)
class Context:
    """Lambda's context of an invocation."""

    seconds: float
    speed: float = 1.0
    began: float = field(default_factory=time.monotonic)

    def get_remaining_time_in_millis(self) -> int:
        return int((self.seconds - (time.monotonic() - self.began) * self.speed) * 1000)


@contextlib.contextmanager
def invocation(pace: Pace, seconds: int | None = None) -> Any:
    """Yield the context of an invocation, and kill the process at its timeout, as Lambda does; SendFunction's, unless given."""
    seconds = seconds or settings().send_timeout_seconds
    signal.setitimer(signal.ITIMER_REAL, seconds / pace.speed)
    try:
        yield Context(seconds, pace.speed)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


# -- tasks --------------------------------------------------------------------------------------------------------


def handle(publish: Publish, event: Mapping[str, Any]) -> None:
    """Invoke SendFunction with one event; publish its return value."""
    with invocation(Pace()) as context:
        publish(send(event, context))


def operate(publish: Publish, *arguments: str) -> None:
    """Run an operator's command; publish its exit code."""
    publish(operate_main(arguments))


def redrive(publish: Publish, hidden: int) -> None:
    """Redrive all dead letters; publish the exit code. One whose receipt is lost is visible again after `hidden` seconds."""
    with patch.object(dead_letters, "_HIDDEN_SECONDS", hidden):
        publish(operate_main(("dlq", "redrive")))


def verify(publish: Publish, tenant_id: str) -> None:
    """Call `POST …/provider/verify` of ProvidersFunction; publish status, media type and body."""
    got = api_calls.call(providers, api_calls.event("provider-verify"), tenant=tenant_id)
    publish((got.status, got.headers["Content-Type"], got.json))


@dataclass(frozen=True, slots=True)
class Progress:
    """What a worker that polls a queue is doing: published before and after each batch."""

    bodies: Sequence[str]
    """Bodies of the messages in progress."""
    acknowledged: Sequence[str] = ()
    """Bodies of the messages that were deleted since the last report."""
    at: float = field(default_factory=time.monotonic)
    """The machine's monotonic clock, which all processes share."""


def sweep_forever(publish: Publish, pace: Pace) -> None:
    """Run SweepFunction in a loop; publish `Progress` before each run."""
    with paced(pace):
        while True:
            publish(Progress([]))
            with invocation(pace) as context:
                sweep({}, context)
            time.sleep(SWEEP / timedelta(seconds=1))


def poll(publish: Publish, pace: Pace, hidden: int) -> None:
    """Receive batches of send requests as Lambda's poller does; publish the `Progress`. `hidden` is the visibility timeout in seconds."""
    with paced(pace):
        wiring.send_dependencies()
        _poll(publish, os.environ["SEND_QUEUE_URL"], send, pace, hidden, settings().send_timeout_seconds)


def poll_events(publish: Publish, hidden: int) -> None:
    """Receive batches of SES's events for FeedbackFunction, as `poll` does, without a pace: SES dates the events by the real time.

    The environment names the queue in FEEDBACK_QUEUE_URL, and the function's timeout in seconds in FEEDBACK_TIMEOUT.
    """
    wiring.feedback_dependencies()
    _poll(publish, os.environ["FEEDBACK_QUEUE_URL"], feedback, Pace(), hidden, int(os.environ["FEEDBACK_TIMEOUT"]))


def _poll(publish: Publish, url: str, handler: Handler, pace: Pace, hidden: int, timeout: int) -> None:
    # The poller is Lambda's, so it has no faults.
    sqs = platform_session().client("sqs", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    asked: Any = {"MaxNumberOfMessages": BATCH, "WaitTimeSeconds": 1, "VisibilityTimeout": hidden}
    while True:
        answer = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"], **asked)
        if not (messages := answer.get("Messages", [])):
            continue
        publish(Progress([message["Body"] for message in messages]))
        with invocation(pace, timeout) as context:
            failed = handler({"Records": [_record(message) for message in messages]}, context)["batchItemFailures"]
        kept = {failure["itemIdentifier"] for failure in failed}
        done = [message for message in messages if message["MessageId"] not in kept]
        for message in done:
            with contextlib.suppress(sqs.exceptions.ReceiptHandleIsInvalid):  # it was delivered again meanwhile
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        publish(Progress([], acknowledged=[message["Body"] for message in done]))


def _record(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as a record of a Lambda event."""
    attributes = message.get("MessageAttributes", {})
    return {
        "messageId": message["MessageId"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {name: {"stringValue": value.get("StringValue"), "dataType": "String"} for name, value in attributes.items()},
    }


def sqs_event(*bodies: str, receives: int = 1) -> dict[str, Any]:
    """Return the Lambda event of a batch."""
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
