"""Describe the whole API in one OpenAPI 3.1 document, made from the routes and models of the functions that serve it."""

import json
from functools import cache
from typing import Any

from aws_lambda_powertools.event_handler.openapi import OpenAPIMerge
from aws_lambda_powertools.event_handler.openapi.models import Server

from mailer.handlers import messages, providers

APPS = (messages.app, providers.app)

# How API Gateway writes down that a route wants SigV4.
_SIGV4 = {"type": "apiKey", "name": "Authorization", "in": "header", "x-amazon-apigateway-authtype": "awsSigv4"}

_POWERTOOLS_OWN = ("HTTPValidationError", "ValidationError", "ResponseValidationError")
"""Schemas of errors that Powertools would answer by itself; ours are all problem+json."""


@cache
def document() -> dict[str, Any]:
    """Return the document as JSON data."""
    merged = OpenAPIMerge(
        title="Tenant mail",
        version="1",
        summary="Send each tenant's mail through the tenant's own Amazon SES",
        servers=[Server(url="/v1")],
        security=[{"sigv4": []}],
        on_conflict="error",
    )
    for app in APPS:
        merged.add_schema(json.loads(app.get_openapi_json_schema()))
    described = merged.get_openapi_schema()
    described["components"]["securitySchemes"] = {"sigv4": _SIGV4}
    _leave_out_powertools_own(described)
    return {**_without_titles(described), "info": described["info"]}


def _leave_out_powertools_own(described: dict[str, Any]) -> None:
    for name in _POWERTOOLS_OWN:
        described["components"]["schemas"].pop(name, None)
    for item in described["paths"].values():
        for operation in item.values():
            responses = operation["responses"]
            if "HTTPValidationError" in str(responses.get("422")):
                del responses["422"]
            responses.get("204", {}).pop("content", None)  # it describes `null` where nothing is


def _without_titles(node: Any) -> Any:
    """Leave out the titles that pydantic makes of names: they say nothing more."""
    if isinstance(node, list):
        return [_without_titles(value) for value in node]
    if isinstance(node, dict):
        # A property may be called "title" too: then an object stands there.
        return {name: _without_titles(value) for name, value in node.items() if name != "title" or not isinstance(value, str)}
    return node
