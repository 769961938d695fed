"""A fake AWS in one process: the operations of six services that sending uses, over TLS, each with a fixed latency.

    python -m tools.bench.send.aws CERTIFICATE

prints its addresses as one line of JSON and serves until its standard input is closed. It checks no signature and no condition: every
request of the benchmark is new, and only the cost of the calls is measured. `GET /` on the plain HTTP address `control` returns the counts;
`POST /` there lists suppressed addresses (`Tables.list_addresses`).
"""

import asyncio
import base64
import hashlib
import json
import re
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from support.servers import certificates
from tools.bench.send.workload import octets

LATENCY = {"dynamodb": 0.005, "kms": 0.010, "ses": 0.050, "s3": 0.020, "sqs": 0.010, "events": 0.010, "control": 0.0}
"""Seconds between a request's last byte and its response."""

HOST = "127.0.0.1"
KEY_ARN = "arn:aws:kms:eu-central-1:000000000000:key/00000000-0000-4000-8000-000000000000"
KEYS = {
    "providers": ["tenantId"],
    "messages": ["tenantShard", "requestId"],
    "pacing": ["account"],
    "sessions": ["name"],
    "suppressions": ["tenantId", "email"],
    "feedback": ["pk", "sk"],
}
"""The key attributes of each table."""

ACCEPTED = (
    '<SendRawEmailResponse xmlns="http://ses.amazonaws.com/doc/2010-12-01/"><SendRawEmailResult><MessageId>{id}</MessageId>'
    "</SendRawEmailResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></SendRawEmailResponse>"
)

Item = dict[str, Any]


