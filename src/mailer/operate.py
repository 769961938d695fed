"""What operators do by hand, on any account that the AWS SDK reaches: `python -m mailer.operate --help`.

dlq list | redrive | drop      the dead-letter queue, by reason and tenant
pause | resume                 stop SendFunction from taking work off the queue, and let it go on
trouble [--hours N]            which tenants' mail does not go out, why, and who must do what
ask METHOD PATH [NAME=VALUE …] call the API, signed
replay FILE                    write ends that a restored messages table has lost, from log lines
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import URLLib3Session

from mailer import wiring
from mailer.adapters.dead_letters import SqsDeadLetters
from mailer.adapters.lost_ends import DynamoLostEnds
from mailer.adapters.outcome_log import CloudWatchLog
from mailer.client import ApiError
from mailer.client.connection import Connection
from mailer.domain.errors import DependencyError
from mailer.services import dead_letters
from mailer.services.dead_letters import Chosen, DeadLetterRoom
from mailer.services.replay import replay

OUTPUTS = {
    "SendQueueUrl": "SEND_QUEUE_URL",
    "DeadLetterQueueUrl": "DEAD_LETTER_QUEUE_URL",
    "QueueKeyArn": "QUEUE_KEY_ARN",
    "MessagesTableName": "MESSAGES_TABLE",
    "AttachmentsBucketName": "ATTACHMENTS_BUCKET",
    "ApiUrl": "API_URL",
}
"""The stack's outputs, and the settings that they stand for."""


