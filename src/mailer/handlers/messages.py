"""MessagesFunction, called by API Gateway: accept send requests, show their records, cancel, preview and resolve them."""

from collections.abc import Mapping
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Header, Query
from pydantic import Field

from mailer import wiring
from mailer.domain.delivery import Delivery, Resolution, Status
from mailer.domain.errors import Problem, RequestError
from mailer.domain.message import RequestId, SendRequest, UtcTime, read_request
from mailer.domain.statistics import Period
from mailer.domain.uploads import UploadRequest
from mailer.domain.wire import load, load_object, matching, read
from mailer.handlers.rest.api import (
    BODY_REFUSALS,
    JSON,
    DescribedAs,
    RequestInPath,
    TenantInPath,
    principal_of,
    respond,
    responses,
    rest_app,
)
from mailer.handlers.rest.models import (
    BatchAnswer,
    FeedbackAnswer,
    PostedRequest,
    PreviewAnswer,
    ProblemDocument,
    ResolveRequest,
    StatisticsAnswer,
    StatusPage,
    StatusRecord,
    UploadAnswer,
)
from mailer.handlers.rest.problem import problem_of
from mailer.services.api import messages
from mailer.services.api.messages import Accepted, Refusal
from mailer.services.api.preview import Preview, preview
from mailer.services.api.resolve import resolve
from mailer.services.statistics.show import show_statistics

MAX_BATCH = 100  # requests
MAX_BATCH_VALUES = 50_000
"""JSON values in a whole batch: five hundred for each of a hundred requests, enough for fifty recipients and some attachments."""

REPLAYED = {"Idempotency-Replayed": "true"}

SendBody = Annotated[str, DescribedAs(PostedRequest), Body()]
BatchBody = Annotated[str, DescribedAs(Annotated[list[PostedRequest], Field(min_length=1, max_length=MAX_BATCH)]), Body()]
ResolveBody = Annotated[str, DescribedAs(ResolveRequest), Body()]
UploadBody = Annotated[str, DescribedAs(UploadRequest), Body()]
IdempotencyKey = Annotated[RequestId | None, Header(alias="Idempotency-Key")]
CorrelationId = Annotated[
    Annotated[str, matching("[A-Za-z0-9._:-]{1,128}", "1 to 128 letters, digits and . _ : -", longest=128)] | None,
    Header(alias="X-Correlation-Id"),
]


def _report(error: Exception) -> None:
    wiring.telemetry().failed("messages API", None, error)


app = rest_app(_report)


def handler(event: Mapping[str, Any], context: Any) -> Mapping[str, Any]:
    """Answer one API call."""
    try:
        return respond(app, event, context)
    finally:
        wiring.telemetry().flush()


@app.post(
    "/tenants/<tenantId>/messages",
    status_code=202,
    summary="Send a message",
    operation_id="sendMessage",
    responses=responses(
        202,
        "It is on the queue",
        *(*BODY_REFUSALS, 409),
        headers={"Idempotency-Replayed": "`true` where an earlier call had put it there"},
        leads_to=("getMessage", "cancelMessage", "resolveMessage"),
        by="requestId",
    ),
)
def send(
    tenant_id: TenantInPath, body: SendBody, idempotency_key: IdempotencyKey = None, correlation_id: CorrelationId = None
) -> Response[StatusRecord]:
    """Enqueue one request; after a 202 it is durably on the queue."""
    request = _read(*load_object(body), tenant_id, idempotency_key)
    accepted = messages.accept(request, wiring.messages_dependencies(), correlation_id=correlation_id or _api_call())
    headers = REPLAYED if accepted.replayed else {}
    return Response(202, JSON, _shown(accepted.record), headers=headers)


