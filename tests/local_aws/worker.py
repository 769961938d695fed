"""A SendFunction in a process of its own that may be killed at any moment: the real handler, the real environment, the local AWS.

    python -m local_aws.worker event             handle one event, read from standard input, and print the answer
    python -m local_aws.worker poll SECONDS      take batches off the queue as Lambda's poller does, hidden for so long
    python -m local_aws.worker sweep             run SweepFunction again and again

The environment comes from `environment()`; MiniStack's own workers cannot be killed without taking the server's books along.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from local_aws.running import LocalAws
from local_aws.server import NO_OWN_SETUP, PLATFORM, ROOT, endpoints
from local_aws.stack import platform_session
from mailer.handlers.send import handler as send
from mailer.handlers.sweep import handler as sweep

BATCH = 10
"""Messages of one ReceiveMessage (SQS's limit)."""

SWEEP = 1.0
"""Seconds between two runs of the sweeper, a minute on AWS."""


@dataclass(frozen=True, slots=True)
class Context:
    """What Lambda tells of an invocation."""

    seconds: float
    began: float = field(default_factory=time.monotonic)

    def get_remaining_time_in_millis(self) -> int:
        return int((self.began + self.seconds - time.monotonic()) * 1000)


def environment(aws: LocalAws, function: str, **more: str) -> dict[str, str]:
    """Return the environment of a deployed function, for a process on this machine; its calls pass the fault proxies."""
    name = aws.stack.function_name(aws.addresses.aws, function)
    variables = aws.client("lambda").get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    local = {"AWS_ENDPOINT_URL": aws.addresses.aws, **endpoints(aws.addresses.services)}
    python = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}"}
    return {**python, **PLATFORM, **NO_OWN_SETUP, **variables, **local, **more}


def start(command: str, *arguments: str, env: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start a worker."""
    return subprocess.Popen(
        [sys.executable, "-m", "local_aws.worker", command, *arguments],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


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


def main(command: str, *arguments: str) -> None:
    """Be the worker."""
    seconds = float(os.environ["SEND_TIMEOUT_SECONDS"])
    if command == "event":
        print(json.dumps(send(json.load(sys.stdin), Context(seconds))), flush=True)
    elif command == "poll":
        _poll(int(arguments[0]), seconds)
    elif command == "sweep":
        while True:
            sweep({}, Context(seconds))
            time.sleep(SWEEP)


def _poll(hidden: int, seconds: float) -> None:
    # The poller is Lambda's, not ours: it meets no fault.
    sqs = platform_session().client("sqs", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    url = os.environ["SEND_QUEUE_URL"]
    asked: Any = {"MaxNumberOfMessages": BATCH, "WaitTimeSeconds": 1, "VisibilityTimeout": hidden}
    while True:
        answer = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"], **asked)
        messages = answer.get("Messages", [])
        if not messages:
            continue
        failed = send({"Records": [_record(message) for message in messages]}, Context(seconds))["batchItemFailures"]
        kept = {failure["itemIdentifier"] for failure in failed}
        for message in messages:
            if message["MessageId"] not in kept:
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def _record(message: Mapping[str, Any]) -> dict[str, Any]:
    """Write a message as the event source does."""
    papers = message.get("MessageAttributes", {})
    return {
        "messageId": message["MessageId"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {name: {"stringValue": value.get("StringValue"), "dataType": "String"} for name, value in papers.items()},
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
