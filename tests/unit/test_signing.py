"""Our signer's signatures equal botocore's, for any request."""

from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from mailer.adapters.botocore_patches.signing import QuickSigV4

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"  # AWS's example

names = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True) | st.sampled_from(
    ["Host", "X-Amz-Date", "Date", "User-Agent", "X-Amzn-Trace-Id", "Authorization", "X-Amz-Security-Token", "X-Amz-Content-SHA256"]
)
values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
urls = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["https", "http"]),
    st.sampled_from(["email.eu-west-1.amazonaws.com", "DynamoDB.eu-west-1.amazonaws.com:443", "localhost:4566", "[::1]:8080"]),
    st.sampled_from(["", "/", "/a/../b", "/a%20b/~c"]),
    st.sampled_from(["", "?b=2&a=1&a=0", "?x="]),
)
contexts = st.sampled_from(
    [
        {},
        {"payload_signing_enabled": True},
        {"payload_signing_enabled": False},
        {"checksum": {"request_algorithm": {"in": "trailer"}}},
        {"checksum": {"request_algorithm": {"in": "header"}}},
    ]
)


def signed(
    signer: type[SigV4Auth], context: dict[str, Any], token: str | None, headers: list[tuple[str, str]], **request: Any
) -> dict[str, str]:
    """Return the headers of a signed request."""
    aws_request = AWSRequest("POST", **request)
    for name, value in headers:
        aws_request.headers.add_header(name, value)
    aws_request.context.update(context)
    with patch("botocore.auth.get_current_datetime", return_value=NOW):
        signer(ReadOnlyCredentials("AKIDEXAMPLE", SECRET, token), "ses", "eu-west-1").add_auth(aws_request)
    return dict(aws_request.headers.items())


@given(
    url=urls,
    headers=st.lists(st.tuples(names, values), max_size=8),
    data=st.binary(max_size=200) | st.text(max_size=50) | st.dictionaries(names, values, max_size=3),
    token=st.none() | st.just("token"),
    context=contexts,
)
def test_signatures_equal_botocore_s(
    url: str, headers: list[tuple[str, str]], data: Any, token: str | None, context: dict[str, Any]
) -> None:
    """With duplicate headers, hosts with ports, any body and unsigned payloads the headers are identical."""
    botocore_headers = signed(SigV4Auth, context, token, headers, url=url, data=data)
    assert signed(QuickSigV4, context, token, headers, url=url, data=data) == botocore_headers
    assert botocore_headers["Authorization"]


@pytest.mark.parametrize("part", ["url", "data", "headers", "token"])
def test_every_part_of_a_request_changes_the_signature(part: str) -> None:
    """Otherwise one request could be replaced by another."""
    parts_before: dict[str, Any] = {"url": "https://a.example/", "data": b"a", "headers": [("X-A", "a")], "token": "a"}
    other = {"url": "https://b.example/", "data": b"b", "headers": [("X-A", "b")], "token": "b"}
    one, two = (signed(QuickSigV4, {}, **parts)["Authorization"] for parts in (parts_before, {**parts_before, part: other[part]}))
    assert one != two
