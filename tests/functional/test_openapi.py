"""The OpenAPI document: valid, complete, and equal to what the functions serve."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from mailer.domain.errors import RequestError
from mailer.domain.message import read_request
from mailer.handlers import messages, providers
from mailer.handlers.messages import api_document
from mailer.handlers.rest import reference
from mailer.handlers.rest.openapi import described_bodies
from support.api_fuzz import Api
from support.aws import tables
from support.servers.gateway import Answer, Gateway
from tools.docs import api_reference

METHODS = {"get", "post", "put", "delete", "patch"}


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    return {(m, path): operation for path, item in api_document()["paths"].items() for m, operation in item.items() if m in METHODS}


def test_the_document_is_served() -> None:
    """At /openapi.json, as JSON."""
    answer = Gateway(messages.handler).call("GET", "/openapi.json")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json == json.loads(json.dumps(api_document()))


def test_the_document_is_valid() -> None:
    """A public validator accepts it as OpenAPI 3.1."""
    assert api_document()["openapi"].startswith("3.1")
    validate(api_document())


def test_every_route_of_the_template_is_described_and_no_other() -> None:
    """API Gateway's routes, the functions' and the document's are one list."""
    events = [event for f in tables.resources("AWS::Serverless::Function").values() for event in f["Properties"].get("Events", {}).values()]
    routes = {(e["Properties"]["Method"], e["Properties"]["Path"]) for e in events if e["Type"] == "Api"}
    assert routes == set(operations())


def test_every_error_response_is_a_problem() -> None:
    """Errors have one format, and each route lists its statuses."""
    for (method, path), operation in operations().items():
        successes = [status for status in operation["responses"] if status.startswith("2")]
        assert len(successes) == 1, (method, path)
        for status in set(operation["responses"]) - set(successes):
            assert operation["responses"][status]["content"] == {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}
            }, (method, path, status)


