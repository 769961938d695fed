"""List of tenants, and the provider, statistics and suppressions of one."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

from mailer_ops.console.sources.answers import Answer
from mailer_ops.console.sources.api import Json, path_of, query_of, without_route
from mailer_ops.console.views import rates
from mailer_ops.console.web import Console, Form, Notice, moment

PAGE = 25
LOOKED_THROUGH = 10
"""Pages of a hundred tenants that a search reads."""

TOGETHER = 4
"""Parallel calls for rates: more would only wait for the API's functions."""

STATUSES = ("active", "suspended", "disabled", "unverified")
REASONS = ("hard_bounce", "soft_bounces", "complaint", "manual", "ses_list")
SPANS: Mapping[str, tuple[str, timedelta, str]] = {
    "day": ("24 hours", timedelta(days=1), "hour"),
    "week": ("7 days", timedelta(days=7), "day"),
    "month": ("30 days", timedelta(days=30), "day"),
}

VERDICTS = {"verify": "The test mail went out: the config is active.", "disable": "Sending is off; mail waits.", "enable": "Sending is on."}


def tenants(request: Request, console: Console) -> Response:
    """List the tenants, or those whose id or from-address contains the search text."""
    params = request.query_params
    wanted, status = params.get("q", "").strip(), params.get("status", "")
    answer, cut = _search(console, wanted, status) if wanted else (_page(console, status, PAGE, params.get("cursor")), False)
    answer = without_route(answer, "list of tenants")
    found = (answer.value or {}).get("tenants", [])
    late = "rates" in params
    return console.page(
        request,
        "tenants.html",
        answer=answer,
        tenants=found,
        wanted=wanted,
        status=status,
        statuses=STATUSES,
        cut=cut,
        cursor=(answer.value or {}).get("cursor"),
        late=late,
        rates=_rates(console, [tenant["tenantId"] for tenant in found[:PAGE]]) if late else {},
    )


def _page(console: Console, status: str, limit: int, cursor: str | None) -> Answer[Json]:
    return console.sources.api.call("GET", "/tenants", status=status, limit=limit, cursor=cursor)


def _search(console: Console, wanted: str, status: str) -> tuple[Answer[Json], bool]:
    """Return the matching tenants of the first pages, and whether there are more pages."""
    found: list[Json] = []
    cursor: str | None = None
    for _ in range(LOOKED_THROUGH):
        answer = _page(console, status, 100, cursor)
        if answer.value is None:
            return answer, False
        found += [tenant for tenant in answer.value["tenants"] if _fits(tenant, wanted.lower())]
        cursor = answer.value.get("cursor")
        if not cursor:
            break
    return Answer({"tenants": found}), bool(cursor)


def _fits(tenant: Json, wanted: str) -> bool:
    return any(wanted in str(tenant.get(name) or "").lower() for name in ("tenantId", "fromAddress", "fromName"))


def _rates(console: Console, tenant_ids: list[str]) -> dict[str, Json]:
    """Return the sums of a week, by tenant."""
    with ThreadPoolExecutor(TOGETHER) as together:
        answers = together.map(lambda tenant_id: _statistics(console, tenant_id, "week"), tenant_ids)
        return {
            tenant_id: _rated(rates.totals(answer.value["buckets"]))
            for tenant_id, answer in zip(tenant_ids, answers, strict=True)
            if answer.value
        }


def _rated(sums: dict[str, int]) -> Json:
    return {"sums": sums, "bounced": rates.rate(sums, "bounced"), "complained": rates.rate(sums, "complained")}


def _statistics(console: Console, tenant_id: str, span: str) -> Answer[Json]:
    _, length, by = SPANS[span]
    start = (console.sources.now() - length).replace(minute=0, second=0, microsecond=0)
    if by == "day":
        start = start.replace(hour=0)
    written = start.isoformat().replace("+00:00", "Z")
    answer = console.sources.api.call("GET", path_of(tenant_id, "statistics"), by=by, **{"from": written})
    return without_route(answer, "statistics of a tenant")


# ── one tenant ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def tenant(request: Request, console: Console) -> Response:
    """Show a tenant's provider with its actions, and its latest mail."""
    tenant_id, api = request.path_params["tenant"], console.sources.api
    with ThreadPoolExecutor(3) as together:
        provider = together.submit(api.call, "GET", path_of(tenant_id, "provider"))
        recent = together.submit(api.call, "GET", path_of(tenant_id, "messages"), limit=8)
        week = together.submit(_statistics, console, tenant_id, "week")
    counted = week.result().value
    sums = rates.totals(counted["buckets"]) if counted else None
    return console.page(
        request,
        "tenant.html",
        tenant=tenant_id,
        provider=provider.result(),
        recent=recent.result(),
        week=_rated(sums) if sums else None,
        now=console.sources.now(),
    )


