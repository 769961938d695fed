"""The documented IAM policies of callers, and the routes that each allows."""

import json
import re
from collections.abc import Mapping
from typing import Any

from support.aws import tables

EXAMPLE_API = "arn:aws:execute-api:eu-central-1:123456789012:abcdef1234"

_READS = {
    "GET /tenants/{tenantId}/messages",
    "GET /tenants/{tenantId}/messages/{requestId}",
    "GET /tenants/{tenantId}/messages/{requestId}/feedback",
}
COUNTS = {"GET /tenants/{tenantId}/statistics"}
MAY: Mapping[str, set[str]] = {
    "sender": {
        *_READS,
        "POST /tenants/{tenantId}/messages",
        "POST /tenants/{tenantId}/messages/batch",
        "POST /tenants/{tenantId}/messages/preview",
        "POST /tenants/{tenantId}/attachments",
    },
    "operator": {
        *_READS,
        *COUNTS,
        "POST /tenants/{tenantId}/messages/{requestId}/cancel",
        "POST /tenants/{tenantId}/messages/{requestId}/resolve",
        "GET /tenants/{tenantId}/suppressions",
        "GET /tenants/{tenantId}/suppressions/{email}",
        "PUT /tenants/{tenantId}/suppressions/{email}",
        "DELETE /tenants/{tenantId}/suppressions/{email}",
        "POST /tenants/{tenantId}/suppressions/batch",
    },
    "manager": {
        "GET /tenants/{tenantId}/provider",
        "PUT /tenants/{tenantId}/provider",
        "DELETE /tenants/{tenantId}/provider",
        "GET /tenants/{tenantId}/provider/onboarding",
        "POST /tenants/{tenantId}/provider/verify",
        "POST /tenants/{tenantId}/provider/disable",
        "POST /tenants/{tenantId}/provider/enable",
    },
}
OVERVIEW = {"GET /tenants"}
"""Routes for all tenants: their callers see every tenant's provider, but none of their mail."""


def policy(name: str) -> dict[str, Any]:
    """Return a policy from docs/api.md."""
    page = (tables.ROOT / "docs/api.md").read_text(encoding="utf-8")
    return _json(page.partition(f"<!-- policy: {name} -->")[2])


def policy_of_the_readme() -> dict[str, Any]:
    """Return the README's policy for callers."""
    page = (tables.ROOT / "README.md").read_text(encoding="utf-8")
    [shown] = [block for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL) if "execute-api:Invoke" in block]
    document: dict[str, Any] = json.loads(shown)
    return document


def _json(text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text.partition("```json\n")[2].partition("```")[0])
    return document


def routes() -> set[str]:
    """Return every route of the template under a tenant: `METHOD /path/{parameter}`."""
    return {route for route in all_routes() if "{tenantId}" in route}


def all_routes() -> set[str]:
    """Return every route of the template."""
    events = [e["Properties"] for f in tables.resources("AWS::Serverless::Function").values() for e in f["Properties"]["Events"].values()]
    return {f"{event['Method'].upper()} {event['Path']}" for event in events if "Path" in event}


def filled(route: str, tenant_id: str) -> tuple[str, str]:
    """Return a route's method, and its path for one tenant and some request."""
    method, path = route.split()
    return method, path.replace("{tenantId}", tenant_id).replace("{requestId}", "r1").replace("{email}", "jo%40example.com")
