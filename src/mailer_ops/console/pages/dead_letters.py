"""Dead letters: what lies there by reason and tenant, and what became of each that was redriven or dropped."""

from collections import Counter
from typing import cast

from starlette.requests import Request
from starlette.responses import Response

from mailer_ops.console.sources.dead_letters import Action, Chosen
from mailer_ops.console.web import Console, Form, Notice

LISTED = 200

REASONS = {
    "invalid_request": "It cannot be read, and not even its ids can. Tell the producer, then drop it.",
    "request_id_reused": "Other content came under an id that is taken. Tell the producer, then drop it; the first is untouched.",
    "producer_not_allowed": "A producer asked for a tenant that ProducerTenants denies it. Drop it, or correct that and redrive.",
    "processing_crashed": "The worker died or failed on it again and again. Find the cause in the logs, deploy the fix, redrive.",
    "moved_by_sqs": "SQS moved it after its last receive, as in a long outage. Redrive.",
}
"""What each reason means, and what to do: docs/runbook.md, in a line."""


def dead_letters(request: Request, console: Console) -> Response:
    """List what lies there."""
    chosen = Chosen(**{name: request.query_params.get(name, "").strip() for name in ("tenant", "reason", "request")})
    answer = console.sources.dead_letters.read()
    letters, cut = answer.value or ([], False)
    fitting = [letter for letter in letters if chosen(letter)]
    groups = Counter((letter.reason, letter.tenant_id) for letter in letters)
    return console.page(
        request,
        "dead_letters.html",
        answer=answer,
        chosen=chosen,
        total=len(letters),
        groups=sorted(groups.items(), key=lambda group: (-group[1], group[0])),
        letters=fitting[:LISTED],
        fitting=len(fitting),
        cut=cut,
        meanings=REASONS,
    )


def start(_: Request, form: Form, console: Console, action: str) -> Response:
    """Begin to redrive or drop what was chosen, and go to the page that follows it."""
    chosen = Chosen(**{name: form.get(name, "").strip() for name in ("tenant", "reason", "request")})
    if action == "drop" and chosen.everything:
        return console.go("/dead-letters", Notice("Nothing was dropped: choose a tenant, a reason or a request first."))
    return console.go(f"/dead-letters/work/{console.sources.dead_letters.start(cast(Action, action), chosen).id}")


def work(request: Request, console: Console) -> Response:
    """Show how far work has come; it goes on without its page."""
    found = console.sources.dead_letters.work(request.path_params["work"])
    if found is None:
        return console.page(request, "sorry.html", http_status=404, text="There is no such work: the console was started anew since.")
    return console.page(request, "work.html", work=found, results=list(found.results))
