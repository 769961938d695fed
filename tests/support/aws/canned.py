"""Canned responses of AWS, for a client's `before-send` event."""

from collections.abc import Iterator

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders


class _Body:
    """The body of a response, as botocore reads it."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self) -> Iterator[bytes]:
        yield self._content


def answer(request: AWSPreparedRequest, status: int, body: bytes) -> AWSResponse:
    """Return the response to a request without sending it."""
    return AWSResponse(request.url, status, HTTPHeaders(), _Body(body))
