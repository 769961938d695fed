"""One deployed stack, as operators' programs find it: its outputs as settings, clients, names, and sentences about calls that fail."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import boto3
from aws_lambda_powertools import Logger
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError, NoRegionError
from botocore.exceptions import ConnectionError as ConnectError

from mailer import wiring
from mailer.domain.errors import DependencyError, UnreadableError
from mailer.domain.producers import Producers
from mailer.observability import LogTelemetry
from mailer_ops.adapters.dead_letters import SqsDeadLetters
from mailer_ops.adapters.outcome_log import CloudWatchLog, OperatorsLog
from mailer_ops.operations.dead_letters import DeadLetterDependencies

OUTPUTS = {
    "SendQueueUrl": "SEND_QUEUE_URL",
    "DeadLetterQueueUrl": "DEAD_LETTER_QUEUE_URL",
    "QueueKeyArn": "QUEUE_KEY_ARN",
    "ProvidersTableName": "PROVIDERS_TABLE",
    "MessagesTableName": "MESSAGES_TABLE",
    "SuppressionsTableName": "SUPPRESSIONS_TABLE",
    "AttachmentsBucketName": "ATTACHMENTS_BUCKET",
    "ApiUrl": "API_URL",
}
"""The stack's outputs, and the environment variables of the settings."""


class CommandError(Exception):
    """A command cannot do its work; the text says what the operator must do."""


def use_stack(name: str) -> None:
    """Set this process's settings from the outputs of a deployed stack."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and not _is_url(endpoint):  # the SDK would raise a ValueError, some of them only at the first call
        raise CommandError("AWS_ENDPOINT_URL must be an address such as http://127.0.0.1:4566, or unset.")
    [stack] = client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    outputs = {output.get("OutputKey", ""): output.get("OutputValue", "") for output in stack.get("Outputs", [])}
    if missing := OUTPUTS.keys() - outputs.keys():
        raise CommandError(f"The stack {name} is not one of this service, or not deployed yet: it has no output {min(missing)}.")
    os.environ.update({variable: outputs[output] for output, variable in OUTPUTS.items()})
    parameters = {parameter.get("ParameterKey"): parameter.get("ParameterValue", "") for parameter in stack.get("Parameters", [])}
    os.environ["PRODUCER_TENANTS"] = parameters.get("ProducerTenants", "")
    os.environ["API_URL"] = os.environ.get("TENANTMAIL_API") or os.environ["API_URL"]
    if not _is_url(os.environ["API_URL"]):
        raise CommandError("TENANTMAIL_API must be an address such as https://mail.example.com/v1, or unset: the stack has one.")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of its port, or of brackets
        return False


def client(service: Any) -> Any:
    """Make a client of an AWS service that gives up in time for somebody who waits."""
    config = Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 3})  # seconds
    return boto3.client(service, config=config)


def function_log(stack: str) -> CloudWatchLog:
    """Return the log of the functions that write records."""
    groups = [physical for logical, physical in resources(stack).items() if logical in RECORDING]
    return CloudWatchLog(client("logs"), groups)


RECORDING = ("SendFunctionLogs", "MessagesFunctionLogs", "SweepFunctionLogs", "FeedbackFunctionLogs")
"""The log groups of the functions that write records."""


def resources(stack: str) -> dict[str, str]:
    """Return the physical ids of the stack's resources, by their logical ids."""
    pages = client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack)
    made = [resource for page in pages for resource in page["StackResourceSummaries"]]
    return {resource["LogicalResourceId"]: resource.get("PhysicalResourceId", "") for resource in made}


# ── what went wrong ─────────────────────────────────────────────────────────────────────────────────────────────────────

_UNKNOWN_KEYS = frozenset(
    {"InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "InvalidSignatureException", "InvalidAccessKeyId"}
)
_EXPIRED_KEYS = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
DENIED = frozenset({"AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation", "403"})
_SETUP = "as for the AWS CLI; for the local AWS paste the export lines that `make up` prints"


def explain(failure: Exception, stack: str) -> str:
    """Return a sentence that says what an operator must do about a failed call."""
    cause = failure.__cause__ if isinstance(failure, DependencyError) and failure.__cause__ else failure
    match cause:
        case NoCredentialsError():
            return f"There are no AWS credentials: set them {_SETUP}."
        case NoRegionError():
            return f"There is no AWS region: set AWS_DEFAULT_REGION {_SETUP}."
        case ClientError():
            return _explain_answer(cause, stack)
        case HTTPClientError() | ConnectError():
            return f"{_sentence(cause)} Is the address right, and the network there? The local AWS is started by `make up`."
        case BotoCoreError():
            return f"The AWS SDK cannot be used: {_sentence(cause)} Set it up {_SETUP}."
        case _:
            repair = failure.error.hint.removeprefix("Operator: ") if isinstance(failure, UnreadableError) else ""
            todo = f": {repair}" if repair else ". Run it again."
            return f"Stopped half-way: {failure}{todo}"


def _sentence(cause: Exception) -> str:
    return f"{str(cause).rstrip('.')}."


def _explain_answer(answer: ClientError, stack: str) -> str:
    code, text = answer.response["Error"].get("Code", ""), answer.response["Error"].get("Message", "")
    region = boto3.Session().region_name
    if code == "ValidationError" and answer.operation_name == "DescribeStacks":
        return f"There is no stack {stack} in {region} of this account: deploy it, or name yours with STACK=…."
    if code in _UNKNOWN_KEYS:
        return f"AWS does not know these credentials ({code}): set others {_SETUP}."
    if code in _EXPIRED_KEYS:
        return f"These credentials have expired: log in again, or set others {_SETUP}."
    if code in DENIED:
        return f"These credentials lack a right: {text or answer.operation_name}. docs/deploy.md has the operator's policy."
    return f"AWS refused {answer.operation_name} ({code}): {text}. Run it again where that passes by itself."


# ── the dead-letter queue ───────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def open_dead_letters() -> Iterator[SqsDeadLetters]:
    """Open the dead-letter queue; at the end the messages that were received and not deleted become visible again."""
    letters = SqsDeadLetters(wiring.sqs(), wiring.signer(), os.environ["DEAD_LETTER_QUEUE_URL"])
    try:
        yield letters
    finally:
        try:
            letters.close()
        except DependencyError as failure:
            sys.stderr.write("The dead letters that were read and not handled could not be put back; they stay hidden for ten minutes:\n")
            raise failure from failure.__cause__


@contextmanager
def open_telemetry(stack: str) -> Iterator[LogTelemetry]:
    """Collect log lines, and write them to the functions' log group at the end."""
    log = OperatorsLog()
    try:
        yield LogTelemetry(Logger(service=f"operator-{uuid4().hex}", stream=log))  # loggers of one name would share a stream
    finally:
        if log.getvalue():
            log.keep(client("logs"), resources(stack)["MessagesFunctionLogs"])


@contextmanager
def dead_letter_deps(stack: str) -> Iterator[DeadLetterDependencies]:
    """Open what the work on dead letters depends on; its log lines go where the functions log."""
    with open_telemetry(stack) as telemetry, open_dead_letters() as letters:
        yield DeadLetterDependencies(
            dead_letters=letters,
            messages=wiring.messages_table(),
            queue=wiring.send_queue(),
            parked=wiring.parked_bodies(),
            telemetry=telemetry,
            clock=wiring.clock(),
            producers=Producers.parse(os.environ["PRODUCER_TENANTS"]),
        )
