"""Hundreds of signed calls from the OpenAPI document to the deployed API, through API Gateway; then their mail is sent."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, settings
from requests import PreparedRequest
from requests.auth import AuthBase
from schemathesis import Case

from support.api_fuzz import LEFT_OUT, SHARED_IDS, TENANTS, accepted
from support.fakes.messages import a_body
from tools.local_aws.running import LocalAws
from tools.local_aws.server import REGION
from tools.local_aws.stack import platform_session

SCHEMA = accepted()
TOMORROW = (datetime.now(UTC) + timedelta(days=1)).isoformat()
CALLS: Counter[tuple[str, int]] = Counter()


class Signed(AuthBase):
    """Signs a request as an AWS SDK does."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        signed = AWSRequest(
            request.method, request.url, headers={"Content-Type": request.headers.get("Content-Type", "")}, data=request.body
        )
        SigV4Auth(self._credentials, "execute-api", REGION).add_auth(signed)
        request.headers.update(dict(signed.headers.items()))
        return request


@pytest.fixture(scope="module")
def signed(running_aws: LocalAws) -> Signed:
    """Return the platform's signature; both tenants have an active provider, and requests scheduled for another day."""
    for tenant_id in TENANTS:
        running_aws.active_tenant(tenant_id)
        requests = [a_body(request_id, sendAt=TOMORROW) for request_id in SHARED_IDS]
        assert {answer.status for answer in running_aws.mail.send_batch(tenant_id, requests)} == {202}
    keys: Any = platform_session().get_credentials()
    return Signed(keys)


@SCHEMA.parametrize()
@settings(deadline=None, derandomize=True, database=None, max_examples=30, suppress_health_check=list(HealthCheck))
def test_every_response_is_as_documented(running_aws: LocalAws, signed: Signed, case: Case[Any]) -> None:
    """Whether API Gateway or a function responds."""
    operation = case.operation.definition.raw["operationId"]
    answer = case.call(base_url=running_aws.stack.api_url, auth=signed)
    CALLS[operation, answer.status_code] += 1
    case.validate_response(answer, excluded_checks=LEFT_OUT)
    if (operation, answer.status_code) == ("deleteProvider", 204):
        running_aws.active_tenant(case.path_parameters["tenantId"])


def test_the_calls_reached_the_services() -> None:
    """Some of every operation succeeded, except `resolve`: nothing is unknown here."""
    print(f"{sum(CALLS.values())} calls: {dict(CALLS)}")
    assert {name for name, _ in CALLS} - {name for name, status in CALLS if status < 300} == {"resolveMessage"}
