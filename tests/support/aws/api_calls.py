"""Call the functions behind the API as API Gateway does, with the events of `events/`."""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.servers.gateway import must_be_documented

EVENTS = Path(__file__).resolve().parents[3] / "events"

Handler = Callable[[Mapping[str, Any], Any], Mapping[str, Any]]


@dataclass
class Context:
    """The attributes of Lambda's context that the functions use."""

    aws_request_id: str = "6bc28136-xmpl"
    function_name: str = "function"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:eu-central-1:123456789012:function:function"
    seconds_left: int = 28

    def get_remaining_time_in_millis(self) -> int:
        return self.seconds_left * 1000


@dataclass
class SendContext(Context):
    """Context of SendFunction, which has 60 s: with 28 it would requeue messages that it cannot start within a second."""

    seconds_left: int = 60


@dataclass(frozen=True)
class Answer:
    """The response that API Gateway would pass on."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def event(name: str) -> dict[str, Any]:
    """Load a file of `events/`."""
    loaded: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def call(handler: Handler, event: Mapping[str, Any], *, tenant: str | None = None, body: object = None) -> Answer:
    """Send an event, optionally for another tenant or with another body (text unchanged, anything else as JSON)."""
    sent = copy.deepcopy(dict(event))
    if tenant is not None:
        sent["path"] = sent["path"].replace(sent["pathParameters"]["tenantId"], tenant, 1)
        sent["pathParameters"] = {"tenantId": tenant}
    if body is not None:
        sent["body"] = body if isinstance(body, str) else json.dumps(body)
    response = handler(sent, Context())
    must_be_documented(sent, response["statusCode"])
    headers = {name: values[0] for name, values in response.get("multiValueHeaders", {}).items()}
    return Answer(response["statusCode"], headers, response.get("body") or "")
