"""Write the body of SES v2's SendEmail without what botocore does to a raw message: its base64 as a str, then as JSON, then as bytes.

For 40 MB those are four copies of 53 MB. Base64 needs no escaping in JSON, so here each chunk is encoded and appended once.
The bytes are those that botocore itself would have sent.
"""

from binascii import b2a_base64
from io import BytesIO
from typing import Any

from botocore.client import BaseClient

_CHUNK = 3 * 16384  # bytes; a multiple of 3, so that padding stands at the end alone

_KEPT = "mailer.raw_content"

_EMPTY = b'"Data": ""'
"""The raw message as botocore serializes it without its bytes. No other text can look like that: quotes within texts are escaped."""


def encode_fast(client: BaseClient) -> None:
    """Take over the encoding of `Content.Raw.Data` in a client of SES v2."""
    client.meta.events.register("before-parameter-build.sesv2.SendEmail", _take_out)
    client.meta.events.register("before-call.sesv2.SendEmail", _put_in)


def _take_out(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    """Keep the bytes from botocore's serializer."""
    context[_KEPT] = params["Content"]["Raw"]["Data"]
    params["Content"] = {"Raw": {"Data": b""}}


def _put_in(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    """Put the message where its place was kept; what signs and sends takes bytes as they are."""
    params["body"] = document(params["body"], context.pop(_KEPT))


def document(serialized: bytes, raw: bytes) -> bytes:
    """Return the serialized request, whose message is empty, with the raw message in base64 in it."""
    before, place, after = serialized.partition(_EMPTY)
    if not place:
        raise ValueError("the request has no place for a raw message")
    body = BytesIO()
    body.write(before + _EMPTY[:-1])
    view = memoryview(raw)
    for start in range(0, len(raw), _CHUNK):
        body.write(b2a_base64(view[start : start + _CHUNK], newline=False))
    body.write(_EMPTY[-1:] + after)
    return body.getvalue()
