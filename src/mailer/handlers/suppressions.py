"""The routes of ProvidersFunction that show, add and lift a tenant's suppressions."""

from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Query
from aws_lambda_powertools.event_handler.router import APIGatewayRouter
from pydantic import Field

from mailer import wiring
from mailer.domain.errors import Problem, RequestError
from mailer.domain.suppressions import Reason, Suppression, suppression_key
from mailer.domain.wire import load, parse, read
from mailer.handlers.rest.api import BODY_REFUSALS, JSON, AddressInPath, DescribedAs, TenantInPath, principal_of, responses
from mailer.handlers.rest.models import Note, ProblemDocument
from mailer.handlers.rest.problem import problem_of
from mailer.handlers.rest.suppression_models import (
    LiftedSuppression,
    SuppressionBatchAnswer,
    SuppressionBatchItem,
    SuppressionList,
    SuppressionPut,
    SuppressionRecord,
)
from mailer.services.suppressions import lists
from mailer.services.suppressions.lists import Refusal, Suppressed, SuppressionRequest

MAX_BATCH = 100  # addresses

router = APIGatewayRouter()  # type: ignore[no-untyped-call]  # its __init__ is not annotated

PutBody = Annotated[str, DescribedAs(SuppressionPut), Body()]
BatchBody = Annotated[str, DescribedAs(Annotated[list[SuppressionBatchItem], Field(min_length=1, max_length=MAX_BATCH)]), Body()]


@router.get(
    "/tenants/<tenantId>/suppressions",
    summary="List suppressed addresses, newest first",
    operation_id="listSuppressions",
    responses=responses(200, "A page of them", 400, leads_to=("listSuppressions",), by="cursor"),
)
def list_suppressions(
    tenant_id: TenantInPath,
    reason: Annotated[Reason | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query()] = None,
) -> Response[SuppressionList]:
    """List a tenant's suppressed addresses; `cursor` is that of the previous page."""
    page = lists.list_suppressions(tenant_id, wiring.suppression_dependencies(), reason=reason, limit=limit, cursor=cursor)
    shown = [SuppressionRecord.of(entry.email, entry.suppression) for entry in page.entries if entry.suppression]
    return Response(200, JSON, SuppressionList(suppressions=shown, cursor=page.cursor))


@router.get(
    "/tenants/<tenantId>/suppressions/<email>",
    summary="Show why an address is suppressed",
    operation_id="getSuppression",
    responses=responses(200, "Why it is suppressed"),
)
def get(tenant_id: TenantInPath, email: AddressInPath) -> Response[SuppressionRecord]:
    """Show why an address is suppressed for a tenant."""
    return _record(email, lists.get_suppression(tenant_id, email, wiring.suppression_dependencies()))


@router.put(
    "/tenants/<tenantId>/suppressions/<email>",
    summary="Suppress an address",
    operation_id="putSuppression",
    responses=responses(200, "It is suppressed", *BODY_REFUSALS, 409, leads_to=("getSuppression", "deleteSuppression"), by="email"),
)
def put(tenant_id: TenantInPath, email: AddressInPath, body: PutBody) -> Response[SuppressionRecord]:
    """Suppress an address manually; a stronger suppression of SES stays in force, and is the response then."""
    wanted = read(SuppressionPut, body)
    request = SuppressionRequest(email, wanted.why, wanted.expires_at, _caller())
    return _record(email, lists.suppress(tenant_id, request, wiring.suppression_dependencies()))


@router.delete(
    "/tenants/<tenantId>/suppressions/<email>",
    summary="Lift the suppression of an address",
    operation_id="deleteSuppression",
    responses=responses(200, "It is no longer suppressed; whether it may be on SES's own list", 400, 409),
)
def delete(tenant_id: TenantInPath, email: AddressInPath, why: Annotated[Note | None, Query()] = None) -> Response[LiftedSuppression]:
    """Lift a suppression, whatever its reason; at SES too, if the tenant grants the right."""
    lifted = lists.lift_suppression(tenant_id, email, wiring.suppression_dependencies(), by=_caller(), why=why)
    return Response(200, JSON, LiftedSuppression.after(email, lifted))


@router.post(
    "/tenants/<tenantId>/suppressions/batch",
    status_code=207,
    summary="Suppress up to 100 addresses",
    operation_id="putSuppressions",
    responses=responses(207, "The result of each, in the order of the request", *BODY_REFUSALS, 409),
)
def put_batch(tenant_id: TenantInPath, body: BatchBody) -> Response[list[SuppressionBatchAnswer]]:
    """Suppress addresses manually, each independently, for example a list imported from another system."""
    requests = [_request(document) for document in _documents(body)]
    return Response(
        207, JSON, [_batch_answer(answer) for answer in lists.suppress_batch(tenant_id, requests, wiring.suppression_dependencies())]
    )


def _documents(body: str) -> list[object]:
    documents, unreadable = load(body)
    if unreadable:
        raise RequestError(unreadable)
    if not isinstance(documents, list) or not 1 <= len(documents) <= MAX_BATCH:
        raise RequestError([Problem("", f"must be a list of 1 to {MAX_BATCH} addresses")])
    return documents


def _request(document: object) -> SuppressionRequest | RequestError:
    try:
        if not isinstance(document, dict):
            return RequestError([Problem("", "must be a JSON object")])
        wanted = parse(SuppressionBatchItem, document)
    except RequestError as refusal:
        return refusal
    return SuppressionRequest(suppression_key(wanted.email), wanted.why, wanted.expires_at, _caller())


def _batch_answer(answer: Suppressed | Refusal) -> SuppressionBatchAnswer:
    if isinstance(answer, Suppressed):
        return SuppressionBatchAnswer(status=200, record=SuppressionRecord.of(answer.email, answer.suppression))
    problem = ProblemDocument.model_validate(problem_of(answer))
    return SuppressionBatchAnswer(status=problem.status, problem=problem)


def _record(email: str, suppression: Suppression) -> Response[SuppressionRecord]:
    return Response(200, JSON, SuppressionRecord.of(email, suppression))


def _caller() -> str | None:
    return principal_of(router.current_event.raw_event)
