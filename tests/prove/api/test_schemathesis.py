"""Thousands of calls generated from the OpenAPI document: no 5xx, no undocumented response, no other tenant's data."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from schemathesis import Case

from support.api_fuzz import TENANTS, Api

API = Api()

# As many of each operation, and so many chains, that together they are well over five thousand.
thoroughly = settings(deadline=None, max_examples=250, database=None, suppress_health_check=list(HealthCheck), print_blob=True)


@pytest.fixture(autouse=True, scope="module")
def _api() -> Iterator[None]:
    with API.up():
        yield


@API.schema().parametrize()
@thoroughly
def test_every_response_is_as_documented(case: Case[Any]) -> None:
    """Valid and invalid calls of every operation, for two tenants and for generated ids."""
    API.reset()
    API.validate(case, case.call())


def test_chains_of_calls_get_documented_responses() -> None:
    """Responses are used in later calls, in chains of twenty."""
    run_state_machine_as_test(API.state_machine(), settings=settings(thoroughly, max_examples=100, stateful_step_count=20))


def test_enough_calls_were_made() -> None:
    """At least 5 000, with successes of every operation."""
    assert sum(API.calls.values()) >= 5_000, API.calls
    succeeded = {name for name, status in API.calls if status < 300}
    assert succeeded == {name for name, _ in API.calls}
    print(f"{sum(API.calls.values())} calls for {' and '.join(TENANTS)}")
