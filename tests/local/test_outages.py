"""One service fails in one way: what becomes of a request then, in every pair of them."""

import pytest

from tools.local_aws.running import LocalAws
from tools.outages.cells import EXPECTED, VERIFY, Outage
from tools.outages.matrix import Matrix

API_GATEWAY = 29.0
"""Seconds after which API Gateway gives up."""

CELLS = [pytest.param(place, outage, id=f"{place}, {outage}") for place, row in EXPECTED.items() for outage in row]
CALLS = [pytest.param(place, outage, id=f"{place}, {outage}") for place, row in VERIFY.items() for outage in row]


@pytest.fixture(scope="module")
def matrix(running_aws: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    """All cells, played side by side."""
    matrix = Matrix(running_aws, tmp_path_factory.mktemp("outages"))
    matrix.play()
    return matrix


@pytest.mark.parametrize(("place", "outage"), CELLS)
def test_a_request_ends_as_the_design_says(matrix: Matrix, place: str, outage: Outage) -> None:
    """While the service fails its record says what is known; once it works again the mail goes out, once, unless nobody can know."""
    assert matrix.results[place, outage].course == EXPECTED[place][outage]


@pytest.mark.parametrize("outage", ["hang", "reset", "truncate", "slow"])
@pytest.mark.parametrize("place", ["SES", "SES, a large mail"])
def test_ses_is_asked_once(matrix: Matrix, place: str, outage: Outage) -> None:
    """However the call ends, nothing in the SDK makes it a second time."""
    assert matrix.results[place, outage].calls == 1


@pytest.mark.parametrize(("place", "outage"), CALLS)
def test_verify_answers_in_time(matrix: Matrix, place: str, outage: Outage) -> None:
    """Before API Gateway gives up: that a service of ours is away, and that the caller may try again."""
    told = matrix.verified[place, outage]
    assert told.status == VERIFY[place][outage]
    assert told.seconds < API_GATEWAY
    if told.status == 503:
        assert told.media_type == "application/problem+json"
        assert told.body["code"] == "dependency_unavailable"
        assert told.body["hint"]


def test_no_tenant_is_blamed_for_an_outage(running_aws: LocalAws, matrix: Matrix) -> None:
    """After all of this both providers are active, and no fault is counted against them."""
    for tenant in matrix.tenants.values():
        assert running_aws.api.provider(tenant.tenant_id).body["status"] == "active"
        key = {"tenantId": {"S": tenant.tenant_id}}
        [row] = running_aws.client("dynamodb").query(
            TableName=running_aws.stack.outputs["ProvidersTableName"],
            KeyConditionExpression="tenantId = :tenant",
            ExpressionAttributeValues={":tenant": key["tenantId"]},
        )["Items"]
        assert "faultyRequests" not in row
