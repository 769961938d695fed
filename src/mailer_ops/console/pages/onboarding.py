"""Onboarding of a tenant: the setup of its AWS account, the config, and the test mail."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from mailer_ops.console.sources.api import path_of
from mailer_ops.console.web import Console, Form, Notice

SECRETS = frozenset({"secretAccessKey", "password"})
"""Fields that are passed to the API and never shown."""

FIELDS = {
    "role": ("roleArn", "region", "fromAddress", "fromName", "configurationSet", "maxSendRate"),
    "key": ("accessKeyId", "secretAccessKey", "region", "fromAddress", "fromName", "configurationSet", "maxSendRate"),
    "smtp": ("host", "port", "username", "password", "fromAddress", "fromName", "tls"),
}
"""Fields of a config, by kind of credentials."""


def onboarding(request: Request, console: Console) -> Response:
    """Show the steps and the tenant's progress."""
    tenant_id, api = request.path_params["tenant"], console.sources.api
    with ThreadPoolExecutor(2) as together:
        steps = together.submit(api.call, "GET", path_of(tenant_id, "provider", "onboarding"))
        provider = together.submit(api.call, "GET", path_of(tenant_id, "provider"))
    shown = provider.result().value
    by = request.query_params.get("by") or _kind(shown)
    return console.page(
        request,
        "onboarding.html",
        tenant=tenant_id,
        steps=steps.result(),
        provider=provider.result(),
        by=by if by in FIELDS else "role",
        pending=(shown or {}).get("candidate") or (shown if shown and shown["status"] == "unverified" else None),
        region=console.sources.place.region,
    )


def _kind(provider: dict[str, Any] | None) -> str:
    if provider is None:
        return "role"
    shown = provider.get("candidate") or provider
    return "smtp" if shown["provider"] == "smtp" else "key" if shown["credentials"].get("type") == "accessKey" else "role"


def template(request: Request, console: Console) -> Response:
    """Return the CloudFormation template as a download."""
    tenant_id = request.path_params["tenant"]
    answer = console.sources.api.call("GET", path_of(tenant_id, "provider", "onboarding"))
    if answer.value is None:
        return console.go(f"{path_of(tenant_id)}/onboarding", Notice(trouble=answer.trouble))
    name = f"mail-{tenant_id}.json"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(answer.value["cloudFormationTemplate"], media_type="application/json", headers=headers)


def store(request: Request, form: Form, console: Console) -> Response:
    """Pass a config to the API; on an error the form keeps its values, except secrets."""
    tenant_id, by = request.path_params["tenant"], form.get("by", "")
    page = f"{path_of(tenant_id)}/onboarding?by={by if by in FIELDS else 'role'}"
    config = _config(form, FIELDS.get(by, FIELDS["role"]))
    stored = {"provider": "smtp" if by == "smtp" else "ses", "config": config}
    answer = console.sources.api.call("PUT", path_of(tenant_id, "provider"), stored)
    if answer.trouble:
        typed = {name: value for name, value in form.items() if name not in SECRETS}
        return console.go(f"{page}#store", Notice(trouble=answer.trouble, value=typed))
    return console.go(f"{page}#verify", Notice("The config is stored, encrypted. Now verify it."))


def _config(form: Form, fields: tuple[str, ...]) -> dict[str, Any]:
    config: dict[str, Any] = {name: form[name] if name in SECRETS else form[name].strip() for name in fields if form.get(name)}
    for name, read in (("maxSendRate", float), ("port", int)):
        try:
            config |= {name: read(config[name])} if name in config else {}
        except ValueError:
            continue  # the API reports the error
    if "tls" in fields:
        config.setdefault("tls", "none")
    return config
