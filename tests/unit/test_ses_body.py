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


def botocores(parameters: dict[str, Any]) -> tuple[dict[str, str], bytes]:
    """The serialized fields, and the body that botocore makes of them."""
    fields: dict[str, str] = SERIALIZER.serialize_to_request(parameters, MODEL)["body"]
    body = AWSRequest(method="POST", url="https://ses.example/", data=fields).body
    assert isinstance(body, bytes)
    return fields, body


def parameters(raw: bytes, **more: Any) -> dict[str, Any]:
    return {"Source": "a@x.example", "Destinations": ["b@y.example", "c+d@z.example"], **more, "RawMessage": {"Data": raw}}


@given(raw=st.binary(max_size=300), subject=st.text(max_size=20))
def test_the_form_is_what_botocore_would_have_sent(raw: bytes, subject: str) -> None:
    """Any bytes, any text in the other fields: equal, so that the signature is too."""
    tags = [{"Name": "campaign", "Value": subject}]
    fields, expected = botocores(parameters(raw, ConfigurationSetName="set", Tags=tags))
    assert form(fields, raw) == expected


@pytest.mark.parametrize("size", [0, 1, 2, 3, 49151, 49152, 49153, 98304, 200_001])
def test_chunks_join_without_a_seam(size: int) -> None:
    """Around the borders of the chunks the base64 stays one: no padding inside, nothing lost."""
    raw = bytes(i * 31 % 256 for i in range(size))
    fields, expected = botocores(parameters(raw))
    assert form(fields, raw) == expected


def test_the_serialized_message_is_replaced_not_repeated() -> None:
    """What botocore serialized for the message is empty, and does not go out beside it."""
    fields, _ = botocores(parameters(b""))
    assert form(fields, b"hello").count(b"RawMessage.Data=") == 1


# ── SES v2 ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

V2_MODEL = botocore.session.get_session().get_service_model("sesv2").operation_model("SendEmail")
V2_SERIALIZER = create_serializer("rest-json", include_validation=True)


def v2_document(raw: bytes, **more: Any) -> bytes:
    """What botocore itself makes of a request."""
    envelope = {"FromEmailAddress": "a@x.example", "Destination": {"ToAddresses": ["b@y.example"]}}
    request = {**envelope, **more, "Content": {"Raw": {"Data": raw}}}
    body: bytes = V2_SERIALIZER.serialize_to_request(request, V2_MODEL)["body"]
    return body


@given(raw=st.binary(max_size=300), text=st.text(max_size=20) | st.just('"Data": ""') | st.just('\\"Data": ""'))
def test_the_document_is_what_botocore_would_have_sent(raw: bytes, text: str) -> None:
    """Any bytes; any text in the other fields, also one that looks like the message's place."""
    more = {"ConfigurationSetName": text, "EmailTags": [{"Name": "campaign", "Value": text}]}
    assert document(v2_document(b"", **more), raw) == v2_document(raw, **more)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 49151, 49152, 49153, 98304, 200_001])
def test_chunks_of_a_document_join_without_a_seam(size: int) -> None:
    """Around the borders of the chunks the base64 stays one."""
    raw = bytes(i * 31 % 256 for i in range(size))
    assert document(v2_document(b""), raw) == v2_document(raw)


def test_a_document_without_a_place_for_the_message_is_not_sent() -> None:
    """Should botocore write JSON otherwise one day, no mail goes out without its content."""
    with pytest.raises(ValueError, match="no place"):
        document(b'{"Content":{"Raw":{"Data":""}}}', b"x")
