"""The API has the routes of the contract, requires signatures, and returns its own errors in the service's format."""

import json
from http import HTTPStatus
from typing import Any

import pytest

from mailer.domain.errors import CODES
from mailer.handlers.rest.problem import HINTS
from support.aws import tables

Stack = dict[str, dict[str, Any]]

ROUTES = {
    "GET /tenants": "ProvidersFunction",
    "PUT /tenants/{tenantId}/provider": "ProvidersFunction",
    "GET /tenants/{tenantId}/provider": "ProvidersFunction",
    "DELETE /tenants/{tenantId}/provider": "ProvidersFunction",
    "POST /tenants/{tenantId}/provider/verify": "ProvidersFunction",
    "POST /tenants/{tenantId}/provider/disable": "ProvidersFunction",
    "POST /tenants/{tenantId}/provider/enable": "ProvidersFunction",
    "GET /tenants/{tenantId}/provider/onboarding": "ProvidersFunction",
    "GET /tenants/{tenantId}/suppressions": "ProvidersFunction",
    "GET /tenants/{tenantId}/suppressions/{email}": "ProvidersFunction",
    "PUT /tenants/{tenantId}/suppressions/{email}": "ProvidersFunction",
    "DELETE /tenants/{tenantId}/suppressions/{email}": "ProvidersFunction",
    "POST /tenants/{tenantId}/suppressions/batch": "ProvidersFunction",
    "POST /tenants/{tenantId}/messages": "MessagesFunction",
    "POST /tenants/{tenantId}/messages/batch": "MessagesFunction",
    "POST /tenants/{tenantId}/messages/preview": "MessagesFunction",
    "GET /tenants/{tenantId}/messages": "MessagesFunction",
    "GET /tenants/{tenantId}/messages/{requestId}": "MessagesFunction",
    "GET /tenants/{tenantId}/messages/{requestId}/feedback": "MessagesFunction",
    "POST /tenants/{tenantId}/messages/{requestId}/cancel": "MessagesFunction",
    "POST /tenants/{tenantId}/messages/{requestId}/resolve": "MessagesFunction",
    "POST /tenants/{tenantId}/attachments": "MessagesFunction",
    "GET /tenants/{tenantId}/statistics": "MessagesFunction",
    "GET /openapi.json": "MessagesFunction",
}
"""Every route and its function."""

GATEWAY_RESPONSES = {
    "BAD_REQUEST_BODY": 400,
    "BAD_REQUEST_PARAMETERS": 400,
    "ACCESS_DENIED": 403,
    "EXPIRED_TOKEN": 403,
    "INVALID_SIGNATURE": 403,
    "MISSING_AUTHENTICATION_TOKEN": 403,
    "RESOURCE_NOT_FOUND": 404,
    "REQUEST_TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "THROTTLED": 429,
    "INTEGRATION_FAILURE": 504,
    "INTEGRATION_TIMEOUT": 504,
    "DEFAULT_4XX": 403,
    "DEFAULT_5XX": 500,
}
"""API Gateway's own responses, with their statuses."""


def operations(stack: Stack) -> dict[str, dict[str, Any]]:
    paths = stack["Api"]["Properties"]["Body"]["paths"]
    return {f"{method.upper()} {path}": operation for path, methods in paths.items() for method, operation in methods.items()}


def test_the_api_has_exactly_the_routes_of_the_contract(stack: Stack) -> None:
    """Each route calls its function's live version."""
    functions = {
        route: operation["x-amazon-apigateway-integration"]["uri"]["Fn::Sub"].partition("functions/${")[2].partition("Aliaslive}")[0]
        for route, operation in operations(stack).items()
    }
    assert functions == ROUTES


def test_every_route_requires_a_signature(stack: Stack) -> None:
    """Each route has AWS_IAM authorization."""
    assert {json.dumps(operation["security"]) for operation in operations(stack).values()} == {'[{"AWS_IAM": []}]'}
    [scheme] = stack["Api"]["Properties"]["Body"]["components"]["securitySchemes"].values()
    assert scheme["x-amazon-apigateway-authtype"] == "awsSigv4"


def test_the_api_invokes_the_functions_with_its_own_rights(stack: Stack) -> None:
    """Callers need execute-api:Invoke and no right on Lambda."""
    assert not [route for route, operation in operations(stack).items() if "credentials" in operation["x-amazon-apigateway-integration"]]


