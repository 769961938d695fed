"""Further invocations of SweepFunction, and what they are told."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from mailer.adapters.aws import dependency_errors
from mailer.domain.moments import from_millis, to_millis
from mailer.ports import SweepPart

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient


class LambdaSweepInvocations:
    """`ports.SweepInvocations` on Lambda's asynchronous calls."""

    def __init__(self, client: "LambdaClient", function: str) -> None:
        self._client = client
        self._function = function

    def begin(self, part: SweepPart) -> None:
        """Start an invocation for a part."""
        with dependency_errors("Lambda", "Invoke"):
            self._client.invoke(FunctionName=self._function, InvocationType="Event", Payload=json.dumps(to_event(part)).encode())


class _PartEvent(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, alias_generator=to_camel)

    shards: list[int] = Field(min_length=1)
    share: float = Field(gt=0, le=1)
    ends_at: int
    """Epoch milliseconds."""


def to_event(part: SweepPart) -> Mapping[str, Any]:
    """Write the event that an invocation gets."""
    return {"sweep": {"shards": list(part.shards), "share": part.share, "endsAt": to_millis(part.ends_at)}}


def read_part(event: Mapping[str, Any]) -> SweepPart | None:
    """Read what an invocation is to sweep; None if a schedule called it, for a whole run.

    Raises:
        pydantic.ValidationError: it is no part.
    """
    if "sweep" not in event:
        return None
    read = _PartEvent.model_validate(event["sweep"])
    return SweepPart(shards=read.shards, share=read.share, ends_at=from_millis(read.ends_at))