def act(request: Request, form: Form, console: Console, action: str) -> Response:
    """Verify, disable, enable or remove a provider, and report the result."""
    tenant_id, api = request.path_params["tenant"], console.sources.api
    back = f"{path_of(tenant_id)}{'/onboarding' if form.get('back') == 'onboarding' else ''}"
    if action == "delete":
        return _delete(console, tenant_id, form)
    body = {"simulate": True} if action == "verify" and form.get("simulate") else None
    answer = api.call("POST", path_of(tenant_id, "provider", action), body)
    return console.go(f"{back}#outcome", console.outcome(answer, VERDICTS[action]))


def _delete(console: Console, tenant_id: str, form: Form) -> Response:
    if form.get("confirm") != tenant_id:
        return console.go(path_of(tenant_id), Notice("Nothing was removed: type the tenant's id to confirm it."))
    answer = console.sources.api.call("DELETE", path_of(tenant_id, "provider"))
    return console.go(path_of(tenant_id), console.outcome(answer, "The provider was removed; waiting mail fails (provider_deleted)."))


def statistics(request: Request, console: Console) -> Response:
    """Show the outcomes of a tenant's mail, by time."""
    tenant_id, span = request.path_params["tenant"], request.query_params.get("span", "week")
    span = span if span in SPANS else "week"
    answer = _statistics(console, tenant_id, span)
    buckets = sorted((answer.value or {}).get("buckets", []), key=lambda bucket: str(bucket["from"]))
    starts, series = rates.series(buckets, ("delivered", "sent", "softBounced", "bounced", "complained", "failed", "unknown", "suppressed"))
    sums = rates.totals(buckets)
    series["sent"] = [max(0, sent - heard) for sent, heard in zip(series["sent"], map(_reported, buckets), strict=True)]
    return console.page(
        request,
        "statistics.html",
        tenant=tenant_id,
        answer=answer,
        span=span,
        spans=SPANS,
        buckets=buckets,
        columns=rates.COLUMNS,
        sums=sums,
        rated=_rated(sums),
        starts=starts,
        series={_SHOWN.get(name, name): values for name, values in series.items()},
        limits={"review": rates.REVIEW, "pause": rates.PAUSE},
    )


_SHOWN = {"softBounced": "soft"}
"""Series by the name of their colour."""


def _reported(bucket: Json) -> int:
    return sum(int(bucket.get(name, 0)) for name in ("delivered", "bounced", "softBounced", "complained"))


# ── suppressions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def suppressions(request: Request, console: Console) -> Response:
    """List a tenant's suppressed addresses, or look one up."""
    tenant_id, params = request.path_params["tenant"], request.query_params
    reason, email = params.get("reason", ""), params.get("email", "").strip()
    path = path_of(tenant_id, "suppressions")
    if email:
        answer = console.sources.api.call("GET", f"{path}/{_quoted(email)}")
        answer = Answer({"suppressions": [answer.value]}) if answer.value else answer
        if answer.trouble and answer.trouble.kind == "missing":
            answer = Answer({"suppressions": []})
    else:
        listed = console.sources.api.call("GET", path, reason=reason, limit=50, cursor=params.get("cursor"))
        answer = without_route(listed, "suppressions")
    return console.page(
        request,
        "suppressions.html",
        tenant=tenant_id,
        answer=answer,
        reason=reason,
        reasons=REASONS,
        email=email,
        cursor=(answer.value or {}).get("cursor"),
    )


def suppress(request: Request, form: Form, console: Console) -> Response:
    """Suppress an address, or lift its suppression."""
    tenant_id, email = request.path_params["tenant"], form.get("email", "").strip()
    path, page = f"{path_of(tenant_id, 'suppressions')}/{_quoted(email)}", path_of(tenant_id, "suppressions")
    if form.get("action") == "lift":
        answer = console.sources.api.call("DELETE", path, why=form.get("why", ""))
        return console.go(f"{page}#outcome", console.outcome(answer, f"{email} is off the list: it gets mail again."))
    expires = moment(form.get("expiresAt"))
    body = {"why": form.get("why", ""), **({"expiresAt": expires.isoformat().replace("+00:00", "Z")} if expires else {})}
    answer = console.sources.api.call("PUT", path, body)
    return console.go(f"{page}#outcome", console.outcome(answer, f"{email} is on the list: it gets no more mail of this tenant."))


def _quoted(email: str) -> str:
    """Quote an address as a path segment, including `.` and `..`."""
    return path_of("x", email).rpartition("/")[2] if email.strip(".") else "%20"


def onboard(request: Request, console: Console) -> Response:
    """Redirect to the onboarding page of a tenant."""
    tenant_id = request.query_params.get("tenant", "").strip()
    return console.go(f"{path_of(tenant_id)}/onboarding" if tenant_id else f"/tenants{query_of({})}")
