"""Errors of the API as problem+json."""

import json
from http import HTTPStatus
from typing import Any

import pytest
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.event_handler.exceptions import BadRequestError

from mailer.domain.errors import CODES, DependencyError, ErrorClass, ErrorInfo, NotSentError, Problem, RequestError, UnreadableError
from mailer.handlers.rest.problem import STATUS, answer_errors, problem, problem_of

SECRET = "canary-secret"


class RaisingApp:
    """An app with one route that raises a given error, and the reported errors."""

    def __init__(self) -> None:
        self.reported: list[Exception] = []
        self.app = APIGatewayRestResolver()
        answer_errors(self.app, self.reported.append)

    def __call__(self, error: Exception) -> tuple[int, dict[str, Any], dict[str, Any]]:
        @self.app.get("/x")
        def fail() -> None:
            raise error

        response = self.app.resolve({"path": "/x", "httpMethod": "GET", "headers": {}, "requestContext": {}}, None)
        assert response["multiValueHeaders"]["Content-Type"] == ["application/problem+json"]
        return response["statusCode"], json.loads(response["body"]), response["multiValueHeaders"]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RequestError([Problem("message.subject", "is required")]), 400, "invalid_request"),
        (RequestError([Problem("", "no such thing")], "not_found"), 404, "not_found"),
        (RequestError([Problem("", "busy")], "too_many_requests"), 429, "too_many_requests"),
        (NotSentError(ErrorInfo("credentials_denied", "denied")), 422, "credentials_denied"),
        (DependencyError("KMS", "Decrypt"), 503, "dependency_unavailable"),
        (BadRequestError("x"), 400, "invalid_request"),
        (ValueError("x"), 500, "internal_error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_each_kind_of_error_has_its_status(error: Exception, status: int, code: str) -> None:
    """Callers' errors are 4xx, rejections by the tenant's account 422, outages of our dependencies 503, and only bugs 500."""
    returned, document, _ = RaisingApp()(error)
    assert (returned, document["status"], document["code"]) == (status, status, code)
    assert document["title"] == HTTPStatus(status).phrase


def test_an_internal_error_shows_no_details() -> None:
    """Its text is not in the response; the error is reported."""
    app = RaisingApp()
    _, document, _ = app(ValueError(SECRET))
    assert SECRET not in json.dumps(document)
    assert [type(error) for error in app.reported] == [ValueError]


@pytest.mark.parametrize("error", [RequestError([Problem("", "x")]), NotSentError(ErrorInfo("credentials_denied", "x"))], ids=repr)
def test_only_errors_of_our_own_are_reported(error: Exception) -> None:
    """A caller's error raises no alarm."""
    app = RaisingApp()
    app(error)
    assert app.reported == []


@pytest.mark.parametrize("error", [RequestError([Problem("", "x")], "too_many_requests"), DependencyError("KMS", "Decrypt")], ids=repr)
def test_retryable_errors_have_retry_after(error: Exception) -> None:
    """The header tells when to retry."""
    _, _, headers = RaisingApp()(error)
    assert int(headers["Retry-After"][0]) > 0


def test_an_outage_is_the_caller_s_to_repeat() -> None:
    """Unlike an accepted request, the call is not repeated by anyone else: neither for one request nor in a batch."""
    error = DependencyError("SQS", "SendMessageBatch")
    hints = [RaisingApp()(error)[1]["hint"], problem_of(error)["hint"]]
    assert all(hint.startswith("Caller: ") and "call again" in hint for hint in hints)
    damaged = UnreadableError("providers table", "acme")
    assert RaisingApp()(damaged)[1]["hint"] == damaged.error.hint


def test_a_refusal_may_have_a_hint_of_its_own() -> None:
    """Else it has that of its code."""
    error = RequestError([Problem("", "x")], "provider_not_active", "Operator: resume it.")
    assert [RaisingApp()(error)[1]["hint"], problem_of(error)["hint"]] == ["Operator: resume it."] * 2
    assert RaisingApp()(RequestError([Problem("", "x")], "not_found"))[1]["hint"] == CODES["not_found"].hint


def test_at_most_a_hundred_problems_are_listed() -> None:
    """A response has a limited size, however many problems a request has."""
    _, document, _ = RaisingApp()(RequestError([Problem(f"a[{n}]", "is wrong " * 10) for n in range(500)]))
    assert len(document["errors"]) == 100
    assert len(document["detail"]) == 1000


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_has_a_status(code: str) -> None:
    """A code of the API has its own status; a tenant's or message's error is never a 5xx."""
    document = problem(ErrorInfo(code, "x"))
    if CODES[code].error_class is ErrorClass.API:
        assert code in STATUS
    if code not in ("internal_error", "dependency_unavailable"):
        assert document.status_code < 500
