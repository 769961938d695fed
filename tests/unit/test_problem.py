"""Errors of the API as problem+json."""

import json
from http import HTTPStatus
from typing import Any

import pytest
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.event_handler.exceptions import BadRequestError

from mailer.domain.errors import CODES, DependencyError, ErrorClass, ErrorInfo, NotSentError, Problem, RequestError
from mailer.handlers.rest.problem import STATUS, answer_errors, problem

SECRET = "canary-secret"


class Raising:
    """An app with one route that raises what it is given, and the errors that were reported."""

    def __init__(self) -> None:
        self.reported: list[Exception] = []
        self.app = APIGatewayRestResolver()
        answer_errors(self.app, self.reported.append)

    def __call__(self, error: Exception) -> tuple[int, dict[str, Any], dict[str, Any]]:
        @self.app.get("/x")
        def fail() -> None:
            raise error

        got = self.app.resolve({"path": "/x", "httpMethod": "GET", "headers": {}, "requestContext": {}}, None)
        assert got["multiValueHeaders"]["Content-Type"] == ["application/problem+json"]
        return got["statusCode"], json.loads(got["body"]), got["multiValueHeaders"]


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
    """Callers' mistakes are 4xx, what the tenant's account refused a 422, outages of ours a 503 and our bugs alone a 500."""
    got, document, _ = Raising()(error)
    assert (got, document["status"], document["code"]) == (status, status, code)
    assert document["title"] == HTTPStatus(status).phrase


def test_a_bug_tells_nothing_of_what_was_in_hand() -> None:
    """Its text goes nowhere; that it happened is reported."""
    raising = Raising()
    _, document, _ = raising(ValueError(SECRET))
    assert SECRET not in json.dumps(document)
    assert [type(error) for error in raising.reported] == [ValueError]


@pytest.mark.parametrize("error", [RequestError([Problem("", "x")]), NotSentError(ErrorInfo("credentials_denied", "x"))], ids=repr)
def test_only_what_is_ours_is_reported(error: Exception) -> None:
    """A caller's mistake wakes no operator."""
    raising = Raising()
    raising(error)
    assert raising.reported == []


@pytest.mark.parametrize("error", [RequestError([Problem("", "x")], "too_many_requests"), DependencyError("KMS", "Decrypt")], ids=repr)
def test_says_when_to_come_again(error: Exception) -> None:
    """Where coming again helps."""
    _, _, headers = Raising()(error)
    assert int(headers["Retry-After"][0]) > 0


def test_lists_every_fault_up_to_a_hundred() -> None:
    """An answer stays an answer, however wrong a request is."""
    _, document, _ = Raising()(RequestError([Problem(f"a[{n}]", "is wrong " * 10) for n in range(500)]))
    assert len(document["errors"]) == 100
    assert len(document["detail"]) == 1000


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_can_be_answered(code: str) -> None:
    """Each has a status that fits it: a code of the API alone has one of its own, a tenant's or message's error is never a 5xx."""
    answer = problem(ErrorInfo(code, "x"))
    if CODES[code].error_class is ErrorClass.API:
        assert code in STATUS
    if code not in ("internal_error", "dependency_unavailable"):
        assert answer.status_code < 500
