"""API Gateway denies unsigned calls, with an error in the service's own format."""

from datetime import UTC, datetime, timedelta

import boto3

from mailer.domain.errors import CODES
from tools.local_aws.api import Answer, Api
from tools.local_aws.running import LocalAws
from tools.local_aws.server import REGION

PATH = "/tenants/acme/provider"


def assert_is_denial(answer: Answer) -> None:
    assert (answer.status, answer.headers["Content-Type"]) == (403, "application/problem+json")
    assert (answer.body["status"], answer.body["code"]) == (403, "access_denied")
    assert answer.body["hint"] == CODES["access_denied"].hint


def test_an_unsigned_call_is_refused_as_a_problem(aws: LocalAws) -> None:
    """The function is not called."""
    assert_is_denial(aws.api.call("GET", PATH, signed=False))


def test_a_call_signed_with_a_wrong_secret_is_refused_as_a_problem(aws: LocalAws) -> None:
    """The detail is AWS's error about the signature."""
    iam = aws.client("iam")
    iam.create_user(UserName="caller")
    key = iam.create_access_key(UserName="caller")["AccessKey"]["AccessKeyId"]
    answer = Api(aws.stack.api_url, boto3.Session(key, "wrong", region_name=REGION)).call("GET", PATH)
    assert_is_denial(answer)
    assert "signature" in answer.body["detail"]


def test_a_route_that_does_not_exist_is_refused_as_a_problem(aws: LocalAws) -> None:
    """API Gateway cannot distinguish it from a call without a signature; the detail names both."""
    answer = aws.api.call("GET", "/nowhere")
    assert_is_denial(answer)
    assert "no such route" in answer.body["detail"]


def test_a_response_without_content_passes(aws: LocalAws) -> None:
    """A body that is null instead of empty breaks some gateways."""
    tenant = aws.active_tenant()
    gone = aws.api.call("DELETE", f"/tenants/{tenant.tenant_id}/provider")
    assert (gone.status, gone.body) == (204, None)


def test_a_record_has_the_identity_of_its_caller(aws: LocalAws) -> None:
    """The one authenticated by API Gateway, for a provider and for a cancelled request."""
    tenant = aws.active_tenant()
    caller = aws.client("sts").get_caller_identity()["Arn"]
    assert aws.api.provider(tenant.tenant_id).body["updatedBy"] == caller
    message = {"to": [{"email": "jo@example.com"}], "subject": "Hello", "text": "Hello"}
    in_an_hour = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert aws.api.submit(tenant.tenant_id, {"requestId": "later", "sendAt": in_an_hour, "message": message}).status == 202
    withdrawn = aws.api.call("POST", f"/tenants/{tenant.tenant_id}/messages/later/cancel").body
    assert (withdrawn["status"], withdrawn["cancelledBy"]) == ("cancelled", caller)
