"""Serialize UpdateItem as plain JSON: botocore walks each attribute value through its model of DynamoDB, in both directions.

A message makes two such calls, of 28 attributes each: 0.17 ms to write and 0.2 ms to read, where JSON alone takes a tenth of that. An
attribute value is the same in Python and on the wire, except for bytes, which are base64.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from botocore.client import BaseClient

_KEPT = "mailer.raw_update"


def pass_updates(client: BaseClient) -> None:
    """Take over the serialization and parsing of UpdateItem in a DynamoDB client; botocore still parses errors."""
    for event, handler in (("before-parameter-build", _take_out), ("before-call", _put_in), ("before-parse", _read)):
        client.meta.events.register(f"{event}.dynamodb.UpdateItem", handler, unique_id=f"{_KEPT}.{event}")


def _take_out(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    """Take the request out before botocore's serializer, except for the required members."""
    context[_KEPT] = dict(params)
    for name in params.keys() - {"TableName", "Key"}:
        del params[name]


def _put_in(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    params["body"] = json.dumps(context.pop(_KEPT), default=_in_base64, separators=(",", ":")).encode("ascii")


def _in_base64(octets: Any) -> str:
    return b64encode(bytes(octets)).decode("ascii")


def _read(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Parse an answer instead of botocore's parser, which still gets an empty one."""
    if response_dict["status_code"] != HTTPStatus.OK:
        return
    try:
        answer = json.loads(response_dict["body"], object_hook=_with_bytes)
    except ValueError:
        return
    if isinstance(answer, dict):  # botocore fails on any other, where an answer without attributes is a failure of DynamoDB
        customized_response_dict.update(answer)
    response_dict["body"] = b"{}"


def _with_bytes(found: dict[str, Any]) -> Mapping[str, Any]:
    """Decode a value of type B or BS; an attribute of that name has a map for its value."""
    if isinstance(octets := found.get("B"), str):
        return {"B": b64decode(octets)}
    if isinstance(several := found.get("BS"), list):
        return {"BS": [b64decode(octets) for octets in several]}
    return found
