"""SQS's rules: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html and the API reference."""

import re
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MAX_MESSAGE = 1024 * 1024  # bytes: one message with its attributes, and all entries of a batch together
MAX_ATTRIBUTES = 10
MAX_ENTRIES = 10
MAX_DELAY = 900  # seconds
MAX_HIDDEN = 43_200  # seconds
MAX_WAIT = 20  # seconds

_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_GROUP = re.compile(r"[A-Za-z0-9!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}")
_ENTRY_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
_NAME = re.compile(r"(?!(?i:aws|amazon)\.)(?!.*\.\.)(?!\.)[A-Za-z0-9_.-]{1,256}(?<!\.)")
_TYPE = re.compile(r"(String|Number|Binary)(\..{1,249})?")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")


def broken(operation: str, params: Mapping[str, Any]) -> Iterator[str]:
    """Yield the rules that a call breaks."""
    if operation == "SendMessage":
        yield from _message(params)
    elif "Entries" in params:
        yield from _batch(params["Entries"])
        for entry in params["Entries"]:
            yield from (f"entry {entry['Id']}: {fault}" for fault in _entry(operation, entry))
    elif operation == "ReceiveMessage":
        yield from _within("MaxNumberOfMessages", params, 1, MAX_ENTRIES)
        yield from _within("WaitTimeSeconds", params, 0, MAX_WAIT)
    yield from _within("VisibilityTimeout", params, 0, MAX_HIDDEN)


def _entry(operation: str, entry: Mapping[str, Any]) -> Iterator[str]:
    if operation == "SendMessageBatch":
        yield from _message(entry)
    yield from _within("VisibilityTimeout", entry, 0, MAX_HIDDEN)


def _batch(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not 1 <= len(entries) <= MAX_ENTRIES:
        yield f"{len(entries)} entries"
    ids = [entry["Id"] for entry in entries]
    if len(set(ids)) < len(ids):
        yield "two entries have the same id"
    yield from (f"{one!r} is not an entry's id" for one in ids if not _ENTRY_ID.fullmatch(one))
    if (size := sum(map(size_of, entries))) > MAX_MESSAGE:
        yield f"the batch takes {size} bytes, more than {MAX_MESSAGE}"


def _message(message: Mapping[str, Any]) -> Iterator[str]:
    body, attributes = message["MessageBody"], message.get("MessageAttributes", {})
    if not body:
        yield "the body is empty"
    if _FORBIDDEN.search(body):
        yield "the body has a character that SQS rejects"
    if (size := size_of(message)) > MAX_MESSAGE:
        yield f"the message takes {size} bytes, more than {MAX_MESSAGE}"
    yield from _within("DelaySeconds", message, 0, MAX_DELAY)
    if (group := message.get("MessageGroupId")) is not None and not _GROUP.fullmatch(group):
        yield f"{group!r} is not a message group"
    if len(attributes) > MAX_ATTRIBUTES:
        yield f"{len(attributes)} attributes, more than {MAX_ATTRIBUTES}"
    for name, value in attributes.items():
        yield from (f"attribute {name}: {fault}" for fault in _attribute(name, value))


def _attribute(name: str, value: Mapping[str, Any]) -> Iterator[str]:
    if not _NAME.fullmatch(name):
        yield "is not an attribute's name"
    if not _TYPE.fullmatch(value["DataType"]):
        yield f"{value['DataType']!r} is not a type"
        return
    kind = value["DataType"].partition(".")[0]
    content = value.get("BinaryValue" if kind == "Binary" else "StringValue")
    if not content:
        yield "is empty"
    elif kind != "Binary" and _FORBIDDEN.search(content):
        yield "has a character that SQS rejects"
    elif kind == "Number" and not _NUMBER.fullmatch(content):
        yield "is not a number"


def size_of(message: Mapping[str, Any]) -> int:
    """Return the billed bytes of a message: its body, and name, type and value of each attribute."""
    size = len(message.get("MessageBody", "").encode("utf-8", "surrogatepass"))
    for name, value in message.get("MessageAttributes", {}).items():
        size += len(name.encode()) + len(value["DataType"].encode())
        size += len(value.get("StringValue", "").encode("utf-8", "surrogatepass")) + len(b64decode(value.get("BinaryValue", "")))
    return size


def _within(name: str, params: Mapping[str, Any], least: int, most: int) -> Iterator[str]:
    if (value := params.get(name)) is not None and not (isinstance(value, int) and least <= value <= most):
        yield f"{name}: {value} is not between {least} and {most}"