@dataclass
class Tables:
    """DynamoDB's items, and the operations that sending and sweeping use."""

    items: dict[tuple[str, ...], Item] = field(default_factory=dict)
    listed: Item = field(default_factory=dict)
    """The item of every listed address, without the address."""
    addresses: set[str] = field(default_factory=set)
    """Listed addresses, all of one tenant: only the keys are stored, up to a million."""
    shards: defaultdict[str, deque[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(deque))
    """The keys in the sweep index, in the order of insertion."""

    def _key(self, table: str, item: Item) -> tuple[str, ...]:
        return (table, *(item[name]["S"] for name in KEYS[table]))

    def list_addresses(self, item: Item, pattern: str, step: int, count: int) -> None:
        """Replace the listed addresses by `count` of one tenant, made from every `step`th number; each has the attributes of `item`."""
        self.listed, self.addresses = item, {pattern.format(number * step) for number in range(count)}

    def _found(self, key: tuple[str, ...]) -> Item | None:
        if key in self.items:
            return self.items[key]
        if key[0] == "suppressions" and key[2] in self.addresses and self.listed["tenantId"]["S"] == key[1]:
            return {**self.listed, "email": {"S": key[2]}}
        return None

    def get_item(self, request: Item) -> Item:
        found = self.items.get(self._key(request["TableName"], request["Key"]))
        return {"Item": found} if found else {}

    def batch_get_item(self, request: Item) -> Item:
        found = {
            table: [item for wanted in asked["Keys"] if (item := self._found(self._key(table, wanted)))]
            for table, asked in request["RequestItems"].items()
        }
        return {"Responses": found, "UnprocessedKeys": {}}

    def put_item(self, request: Item) -> Item:
        self.items[self._key(request["TableName"], request["Item"])] = request["Item"]
        return {}

    def update_item(self, request: Item) -> Item:
        key = self._key(request["TableName"], request["Key"])
        item = self.items.setdefault(key, dict(request["Key"]))
        was_due = "sweepShard" in item
        update(item, request)
        if "sweepShard" in item and not was_due:
            self.shards[item["sweepShard"]["S"]].append(key)
        return {"Attributes": item} if request.get("ReturnValues") == "ALL_NEW" else {}

    def query(self, request: Item) -> Item:
        """Return what is due in a shard, and remove from the index what is no longer due: here nothing becomes due twice."""
        values, limit = request["ExpressionAttributeValues"], request["Limit"]
        shard, now = self.shards[values[":shard"]["S"]], int(values[":now"]["N"])
        found = []
        for _ in range(len(shard)):
            key = shard.popleft()
            if "sweepAt" in (item := self.items[key]) and int(item["sweepAt"]["N"]) <= now:
                found.append(key)
            if len(found) == limit:
                break
        shard.extendleft(reversed(found))
        names = KEYS[request["TableName"]]
        return {"Items": [{name: self.items[key][name] for name in names} for key in found]}


SETS = re.compile(r"(\S+) = (if_not_exists\(\S+, \S+\)|[^,\s]+)(?: \+ (:\w+))?(?:, |$)")


def update(item: Item, request: Item) -> None:
    """Apply an update expression of the form `SET a = :b, c = if_not_exists(c, :d) + :e REMOVE f`."""
    sets, _, removes = request["UpdateExpression"].removeprefix("SET ").partition(" REMOVE ")
    names, values, before = request.get("ExpressionAttributeNames", {}), request.get("ExpressionAttributeValues", {}), dict(item)

    def value(operand: str) -> Item:
        if operand.startswith("if_not_exists("):
            attribute, default = operand[14:-1].split(", ")
            return before.get(names.get(attribute, attribute)) or value(default)
        found: Item = values[operand] if operand in values else before[names.get(operand, operand)]
        return found

    for attribute, operand, addend in SETS.findall(sets):
        new = value(operand)
        if addend:
            new = {"N": f"{float(new['N']) + float(values[addend]['N']):.6f}".rstrip("0").rstrip(".")}
        item[names.get(attribute, attribute)] = new
    for attribute in filter(None, removes.split(", ")):
        item.pop(names.get(attribute, attribute), None)


@dataclass
class Aws:
    """The services, and the counts of their calls."""

    tables: Tables = field(default_factory=Tables)
    counts: Counter[str] = field(default_factory=Counter)
    ids: Callable[[], int] = count(1).__next__

    def answer(self, service: str, head: str, body: bytes) -> tuple[str, bytes]:
        """Return the response to one request: content type and content."""
        operation = self._operation(head)
        self.counts[f"{service}.{operation}"] += 1
        answered: bytes | str | Item = ANSWERS[service](self, head.split(" ", 2)[1] if service == "s3" else operation, body)
        if isinstance(answered, dict):
            return "application/x-amz-json-1.0", json.dumps(answered).encode()
        return ("text/xml", answered.encode()) if isinstance(answered, str) else ("application/octet-stream", answered)

    @staticmethod
    def _operation(head: str) -> str:
        if target := re.search(r"\r\nx-amz-target: *\S+\.(\w+)", head, re.IGNORECASE):
            return target[1]
        return "SendEmail" if "/v2/email/outbound-emails" in head else head.partition(" ")[0]

    def dynamodb(self, operation: str, body: bytes) -> Item:
        answered: Item = getattr(self.tables, OPERATIONS[operation])(json.loads(body))
        return answered

    def kms(self, operation: str, body: bytes) -> Item:
        """Return data keys whose ciphertext is the key itself, and a key to sign with."""
        if operation == "Decrypt":
            return {"KeyId": KEY_ARN, "Plaintext": json.loads(body)["CiphertextBlob"], "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}
        if operation == "GenerateMac":
            return {"KeyId": KEY_ARN, "Mac": base64.b64encode(bytes(32)).decode(), "MacAlgorithm": "HMAC_SHA_256"}
        key = base64.b64encode(hashlib.sha256(str(self.ids()).encode()).digest()).decode()
        return {"KeyId": KEY_ARN, "Plaintext": key, "CiphertextBlob": key}

    def ses(self, operation: str, _: bytes) -> Item | str:
        message_id = f"m{self.ids()}"
        return {"MessageId": message_id} if operation == "SendEmail" else ACCEPTED.format(id=message_id)

    def s3(self, target: str, _: bytes) -> bytes:
        """Return a file of the size that its key ends with."""
        return octets(int(target.partition("?")[0].rpartition("/")[2]))

    def sqs(self, _: str, body: bytes) -> Item:
        """Accept every entry of a SendMessageBatch."""
        return {"Successful": [_queued(entry) for entry in json.loads(body)["Entries"]]}

    def events(self, _: str, body: bytes) -> Item:
        return {"FailedEntryCount": 0, "Entries": [{"EventId": "e"} for _ in json.loads(body)["Entries"]]}

    def control(self, _: str, body: bytes) -> Item:
        if body:
            self.tables.list_addresses(**json.loads(body))
        statuses = Counter(item["status"]["S"] for key, item in self.tables.items.items() if key[0] == "messages")
        return {**self.counts, **{f"status.{status}": n for status, n in statuses.items()}}


OPERATIONS = {
    "GetItem": "get_item",
    "BatchGetItem": "batch_get_item",
    "PutItem": "put_item",
    "UpdateItem": "update_item",
    "Query": "query",
}


ANSWERS: Mapping[str, Callable[[Aws, str, bytes], Any]] = {service: getattr(Aws, service) for service in LATENCY}


def _queued(entry: Item) -> Item:
    digest = hashlib.md5(entry["MessageBody"].encode(), usedforsecurity=False).hexdigest()
    return {"Id": entry["Id"], "MessageId": "q", "MD5OfMessageBody": digest}


class Connection(asyncio.Protocol):
    """One connection; its requests are sequential."""

    def __init__(self, aws: Aws, service: str) -> None:
        self._aws = aws
        self._service = service
        self._transport: asyncio.Transport
        self._got = bytearray()
        self._body_at = self._wanted = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._aws.counts[f"{self._service}.handshakes"] += 1

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._wanted and (end := self._got.find(b"\r\n\r\n")) >= 0:
            self._body_at = end + 4
            head = self._got[:end].lower()
            length = re.search(rb"\r\ncontent-length: *(\d+)", head)
            self._wanted = self._body_at + (int(length[1]) if length else 0)
        if self._wanted and len(self._got) >= self._wanted:
            asyncio.get_running_loop().call_later(LATENCY[self._service], self._reply)

    def _reply(self) -> None:
        head, body = self._got[: self._body_at].decode("latin-1"), bytes(self._got[self._body_at :])
        self._got, self._body_at, self._wanted = bytearray(), 0, 0
        kind, content = self._aws.answer(self._service, head, body)
        self._transport.write(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)


async def serve(certificate: Path) -> None:
    """Open a port for each service, print the addresses, and serve until standard input is closed."""
    loop, aws, tls = asyncio.get_running_loop(), Aws(), certificates.server_context(certificate)
    addresses: dict[str, str] = {}
    for service in LATENCY:
        secured = None if service == "control" else tls
        server = await loop.create_server(partial(Connection, aws, service), HOST, 0, backlog=256, ssl=secured)
        addresses[service] = f"{'https' if secured else 'http'}://{HOST}:{server.sockets[0].getsockname()[1]}"
    print(json.dumps(addresses), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
