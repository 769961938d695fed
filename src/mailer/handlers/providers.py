"""ProvidersFunction, called by API Gateway: store, show, verify, disable, enable and delete a tenant's provider; its suppressions."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Literal

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Query

from mailer import wiring
from mailer.domain.provider import Provider, ProviderPut, ProviderStatus, Resumption
from mailer.domain.wire import read
from mailer.handlers.rest.api import BODY_REFUSALS, JSON, DescribedAs, TenantInPath, principal_of, respond, responses, rest_app
from mailer.handlers.rest.problem import problem
from mailer.handlers.rest.provider_models import (
    EnableRequest,
    OnboardingAnswer,
    ProviderRecord,
    TenantPage,
    TenantRecord,
    VerifyAnswer,
    VerifyRequest,
)
from mailer.handlers.suppressions import router
from mailer.services.providers import providers
from mailer.services.providers.verify import VerifyFailedError, verify_provider

_Listed = Literal["unverified", "active", "disabled", "suspended"]  # what a deleted one leaves is no provider
PutBody = Annotated[str, DescribedAs(ProviderPut), Body()]
EnableBody = Annotated[str, DescribedAs(EnableRequest), Body()]
VerifyBody = Annotated[str, DescribedAs(VerifyRequest), Body()]


def _report(error: Exception) -> None:
    wiring.telemetry().failed("provider API", None, error)


def verify_failed(error: VerifyFailedError) -> Response[str]:
    """Answer why the config did not pass, and what to do."""
    return problem(error.error, status=HTTPStatus.UNPROCESSABLE_ENTITY)


app = rest_app(_report)
app.exception_handler(VerifyFailedError)(verify_failed)
app.include_router(router)


def handler(event: Mapping[str, Any], context: Any) -> Mapping[str, Any]:
    """Answer one API call."""
    try:
        return respond(app, event, context)
    finally:
        wiring.telemetry().flush()


@app.get(
    "/tenants",
    summary="List tenants and their providers",
    operation_id="listTenants",
    responses=responses(200, "A page of tenants", 400),
)
def list_tenants(
    status: Annotated[_Listed | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query()] = None,
) -> Response[TenantPage]:
    """List the tenants that have a provider; `cursor` is that of the page before."""
    chosen = status and ProviderStatus(status)
    page = providers.list_providers(wiring.provider_dependencies(), status=chosen, limit=limit, cursor=cursor)
    return Response(200, JSON, TenantPage(tenants=[TenantRecord.of(row) for row in page.rows], cursor=page.cursor))


@app.put(
    "/tenants/<tenantId>/provider",
    summary="Store a provider config",
    operation_id="putProvider",
    responses=responses(200, "It is stored, encrypted", *BODY_REFUSALS, 422, leads_to=("verifyProvider", "getProvider", "deleteProvider")),
)
def put(tenant_id: TenantInPath, body: PutBody) -> Response[ProviderRecord]:
    """Store a config encrypted; an active one stays active until the new one is verified."""
    return _record(providers.put_config(tenant_id, body, wiring.provider_dependencies(), by=_caller()))


@app.get("/tenants/<tenantId>/provider", summary="Show the provider", operation_id="getProvider", responses=responses(200, "The provider"))
def get(tenant_id: TenantInPath) -> Response[ProviderRecord]:
    """Show the provider, never its secrets."""
    return _record(providers.get_provider(tenant_id, wiring.provider_dependencies()))


@app.post(
    "/tenants/<tenantId>/provider/verify",
    summary="Test the config, make it active",
    operation_id="verifyProvider",
    responses=responses(200, "It is active", *BODY_REFUSALS, 409, 422, leads_to=("disableProvider",)),
)
def verify(tenant_id: TenantInPath, body: VerifyBody = "") -> Response[VerifyAnswer]:
    """Send the test mail; a config that passes is the active one from then on."""
    simulate = bool(body) and read(VerifyRequest, body).simulate
    verified = verify_provider(tenant_id, wiring.provider_dependencies(), simulate=simulate, by=_caller())
    return Response(200, JSON, VerifyAnswer.of(verified))


@app.post(
    "/tenants/<tenantId>/provider/disable",
    summary="Stop sending",
    operation_id="disableProvider",
    responses=responses(200, "Mail waits", leads_to=("enableProvider",)),
)
def disable(tenant_id: TenantInPath) -> Response[ProviderRecord]:
    """Stop sending; mail waits."""
    return _record(providers.disable_provider(tenant_id, wiring.provider_dependencies(), by=_caller()))


@app.post(
    "/tenants/<tenantId>/provider/enable",
    summary="Resume sending",
    operation_id="enableProvider",
    responses=responses(200, "Mail goes out", *BODY_REFUSALS, 409),
)
def enable(tenant_id: TenantInPath, body: EnableBody = "") -> Response[ProviderRecord]:
    """Resume sending; with who and why also if the reputation guard suspended it. Waiting mail goes out by itself."""
    deps, caller = wiring.provider_dependencies(), _caller()
    word = read(EnableRequest, body) if body else EnableRequest()
    resumption = Resumption(word.by, word.why, deps.clock.now(), caller) if word.by and word.why else None
    return _record(providers.enable_provider(tenant_id, deps, by=caller, resumption=resumption))


@app.delete(
    "/tenants/<tenantId>/provider",
    status_code=204,
    summary="Remove the provider",
    operation_id="deleteProvider",
    responses=responses(204, "It is gone"),
)
def delete(tenant_id: TenantInPath) -> Response[str]:
    """Delete the config; waiting mail fails."""
    providers.delete_provider(tenant_id, wiring.provider_dependencies(), by=_caller())
    return Response(204, body="")


@app.get(
    "/tenants/<tenantId>/provider/onboarding",
    summary="Show what to set up in AWS",
    operation_id="onboardProvider",
    responses=responses(200, "What to set up", 422),
)
def onboarding(tenant_id: TenantInPath) -> Response[OnboardingAnswer]:
    """Return the policies and the template that the tenant sets up in its own AWS account."""
    return Response(200, JSON, OnboardingAnswer.of(providers.onboard(tenant_id, wiring.provider_dependencies())))


def _caller() -> str | None:
    return principal_of(app.current_event.raw_event)


def _record(row: Provider) -> Response[ProviderRecord]:
    return Response(200, JSON, ProviderRecord.of(providers.disclose(row, wiring.provider_dependencies())))
