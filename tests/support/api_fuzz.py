"""The REST API in process, over fakes for two tenants, for fuzzers that try everything the OpenAPI document allows or forbids.

The generator is given what the document does not contain: ids of existing tenants and requests, and accepted bodies.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest
import schemathesis
from hypothesis.strategies import SearchStrategy, just, one_of
from schemathesis import Case, CheckContext, GenerationMode, HookContext, Response
from schemathesis.generation.stateful.state_machine import APIStateMachine
from schemathesis.specs.openapi import checks
from schemathesis.specs.openapi.schemas import OpenApiSchema

from mailer import wiring
from mailer.domain.delivery import Status
from mailer.domain.provider import Provider
from mailer.domain.suppressions import Entry
from mailer.handlers import messages, providers
from mailer.handlers.messages import api_document
from mailer.services.providers.providers import put_config
from mailer.services.providers.verify import verify_provider
from mailer.services.suppressions.lists import SuppressionDependencies
from support.fakes.messages import a_body, fake_deps, serve_from
from support.fakes.ports import FakeMessagesTable, FakeProvidersTable, InlineExecutor, a_delivery
from support.fakes.providers import KEY, a_scene, with_config
from support.fakes.suppressions import FakeMarks, FakeSuppressionsTable, an_entry
from support.servers.gateway import Gateway

TENANTS = ("acme", "bravo")

SHARED_IDS = [f"shared-{status}" for status in Status]
"""Request ids of both tenants, one of every status."""

SUPPRESSED = ["jo@example.com", "ann@example.com"]
"""Suppressed addresses of both tenants."""

LEFT_OUT = [
    checks.positive_data_acceptance,  # no schema defines addresses and hosts: generated ones may be rejected
    checks.unsupported_method,  # API Gateway rejects unknown methods
]

ANSWERED_INSIDE = {"sendBatch", "previewMessage", "putSuppressions"}
"""Operations that report problems of the request in a success response."""

EXAMPLES: dict[str, Any] = {
    "sendMessage": a_body(None),
    "previewMessage": a_body(None),
    "sendBatch": [a_body(None), a_body("shared-sent")],
    "resolveMessage": {"outcome": "sent", "by": "ops", "why": "found it"},
    "uploadAttachment": {"filename": "a.pdf", "size": 1234},
    "putProvider": KEY,
    "putSuppression": {"why": "asked by phone"},
    "putSuppressions": [{"email": "jo@example.com", "why": "asked by phone"}],
}
"""Accepted bodies, by operationId."""


def canary(tenant: str) -> str:
    """Return a text in every record and provider of a tenant, which only that tenant may see."""
    return f"canary-of-{tenant}"


class Api:
    """The API as a WSGI app, and its internal failures."""

    def __init__(self) -> None:
        self._gateway = Gateway(messages.handler, providers.handler)
        self.calls: Counter[tuple[str, int]] = Counter()
        """Count of responses by operation and status."""

    @contextmanager
    def up(self) -> Iterator[None]:
        """Replace AWS behind the handlers."""
        with pytest.MonkeyPatch.context() as self._patch:
            self.reset()
            yield

    def reset(self) -> None:
        """Start over with two tenants, each with a provider and a request of every status."""
        scene = a_scene(*[_verified(tenant) for tenant in TENANTS], allow_smtp=True)
        rows = FakeProvidersTable()
        rows.rows = scene.store.rows
        records = [
            a_delivery(f"shared-{status}", status, tenant_id=tenant, correlation_id=canary(tenant), message_id=canary(tenant))
            for tenant in TENANTS
            for status in Status
        ]
        suppressions = SuppressionDependencies(
            suppressions=FakeSuppressionsTable(*(_suppressed(email, tenant) for email in SUPPRESSED for tenant in TENANTS)),
            marks=FakeMarks(unknown={"nobody"}),
            providers=scene.store,
            provider_factory=scene.provider_factory,
            clock=scene.clock,
            workers=InlineExecutor(),
        )
        self.deps = fake_deps(providers=rows, messages=FakeMessagesTable(*records))
        serve_from(self.deps, self._patch)
        self._patch.setattr(wiring, "provider_dependencies", lambda: scene.deps)
        self._patch.setattr(wiring, "suppression_dependencies", lambda: suppressions)

    @property
    def failures(self) -> list[Any]:
        """Return the failures of our own code, regardless of the responses."""
        telemetry: Any = self.deps.telemetry
        return [arguments for event, arguments in telemetry.entries if event == "failed"]

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return self._gateway(environ, start_response)

    def validate(self, case: Case[Any], response: Response) -> None:
        """Check a response against the document, for internal failures, and for data of the other tenant."""
        name = case.operation.definition.raw["operationId"]
        self.calls[name, response.status_code] += 1
        inside = [checks.negative_data_rejection] if name in ANSWERED_INSIDE else []
        case.validate_response(response, additional_checks=[self.check], excluded_checks=[*LEFT_OUT, *inside])

    def check(self, _context: CheckContext, response: Response, case: Case[Any]) -> None:
        """Fail if our code failed, or if a tenant sees another's data."""
        assert not self.failures
        own = (case.path_parameters or {}).get("tenantId")
        for tenant in TENANTS if own else ():  # only the list of all tenants has no tenant
            assert tenant == own or canary(tenant) not in response.text, f"{own} sees data of {tenant}"

    def schema(self) -> OpenApiSchema:
        """Return the document for the generator; most of its valid paths will name existing tenants and requests."""
        schema = documented()
        schema.app = self
        return schema

    def state_machine(self, paths: str = ".*") -> type[APIStateMachine]:
        """Return a state machine that feeds responses into later calls, for two existing tenants.

        It calls only operations whose path matches the regular expression.
        """
        api, schema = self, accepted().include(path_regex=paths)
        schema.app = self

        class Machine(schema.as_state_machine()):  # type: ignore[misc]  # made at run time
            def setup(self) -> None:
                api.reset()

            def validate_response(self, response: Response, case: Case[Any], **_: Any) -> None:
                api.validate(case, response)

        return Machine