def test_every_operation_has_a_name_and_a_summary() -> None:
    """Generated clients name their functions by it."""
    names = [operation["operationId"] for operation in operations().values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+[A-Za-z]+", name) for name in names)
    assert not [o["summary"] for o in operations().values() if "/" in o["summary"]]


def test_powertools_own_errors_are_not_described() -> None:
    """Its 422 and their schemas never occur."""
    assert "HTTPValidationError" not in json.dumps(api_document())
    assert not [name for name in api_document()["components"]["schemas"] if "Validation" in name]


def test_every_call_must_be_signed() -> None:
    """With SigV4, in API Gateway's notation."""
    assert api_document()["security"] == [{"sigv4": []}]
    assert api_document()["components"]["securitySchemes"]["sigv4"]["x-amazon-apigateway-authtype"] == "awsSigv4"


def schema_of(node: Any) -> Any:
    """Resolve a reference."""
    return api_document()["components"]["schemas"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node


def test_bodies_are_described_although_they_are_read_as_text() -> None:
    """Every body is an object, or a list of objects, without unknown fields: the document is as strict as the reader."""
    bodies = [schema_of(o["requestBody"]["content"]["application/json"]["schema"]) for o in operations().values() if "requestBody" in o]
    assert len(bodies) == 10
    for body in bodies:
        item = schema_of(body["items"]) if body["type"] == "array" else body
        assert item["additionalProperties"] is False


def test_the_constraints_of_a_field_are_described() -> None:
    """As a pattern and in words."""
    described = api_document()["components"]["schemas"]["PostedRequest"]["properties"]["requestId"]
    assert "pattern" in json.dumps(described)
    assert "1 to 128 letters" in json.dumps(described)


def test_every_field_is_explained_and_nothing_else() -> None:
    """A field that is added, renamed or removed must be so in the reference too."""
    fields = {name: set(schema["properties"]) for name, schema in described_bodies(api_document())}
    assert fields == {name: set(meanings) for name, meanings in reference.FIELDS.items()}


def test_every_parameter_is_explained_and_nothing_else() -> None:
    """In path, query and headers, by its serialized name."""
    assert {parameter["name"] for o in operations().values() for parameter in o.get("parameters", [])} == set(reference.PARAMETERS)


def test_every_call_may_be_denied() -> None:
    """API Gateway's own errors are described as well: IAM's on every route."""
    assert all({"403", "429", "504"} <= set(operation["responses"]) for operation in operations().values())


def test_retryable_errors_have_retry_after() -> None:
    """For every status after which a later call may succeed."""
    for operation in operations().values():
        headers = {status: "Retry-After" in answer.get("headers", {}) for status, answer in operation["responses"].items()}
        assert {status for status, has_it in headers.items() if has_it} == {"429", "503", "504"}


# -- examples ------------------------------------------------------------------------------------------------------------


def content_of(operation: dict[str, Any]) -> Any:
    [answer] = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
    return answer.get("content", {}).get("application/json")


def examples() -> Iterator[Any]:
    for operation in operations().values():
        name = operation["operationId"]
        if "requestBody" in operation:
            content = operation["requestBody"]["content"]["application/json"]
            for kind, example in content["examples"].items():
                yield pytest.param(content["schema"], example["value"], id=f"{name}, {kind} body")
        if name != "describeApi" and (content := content_of(operation)):
            yield pytest.param(content["schema"], content["example"], id=f"{name}, answer")


@pytest.mark.parametrize(("schema", "example"), [*examples()])
def test_every_body_and_response_has_an_example_that_fits_its_schema(schema: dict[str, Any], example: Any) -> None:
    """Readers copy examples: each is valid by its schema."""
    whole = {**schema, "components": api_document()["components"]}
    Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(example)


SHARED = {"getMessage": "shared-sent", "getFeedback": "shared-sent", "cancelMessage": "shared-queued", "resolveMessage": "shared-unknown"}
"""The request that each operation is called with."""

ME = {"requestContext": {"requestId": "1", "identity": {"userArn": "arn:aws:iam::123456789012:user/sam"}}}


def call(operation_id: str) -> Answer:
    """Make the call of an example."""
    [(method, path)] = [route for route, operation in operations().items() if operation["operationId"] == operation_id]
    email = "new%40example.com" if operation_id == "putSuppression" else "jo%40example.com"
    path = path.replace("{tenantId}", "acme").replace("{requestId}", SHARED.get(operation_id, "")).replace("{email}", email)
    query = "?status=sent" if operation_id == "listMessages" else ""
    return Gateway(messages.handler, providers.handler).call(method.upper(), path + query, reference.BODIES.get(operation_id), **ME)


def alike(example: Any, real: Any) -> bool:
    """Return whether two JSON values have the same fields, of the same types; null or empty matches anything."""
    if isinstance(example, dict) and isinstance(real, dict):
        return example.keys() == real.keys() and all(alike(value, real[name]) for name, value in example.items())
    if isinstance(example, list) and isinstance(real, list):
        return all(map(alike, example, real))
    return example is None or real is None or type(example) is type(real)


@pytest.mark.parametrize("operation_id", reference.ANSWERS)
def test_the_examples_are_accepted_and_returned_by_the_functions(operation_id: str) -> None:
    """The body is accepted, and the response has the example's fields."""
    with Api().up():
        answer = call(operation_id)
    assert answer.status in (200, 201, 202, 207), answer.text
    assert alike(reference.ANSWERS[operation_id], answer.json), answer.text


def test_the_example_of_a_problem_is_real() -> None:
    """The same text as the problem of the batch's second request."""
    with Api().up():
        [_, refused] = call("sendBatch").json
    assert refused["problem"] == reference.PROBLEM


def names_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(names_in, value.values()))
    return set().union(*map(names_in, value)) if isinstance(value, list) else set()


def test_the_full_request_has_every_field_and_can_be_read() -> None:
    """A field that is added must be in the example too."""
    [whole] = reference.WHOLE.values()
    schemas = dict(described_bodies(api_document()))
    assert {field for name in api_reference.REQUEST for field in schemas[name]["properties"]} <= names_in(whole)
    assert read_request(whole, tenant_id="acme").request_id == whole["requestId"]


# -- what the schema allows ----------------------------------------------------------------------------------------------

REQUEST: dict[str, Any] = {
    "requestId": "r1",
    "message": {"to": [{"email": "jo@example.com"}], "subject": "Hello", "text": "Hello", "html": "<p>Hello"},
}


def takes(document: dict[str, Any]) -> bool:
    try:
        read_request(document, tenant_id="acme")
    except RequestError:
        return False
    return True


def nulls() -> Iterator[Any]:
    for name in ("PostedRequest", "EmailMessage"):
        for field, schema in dict(described_bodies(api_document()))[name]["properties"].items():
            asked = {**REQUEST, field: None} if name == "PostedRequest" else {**REQUEST, "message": {**REQUEST["message"], field: None}}
            yield pytest.param(asked, schema.get("anyOf", []), id=field)


@pytest.mark.parametrize(("asked", "kinds"), [*nulls()])
def test_the_document_says_where_null_is_accepted(asked: dict[str, Any], kinds: list[Any]) -> None:
    """Generated clients write null for missing fields, if the document allows it."""
    assert takes(asked) is ({"type": "null"} in kinds)


def test_the_document_allows_one_mailbox_instead_of_a_list() -> None:
    """Only in replyTo."""
    mailbox = {"email": "jo@example.com"}
    validator = Draft202012Validator({"$ref": "#/components/schemas/EmailMessage", "components": api_document()["components"]})
    for field in ("replyTo", "to"):
        message = {**REQUEST["message"], field: mailbox}
        assert takes({**REQUEST, "message": message}) is validator.is_valid(message) is (field == "replyTo")


# -- files made from it --------------------------------------------------------------------------------------------------


def test_the_committed_document_is_the_one_that_is_served() -> None:
    """docs/openapi.json, so that a change of the API is visible in a diff."""
    assert api_reference.DOCUMENT.read_text(encoding="utf-8") == api_reference.openapi_json(), api_reference.REGENERATE


def test_the_tables_and_examples_of_the_docs_are_up_to_date() -> None:
    """Everything in docs/api.md that is generated."""
    page = api_reference.PAGE.read_text(encoding="utf-8")
    assert page == api_reference.filled(page), api_reference.REGENERATE


def test_every_link_in_the_api_docs_has_a_target() -> None:
    """A heading of the page, with GitHub's anchor."""
    page = api_reference.PAGE.read_text(encoding="utf-8")
    headings = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", page, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]*)\)", page)) <= headings
