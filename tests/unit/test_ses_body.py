"""The bodies of SendRawEmail and of SES v2's SendEmail: byte for byte what botocore would have sent."""

from typing import Any

import botocore.session
import pytest
from botocore.awsrequest import AWSRequest
from botocore.serialize import create_serializer
from hypothesis import given
from hypothesis import strategies as st

from mailer.adapters.botocore_patches.raw_content import document
from mailer.adapters.botocore_patches.raw_message import form

MODEL = botocore.session.get_session().get_service_model("ses").operation_model("SendRawEmail")
SERIALIZER = create_serializer("query", include_validation=True)


def botocore_request(parameters: dict[str, Any]) -> tuple[dict[str, str], bytes]:
    """Return the serialized fields, and botocore's body of them."""
    fields: dict[str, str] = SERIALIZER.serialize_to_request(parameters, MODEL)["body"]
    body = AWSRequest(method="POST", url="https://ses.example/", data=fields).body
    assert isinstance(body, bytes)
    return fields, body


def parameters(raw: bytes, **more: Any) -> dict[str, Any]:
    return {"Source": "a@x.example", "Destinations": ["b@y.example", "c+d@z.example"], **more, "RawMessage": {"Data": raw}}


@given(raw=st.binary(max_size=300), subject=st.text(max_size=20))
def test_the_form_is_equal_to_botocore_s(raw: bytes, subject: str) -> None:
    """It is equal for any bytes and any text in the other fields, so the signature is too."""
    tags = [{"Name": "campaign", "Value": subject}]
    fields, expected = botocore_request(parameters(raw, ConfigurationSetName="set", Tags=tags))
    assert form(fields, raw) == expected


@pytest.mark.parametrize("size", [0, 1, 2, 3, 49151, 49152, 49153, 98304, 200_001])
def test_chunks_are_joined_as_one_base64_text(size: int) -> None:
    """There is no padding at the borders of the chunks, and nothing is lost."""
    raw = bytes(i * 31 % 256 for i in range(size))
    fields, expected = botocore_request(parameters(raw))
    assert form(fields, raw) == expected


def test_the_serialized_empty_message_is_replaced() -> None:
    """Botocore serializes an empty message, which must not be sent as well."""
    fields, _ = botocore_request(parameters(b""))
    assert form(fields, b"hello").count(b"RawMessage.Data=") == 1


# ── SES v2 ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

V2_MODEL = botocore.session.get_session().get_service_model("sesv2").operation_model("SendEmail")
V2_SERIALIZER = create_serializer("rest-json", include_validation=True)


def v2_document(raw: bytes, **more: Any) -> bytes:
    """Return botocore's document of a request."""
    envelope = {"FromEmailAddress": "a@x.example", "Destination": {"ToAddresses": ["b@y.example"]}}
    request = {**envelope, **more, "Content": {"Raw": {"Data": raw}}}
    body: bytes = V2_SERIALIZER.serialize_to_request(request, V2_MODEL)["body"]
    return body


@given(raw=st.binary(max_size=300), text=st.text(max_size=20) | st.just('"Data": ""') | st.just('\\"Data": ""'))
def test_the_document_is_equal_to_botocore_s(raw: bytes, text: str) -> None:
    """It is equal for any bytes and any text in the other fields, also text that looks like the placeholder."""
    more = {"ConfigurationSetName": text, "EmailTags": [{"Name": "campaign", "Value": text}]}
    assert document(v2_document(b"", **more), raw) == v2_document(raw, **more)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 49151, 49152, 49153, 98304, 200_001])
def test_chunks_of_a_document_are_joined_as_one_base64_text(size: int) -> None:
    """There is no padding at the borders of the chunks."""
    raw = bytes(i * 31 % 256 for i in range(size))
    assert document(v2_document(b""), raw) == v2_document(raw)


def test_a_document_without_the_placeholder_is_not_sent() -> None:
    """If botocore's JSON changes, no mail is sent without its content."""
    with pytest.raises(ValueError, match="no place"):
        document(b'{"Content":{"Raw":{"Data":""}}}', b"x")