@app.post(
    "/tenants/<tenantId>/messages/batch",
    status_code=207,
    summary="Send up to 100 messages",
    operation_id="sendBatch",
    responses=responses(207, "The result of each, in the order of the request", *BODY_REFUSALS),
)
def send_batch(tenant_id: TenantInPath, body: BatchBody, correlation_id: CorrelationId = None) -> Response[list[BatchAnswer]]:
    """Enqueue requests, each accepted or refused independently; the answers are in the same order."""
    documents = _documents(body)
    requests = [_read_item(document, tenant_id) for document in documents]
    answers = messages.accept_batch(requests, wiring.messages_dependencies(), correlation_id=correlation_id or _api_call())
    return Response(207, JSON, [_batch_answer(answer) for answer in answers])


@app.post(
    "/tenants/<tenantId>/messages/preview",
    summary="Build a message and send nothing",
    operation_id="previewMessage",
    responses=responses(200, "The message, or what is wrong with it", *BODY_REFUSALS, 409),
)
def preview_message(tenant_id: TenantInPath, body: SendBody) -> Response[PreviewAnswer]:
    """Build the raw message, or name every problem at once; nothing is stored or sent."""
    loaded = load_object(body)
    try:
        built = preview(_read(*loaded, tenant_id), wiring.messages_dependencies())
    except RequestError as refusal:
        if refusal.code in ("tenant_mismatch", "provider_not_configured"):
            raise
        built = Preview(problems=tuple(refusal.problems))
    return Response(200, JSON, PreviewAnswer.of(built))


@app.get(
    "/tenants/<tenantId>/messages",
    summary="List messages, newest first",
    operation_id="listMessages",
    responses=responses(200, "A page of records", 400, leads_to=("listMessages",), by="cursor"),
)
def list_messages(
    tenant_id: TenantInPath,
    status: Annotated[Status | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query()] = None,
) -> Response[StatusPage]:
    """List a tenant's records; `cursor` is that of the previous page."""
    page = messages.list_newest(tenant_id, wiring.messages_dependencies(), status=status, limit=limit, cursor=cursor)
    return Response(200, JSON, StatusPage(messages=[_shown(d) for d in page.deliveries], cursor=page.cursor))


@app.get(
    "/tenants/<tenantId>/messages/<requestId>",
    summary="Show a message",
    operation_id="getMessage",
    responses=responses(200, "The record"),
)
def get(tenant_id: TenantInPath, request_id: RequestInPath) -> Response[StatusRecord]:
    """Show the state of a request."""
    return Response(200, JSON, _shown(messages.get(tenant_id, request_id, wiring.messages_dependencies())))


@app.get(
    "/tenants/<tenantId>/messages/<requestId>/feedback",
    summary="Show SES's reports of a message by recipient",
    operation_id="getFeedback",
    responses=responses(200, "Each recipient about whom SES reported in the last 35 days"),
)
def get_feedback(tenant_id: TenantInPath, request_id: RequestInPath) -> Response[FeedbackAnswer]:
    """Show SES's most significant report about each recipient."""
    return Response(200, JSON, FeedbackAnswer.of(messages.feedback(tenant_id, request_id, wiring.messages_dependencies())))


@app.post(
    "/tenants/<tenantId>/messages/<requestId>/cancel",
    summary="Withdraw a message",
    operation_id="cancelMessage",
    responses=responses(200, "It is withdrawn", 409),
)
def cancel(tenant_id: TenantInPath, request_id: RequestInPath) -> Response[StatusRecord]:
    """Cancel a request that is queued or deferred."""
    return Response(200, JSON, _shown(messages.cancel(tenant_id, request_id, wiring.messages_dependencies(), by=_caller())))


@app.post(
    "/tenants/<tenantId>/messages/<requestId>/resolve",
    summary="Resolve an unknown",
    operation_id="resolveMessage",
    responses=responses(200, "It is resolved", *BODY_REFUSALS, 409),
)
def resolve_message(tenant_id: TenantInPath, request_id: RequestInPath, body: ResolveBody) -> Response[StatusRecord]:
    """Resolve an `unknown` request on an operator's word."""
    word, deps = read(ResolveRequest, body), wiring.messages_dependencies()
    resolution = Resolution(word.outcome, word.by, word.why, deps.clock.now(), _caller())
    return Response(200, JSON, _shown(resolve(tenant_id, request_id, resolution, deps, message_id=word.message_id)))