def test_only_this_api_may_invoke_the_functions_behind_it(stack: Stack) -> None:
    """Each permission names the API, the method and the path."""
    permissions = [r["Properties"] for r in stack.values() if r["Type"] == "AWS::Lambda::Permission"]
    api = [p for p in permissions if p["Principal"] == "apigateway.amazonaws.com"]
    assert len(api) == len(ROUTES)
    assert all(p["SourceArn"]["Fn::Sub"][1]["__ApiId__"] == {"Ref": "Api"} for p in api)


def test_the_one_stage_is_throttled(stack: Stack) -> None:
    """The parameters limit all callers together; requests above get 429."""
    [stage] = [r["Properties"] for r in stack.values() if r["Type"] == "AWS::ApiGateway::Stage"]
    [settings] = stage["MethodSettings"]
    assert stage["StageName"] == "v1"
    assert (settings["ResourcePath"], settings["HttpMethod"]) == ("/*", "*")
    assert settings["ThrottlingRateLimit"] == {"Ref": "ApiRateLimit"}
    assert settings["ThrottlingBurstLimit"] == {"Ref": "ApiBurstLimit"}


def gateway_responses() -> dict[str, dict[str, Any]]:
    responses: dict[str, dict[str, Any]] = tables.template()["Resources"]["Api"]["Properties"]["GatewayResponses"]
    return responses


def test_each_gateway_error_has_a_response() -> None:
    """The status shows who must act."""
    assert {kind: response["StatusCode"] for kind, response in gateway_responses().items()} == GATEWAY_RESPONSES


@pytest.mark.parametrize("kind", GATEWAY_RESPONSES)
def test_each_gateway_response_is_a_problem_document(kind: str) -> None:
    """RFC 9457 problem+json with a code of the error table and its hint, for any message of API Gateway."""
    response = gateway_responses()[kind]
    body = response["ResponseTemplates"]["application/json"].replace("$context.error.messageString", json.dumps('said "no"'))
    problem = json.loads(body)
    status = HTTPStatus(GATEWAY_RESPONSES[kind])
    assert response["ResponseParameters"]["Headers"]["Content-Type"] == "'application/problem+json'"
    assert list(problem) == ["type", "title", "status", "code", "detail", "hint", "errors"]
    assert (problem["type"], problem["title"], problem["status"]) == ("about:blank", status.phrase, status.value)
    assert problem["hint"] == HINTS.get(problem["code"], CODES[problem["code"]].hint)
    assert problem["errors"] == []


@pytest.mark.parametrize("kind", ["THROTTLED", "INTEGRATION_FAILURE", "INTEGRATION_TIMEOUT"])
def test_retryable_responses_have_retry_after(kind: str) -> None:
    """Retry-After is in seconds."""
    assert int(gateway_responses()[kind]["ResponseParameters"]["Headers"]["Retry-After"].strip("'")) > 0


# ── access logs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_access_log_has_caller_route_and_status(stack: Stack) -> None:
    """Unless disabled, it has the authenticated identity, the route and the status, and no data of queries or bodies."""
    [stage] = [resource for resource in stack.values() if resource["Type"] == "AWS::ApiGateway::Stage"]
    condition, setting, _ = stage["Properties"]["AccessLogSetting"]["Fn::If"]
    assert tables.template()["Conditions"][condition] == {"Fn::Equals": [{"Ref": "ApiAccessLogs"}, "true"]}
    assert tables.template()["Parameters"]["ApiAccessLogs"]["Default"] == "true"
    line = json.loads(setting["Format"])
    assert {"requestId", "principal", "method", "route", "status"} <= line.keys()
    assert line["principal"] == "$context.identity.userArn"
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-variables-for-access-logging.html
    assert set(line.values()) <= {
        "$context.requestId",
        "$context.requestTime",
        "$context.identity.userArn",
        "$context.identity.sourceIp",
        "$context.httpMethod",
        "$context.resourcePath",
        "$context.status",
        "$context.error.responseType",
        "$context.responseLatency",
    }


def test_the_log_role_is_retained_when_the_stack_is_deleted(stack: Stack) -> None:
    """It is account-wide: other APIs log with it, so deleting the stack must not delete it. The API's stage depends on it."""
    account = stack["ApiGatewayAccount"]
    role = stack[account["Properties"]["CloudWatchRoleArn"]["Fn::GetAtt"][0]]
    assert account["DeletionPolicy"] == role["DeletionPolicy"] == "Retain"
    assert account["Condition"] == role["Condition"] == "SetsLogRole"
    [stage] = [resource for resource in stack.values() if resource["Type"] == "AWS::ApiGateway::Stage"]
    assert "${ApiLogs}" in str(stage["Properties"]["AccessLogSetting"])
    assert "{'Ref': 'ApiGatewayAccount'}" in str(stack["ApiLogs"]["Properties"]["Tags"])
