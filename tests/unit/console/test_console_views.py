"""Conversion of data for display: charts, timelines, mails, rates, the runbook, code samples."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from mailer.domain.delivery import Status
from mailer_ops.console.pages.compose import request_of
from mailer_ops.console.pages.dead_letters import REASONS
from mailer_ops.console.sources.health import Window
from mailer_ops.console.views import rates, runbook, samples
from mailer_ops.console.views.charts import HEIGHT, bars, round_up
from mailer_ops.console.views.mail import parse_mail, subject_of
from mailer_ops.console.views.timeline import is_open, timeline
from mailer_ops.console.web import ago, clock, external, hint_parts, query_with, size
from mailer_ops.operations.dead_letters import MOVED_BY_SQS, OTHER_VERSION
from mailer_ops.operations.request_log import LoggedState
from support.fakes.console import NOW, error, record, written

ROOT = Path(__file__).resolve().parents[3]
HOURS = [NOW + timedelta(hours=number) for number in range(4)]


# ── charts ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def drawn(series: Mapping[str, list[int]]) -> list[dict[str, str]]:
    root = ET.fromstring(str(bars(HOURS, series, "A chart")))  # noqa: S314 - our own
    return [element.attrib for element in root.iter() if element.tag == "rect"]


def test_a_bar_s_height_is_proportional_to_its_number() -> None:
    """The parts of one bar are stacked."""
    low, high = drawn({"sent": [50, 0, 0, 0], "failed": [100, 0, 0, 0]})
    assert float(high["height"]) == pytest.approx(2 * float(low["height"]), abs=0.2)
    assert float(high["y"]) + float(high["height"]) == pytest.approx(float(low["y"]), abs=0.2)
    assert float(low["y"]) + float(low["height"]) < HEIGHT


def test_a_small_number_still_has_a_visible_bar() -> None:
    """Its bar is at least a line."""
    assert float(drawn({"sent": [10_000, 0, 0, 0], "unknown": [0, 1, 0, 0]})[1]["height"]) >= 1


def test_a_chart_of_zeros_has_no_bars() -> None:
    """It still has an axis."""
    assert drawn({"sent": [0, 0, 0, 0]}) == []


@pytest.mark.parametrize(("highest", "top"), [(0, 2), (2, 2), (3, 4), (9, 10), (11, 12), (223, 400), (1500, 1600), (2001, 4000)])
def test_an_axis_ends_at_a_round_number(highest: int, top: int) -> None:
    """Half of it is an integer."""
    assert round_up(highest) == top


def test_a_window_ends_with_the_current_step() -> None:
    """Only events within the window are counted."""
    window = Window.of(3, NOW)
    assert len(window.starts) == window.steps
    assert window.index(NOW) == window.steps - 1
    assert window.index(window.start) == 0
    assert window.index(window.start - timedelta(seconds=1)) is None
    assert window.index(NOW + timedelta(hours=1)) is None


# ── timelines ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def state(status: str, minutes: float, **more: Any) -> LoggedState:
    return LoggedState(tenant_id="acme", request_id="r", status=Status(status), at=NOW + timedelta(minutes=minutes), **more)


def titles(shown: Any, states: list[LoggedState] | None = None, recipients: list[Any] | None = None) -> list[str]:
    return [event.title for event in timeline(shown, states or [], recipients or [])]


def test_ses_response_and_record_are_one_event() -> None:
    """The log has a line for each."""
    sent = record("acme", "r", "sent", timedelta())
    assert titles(sent, [state("sent", 1, attempt=1), state("sent", 1.01, attempt=1)]) == ["Accepted", "SES accepted it"]


def test_repeated_deferrals_are_merged_and_counted() -> None:
    """A different reason starts a new entry."""
    waits = [state("deferred", minutes, code="throttled") for minutes in (1, 2, 3)] + [state("deferred", 4, code="daily_quota_exceeded")]
    events = timeline(record("acme", "r", "deferred", timedelta()), waits, [])
    assert [(event.text, event.times) for event in events[1:]] == [("throttled", 3), ("daily_quota_exceeded", 1)]


def test_future_events_are_last() -> None:
    """They are the retry of a deferred request and the resend of an unknown one."""
    later = written(NOW + timedelta(hours=1))
    deferred = record("acme", "r", "deferred", timedelta(), dueAt=later, error=error("throttled"))
    assert titles(deferred) == ["Accepted", "Deferred", "Retry"]
    assert titles(record("acme", "r", "unknown", timedelta(), dueAt=later))[-1] == "Resend, by onUnknown"


def test_resolutions_and_cancellations_name_the_operator() -> None:
    """Both the given name and the IAM identity are shown."""
    word = {"outcome": "resend", "by": "ann", "why": "nothing came", "at": written(NOW), "principal": "arn:x"}
    resolved = timeline(record("acme", "r", "queued", timedelta(hours=1), resolution=word), [], [])
    assert (resolved[-1].title, resolved[-1].who, resolved[-1].text) == ("Resolved: send it again", "ann (arn:x)", "nothing came")
    withdrawn = timeline(record("acme", "r", "cancelled", timedelta(), cancelledBy="arn:y"), [], [])
    assert withdrawn[-1].who == "arn:y"


def test_the_number_of_suppressed_recipients_is_shown() -> None:
    """It is part of the timeline."""
    [accepted, *_] = timeline(record("acme", "r", "sent", timedelta(), recipients=3, suppressed=1), [], [])
    assert accepted.text == "3 recipients; 1 suppressed"


@pytest.mark.parametrize(
    ("status", "due", "expected"), [("queued", None, True), ("sent", None, False), ("unknown", None, False), ("unknown", "x", True)]
)
def test_an_open_request_is_recognized(status: str, due: str | None, expected: bool) -> None:  # noqa: FBT001 - a case
    """An unknown that will be resent is open."""
    assert is_open(record("acme", "r", status, timedelta(), dueAt=due)) is expected


# ── mails ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def a_mail() -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"] = "Grüße"
    mail["From"] = "Acme <billing@acme.example>"
    mail.set_content("the text")
    mail.add_alternative('<img src="cid:logo"><img src="https://track.example/x.gif">', subtype="html")
    return mail


def test_a_mail_is_parsed() -> None:
    """The result has its text, HTML, files and decoded headers."""
    mail = a_mail()
    mail.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="Rechnung ä.pdf")
    shown = parse_mail(mail.as_bytes())
    assert (shown.subject, shown.text, shown.remote) == ("Grüße", "the text\n", True)
    assert [(file.filename, file.content) for file in shown.files] == [("Rechnung ä.pdf", b"%PDF")]
    assert subject_of(mail.as_bytes().replace(b"\n", b"\r\n")) == "Grüße"


def test_inline_images_are_embedded_in_the_html() -> None:
    """The mail's frame cannot load any image itself."""
    mail = a_mail()
    [_, html] = list(mail.iter_parts())
    html.add_related(b"\x89PNG", maintype="image", subtype="png", cid="<logo>")
    assert 'src="data:image/png;base64,iVBORw=="' in str(parse_mail(mail.as_bytes()).html)


