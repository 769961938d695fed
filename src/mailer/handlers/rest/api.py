"""Shared by the functions behind the REST API: the app, reading of events, description of parameters and bodies."""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote, unquote

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestUnsupportedContentType, RequestValidationError
from aws_lambda_powertools.event_handler.openapi.params import Path
from aws_lambda_powertools.event_handler.openapi.types import OpenAPIResponse
from pydantic import AfterValidator, BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema

from mailer.adapters.botocore_patches.payload_loggers import silence_payload_loggers
from mailer.domain.errors import ErrorInfo, Problem, RequestError
from mailer.domain.message import Address, RequestId, TenantId
from mailer.domain.suppressions import suppression_key
from mailer.domain.wire import to_problems
from mailer.handlers.rest.models import ProblemDocument
from mailer.handlers.rest.problem import CONTENT_TYPE, answer_errors, problem, refused

JSON = "application/json"

# The tenant is not percent-decoded: its ids need no encoding, and an encoded one is not found.
TenantInPath = Annotated[TenantId, Path(alias="tenantId")]
RequestInPath = Annotated[RequestId, BeforeValidator(unquote), Path(alias="requestId")]
AddressInPath = Annotated[Address, BeforeValidator(unquote), AfterValidator(suppression_key), Path(alias="email")]


@dataclass(frozen=True, slots=True)
class DescribedAs:
    """Annotates the parameter for a body: passes its JSON text on unchanged, and describes it by the model that it is read into."""

    kind: Any

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.chain_schema([core_schema.str_schema()])

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(TypeAdapter(self.kind).core_schema)


# 403 and 504 are API Gateway's own; the template's gateway responses make them problem+json.
_COME_AGAIN = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
ALWAYS = (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, *_COME_AGAIN)
"""Statuses that any route may answer."""

BODY_REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
"""Statuses that any route with a body may answer; above Lambda's limit of 6 MB API Gateway answers its own 413."""


def responses(
    success: int,
    meaning: str,
    *refusals: int,
    headers: Mapping[str, str] | None = None,
    leads_to: Iterable[str] = (),
    by: str | None = None,
) -> dict[int, OpenAPIResponse]:
    """Describe what a route answers: its success, with headers by name and meaning, and the statuses of its refusals.

    `leads_to` are the operations that take the answer's field `by` as a parameter of the same name, under the same tenant.
    """
    described: dict[int, OpenAPIResponse] = {success: {"description": meaning}}
    if headers:
        described[success]["headers"] = {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}
    if leads_to:
        taken = {"tenantId": "$request.path.tenantId"} | ({by: f"$response.body#/{by}"} if by else {})
        described[success]["links"] = {name: {"operationId": name, "parameters": taken} for name in leads_to}
    for status in map(HTTPStatus, sorted({*refusals, *ALWAYS})):
        described[status.value] = {"description": status.phrase, "content": {CONTENT_TYPE: {"model": ProblemDocument}}}
        if status in _COME_AGAIN:
            described[status.value]["headers"] = {
                "Retry-After": {"description": "Seconds to wait, at least", "schema": {"type": "integer"}}
            }
    return described


def rest_app(report: Callable[[Exception], None]) -> APIGatewayRestResolver:
    """Make an app; `report` is called with errors that are not the caller's."""
    silence_payload_loggers()
    app = APIGatewayRestResolver(
        enable_validation=True,
        # Bodies stay text: `domain.wire` reads them, more strictly than json.loads does.
        json_body_deserializer=str,  # type: ignore[arg-type]  # is declared to make a dict
    )
    answer_errors(app, report)
    app.exception_handler(RequestValidationError)(_invalid_parameters)
    app.exception_handler(RequestUnsupportedContentType)(_unsupported_media_type)
    return app


def _invalid_parameters(error: RequestValidationError) -> Response[str]:
    """Answer the faults of path, query or headers, or that the body is missing; an invalid id in the path is a 404."""
    details = error.errors()
    if any(detail["loc"] == ("body",) for detail in details):
        return refused(RequestError([Problem("", "must have a JSON body")]))
    located: list[Any] = [{**detail, "loc": detail["loc"][1:]} for detail in details]
    in_path = any(detail["loc"][0] == "path" for detail in details)
    return refused(RequestError([fault for _, fault in to_problems(located)], "not_found" if in_path else "invalid_request"))


