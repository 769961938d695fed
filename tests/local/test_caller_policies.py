"""The documentation's policies for callers, on an API that enforces them: each policy on every route."""

import json
import secrets
from collections.abc import Iterator
from urllib.parse import urlsplit

import boto3
import pytest

from support.aws.caller_policies import EXAMPLE_API, MAY, OVERVIEW, all_routes, filled, policy
from tools.local_aws.api import Api
from tools.local_aws.running import LocalAws
from tools.local_aws.server import REGION

TENANT = "policies"
"""A tenant without a provider: allowed calls send and change nothing."""


@pytest.fixture(params=[*MAY, "overview"])
def caller(aws: LocalAws, request: pytest.FixtureRequest) -> Iterator[tuple[str, Api]]:
    """Yield an IAM user with one of the policies, for this API and tenant."""
    account = aws.client("sts").get_caller_identity()["Account"]
    api_id = urlsplit(aws.stack.api_url).path.split("/")[3]
    here = f"arn:aws:execute-api:{REGION}:{account}:{api_id}"
    document = json.dumps(policy(request.param)).replace(EXAMPLE_API, here).replace("/tenants/acme/", f"/tenants/{TENANT}/")
    assert here in document
    iam, name = aws.client("iam"), f"caller-{secrets.token_hex(4)}"
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="calls", PolicyDocument=document)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    yield request.param, Api(aws.stack.api_url, boto3.Session(key["AccessKeyId"], key["SecretAccessKey"], region_name=REGION))
    iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
    iam.delete_user_policy(UserName=name, PolicyName="calls")
    iam.delete_user(UserName=name)


def allowed_routes(api: Api, tenant_id: str) -> set[str]:
    """Return the routes on which the call reaches the service, whatever its response."""
    answers = {route: api.call(*filled(route, tenant_id), body={}) for route in all_routes() - {"GET /openapi.json"}}
    assert {answer.status for answer in answers.values()} <= {200, 204, 400, 403, 404, 409}
    return {route for route, answer in answers.items() if answer.status != 403}


def test_a_caller_may_call_what_its_policy_allows_and_nothing_else(caller: tuple[str, Api]) -> None:
    """Its routes for its tenant, and nothing for another tenant whose id has the same prefix."""
    name, api = caller
    assert allowed_routes(api, TENANT) == MAY.get(name, OVERVIEW)
    assert allowed_routes(api, f"{TENANT}2") == (set() if name in MAY else OVERVIEW)