def test_only_raster_images_are_embedded() -> None:
    """An SVG may contain a script, so it stays a file."""
    mail = a_mail()
    [_, html] = list(mail.iter_parts())
    html.add_related(b"<svg/>", maintype="image", subtype="svg+xml", cid="<logo>")
    assert "data:" not in str(parse_mail(mail.as_bytes()).html)


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<img src='https://x/1'>", True),
        ("<img src=//x/1>", True),
        ("<p style='background:url(http://x/1)'>", True),
        ("<a href='https://x'>", False),
    ],
)
def test_remote_resources_are_detected(html: str, expected: bool) -> None:  # noqa: FBT001 - a case
    """A link is not a resource."""
    mail = EmailMessage()
    mail.set_content(html, subtype="html")
    assert parse_mail(mail.as_bytes()).remote is expected


@pytest.mark.parametrize(
    "raw", [b"", b"\r\n\r\n", b"no header at all", b"Content-Type: text/plain; charset=no-such\r\n\r\nx", b"\xff\xfe\x00"]
)
def test_an_invalid_mail_is_still_shown(raw: bytes) -> None:
    """Its parts are shown as far as possible."""
    assert parse_mail(raw).subject == ""


# ── rates ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("sent", "bounced", "level"), [(100, 4, "good"), (100, 5, "review"), (100, 10, "pause"), (19, 19, "few"), (1000, 0, "good")]
)
def test_a_rate_has_a_level_by_aws_thresholds(sent: int, bounced: int, level: str) -> None:
    """One bounce of thirteen mails has no level."""
    found = rates.rate({"sent": sent, "bounced": bounced}, "bounced")
    assert found
    assert (found.share, found.level) == (bounced / sent, level)


