"""Hundreds of calls generated from the OpenAPI document: no 5xx, no undocumented response, no other tenant's data."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from schemathesis import Case

from support.api_fuzz import Api

API = Api()

calmly = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True, scope="module")
def _api() -> Iterator[None]:
    with API.up():
        yield


@API.schema().parametrize()
@settings(calmly, max_examples=10)
def test_every_response_is_as_documented(case: Case) -> None:
    """Valid and invalid calls of every operation, independent of each other."""
    API.reset()
    API.validate(case, case.call())


@pytest.mark.parametrize(
    ("paths", "reached"),
    [
        (".*", {("disableProvider", 200), ("deleteProvider", 204), ("getFeedback", 200)}),
        # Of all calls most meet a tenant that an earlier one disabled or deleted.
        ("/messages", {("sendMessage", 202), ("getMessage", 200), ("cancelMessage", 200)}),
    ],
    ids=["of all calls", "of messages"],
)
def test_chains_of_calls_get_documented_responses(paths: str, reached: set[tuple[str, int]]) -> None:
    """Responses are used in later calls: send, get, cancel, resolve, send again."""
    API.calls.clear()
    run_state_machine_as_test(API.state_machine(paths), settings=settings(calmly, max_examples=30, stateful_step_count=20))
    assert reached <= set(API.calls)
