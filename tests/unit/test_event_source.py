"""Whether the queue is being worked on, as Lambda tells of the event source."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from mailer.adapters.event_source import LambdaEventSource
from mailer.domain.errors import DependencyError
from support.fakes.ports import NOON


class Lambda:
    """A client that answers as told."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def get_event_source_mapping(self, *, UUID: str) -> Any:  # noqa: N803 - boto3's name
        assert UUID == "source"
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def told(answer: Any) -> Any:
    client: Any = Lambda(answer)
    return LambdaEventSource(client, "source").running_since()


@pytest.mark.parametrize("state", ["Creating", "Enabling", "Disabling", "Disabled", "Updating", "Deleting"])
def test_a_source_that_is_not_on_takes_nothing(state: str) -> None:
    """Nor one that is about to be on."""
    assert told({"State": state, "LastModified": NOON}) is None


def test_a_source_is_on_since_it_was_changed() -> None:
    """At least."""
    assert told({"State": "Enabled", "LastModified": NOON}) == NOON


@pytest.mark.parametrize("answer", [{}, None, ClientError({"Error": {"Code": "AccessDeniedException"}}, "GetEventSourceMapping")])
def test_no_answer_is_a_failure(answer: Any) -> None:
    """The sweeper goes on as if it were on."""
    with pytest.raises(DependencyError, match="Lambda did not complete GetEventSourceMapping"):
        told(answer)