def documented() -> OpenApiSchema:
    """Return the document for the generator; most of its valid paths will name existing tenants and requests."""
    schema = schemathesis.openapi.from_dict(with_examples(api_document()))
    schema.hook("map_path_parameters")(_with_existing_ids)
    return schema


def accepted() -> OpenApiSchema:
    """Return the document for a generator of mostly successful calls: known tenants and requests, mostly valid bodies."""
    schema = schemathesis.openapi.from_dict(with_known_ids(with_examples(api_document())))
    schema.config.generation.modes = [GenerationMode.POSITIVE]
    schema.hook("before_generate_body")(_mostly_accepted)
    return schema


def _with_existing_ids(_context: HookContext, parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    known = {"tenantId": TENANTS, "requestId": (*SHARED_IDS, "never:seen"), "email": (*SUPPRESSED, "new@example.com")}
    return parameters and {name: _one_of(known[name], value) if _is_plain(value) else value for name, value in parameters.items()}


def _is_plain(value: Any) -> bool:
    """Return whether this is a possible id: not another type, no other characters."""
    return (
        isinstance(value, str) and value.isalnum() and value.isascii() and not value.isdecimal() and value not in ("null", "true", "false")
    )


def _one_of(known: Sequence[str], value: str) -> str:
    return known[sum(value.encode()) % len(known)]


def _mostly_accepted(context: HookContext, strategy: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Generate mostly accepted bodies; rejected ones are tested elsewhere."""
    assert context.operation is not None
    name = context.operation.definition.raw["operationId"]
    return one_of(just(EXAMPLES[name]), just(EXAMPLES[name]), strategy) if name in EXAMPLES else strategy


def _suppressed(email: str, tenant: str) -> Entry:
    return an_entry(email, tenant_id=tenant, request_id=canary(tenant))


def _verified(tenant: str) -> Provider:
    scene = a_scene()
    put_config(tenant, with_config(KEY, fromName=canary(tenant)), scene.deps)
    verify_provider(tenant, scene.deps)
    return scene.store.rows[tenant]


def with_examples(described: dict[str, Any]) -> dict[str, Any]:
    """Add an accepted body of each kind; remove the signatures, which API Gateway checks before the functions."""
    changed = deepcopy(described)
    del changed["security"]
    _remove_slow_patterns(changed)
    for operation in _operations(changed):
        if operation["operationId"] in EXAMPLES:
            content = operation["requestBody"]["content"]["application/json"]
            content["examples"] = {"accepted": {"value": EXAMPLES[operation["operationId"]]}}
    return changed


def _remove_slow_patterns(node: Any) -> None:
    """Remove patterns that begin with a lookahead: a generator needs minutes to match them."""
    if isinstance(node, dict):
        if str(node.get("pattern")).startswith("^(?:(?="):
            del node["pattern"]
        node = list(node.values())
    for value in node if isinstance(node, list) else []:
        _remove_slow_patterns(value)


def with_known_ids(described: dict[str, Any]) -> dict[str, Any]:
    """Restrict tenants and requests to existing ones."""
    known = {"tenantId": [*TENANTS], "requestId": SHARED_IDS, "email": [*SUPPRESSED, "new@example.com"]}
    for operation in _operations(described):
        for parameter in operation.get("parameters", []):
            if parameter["name"] in known:
                parameter["schema"] = {"enum": known[parameter["name"]]}
    return described


def _operations(described: dict[str, Any]) -> Iterable[dict[str, Any]]:
    return (operation for item in described["paths"].values() for operation in item.values())
