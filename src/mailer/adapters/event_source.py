"""Whether SendFunction's event source consumes the queue."""

from datetime import datetime
from typing import TYPE_CHECKING

from mailer.adapters.aws import dependency_errors, readable

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient


class LambdaEventSource:
    """`ports.EventSource` on Lambda's event source mapping."""

    def __init__(self, client: "LambdaClient", event_source: str) -> None:
        self._client = client
        self._event_source = event_source

    def running_since(self) -> datetime | None:
        """Return when the event source was last changed, if it is enabled: it has been enabled at least since then."""
        with dependency_errors("Lambda", "GetEventSourceMapping"):
            answer = self._client.get_event_source_mapping(UUID=self._event_source)
        with readable("Lambda", "GetEventSourceMapping"):
            return answer["LastModified"] if answer["State"] == "Enabled" else None
