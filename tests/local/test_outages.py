"""One request against every pair of service and fault."""

import pytest

from tools.local_aws.running import LocalAws
from tools.outages.cells import EXPECTED, VERIFY, Outage
from tools.outages.matrix import Matrix

API_GATEWAY = 29.0
"""Seconds after which API Gateway times out."""

CELLS = [pytest.param(place, outage, id=f"{place}, {outage}") for place, row in EXPECTED.items() for outage in row]
CALLS = [pytest.param(place, outage, id=f"{place}, {outage}") for place, row in VERIFY.items() for outage in row]


@pytest.fixture(scope="module")
def matrix(running_aws: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    """All cells, run in parallel."""
    matrix = Matrix(running_aws, tmp_path_factory.mktemp("outages"))
    matrix.run()
    return matrix


@pytest.mark.parametrize(("place", "outage"), CELLS)
def test_a_request_ends_as_expected(matrix: Matrix, place: str, outage: Outage) -> None:
    """During the fault its record has what is known; afterwards the mail goes out once, unless its outcome is unknown."""
    assert matrix.results[place, outage].course == EXPECTED[place][outage]


@pytest.mark.parametrize("outage", ["hang", "reset", "truncate", "slow"])
@pytest.mark.parametrize("place", ["SES", "SES, a large mail"])
def test_ses_is_called_once(matrix: Matrix, place: str, outage: Outage) -> None:
    """However the call ends, the SDK does not retry it."""
    assert matrix.results[place, outage].calls == 1


@pytest.mark.parametrize(("place", "outage"), CALLS)
def test_verify_answers_in_time(matrix: Matrix, place: str, outage: Outage) -> None:
    """Before API Gateway times out; the 503 says that a service is unavailable and that the caller may retry."""
    response = matrix.verified[place, outage]
    assert response.status == VERIFY[place][outage]
    assert response.seconds < API_GATEWAY
    if response.status == 503:
        assert response.media_type == "application/problem+json"
        assert response.body["code"] == "dependency_unavailable"
        assert response.body["hint"]


def test_an_outage_counts_against_no_tenant(running_aws: LocalAws, matrix: Matrix) -> None:
    """After all faults both providers are active, and no fault is recorded for them."""
    for tenant in matrix.tenants.values():
        assert running_aws.api.provider(tenant.tenant_id).body["status"] == "active"
        key = {"tenantId": {"S": tenant.tenant_id}}
        [row] = running_aws.client("dynamodb").query(
            TableName=running_aws.stack.outputs["ProvidersTableName"],
            KeyConditionExpression="tenantId = :tenant",
            ExpressionAttributeValues={":tenant": key["tenantId"]},
        )["Items"]
        assert "faultyRequests" not in row
