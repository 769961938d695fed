"""Whether the queue's event source mapping is enabled, and since when."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from mailer.adapters.event_source import LambdaEventSource
from mailer.domain.errors import DependencyError
from support.fakes.ports import NOON


class Lambda:
    """A client with one canned response."""

    def __init__(self, response: Any) -> None:
        self.response = response

    def get_event_source_mapping(self, *, UUID: str) -> Any:  # noqa: N803 - boto3's name
        assert UUID == "source"
        if isinstance(self.response, Exception):
            raise self.response
        return self.response


def running_since(response: Any) -> Any:
    client: Any = Lambda(response)
    return LambdaEventSource(client, "source").running_since()


@pytest.mark.parametrize("state", ["Creating", "Enabling", "Disabling", "Disabled", "Updating", "Deleting"])
def test_a_mapping_in_another_state_is_not_running(state: str) -> None:
    """One that is being enabled is not running yet."""
    assert running_since({"State": state, "LastModified": NOON}) is None


def test_a_mapping_runs_since_its_last_change() -> None:
    """It may run longer, if the change did not enable it."""
    assert running_since({"State": "Enabled", "LastModified": NOON}) == NOON


@pytest.mark.parametrize("response", [{}, None, ClientError({"Error": {"Code": "AccessDeniedException"}}, "GetEventSourceMapping")])
def test_an_invalid_response_is_an_error(response: Any) -> None:
    """The sweeper then assumes that the mapping is enabled."""
    with pytest.raises(DependencyError, match="Lambda did not complete GetEventSourceMapping"):
        running_since(response)
