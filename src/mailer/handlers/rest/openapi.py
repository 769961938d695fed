"""Describe the whole API in one OpenAPI 3.1 document, made from the routes and models of the functions that serve it."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.event_handler.openapi import OpenAPIMerge
from aws_lambda_powertools.event_handler.openapi.models import Server

from mailer.handlers.rest import reference
from mailer.handlers.rest.api import JSON

# API Gateway's notation for a route that requires SigV4.
_SIGV4 = {"type": "apiKey", "name": "Authorization", "in": "header", "x-amazon-apigateway-authtype": "awsSigv4"}

_POWERTOOLS_OWN = ("HTTPValidationError", "ValidationError", "ResponseValidationError")
"""Schemas of Powertools' own errors, which are not used: all errors are problem+json."""


@cache
def openapi_document(*apps: APIGatewayRestResolver) -> dict[str, Any]:
    """Return the document of all routes of some apps as JSON data."""
    merged = OpenAPIMerge(
        title="Tenant mail",
        version="1",
        summary="Send each tenant's mail through the tenant's own Amazon SES",
        servers=[Server(url="/v1")],
        security=[{"sigv4": []}],
        on_conflict="error",
    )
    for app in apps:
        merged.add_schema(json.loads(app.get_openapi_json_schema()))
    described = merged.get_openapi_schema()
    described["components"]["securitySchemes"] = {"sigv4": _SIGV4}
    _leave_out_powertools_own(described)
    _leave_out_missing_bodies(described)
    described = {**_without_titles(described), "info": described["info"]}
    _explain_fields(described)
    _explain_parameters(described)
    _add_examples(described)
    return described


def _leave_out_powertools_own(described: dict[str, Any]) -> None:
    for name in _POWERTOOLS_OWN:
        described["components"]["schemas"].pop(name, None)
    for item in described["paths"].values():
        for operation in item.values():
            responses = operation["responses"]
            if "HTTPValidationError" in str(responses.get("422")):
                del responses["422"]
            responses.get("204", {}).pop("content", None)  # it describes `null` where nothing is


def _leave_out_missing_bodies(described: dict[str, Any]) -> None:
    """Describe a body that may be left out by its fields alone: what the function reads in its place is no JSON."""
    for operation in _operations(described):
        if "requestBody" in operation:
            operation["requestBody"]["content"][JSON]["schema"].pop("default", None)


def _operations(described: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (operation for item in described["paths"].values() for operation in item.values())


def described_bodies(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each schema that has fields, by its name; an inline schema of an operation by the operation's id."""
    yield from ((name, schema) for name, schema in described["components"]["schemas"].items() if "properties" in schema)
    for operation in _operations(described):
        schema = operation.get("requestBody", {"content": {JSON: {"schema": {}}}})["content"][JSON]["schema"]
        if "properties" in schema:
            yield operation["operationId"], schema


def _explain_fields(described: dict[str, Any]) -> None:
    for name, schema in described_bodies(described):
        for field, meaning in reference.FIELDS.get(name, {}).items():
            described_field = schema["properties"][field]
            allowed = f" Allowed: {described_field['description']}." if "pattern" in described_field else ""
            described_field["description"] = meaning + allowed


def _explain_parameters(described: dict[str, Any]) -> None:
    written = {name.lower(): name for name in reference.PARAMETERS}
    for operation in _operations(described):
        for parameter in operation.get("parameters", []):
            parameter["name"] = written[parameter["name"].lower()]  # Powertools writes headers in small letters
            parameter["description"] = reference.PARAMETERS[parameter["name"]]


def _add_examples(described: dict[str, Any]) -> None:
    for operation in _operations(described):
        name = operation["operationId"]
        if name in reference.BODIES:
            whole = {"whole": {"value": reference.WHOLE[name]}} if name in reference.WHOLE else {}
            operation["requestBody"]["content"][JSON]["examples"] = {"short": {"value": reference.BODIES[name]}, **whole}
        for status, answer in operation["responses"].items():
            if status.startswith("2") and name in reference.ANSWERS:
                answer["content"][JSON]["example"] = reference.ANSWERS[name]


def _without_titles(node: Any) -> Any:
    """Remove the titles that pydantic derives from names, because they are redundant."""
    if isinstance(node, list):
        return [_without_titles(value) for value in node]
    if isinstance(node, dict):
        # A property may be named "title" too; its value is an object.
        return {name: _without_titles(value) for name, value in node.items() if name != "title" or not isinstance(value, str)}
    return node
