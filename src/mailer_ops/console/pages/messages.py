"""Messages of a tenant by status, of all tenants from the log, one request's timeline, and its actions."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from mailer.domain.delivery import Status
from mailer_ops.console.sources.answers import Answer
from mailer_ops.console.sources.api import Json, path_of
from mailer_ops.console.sources.requests import Logged
from mailer_ops.console.views.timeline import is_open, timeline
from mailer_ops.console.web import Console, Form, Notice, moment
from mailer_ops.operations.request_log import LoggedState, read_log

PAGE = 50
HOURS = (1, 3, 12, 24, 72)
SEARCHED = timedelta(days=3)
"""Span of the log that is searched for an id without a tenant."""

AFTER = timedelta(minutes=5)
"""Most delay of log lines after the record's last change."""


def messages(request: Request, console: Console) -> Response:
    """List a tenant's requests, newest first; without a tenant, those of all tenants from the log."""
    params = request.query_params
    tenant_id, status = params.get("tenant", "").strip(), params.get("status", "")
    shown: Json = {"tenant": tenant_id, "status": status, "statuses": list(Status)}
    if tenant_id:
        query = {"status": status, "limit": PAGE, "cursor": params.get("cursor")}
        answer = console.sources.api.call("GET", path_of(tenant_id, "messages"), **query)
        return console.page(request, "messages.html", answer=answer, cursor=(answer.value or {}).get("cursor"), **shown)
    hours = int(params["hours"]) if params.get("hours", "").isdecimal() and int(params["hours"]) in HOURS else HOURS[1]
    log = console.sources.requests.read(console.sources.now() - timedelta(hours=hours))
    return console.page(request, "all_messages.html", log=log, states=_newest(log, status), hours=hours, choices=HOURS, **shown)


def _newest(log: Answer[Logged], status: str) -> list[LoggedState]:
    """Return the newest state of each request, newest first."""
    newest = read_log(log.value.lines).newest.values() if log.value else []
    fitting = [state for state in newest if status in ("", state.status)]
    return sorted(fitting, key=lambda state: state.at, reverse=True)[: PAGE * 4]


def message(request: Request, console: Console) -> Response:
    """Show one request and its timeline."""
    tenant_id, request_id, api = request.path_params["tenant"], request.path_params["request"], console.sources.api
    path = path_of(tenant_id, "messages", request_id)
    with ThreadPoolExecutor(3) as together:
        found = together.submit(api.call, "GET", path)
        feedback = together.submit(api.call, "GET", f"{path}/feedback")
        others = together.submit(api.call, "GET", path_of(tenant_id, "messages"), limit=8)
    record = found.result().value
    log = _log_of(record, console) if record else Answer[Logged]()
    recipients = (feedback.result().value or {}).get("recipients", [])
    states = [state for state in log.value.states if state.tenant_id == tenant_id] if log.value else []
    return console.page(
        request,
        "message.html",
        http_status=200 if record else 404,
        tenant=tenant_id,
        request_id=request_id,
        answer=found.result(),
        record=record,
        events=timeline(record, states, recipients) if record else [],
        recipients=recipients,
        feedback=feedback.result(),
        log=log,
        others=others.result(),
        is_open=record is not None and is_open(record),
        mail=_accepted(record, console),
    )


def _log_of(record: Json, console: Console) -> Answer[Logged]:
    since, until = moment(record["createdAt"]), moment(record["updatedAt"])
    if since is None or until is None:
        return Answer()
    return console.sources.requests.read(since - AFTER, until=until + AFTER, request_id=record["requestId"])


def _accepted(record: Json | None, console: Console) -> int | None:
    """Find the mail in the local inbox."""
    if not (record and record.get("messageId") and console.sources.mails):
        return None
    try:
        return next((mail.number for mail in console.sources.mails.newest() if mail.message_id == record["messageId"]), None)
    except OSError:
        return None


RESULTS: Mapping[str, str] = {
    "cancel": "The request is cancelled.",
    "sent": "The request counts as sent.",
    "resend": "It is sent again.",
}


def act(request: Request, form: Form, console: Console, action: str) -> Response:
    """Cancel a request, or resolve an unknown."""
    path = path_of(request.path_params["tenant"], "messages", request.path_params["request"])
    if action == "cancel":
        answer, said = console.sources.api.call("POST", f"{path}/cancel"), RESULTS["cancel"]
    else:
        names = ("outcome", "by", "why", *(["messageId"] if form.get("outcome") == "sent" else []))
        word = {name: form[name].strip() for name in names if form.get(name, "").strip()}
        answer, said = console.sources.api.call("POST", f"{path}/resolve", word), RESULTS.get(form.get("outcome", ""), "")
    return console.go(f"{path}#outcome", console.outcome(answer, said))


# ── the search in the header of every page ────────────────────────────────────────────────────────────────────────────────


def find(request: Request, console: Console) -> Response:
    """Redirect to the page of an id: tenant/request, a tenant, a requestId or SES's messageId."""
    wanted = request.query_params.get("q", "").strip()
    if page := _named(wanted, request.query_params.get("tenant", ""), console):
        return console.go(page)
    log = _search(console, wanted)
    if log.value is None:
        return console.go("/messages", Notice(trouble=log.trouble))
    hits = sorted({(state.tenant_id, state.request_id) for state in log.value.states if wanted in (state.request_id, state.message_id)})
    if len(hits) == 1:
        return console.go(path_of(hits[0][0], "messages", hits[0][1]))
    return console.page(request, "found.html", wanted=wanted, hits=hits, log=log.value, tenants_page=f"/tenants?q={quote(wanted)}")


def _named(wanted: str, tenant_id: str, console: Console) -> str:
    """Return the page of an unambiguous id; empty if the log must be searched."""
    if not wanted:
        return "/messages"
    if tenant_id:
        return path_of(tenant_id, "messages", wanted)
    named, slash, request_id = wanted.partition("/")
    if slash and named and request_id:
        return path_of(named, "messages", request_id)
    return path_of(wanted) if console.sources.api.call("GET", path_of(wanted, "provider")).value else ""


def _search(console: Console, wanted: str) -> Answer[Logged]:
    """Search for a requestId first, with the log's own filter, then for a messageId in all lines."""
    since = console.sources.now() - SEARCHED
    named = '"' not in wanted and "\\" not in wanted
    log = console.sources.requests.read(since, request_id=wanted) if named else Answer(Logged([], [], cut=False))
    return log if log.value is None or log.value.states else console.sources.requests.read(since)