@app.post(
    "/tenants/<tenantId>/attachments",
    status_code=201,
    summary="Upload a large attachment",
    operation_id="uploadAttachment",
    responses=responses(201, "Where to upload it", *BODY_REFUSALS),
)
def upload_attachment(tenant_id: TenantInPath, body: UploadBody) -> Response[UploadAnswer]:
    """Permit one upload, bound to the file's type and size; the message then refers to it by `s3`."""
    request = read(UploadRequest, body)
    return Response(201, JSON, UploadAnswer.of(messages.create_upload(tenant_id, request, wiring.messages_dependencies())))


@app.get(
    "/tenants/<tenantId>/statistics",
    summary="Count recipients by outcome",
    operation_id="getStatistics",
    responses=responses(200, "The counts", 400),
)
def get_statistics(
    tenant_id: TenantInPath,
    since: Annotated[UtcTime | None, Query(alias="from")] = None,
    until: Annotated[UtcTime | None, Query(alias="to")] = None,
    by: Annotated[Period, Query()] = "hour",
) -> Response[StatisticsAnswer]:
    """Count recipients by outcome, by hours or days of UTC."""
    now = wiring.clock().now()
    shown = show_statistics(
        tenant_id, wiring.messages_dependencies().providers, wiring.statistics_table(), now, since=since, until=until, period=by
    )
    return Response(200, JSON, StatisticsAnswer.of(shown))


@app.get(
    "/openapi.json",
    summary="Describe this API",
    operation_id="describeApi",
    responses=responses(200, "The OpenAPI 3.1 document"),
)
def describe_api() -> Response[dict[str, Any]]:
    """Return the OpenAPI 3.1 document."""
    return Response(200, JSON, api_document())


def api_document() -> dict[str, Any]:
    """Describe the whole API: the routes of this function, and those of ProvidersFunction."""
    # Importing both takes longer than everything else.
    from mailer.handlers import providers  # noqa: PLC0415
    from mailer.handlers.rest.openapi import openapi_document  # noqa: PLC0415

    return openapi_document(app, providers.app)


def _caller() -> str | None:
    return principal_of(app.current_event.raw_event)


def _api_call() -> str | None:
    """Return API Gateway's id of this call, which the caller gets in the header `x-amzn-RequestId`."""
    return app.current_event.request_context.request_id


def _read(document: Mapping[str, object], unreadable: list[Problem], tenant_id: str, request_id: str | None = None) -> SendRequest:
    now = wiring.clock().now()
    return read_request(
        document, unreadable, tenant_id=tenant_id, request_id=request_id, new_request_id=lambda: messages.new_request_id(now)
    )


def _documents(body: str) -> list[object]:
    """Return the decoded requests of a batch; if one is ambiguous as JSON, the whole batch is refused."""
    documents, unreadable = load(body, max_values=MAX_BATCH_VALUES)
    if unreadable:
        raise RequestError(unreadable)
    if not isinstance(documents, list) or not 1 <= len(documents) <= MAX_BATCH:
        raise RequestError([Problem("", f"must be a list of 1 to {MAX_BATCH} send requests")])
    return documents


def _read_item(document: object, tenant_id: str) -> SendRequest | RequestError:
    try:
        if not isinstance(document, dict):
            return RequestError([Problem("", "must be a JSON object")])
        return _read(document, [], tenant_id)
    except RequestError as refusal:
        return refusal


def _shown(record: Delivery) -> StatusRecord:
    return StatusRecord.of(record, wiring.messages_dependencies().send_timeout)


def _batch_answer(answer: Accepted | Refusal) -> BatchAnswer:
    if isinstance(answer, Accepted):
        return BatchAnswer(status=202, replayed=answer.replayed, record=_shown(answer.record))
    problem = ProblemDocument.model_validate(problem_of(answer))
    return BatchAnswer(status=problem.status, problem=problem)
