"""Rules of the services with few operations."""

import json
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from typing import Any

# S3: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html and …/UsingMetadata.html
MAX_OBJECT_KEY = 1024  # bytes
MAX_METADATA = 2048  # bytes, names and values together
# EventBridge: botocore's model of PutEvents; the user guide has how an entry is measured
MAX_EVENTS = 10
MAX_EVENTS_SIZE = 1_000_000  # bytes; "less than 1MB", read as the smaller of the two
TIME_SIZE = 14  # bytes of an entry's time
MAX_EVENT_NESTING = 1000
# SES: https://docs.aws.amazon.com/ses/latest/dg/quotas.html, and the API reference of MessageTag
MAX_MAIL = 10_485_760  # bytes
MAX_LARGE_MAIL = 41_943_040  # bytes, SES v2
MAX_RECIPIENTS = 50
MAX_TAGS = 50
_TAG = re.compile(r"[A-Za-z0-9_-]{1,256}")
# KMS does not document a limit for encryption contexts. Ours are a hundredth of this one, which other SDKs use.
MAX_CONTEXT = 8192  # characters
# STS: the API reference of AssumeRole
MAX_SESSION_POLICY = 2048  # characters


def s3(operation: str, params: Mapping[str, Any]) -> Iterator[str]:  # noqa: ARG001  # as the others
    """Yield the rules that a call of S3 breaks."""
    if (key := params.get("Key")) is not None and not 1 <= len(key.encode()) <= MAX_OBJECT_KEY:
        yield f"Key: takes {len(key.encode())} bytes"
    metadata = params.get("Metadata", {})
    if (size := sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items())) > MAX_METADATA:
        yield f"Metadata: takes {size} bytes, more than {MAX_METADATA}"
    if not all(text.isascii() and text.isprintable() for pair in metadata.items() for text in pair):
        yield "Metadata: is not printable ASCII, as headers must be"
    if not (given := params.get("ContentType", "a/b")).isascii() or not given.isprintable():
        yield "ContentType: is not printable ASCII, as headers must be"


def events(operation: str, params: Mapping[str, Any]) -> Iterator[str]:
    """Yield the rules that a call of EventBridge breaks."""
    if operation != "PutEvents":
        return
    entries = params["Entries"]
    if not 1 <= len(entries) <= MAX_EVENTS:
        yield f"{len(entries)} entries"
    if (size := sum(map(_event_size, entries))) >= MAX_EVENTS_SIZE:
        yield f"the entries take {size} bytes, more than {MAX_EVENTS_SIZE}"
    for entry in entries:
        if not entry.get("Source") or not entry.get("DetailType") or not entry.get("Detail"):
            yield "an entry lacks Source, DetailType or Detail"
        elif entry["Source"].startswith("aws."):
            yield "Source: is one of AWS's own"
        elif len(entry["DetailType"]) > 128:
            yield "DetailType: takes more than 128 characters"
        else:
            yield from _detail(entry["Detail"])


def _detail(text: str) -> Iterator[str]:
    try:
        detail = json.loads(text, parse_constant=_no_number)
    except ValueError:
        yield "Detail: is not JSON"
        return
    if not isinstance(detail, dict):
        yield "Detail: is not a JSON object"
    if _depth(detail) > MAX_EVENT_NESTING:
        yield "Detail: is nested too deep"


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _depth(value: Any) -> int:
    """Count the levels, without recursion."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def _event_size(entry: Mapping[str, Any]) -> int:
    texts = [entry.get(name, "") for name in ("Source", "DetailType", "Detail")] + entry.get("Resources", [])
    return sum(len(text.encode()) for text in texts) + (TIME_SIZE if "Time" in entry else 0)


def ses(operation: str, params: Mapping[str, Any]) -> Iterator[str]:
    """Yield the rules that a call of SES v1 breaks."""
    if operation != "SendRawEmail":
        return
    if (size := len(b64decode(params["RawMessage"]["Data"]))) > MAX_MAIL:
        yield f"RawMessage: takes {size} bytes, more than {MAX_MAIL}"
    if len(params.get("Destinations", [])) > MAX_RECIPIENTS:
        yield f"Destinations: {len(params['Destinations'])}, more than {MAX_RECIPIENTS}"
    if not all(address.isascii() for address in [params.get("Source", ""), *params.get("Destinations", [])]):
        yield "an address is not ASCII"
    yield from _tags(params, "Tags")


def sesv2(operation: str, params: Mapping[str, Any]) -> Iterator[str]:
    """Yield the rules that a call of SES v2 breaks: those of v1, with larger limits."""
    if operation != "SendEmail":
        return
    content, destination = params["Content"], params.get("Destination", {})
    if set(content) != {"Raw"} or len(content["Raw"]["Data"]) > MAX_LARGE_MAIL:
        yield f"Content: no raw message of at most {MAX_LARGE_MAIL} bytes"
    named = [params.get("FromEmailAddress", ""), *(address for listed in destination.values() for address in listed)]
    if not 1 <= len(named) - 1 <= MAX_RECIPIENTS:
        yield f"Destination: {len(named) - 1} addresses"
    if not all(address.isascii() for address in named):
        yield "an address is not ASCII"
    yield from _tags(params, "EmailTags")


def _tags(params: Mapping[str, Any], name: str) -> Iterator[str]:
    tags = params.get(name, [])
    if len(tags) > MAX_TAGS:
        yield f"{name}: {len(tags)}, more than {MAX_TAGS}"
    if name in params and "ConfigurationSetName" not in params:
        yield f"{name}: need a configuration set, and none is named"
    for tag in tags:
        if not _TAG.fullmatch(tag["Name"]) or not _TAG.fullmatch(tag["Value"]):
            yield f"{name}: {tag['Name']} or its value has characters that SES rejects"
    if len({tag["Name"] for tag in tags}) < len(tags):
        yield f"{name}: a name is given twice"


def kms(operation: str, params: Mapping[str, Any]) -> Iterator[str]:  # noqa: ARG001  # as the others
    """Yield the rules that a call of KMS breaks."""
    context = params.get("EncryptionContext", {})
    if (size := len(json.dumps(context, ensure_ascii=False))) > MAX_CONTEXT:
        yield f"EncryptionContext: {size} characters, more than {MAX_CONTEXT}"


def sts(operation: str, params: Mapping[str, Any]) -> Iterator[str]:  # noqa: ARG001  # as the others
    """Yield the rules that a call of STS breaks."""
    if len(params.get("Policy", "")) > MAX_SESSION_POLICY:
        yield f"Policy: more than {MAX_SESSION_POLICY} characters"
    if "Policy" in params:
        try:
            json.loads(params["Policy"])
        except ValueError:
            yield "Policy: is not JSON"
