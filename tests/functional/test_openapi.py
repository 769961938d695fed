"""The OpenAPI document: valid, whole, and true to what the functions serve."""

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

import api_reference
import tables
from gateway import Gateway
from mailer.handlers import messages, reference
from mailer.handlers.openapi import described_bodies, document

METHODS = {"get", "post", "put", "delete", "patch"}


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    return {(m, path): operation for path, item in document()["paths"].items() for m, operation in item.items() if m in METHODS}


def test_the_document_is_served() -> None:
    """At /openapi.json, as JSON."""
    answer = Gateway(messages.handler).call("GET", "/openapi.json")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json == json.loads(json.dumps(document()))


def test_the_document_is_valid() -> None:
    """A public validator takes it for OpenAPI 3.1."""
    assert document()["openapi"].startswith("3.1")
    validate(document())


def test_every_route_of_the_template_is_described_and_no_other() -> None:
    """What API Gateway lets through, what the functions answer and what the document says are one list."""
    events = [event for f in tables.resources("AWS::Serverless::Function").values() for event in f["Properties"].get("Events", {}).values()]
    routes = {(e["Properties"]["Method"], e["Properties"]["Path"]) for e in events if e["Type"] == "Api"}
    assert routes == set(operations())


def test_every_answer_but_success_is_a_problem() -> None:
    """Errors have one form, and each route says which statuses it may answer."""
    for (method, path), operation in operations().items():
        successes = [status for status in operation["responses"] if status.startswith("2")]
        assert len(successes) == 1, (method, path)
        for status in set(operation["responses"]) - set(successes):
            assert operation["responses"][status]["content"] == {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}
            }, (method, path, status)


def test_every_operation_has_a_name_and_a_summary() -> None:
    """Generated clients call their functions by it."""
    names = [operation["operationId"] for operation in operations().values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+[A-Za-z]+", name) for name in names)
    assert not [o["summary"] for o in operations().values() if "/" in o["summary"]]


def test_nothing_of_powertools_own_errors_is_left() -> None:
    """Its 422 and their schemas never occur here."""
    assert "HTTPValidationError" not in json.dumps(document())
    assert not [name for name in document()["components"]["schemas"] if "Validation" in name]


def test_every_call_is_to_be_signed() -> None:
    """SigV4, as API Gateway writes it down."""
    assert document()["security"] == [{"sigv4": []}]
    assert document()["components"]["securitySchemes"]["sigv4"]["x-amazon-apigateway-authtype"] == "awsSigv4"


def schema_of(node: Any) -> Any:
    """Follow a reference."""
    return document()["components"]["schemas"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node


def test_bodies_are_described_although_they_are_read_as_text() -> None:
    """Every body is an object, or a list of objects, that rules out unknown fields: the document is as strict as the reader."""
    bodies = [schema_of(o["requestBody"]["content"]["application/json"]["schema"]) for o in operations().values() if "requestBody" in o]
    assert len(bodies) == 6
    for body in bodies:
        item = schema_of(body["items"]) if body["type"] == "array" else body
        assert item["additionalProperties"] is False


def test_what_a_field_allows_is_described() -> None:
    """By pattern and in words."""
    described = document()["components"]["schemas"]["PostedRequest"]["properties"]["requestId"]
    assert "pattern" in json.dumps(described)
    assert "1 to 128 letters" in json.dumps(described)


def test_every_field_is_explained_and_nothing_else() -> None:
    """A field that is added, renamed or taken away is so in the reference too."""
    fields = {name: set(schema["properties"]) for name, schema in described_bodies(document())}
    assert fields == {name: set(meanings) for name, meanings in reference.FIELDS.items()}


def content_of(operation: dict[str, Any]) -> Any:
    [answer] = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
    return answer.get("content", {}).get("application/json")


def examples() -> list[Any]:
    found = []
    for operation in operations().values():
        name = operation["operationId"]
        if "requestBody" in operation:
            found.append(pytest.param(operation["requestBody"]["content"]["application/json"], id=f"{name}, body"))
        if name != "describeApi" and (content := content_of(operation)):
            found.append(pytest.param(content, id=f"{name}, answer"))
    return found


@pytest.mark.parametrize("content", examples())
def test_every_body_and_answer_has_an_example_that_fits_its_schema(content: dict[str, Any]) -> None:
    """Readers copy examples: each is what the schema beside it allows."""
    schema = {**content["schema"], "components": document()["components"]}
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(content["example"])


def test_every_call_may_be_forbidden() -> None:
    """API Gateway's own refusals are described as well: IAM's on every route."""
    assert all({"403", "429", "504"} <= set(operation["responses"]) for operation in operations().values())


def test_the_committed_document_is_the_one_that_is_served() -> None:
    """`PYTHONPATH=src:tests python tests/api_reference.py` writes docs/openapi.json anew."""
    assert api_reference.DOCUMENT.read_text(encoding="utf-8") == api_reference.openapi_json()


def test_the_tables_of_fields_are_true() -> None:
    """`PYTHONPATH=src:tests python tests/api_reference.py` writes those of docs/api.md anew."""
    page = api_reference.PAGE.read_text(encoding="utf-8")
    assert page == api_reference.filled(page)
