"""What the direct calls write and what a plain success of theirs looks like; anything else is botocore's to write and to read."""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mailer.adapters.botocore_patches.raw_message import form


@dataclass(frozen=True, slots=True)
class Format:
    """How one operation is written and read."""

    write: Callable[[Mapping[str, Any]], bytes | None]
    """Return the body of a request; None where botocore must write it."""
    read: Callable[[bytes], dict[str, Any] | None]
    """Return what a plain success says; None for any other answer."""
    refusals: frozenset[str] | None
    """Codes of errors that answer the question; after anything else the call is made again, by botocore. None: it is never made again."""


# -- DynamoDB: attribute values are the same in Python and on the wire, but for bytes, which travel in base64 ------------


def write_json(params: Mapping[str, Any]) -> bytes:
    """Write a request with attribute values in it."""
    return json.dumps(params, default=_in_base64, separators=(",", ":")).encode("ascii")


def _in_base64(octets: Any) -> str:
    return b64encode(bytes(octets)).decode("ascii")


def read_json(body: bytes) -> dict[str, Any] | None:
    """Read an answer with attribute values in it."""
    try:
        answer = json.loads(body, object_hook=_with_bytes)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _with_bytes(found: dict[str, Any]) -> Mapping[str, Any]:
    """Decode a value of type B or BS; an attribute of that name has a map for its value."""
    if isinstance(octets := found.get("B"), str):
        return {"B": b64decode(octets)}
    if isinstance(several := found.get("BS"), list):
        return {"BS": [b64decode(octets) for octets in several]}
    return found


# -- SES v1: a form there, XML back --------------------------------------------------------------------------------------


def write_form(params: Mapping[str, Any]) -> bytes | None:
    """Write SendRawEmail."""
    fields = {"Action": "SendRawEmail", "Version": "2010-12-01", **dict(_flat("", params))}
    raw = fields.pop("RawMessage.Data", None)
    return form(fields, raw) if isinstance(raw, bytes) and all(isinstance(value, str) for value in fields.values()) else None


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the fields of the query protocol: `Tags.member.1.Name` stands for the name in the first of the tags."""
    match value:
        case Mapping():
            for key, member in value.items():
                yield from _flat(f"{name}.{key}" if name else key, member)
        case []:
            yield name, ""
        case list():
            for number, member in enumerate(value, 1):
                yield from _flat(f"{name}.member.{number}", member)
        case _:
            yield name, value


_ACCEPTED = re.compile(
    rb"\s*<SendRawEmailResponse(?: xmlns=\"[^\"<>&]*\")?>\s*<SendRawEmailResult>\s*<MessageId>([A-Za-z0-9._@-]+)</MessageId>\s*"
    rb"</SendRawEmailResult>\s*<ResponseMetadata>\s*<RequestId>[A-Za-z0-9-]*</RequestId>\s*</ResponseMetadata>\s*</SendRawEmailResponse>\s*"
)


def read_accepted(body: bytes) -> dict[str, Any] | None:
    """Read the MessageId of a mail that SES accepted."""
    accepted = _ACCEPTED.fullmatch(body)
    return {"MessageId": accepted[1].decode("ascii")} if accepted else None


# ------------------------------------------------------------------------------------------------------------------------

_ITEMS = Format(write_json, read_json, frozenset({"ConditionalCheckFailedException"}))

DYNAMODB: Mapping[str, Format] = {"UpdateItem": _ITEMS, "GetItem": _ITEMS, "BatchGetItem": _ITEMS}
SES: Mapping[str, Format] = {"SendRawEmail": Format(write_form, read_accepted, None)}