_ASKED_OF_THE_SHELL = "Set credentials and region as for the AWS CLI; for the local AWS those that `make up` prints, and AWS_ENDPOINT_URL."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 1 where something that was chosen had to be kept, 2 where nothing could be done."""
    arguments = _parser().parse_args(argv)
    try:
        use_stack(arguments.stack)
    except (BotoCoreError, ClientError) as error:
        sys.stderr.write(f"the stack {arguments.stack} cannot be asked: {error}\n{_ASKED_OF_THE_SHELL}\n")
        return 2
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except DependencyError as failure:
        sys.stderr.write(f"stopped half-way: {failure}; run it again\n")
        return 1


def use_stack(name: str) -> None:
    """Take a deployed stack's outputs as this process's settings."""
    [stack] = boto3.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    for output in stack.get("Outputs", []):
        if variable := OUTPUTS.get(output.get("OutputKey", "")):
            os.environ[variable] = output.get("OutputValue", "")
    os.environ["API_URL"] = os.environ.get("TENANTMAIL_API") or os.environ["API_URL"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mailer.operate", description="What operators do by hand.")
    parser.add_argument("--stack", default="tenantmail", help="the CloudFormation stack (default: %(default)s)")
    commands = parser.add_subparsers(required=True)
    letters = commands.add_parser("dlq", help="work through the dead-letter queue").add_subparsers(required=True)
    for name, run, text in (
        ("list", _list, "count what lies there, by tenant and reason"),
        ("redrive", _redrive, "send chosen requests through the queue again; never one that has ended"),
        ("drop", _drop, "give chosen requests up: they end as failed: dropped"),
    ):
        command = letters.add_parser(name, help=text)
        command.add_argument("--tenant", help="only this tenant's")
        command.add_argument("--request", help="only this requestId")
        command.add_argument("--reason", help="only those with this reason")
        command.set_defaults(run=run)
    for name, is_on, text in (
        ("pause", False, "stop taking requests off the queue"),
        ("resume", True, "take requests off the queue again"),
    ):
        commands.add_parser(name, help=text).set_defaults(run=_switch, is_on=is_on)
    trouble = commands.add_parser("trouble", help="count what did not go out, by tenant and code, from the functions' logs")
    trouble.add_argument("--hours", type=float, default=1.0, help="how far to look back (default: %(default)s)")
    trouble.set_defaults(run=_trouble)
    ask = commands.add_parser("ask", help="call the API (TENANTMAIL_API, or the stack's) as yourself")
    ask.add_argument("method", choices=["GET", "POST", "PUT", "DELETE"])
    ask.add_argument("path", help="such as /tenants/acme/messages?status=unknown")
    ask.add_argument("fields", nargs="*", metavar="NAME=VALUE", help="of the JSON body")
    ask.set_defaults(run=_ask)
    again = commands.add_parser("replay", help="write ends that a restored messages table has lost, from log lines (docs/deploy.md)")
    again.add_argument("file", type=argparse.FileType(encoding="utf-8"), help="one JSON line each; - for standard input")
    again.set_defaults(run=_replay)
    return parser


# ── the dead-letter queue ───────────────────────────────────────────────────────────────────────────────────────────────


def _room() -> DeadLetterRoom:
    return DeadLetterRoom(
        letters=SqsDeadLetters(wiring.sqs(), wiring.signer(), os.environ["DEAD_LETTER_QUEUE_URL"]),
        messages=wiring.messages_table(),
        queue=wiring.send_queue(),
        parked=wiring.parked_bodies(),
        journal=wiring.journal(),
        clock=wiring.clock(),
    )


def _chosen(arguments: argparse.Namespace) -> Chosen:
    wanted = {"tenant_id": arguments.tenant, "request_id": arguments.request, "reason": arguments.reason}
    return lambda shown: all(value in (None, getattr(shown, name)) for name, value in wanted.items())


def _list(arguments: argparse.Namespace) -> int:
    chosen = _chosen(arguments)
    letters = [shown for shown in dead_letters.list_letters(_room()) if chosen(shown)]
    if arguments.tenant or arguments.request or arguments.reason:
        for shown in letters:
            _print(shown.tenant_id, shown.request_id, shown.reason, shown.detail)
    else:
        counts = Counter((shown.tenant_id, shown.reason) for shown in letters)
        for (tenant_id, reason), count in sorted(counts.items()):
            _print(tenant_id, reason, str(count))
    _print(f"{len(letters)} on the dead-letter queue")
    return 0


def _redrive(arguments: argparse.Namespace) -> int:
    return _report(dead_letters.redrive(_room(), _chosen(arguments)), dead_letters.Did.REDRIVEN)


def _drop(arguments: argparse.Namespace) -> int:
    if not (arguments.tenant or arguments.request or arguments.reason):
        _print("name what to drop: --tenant, --request or --reason")
        return 2
    return _report(dead_letters.drop(_room(), _chosen(arguments)), dead_letters.Did.DROPPED)


def _report(done: dead_letters.Work, wanted: dead_letters.Did) -> int:
    outcomes: Counter[dead_letters.Did] = Counter()
    for shown, did in done:
        outcomes[did] += 1
        _print(shown.tenant_id, shown.request_id, did)
    _print(", ".join(f"{count} {did}" for did, count in outcomes.items()) or "nothing was chosen")
    return 0 if set(outcomes) <= {wanted, dead_letters.Did.SETTLED} else 1


# ── the event source ────────────────────────────────────────────────────────────────────────────────────────────────────


def _switch(arguments: argparse.Namespace) -> int:
    client = boto3.client("lambda")
    queue = os.environ["SEND_QUEUE_URL"].rpartition("/")[2]
    mappings = client.get_paginator("list_event_source_mappings").paginate()
    [uuid] = [m["UUID"] for page in mappings for m in page["EventSourceMappings"] if m["EventSourceArn"].endswith(f":{queue}")]
    client.update_event_source_mapping(UUID=uuid, Enabled=arguments.is_on)
    _print("resumed: SendFunction takes requests off the queue" if arguments.is_on else "paused: requests wait on the queue, up to 14 days")
    return 0


# ── who is in trouble ───────────────────────────────────────────────────────────────────────────────────────────────────


def _trouble(arguments: argparse.Namespace) -> int:
    log = CloudWatchLog(boto3.client("logs"), _log_groups(arguments.stack))
    since = wiring.clock().now() - timedelta(hours=arguments.hours)
    bad = ("deferred", "failed", "unknown")
    lines = [line for line in log.lines("request recorded", since) if line["status"] in bad and "code" in line]
    requests = {(line["tenant_id"], line["request_id"], line["status"], line["code"]) for line in lines}
    hints = {(line["tenant_id"], line["code"]): line["hint"] for line in lines}
    counts = Counter((tenant_id, status, code) for tenant_id, _, status, code in requests)
    for (tenant_id, status, code), count in counts.most_common():
        _print(str(count), tenant_id, status, code, hints[tenant_id, code])
    _print(f"{len(counts)} kinds of trouble in {arguments.hours:g} h")
    return 0


def _log_groups(stack: str) -> list[str]:
    pages = boto3.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack)
    made = [resource for page in pages for resource in page["StackResourceSummaries"]]
    return [r.get("PhysicalResourceId", "") for r in made if r["LogicalResourceId"].endswith("FunctionLogs")]


def _ask(arguments: argparse.Namespace) -> int:
    session = boto3.Session()
    api = Connection(
        url=os.environ["API_URL"].rstrip("/"),
        region=session.region_name,
        credentials=session.get_credentials(),
        transport=URLLib3Session(timeout=30),
    )
    body = dict(field.split("=", 1) for field in arguments.fields) or None
    try:
        answer = api.call(arguments.method, arguments.path, body)
    except ApiError as refusal:
        _print(str(refusal))
        return 1
    _print(json.dumps(answer, indent=2, ensure_ascii=False))
    return 0


# ── after a restore ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _replay(arguments: argparse.Namespace) -> int:
    for status, count in sorted(replay(arguments.file, DynamoLostEnds(wiring.dynamodb(), os.environ["MESSAGES_TABLE"])).items()):
        _print(status, str(count))
    return 0


def _print(*columns: str) -> None:
    sys.stdout.write("\t".join(columns) + "\n")


if __name__ == "__main__":
    sys.exit(main())
