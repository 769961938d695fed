"""Dead letters by reason and tenant, and the results of a redrive or drop."""

from collections import Counter
from typing import cast

from starlette.requests import Request
from starlette.responses import Response

from mailer_ops.console.sources.dead_letters import Action, Selection
from mailer_ops.console.web import Console, Form, Notice

LISTED = 200

REASONS = {
    "invalid_request": "Neither the request nor its ids can be read. Tell the producer, then drop it.",
    "request_id_reused": "Its id was already used with other content. Tell the producer, then drop it; the first request is not affected.",
    "producer_not_allowed": "Its producer may not send for this tenant (ProducerTenants). Drop it, or correct the parameter and redrive.",
    "processing_crashed": "The worker crashed on it repeatedly. Find the cause in the logs, deploy the fix, redrive.",
    "other_version": "A later version of the service wrote its attributes. It is kept; run make dlq from a checkout of that version.",
    "moved_by_sqs": "SQS moved it after its last receive, as in a long outage. Redrive.",
}
"""Meaning of each reason and what to do; a short form of docs/runbook.md."""


def dead_letters(request: Request, console: Console) -> Response:
    """List the dead letters."""
    chosen = Selection(**{name: request.query_params.get(name, "").strip() for name in ("tenant", "reason", "request")})
    answer = console.sources.dead_letters.read()
    letters, cut = answer.value or ([], False)
    matching = [letter for letter in letters if chosen(letter)]
    groups = Counter((letter.reason, letter.tenant_id) for letter in letters)
    return console.page(
        request,
        "dead_letters.html",
        answer=answer,
        chosen=chosen,
        total=len(letters),
        groups=sorted(groups.items(), key=lambda group: (-group[1], group[0])),
        letters=matching[:LISTED],
        matching=len(matching),
        cut=cut,
        meanings=REASONS,
    )


def start(_: Request, form: Form, console: Console, action: str) -> Response:
    """Start a redrive or drop of the selection, and redirect to its progress page."""
    chosen = Selection(**{name: form.get(name, "").strip() for name in ("tenant", "reason", "request")})
    if action == "drop" and chosen.everything:
        return console.go("/dead-letters", Notice("Nothing was dropped: select a tenant, a reason or a request first."))
    return console.go(f"/dead-letters/work/{console.sources.dead_letters.start(cast(Action, action), chosen).id}")


def work(request: Request, console: Console) -> Response:
    """Show the progress of a redrive or drop, which goes on if its page is closed."""
    found = console.sources.dead_letters.work(request.path_params["work"])
    if found is None:
        return console.page(request, "error.html", http_status=404, text="This redrive or drop is unknown: the console was restarted.")
    return console.page(request, "work.html", work=found.snapshot())
