"""Inbox: the mails that the local SES has accepted, newest first, and their HTML in a sandboxed frame."""

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from mailer_ops.console.pages.compose import Previews
from mailer_ops.console.safety import mail_headers
from mailer_ops.console.sources.mails import AcceptedMail
from mailer_ops.console.views.mail import ParsedMail, parse_mail, subject_of
from mailer_ops.console.web import Console

PAGE = 50
VIEWS = ("rendered", "text", "headers", "source")


def inbox(request: Request, console: Console) -> Response:
    """List the mails; the list refreshes automatically."""
    if console.sources.mails is None:
        return console.page(request, "no_inbox.html")
    wanted = request.query_params.get("q", "").strip().lower()
    try:
        found = console.sources.mails.newest()
    except OSError:
        return console.page(request, "error.html", http_status=502, text="The local AWS does not answer: `make up` starts it.")
    listed = []
    for mail in found:
        subject = _subject(mail)
        if wanted in f"{subject} {mail.source} {' '.join(mail.destinations)} {mail.message_id}".lower():
            listed.append((mail, subject))
        if len(listed) == PAGE:
            break
    return console.page(request, "inbox.html", mails=listed, total=len(found), wanted=wanted)


def _subject(mail: AcceptedMail) -> str:
    try:
        return subject_of(mail.raw())
    except OSError:
        return ""


def mail(request: Request, console: Console) -> Response:
    """Show one mail."""
    accepted, shown = _find(request, console)
    if accepted is None or shown is None:
        return _gone(request, console)
    view = request.query_params.get("view", "rendered" if shown.html is not None else "text")
    return console.page(
        request,
        "mail.html",
        mail=accepted,
        shown=shown,
        view=view if view in VIEWS else "text",
        views=VIEWS,
        images="images" in request.query_params,
        source=accepted.raw().decode("utf-8", "replace") if view == "source" else "",
        frame=f"/inbox/{accepted.number}/html",
    )


def _find(request: Request, console: Console) -> tuple[AcceptedMail | None, ParsedMail | None]:
    number = request.path_params["number"]
    try:
        mails = console.sources.mails.newest() if console.sources.mails else []
        accepted = next((mail for mail in mails if mail.number == number), None)
        return accepted, parse_mail(accepted.raw()) if accepted else None
    except OSError:
        return None, None


def _gone(request: Request, console: Console) -> Response:
    return console.page(request, "error.html", http_status=404, text="There is no such mail: the local AWS was restarted.")


def mail_html(request: Request, console: Console) -> Response:
    """Return a mail's HTML for its frame."""
    _, shown = _find(request, console)
    return framed(request, shown)


def preview_html(request: Request, previews: Previews) -> Response:
    """Return a preview's HTML for its frame."""
    return framed(request, previews.get(request.path_params["key"]))


def framed(request: Request, shown: ParsedMail | None) -> Response:
    """Return a mail's HTML unchanged, with a Content-Security-Policy that blocks all its actions."""
    if shown is None or shown.html is None:
        return HTMLResponse("", 404)
    return HTMLResponse(shown.html, headers=dict(mail_headers(remote_images="images" in request.query_params)))


def attachment(request: Request, console: Console) -> Response:
    """Return an attachment as a download, regardless of its type."""
    _, shown = _find(request, console)
    number = request.path_params["file"]
    file = next((file for file in shown.files if file.number == number), None) if shown else None
    if file is None:
        return _gone(request, console)
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}"}
    return Response(file.content, media_type="application/octet-stream", headers=headers)


def source(request: Request, console: Console) -> Response:
    """Return the raw mail as a download."""
    accepted, _ = _find(request, console)
    if accepted is None:
        return _gone(request, console)
    headers = {"Content-Disposition": f'attachment; filename="{accepted.number:06}.eml"'}
    return Response(accepted.raw(), media_type="application/octet-stream", headers=headers)
