"""Costs of a mail: count its calls on the stack in moto, and price them; docs/deploy.md and docs/scale.md have the tables.

    PYTHONPATH=src:tests python -m tools.docs.costs   writes the tables

Counted: every call of the functions, DynamoDB's units by the sizes of items and index entries, KMS and S3.
Assumed: the calls of Lambda's poller to SQS, and how long a function runs (`SECONDS`). Prices are those of `PRICES`.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from datetime import timedelta
from io import StringIO
from math import ceil
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import boto3
from botocore.exceptions import ClientError
from moto import mock_aws

from mailer import wiring
from mailer.domain.moments import from_millis
from mailer.handlers import feedback, messages, providers, publish, send, statistics, sweep
from mailer.settings import settings
from support.aws import tables
from support.aws.api_calls import Context, call, event
from support.aws.streams import read_stream
from support.aws.write_units import Item, partition_writes, size
from support.fakes.ports import InlineExecutor
from support.ses_events import envelopes
from tools.local_aws.ses_events import RecipientOutcome

DOCS = tables.ROOT / "docs"
FROM = "billing@acme.example"
HTML = "<p>" + "Thank you for your order. " * 40
"""A body of 1 KB."""
ATTACHMENT = [{"filename": "invoice.pdf", "content": "A" * 136_000}]
"""A file of 100 KB, in base64."""
MAILS = 10
"""Mails of one batch. The event source waits a second for up to 100 (template.yaml); larger batches cost less per mail."""

PRICES = {
    "SQS requests": 0.50e-6,  # 0.40 per million, and 0.10 for messages with a message group (fair queues)
    "DynamoDB write units": 0.625e-6,
    "DynamoDB read units": 0.125e-6,
    "KMS requests": 3e-6,
    "S3 PUT": 5e-6,
    "S3 GET": 0.4e-6,
    "API calls": 3.50e-6,
    "EventBridge events": 1.00e-6,
    "log bytes": 0.50e-9,
    "Lambda requests": 0.20e-6,
    "Lambda GB-seconds": 13.3334e-6,  # arm64
}
"""US dollars per unit, us-east-1, list prices of 2026 without free tier or discount; see docs/deploy.md."""

SECONDS = {
    "SendFunction": 0.3,
    "MessagesFunction": 0.05,
    "SweepFunction": 0.3,
    "PublishFunction": 0.1,
    "FeedbackFunction": 0.2,
    "StatisticsFunction": 0.1,
}
"""Assumed billed seconds of one invocation: a batch of `MAILS` or of their SES events, one API call, a run that requeues, publishes or
counts `MAILS`."""

LOG_EVENT = 26
"""Bytes that CloudWatch adds to each line."""


class Bill:
    """Units used so far; thread-safe."""

    def __init__(self) -> None:
        self._units: Counter[str] = Counter()
        self._lock = Lock()

    def add(self, unit: str, count: float) -> None:
        with self._lock:
            self._units[unit] += count  # type: ignore[assignment]  # GB-seconds are no whole number

    def forget(self) -> None:
        self._units.clear()

    def of_a_million(self) -> dict[str, float]:
        """Return the units per million mails."""
        return {unit: self._units[unit] / MAILS * 1_000_000 for unit in PRICES}


# ── DynamoDB's units ────────────────────────────────────────────────────────────────────────────────────────────────────


def write_units(table: Mapping[str, Any], before: Item, after: Item) -> int:
    """Return the units of one write: of the table, and of each index whose entry is added, removed, moved or changed."""
    return sum(write.units for write in partition_writes(table, before, after))


def read_units(operation: str, parsed: Mapping[str, Any], request: Mapping[str, Any] = MappingProxyType({})) -> float:
    """Return the units of one read: consistent for items, also for each that is not there; half of that for an index."""
    if operation == "Query":
        return max(1, ceil(sum(map(size, parsed["Items"])) / 4096)) / (1 if request.get("ConsistentRead") else 2)
    items = [parsed.get("Item", {})] if operation == "GetItem" else [item for found in parsed["Responses"].values() for item in found]
    asked = sum(len(wanted["Keys"]) for wanted in request.get("RequestItems", {}).values())
    return sum(max(1, ceil(size(item) / 4096)) for item in items) + max(0, asked - len(items))


# ── the stack, and the count of its calls ───────────────────────────────────────────────────────────────────────────────


class LongContext(Context):
    """Lambda context with ten minutes left: moto is slower than AWS."""

    def get_remaining_time_in_millis(self) -> int:
        return 600_000


class Stack:
    """The functions on moto, and the bill of their calls."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.bill = Bill()
        self._queue = environment["SEND_QUEUE_URL"]
        self._sqs = boto3.client("sqs")
        self._look = boto3.client("dynamodb")
        names = ("messages", "providers", "pacing", "feedback", "suppressions", "statistics")
        self._tables = {environment[f"{name.upper()}_TABLE"]: f"{name.capitalize()}Table" for name in names}
        self._messages, self._suppressions = environment["MESSAGES_TABLE"], environment["SUPPRESSIONS_TABLE"]
        for client in (wiring.dynamodb(), wiring.sqs(), wiring.kms(), wiring.s3(), wiring._client("events")):
            made: Any = client
            made._make_api_call = self._counted(made._make_api_call)

    def _counted(self, make: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
        """Count a client's calls, whether our code or botocore makes them."""

        def make_and_count(operation: str, request: dict[str, Any]) -> Any:
            before = self._item(operation, request) if operation in ("UpdateItem", "PutItem") else {}
            try:
                answer = make(operation, request)
            except ClientError:
                if operation in ("UpdateItem", "PutItem"):
                    self._count(operation, request, before, {})  # a rejected write costs too
                raise
            self._count(operation, request, before, answer)
            return answer

        return make_and_count

    def _count(self, operation: str, request: Mapping[str, Any], before: Item, answer: Mapping[str, Any]) -> None:
        match operation:
            case "UpdateItem" | "PutItem":
                self.bill.add("DynamoDB write units", write_units(self._table(request), before, self._item(operation, request)))
            case "GetItem" | "BatchGetItem" | "Query":
                self.bill.add("DynamoDB read units", read_units(operation, answer, request))
            case "Decrypt" | "GenerateDataKey" | "GenerateMac":
                self.bill.add("KMS requests", 1)
            case "PutObject" | "GetObject":
                self.bill.add("S3 PUT" if operation == "PutObject" else "S3 GET", 1)
            case "PutEvents":
                self.bill.add("EventBridge events", len(request["Entries"]))
            case "SendMessage" | "SendMessageBatch":
                self.bill.add("SQS requests", chunks(*(entry["MessageBody"] for entry in request.get("Entries", [request]))))

    def _table(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        table: Mapping[str, Any] = tables.template()["Resources"][self._tables[request["TableName"]]]["Properties"]
        return table

    def _item(self, operation: str, request: Mapping[str, Any]) -> Item:
        whole = request["Key"] if operation == "UpdateItem" else request["Item"]
        key: Any = {part["AttributeName"]: whole[part["AttributeName"]] for part in self._table(request)["KeySchema"]}
        found: Item = self._look.get_item(TableName=request["TableName"], Key=key).get("Item", {})
        return found

    def call_providers(self, *names: str) -> None:
        """Call the providers API; the bill of a mail does not include it."""
        for name in names:
            assert call(providers.handler, event(f"provider-{name}"), tenant="acme").status == 200
        self.bill.forget()

    def enqueue(self, more: Mapping[str, Any], to: Callable[[int], str] = lambda _: JO) -> None:
        """Send one SQS message per mail, as producers do; `to` gives the recipient of each."""
        for number in range(MAILS):
            message = {"to": [{"email": to(number), "name": "Jo"}], "subject": "Your invoice", "html": HTML, **more}
            body = json.dumps({"tenantId": "acme", "requestId": f"invoice-2026-{number:04}", "message": message})
            self._sqs.send_message(QueueUrl=self._queue, MessageBody=body, MessageGroupId="acme")
            self.bill.add("SQS requests", chunks(body))

    def submit(self) -> None:
        """Make one API call per mail."""
        message = {"to": [{"email": JO, "name": "Jo"}], "subject": "Your invoice", "html": HTML}
        for number in range(MAILS):
            body = {"requestId": f"invoice-2026-{number:04}", "message": message}
            answer = call(messages.handler, event("messages-submit"), tenant="acme", body=body)
            assert answer.status == 202, answer.text
            self.bill.add("API calls", 1)
            self._ran("MessagesFunction")

    def send(self) -> None:
        """Invoke SendFunction with all queued messages in one batch; Lambda's poller receives and deletes ten at a time."""
        records = []
        while got := self._sqs.receive_message(
            QueueUrl=self._queue, MaxNumberOfMessages=10, AttributeNames=["All"], MessageAttributeNames=["All"]
        ).get("Messages"):
            self.bill.add("SQS requests", chunks(*(message["Body"] for message in got)) + 1)
            for message in got:
                self._sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=message["ReceiptHandle"])
            records += [as_record(message) for message in got]
        with patch("mailer.services.sending.send.FENCE_SPAN", timedelta(minutes=10)):  # moto is slower than AWS
            assert send.handler({"Records": records}, LongContext()) == {"batchItemFailures": []}
        self._ran("SendFunction")

    def mark_suppressions(self) -> None:
        """Let the tenant have suppressions, so that its mail is sent with a look; the bill of a mail does not include it."""
        assert wiring.providers_table().mark_suppressions("acme")
        self.bill.forget()

    def report(self, outcome: RecipientOutcome, to: Callable[[int], str] = lambda _: JO) -> None:
        """Invoke FeedbackFunction with SES's two events of each mail: accepted, and delivered or bounced."""
        bodies = [
            json.dumps(envelope)
            for item in self._sent()
            for envelope in envelopes({to(int(item["requestId"]["S"][-4:])): outcome}, **_as_sent(item))
        ]
        for start in range(0, len(bodies), 10):
            some = bodies[start : start + 10]  # Lambda's poller receives and deletes ten at a time; EventBridge sends one by one
            self.bill.add("SQS requests", sum(map(chunks, some)) + chunks(*some) + 1)
        now = str(int(wiring.clock().now().timestamp() * 1000))
        records = [{"messageId": str(number), "body": body, "attributes": {"SentTimestamp": now}} for number, body in enumerate(bodies)]
        with patch.object(wiring, "workers", InlineExecutor):  # moto's tables are not safe to share between threads
            assert feedback.handler({"Records": records}, LongContext()) == {"batchItemFailures": []}
        assert all(item["feedback"]["M"][outcome.value] == {"N": "1"} for item in self._sent())
        self._ran("FeedbackFunction")

    def _sent(self) -> list[Any]:
        return self._look.scan(TableName=settings().messages_table)["Items"]

    def sweep(self) -> None:
        """Run the sweeper once."""
        sweep.handler({}, LongContext())
        self._ran("SweepFunction")

    def publish(self) -> None:
        """Invoke the functions behind the streams, each with its records in one batch; Lambda's reads of a stream are free."""
        written = read_stream(self._messages)
        assert publish.handler({"Records": written}, LongContext())["published"] >= MAILS
        self._ran("PublishFunction")
        numbered = [{**one, "dynamodb": {**one["dynamodb"], "SequenceNumber": str(number)}} for number, one in enumerate(written)]
        statistics.handler({"Records": numbered, "shardId": "shardId-1"}, LongContext())
        self._ran("StatisticsFunction")
        if suppressed := read_stream(self._suppressions):
            assert publish.handler({"Records": suppressed}, LongContext())["published"] == MAILS
            self._ran("PublishFunction")

    def has_sent_all(self) -> bool:
        """Return whether every mail was sent."""
        found = self._look.scan(TableName=settings().messages_table)["Items"]
        return [item["status"]["S"] for item in found] == ["sent"] * MAILS

    def _ran(self, function: str) -> None:
        memory = tables.template()["Globals"]["Function"] | tables.template()["Resources"][function]["Properties"]
        self.bill.add("Lambda requests", 1)
        self.bill.add("Lambda GB-seconds", SECONDS[function] * memory["MemorySize"] / 1024)


JO = "jo@customer.example"


def _as_sent(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a mail's SES events, from its record."""
    names = {"request_id": "requestId", "message_id": "messageId", "account": "account", "region": "region"}
    known = {name: item[attribute]["S"] for name, attribute in names.items()}
    return {
        **known,
        "accepted_at": from_millis(int(item["sentAt"]["N"])).timestamp(),
        "raw": f"Subject: Your invoice\r\n\r\n{HTML}".encode(),
    }


def chunks(*bodies: str) -> int:
    """Return the requests that SQS bills for one call: one per 64 KiB."""
    return max(1, ceil(sum(map(len, bodies)) / 65536))


def as_record(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a received message as a record of a Lambda event."""
    attributes = {name: {"stringValue": value["StringValue"]} for name, value in message.get("MessageAttributes", {}).items()}
    record = {"messageId": message["MessageId"], "body": message["Body"], "attributes": message["Attributes"]}
    return {**record, "messageAttributes": attributes}


# ── scenarios ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def from_the_queue(stack: Stack, **more: Any) -> None:
    stack.enqueue(more)
    stack.send()


def by_the_api(stack: Stack) -> None:
    stack.submit()
    stack.send()


def waits_for_its_tenant(stack: Stack) -> None:
    stack.call_providers("disable")
    stack.enqueue({})
    stack.send()
    waiting = stack.bill
    stack.bill = Bill()
    stack.call_providers("enable")
    stack.bill = waiting
    stack.sweep()
    stack.send()


def with_feedback(stack: Stack) -> None:
    from_the_queue(stack)
    stack.report(RecipientOutcome.DELIVERED)


def bounces(stack: Stack) -> None:
    """Each to a recipient of its own, of a tenant that has suppressions."""

    def to(number: int) -> str:
        return f"jo{number}@customer.example"

    stack.mark_suppressions()
    stack.enqueue({}, to)
    stack.send()
    stack.report(RecipientOutcome.BOUNCED, to)


SCENARIOS: Mapping[str, Callable[[Stack], None]] = {
    "queue": from_the_queue,
    "queue, with feedback": with_feedback,
    "queue, bounces": bounces,
    "API": by_the_api,
    "100 KB attached": lambda stack: from_the_queue(stack, attachments=ATTACHMENT),
    "waits for its tenant": waits_for_its_tenant,
}


def bill_of(scenario: Callable[[Stack], None], log: StringIO) -> dict[str, float]:
    """Return the units per million mails of a scenario; `log` receives the functions' output."""
    with mock_aws():
        os.environ.update(tables.create_stack_resources())
        forget_caches()
        boto3.client("ses", region_name="eu-west-1").verify_email_identity(EmailAddress=FROM)
        stack = Stack(os.environ)
        wiring.signer().fetch_key()  # once per process; the next line caches the decrypted configs for a minute
        with patch("mailer.adapters.providers.provider_factory.KEPT_FOR", timedelta(hours=1)):  # moto is slower than AWS
            stack.call_providers("put", "verify")
            log.seek(0)
            log.truncate()
            scenario(stack)
            assert stack.has_sent_all()
            stack.publish()
    written = sum(len(line) + LOG_EVENT for line in log.getvalue().splitlines())
    stack.bill.add("log bytes", ceil(written / MAILS / 200) * 200 * MAILS)  # lines vary by some bytes, with times and counters
    return stack.bill.of_a_million()


def forget_caches() -> None:
    """Clear the caches of the process."""
    settings.cache_clear()
    for built in vars(wiring).values():
        if hasattr(built, "cache_clear"):
            built.cache_clear()


# ── the page ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def table(bills: Mapping[str, Mapping[str, float]]) -> str:
    """Return the table of units per million mails, and their costs."""
    rows = [["", *bills, "price"], ["---", *("---:" for _ in bills), "---:"]]
    for unit, price in PRICES.items():
        of = f"${price * 1e9:.2f} a GB" if unit == "log bytes" else f"${price * 1e6:.4g} a million"
        rows.append([unit, *(amount(unit, bill[unit]) for bill in bills.values()), of])
    totals = (sum(bill[unit] * price for unit, price in PRICES.items()) for bill in bills.values())
    rows.append(["**a million mails**", *(f"**${total:.1f}0**" for total in totals), ""])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def amount(unit: str, count: float) -> str:
    """Format a count."""
    if not count:
        return "–"
    return f"{count / 1e9:.1f} GB" if unit == "log bytes" else f"{count / 1e6:.3g} M"


def by_line(bills: Mapping[str, Mapping[str, float]]) -> str:
    """Write what a million mails cost by line, without feedback and with it."""
    rows = [["", "without feedback", "with feedback"], ["---", "---:", "---:"]]
    pair = [bills["queue"], bills["queue, with feedback"]]
    for line, units in LINES.items():
        rows.append([line, *(f"${sum(bill[unit] * PRICES[unit] for unit in units):.2f}" for bill in pair)])
    rows.append(["**a million mails**", *(f"**${sum(bill[unit] * price for unit, price in PRICES.items()):.1f}0**" for bill in pair)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


LINES = {
    "SQS": ["SQS requests"],
    "DynamoDB, writes": ["DynamoDB write units"],
    "DynamoDB, reads": ["DynamoDB read units"],
    "EventBridge": ["EventBridge events"],
    "logs": ["log bytes"],
    "Lambda": ["Lambda requests", "Lambda GB-seconds"],
    "KMS": ["KMS requests"],
}
PAGES: Mapping[Path, Callable[[Mapping[str, Mapping[str, float]]], str]] = {DOCS / "deploy.md": table, DOCS / "scale.md": by_line}


def filled(path: Path, bills: Mapping[str, Mapping[str, float]]) -> str:
    """Return a page with its table generated between its marks."""
    begin, end = "<!-- costs: made by tests/tools/docs/costs.py -->", "<!-- costs end -->"
    head, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, found_too, tail = rest.partition(end)
    assert found, f"{path} lacks {begin}"
    assert found_too, f"{path} lacks {end}"
    return f"{head}{begin}\n\n{PAGES[path](bills)}\n\n{end}{tail}"


def main() -> None:
    """Write the tables into the pages; with `--print`, print the pages instead."""
    os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "eu-central-1"}
    with redirect_stdout(StringIO()) as log:
        bills = {name: bill_of(scenario, log) for name, scenario in SCENARIOS.items()}
    for path in PAGES:
        page = filled(path, bills)
        if sys.argv[1:] == ["--print"]:
            sys.stdout.write(page)
        else:
            path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