def _unsupported_media_type(_: RequestUnsupportedContentType) -> Response[str]:
    fault = Problem("Content-Type", "must be application/json")
    return problem(ErrorInfo("invalid_request", str(RequestError([fault]))), status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE, errors=[fault])


def respond(app: APIGatewayRestResolver, event: Mapping[str, Any], context: Any) -> Mapping[str, Any]:
    """Answer an event of API Gateway; answers must not be cached, because they have records, previews, upload URLs and ExternalIds."""
    answer = app.resolve(normalize_event(event), context)
    return {**answer, "multiValueHeaders": {**answer["multiValueHeaders"], "Cache-Control": ["no-store"]}}


def normalize_event(event: Mapping[str, Any]) -> dict[str, Any]:
    """Normalize an event of API Gateway: the path without base path, the body as text, one Content-Type for everything but JSON.

    Powertools would parse forms and multipart too, and raise on bodies that it cannot decode.
    """
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    media_type = (headers.pop("content-type", None) or "").partition(";")[0].strip().lower()
    if media_type and media_type != "application/json":
        headers["content-type"] = "not/json"
    return {**event, "path": _path(event), "headers": headers, "body": _text(event), "isBase64Encoded": False}


_NO_ROUTE = "/"


def _path(event: Mapping[str, Any]) -> str:
    """Return the path below the stage, as the caller wrote it.

    Behind a custom domain the event's path begins with the mapping's base path, the stage, or both: only the last steps count, as many as
    the matched resource has. They must equal what API Gateway matched, so that no other path is served than the one that was authorised.
    """
    path, resource = str(event.get("path") or _NO_ROUTE), str(event.get("resource") or "")
    if not resource or "+}" in resource:  # a greedy resource has no fixed steps
        return path
    parameters = event.get("pathParameters") or {}
    pattern = resource.strip("/").split("/")
    steps = path.rstrip("/").split("/")[-len(pattern) :]
    if len(steps) < len(pattern) or not all(_is_matched(*one, parameters) for one in zip(steps, pattern, strict=True)):
        return _NO_ROUTE
    return "/" + "/".join(_encoded(*one, parameters) for one in zip(steps, pattern, strict=True))


_PATH_STEP = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%-]*")
"""What a step of a path may hold as it is sent (RFC 3986 §3.3)."""


def _encoded(given: str, step: str, parameters: Mapping[str, str]) -> str:
    """Return a step of the path percent-encoded where the gateway has decoded it: the router finds no route for some characters."""
    is_decoded = given == parameters.get(step[1:-1]) and not _PATH_STEP.fullmatch(given)
    return quote(given, safe="") if is_decoded else given


def _is_matched(given: str, step: str, parameters: Mapping[str, str]) -> bool:
    """Whether a step of the path is what API Gateway matched with one of the resource: a parameter comes decoded, or as it was written."""
    if not step.startswith("{"):
        return given == step
    matched = str(parameters.get(step[1:-1]))
    return unquote(given) in (matched, unquote(matched))


_LONGEST_PRINCIPAL = 700
"""Characters of the ARN of a user or session at most: 512 of a path, 64 of a name, and what goes before."""


def principal_of(event: Mapping[str, Any]) -> str | None:
    """Return the ARN of the IAM identity that API Gateway has authenticated; None if something else called the function."""
    identity = (event.get("requestContext") or {}).get("identity") or {}
    arn = identity.get("userArn")
    return re.sub(r"[^!-~]", "?", arn)[:_LONGEST_PRINCIPAL] if arn and isinstance(arn, str) else None


def _text(event: Mapping[str, Any]) -> str | None:
    body: str | None = event.get("body")
    if not (body and event.get("isBase64Encoded")):
        return body
    try:
        # Bytes that are not UTF-8 become lone surrogates, which our parsers refuse.
        return base64.b64decode(body, validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return body
