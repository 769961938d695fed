"""Answer every error of the API as RFC 9457 problem+json; a caller's mistake is never a 5xx."""

import json
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError, ServiceError

from mailer.domain.errors import DependencyError, ErrorInfo, NotSentError, Problem, RequestError

CONTENT_TYPE = "application/problem+json"

STATUS = {
    "invalid_request": HTTPStatus.BAD_REQUEST,
    "tenant_mismatch": HTTPStatus.BAD_REQUEST,
    "attachment_type_blocked": HTTPStatus.BAD_REQUEST,
    "attachment_missing": HTTPStatus.BAD_REQUEST,
    "access_denied": HTTPStatus.FORBIDDEN,
    "not_found": HTTPStatus.NOT_FOUND,
    "request_id_reused": HTTPStatus.CONFLICT,
    "not_cancellable": HTTPStatus.CONFLICT,
    "not_resolvable": HTTPStatus.CONFLICT,
    "suppressed_again": HTTPStatus.CONFLICT,
    "provider_not_configured": HTTPStatus.CONFLICT,
    "provider_not_active": HTTPStatus.CONFLICT,
    "provider_deleted": HTTPStatus.CONFLICT,
    "message_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "too_many_requests": HTTPStatus.TOO_MANY_REQUESTS,
    "internal_error": HTTPStatus.INTERNAL_SERVER_ERROR,
    "dependency_unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
}
"""The HTTP status of each code; other codes are errors of the tenant's own account: 422."""

HINTS = {
    "dependency_unavailable": "Caller: an AWS service of this stack did not answer; call again in some seconds, and send with the same"
    " requestId.",
}
"""Hints of answers, for codes whose hint is about a request that was accepted."""

RETRY_AFTER = {"too_many_requests": "1", "dependency_unavailable": "5"}  # seconds

_MAX_PROBLEMS = 100
_MAX_DETAIL = 1000  # characters


def answer_errors(app: APIGatewayRestResolver, report: Callable[[Exception], None]) -> None:
    """Register an answer for every exception; `report` is called with those that are not the caller's fault."""

    def internal_error(error: Exception) -> Response[str]:
        report(error)
        return problem(error.error if isinstance(error, DependencyError) else ErrorInfo("internal_error", "internal error"))

    answers: dict[type[Exception], Callable[..., Response[str]]] = {
        RequestError: refused,
        NotSentError: not_sent,
        NotFoundError: no_route,
        ServiceError: by_powertools,
        DependencyError: internal_error,
        Exception: internal_error,
    }
    for kind, answer in answers.items():
        app.exception_handler(kind)(answer)


def refused(error: RequestError) -> Response[str]:
    """Answer what the caller must change."""
    return problem(ErrorInfo(error.code, str(error), error.remediation), errors=error.problems)


def not_sent(error: NotSentError) -> Response[str]:
    """Answer an error of the tenant's own account or config."""
    return problem(error.error, status=HTTPStatus.UNPROCESSABLE_ENTITY)


def no_route(_: NotFoundError) -> Response[str]:
    """Answer for an unknown path or method."""
    return problem(ErrorInfo("not_found", "there is no such route"))


def by_powertools(error: ServiceError) -> Response[str]:
    """Answer for a request that Powertools itself refused."""
    status = HTTPStatus(error.status_code)
    return problem(ErrorInfo("invalid_request", status.phrase), status=status)


def problem(error: ErrorInfo, *, status: HTTPStatus | None = None, errors: Sequence[Problem] = ()) -> Response[str]:
    """Write an error as problem+json; by default the status is that of its code."""
    body = problem_document(error, status=status, errors=errors)
    headers = {"Retry-After": RETRY_AFTER[error.code]} if error.code in RETRY_AFTER else {}
    return Response(body["status"], CONTENT_TYPE, json.dumps(body), headers=headers)


def problem_of(error: RequestError | DependencyError) -> dict[str, Any]:
    """Return the problem document of one request of a batch."""
    if isinstance(error, DependencyError):
        return problem_document(error.error)
    return problem_document(ErrorInfo(error.code, str(error), error.remediation), errors=error.problems)


def problem_document(error: ErrorInfo, *, status: HTTPStatus | None = None, errors: Sequence[Problem] = ()) -> dict[str, Any]:
    """Return the JSON of an error; by default the status is that of its code."""
    status = status or STATUS.get(error.code, HTTPStatus.UNPROCESSABLE_ENTITY)
    return {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "code": error.code,
        "detail": error.message[:_MAX_DETAIL],
        "hint": error.remediation or HINTS.get(error.code, error.hint),
        "errors": [{"path": e.path, "problem": e.problem} for e in errors[:_MAX_PROBLEMS]],
    }