def test_without_sent_mail_there_is_no_rate() -> None:
    """Complaints have their own thresholds."""
    assert rates.rate({"sent": 0}, "bounced") is None
    found = rates.rate(rates.totals([{"sent": 500}, {"sent": 500, "complained": 1}]), "complained")
    assert found
    assert found.level == "review"


# ── the runbook ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_alarm_has_a_step_in_the_runbook() -> None:
    """The template links to its section; the console shows its step from `Do:` on."""
    text = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
    sections = set(re.findall(r"\$\{RunbookUrl\}#([a-z-]+)", (ROOT / "template.yaml").read_text(encoding="utf-8")))
    assert len(sections) > 10
    for section in sections - {"dead-letters"}:  # a table of reasons; the console has a page for them
        assert len(runbook.steps(text, section)) > 20, section


def test_the_console_explains_each_reason_of_a_dead_letter() -> None:
    """Those of the runbook's table, and those of our own commands."""
    section = (ROOT / "docs/runbook.md").read_text(encoding="utf-8").partition("\n## Dead letters\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == REASONS.keys()
    assert {MOVED_BY_SQS, OTHER_VERSION} <= REASONS.keys()


def test_a_runbook_step_is_plain_text() -> None:
    """Links keep their text; an unknown section has no step."""
    text = "# R\n\n## Dead letters\n\nx\n\nDo: `make dlq`, see\n[deploy.md](deploy.md#x).\n\n```sh\nmake\n```\n"
    assert runbook.steps(text, "dead-letters") == "make dlq, see deploy.md."
    assert runbook.steps(text, "none") == ""


# ── code samples ────────────────────────────────────────────────────────────────────────────────────────────────────────

REQUEST = {
    "message": {"to": [{"email": "o'neil@example.com"}], "subject": 'It\'s "quoted" $HOME `id`', "textFromHtml": False, "html": None}
}


def test_the_python_sends_the_same_request() -> None:
    """It is run with a client that stores its arguments."""
    program = samples.python("https://x/v1", "acme", REQUEST)
    given: dict[str, Any] = {}
    exec(program.partition("mail = ")[0].replace("from mailer_client import MailClient", ""), given)  # noqa: S102 - our own
    assert given["request"] == REQUEST


def test_the_curl_command_sends_the_same_body() -> None:
    """The shell expands nothing in it."""
    command = samples.curl("https://x/v1", "eu-west-1", "acme", REQUEST)
    body = command.partition("<<'END'\n")[2].removesuffix("\nEND")
    assert json.loads(body) == REQUEST
    assert "--aws-sigv4 aws:amz:eu-west-1:execute-api" in command


def test_empty_fields_of_a_form_are_omitted() -> None:
    """The API's defaults apply to them."""
    typed = dict.fromkeys(("tenant", "requestId", "to", "cc", "bcc", "replyTo", "text", "html", "sendAt", "onUnknown", "files", "json"), "")
    assert request_of({**typed, "subject": ""}) == {"message": {"subject": ""}}
    with pytest.raises(ValueError, match="list of files cannot be read"):
        request_of({**typed, "subject": "", "files": "["})


# ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "now"), (59, "59 s ago"), (3600, "1 h ago"), (-90, "in 1 min"), (200_000, "2 d ago"), (-200_000, "in 2 d")]
)
def test_times_are_relative_to_now(seconds: int, text: str) -> None:
    """They are in whole units."""
    assert ago(NOW - timedelta(seconds=seconds), NOW) == text


def test_times_are_shown_in_utc_and_other_text_unchanged() -> None:
    """Times may have any offset."""
    assert clock("2026-11-24T12:00:00+02:00") == "2026-11-24 10:00:00"
    assert clock("yesterday") == "yesterday"
    assert ago("yesterday", datetime.now(UTC)) == ""


def test_sizes_hints_addresses_and_queries_are_formatted() -> None:
    """Each formatter is applied to one example."""
    assert [size(10), size(2048), size(3 * 1024 * 1024)] == ["10 bytes", "2.0 KB", "3.0 MB"]
    assert hint_parts("Tenant: do it: now") == ("Tenant", "do it: now")
    assert hint_parts("do: it") == ("", "do: it")
    assert [external(url) for url in ("https://x", "javascript:x", "http://x", "//x")] == ["https://x", "", "", ""]
    assert query_with({"a": "1", "said": "x"}, b="ü", a="") == "?b=%C3%BC"
