"""The console's pages: with data, without data, without rights, and without responses."""

import pytest

from mailer_ops.console.sources.answers import Trouble
from mailer_ops.console.sources.dead_letters import Selection
from support.console_site import PAGES, Site, elements, tags, words
from support.fakes.console import FakeApi, Platform, error

DENIED = Trouble(kind="denied", text="These credentials lack a right: logs:FilterLogEvents.")


@pytest.mark.parametrize("url", PAGES)
def test_every_page_answers_on_a_busy_platform(busy: Site, url: str) -> None:
    """With one heading."""
    page = busy.get(url)
    assert page.status == 200
    assert len(list(tags(page.text, "h1"))) == 1


@pytest.mark.parametrize("url", ["/now", "/tenants", "/messages", "/dead-letters", "/compose", "/inbox"])
def test_every_screen_answers_on_its_first_day(empty: Site, url: str) -> None:
    """No page fails without data."""
    assert empty.get(url).status == 200


FIRST_STEPS = {
    "/now": "Compose a mail",
    "/tenants": "Onboard one",
    "/messages": "compose a mail",
    "/dead-letters": "No dead letters",
    "/inbox": "make tenant NAME=acme",
    "/tenants/newco": "Onboard newco",
    "/messages?tenant=newco": "Compose a mail",
    "/tenants/newco/suppressions": "No address is suppressed",
    "/tenants/newco/statistics": "Compose a mail",
}


@pytest.mark.parametrize("url", FIRST_STEPS)
def test_an_empty_page_says_what_to_do_first(empty: Site, url: str) -> None:
    """In place of an empty table."""
    assert FIRST_STEPS[url] in words(empty.get(url).text)


@pytest.mark.parametrize("url", PAGES)
def test_what_iam_denies_is_shown_as_denied(busy: Site, url: str) -> None:
    """Each affected part shows the denial; no page fails, and denied data is not shown as empty."""
    busy.platform.api.denied = ["."]
    busy.platform.health.trouble = busy.platform.log.trouble = DENIED
    page = busy.get(url)
    page = busy.follow(page) if page.status == 303 else page
    assert page.status in (200, 404)
    asks = not url.startswith(("/inbox", "/dead-letters", "/compose"))
    assert ("Denied by IAM" in words(page.text)) is asks


ROUTES = {"/tenants": "list of tenants", "/tenants/acme/statistics": "statistics", "/tenants/acme/suppressions": "suppressions"}


@pytest.mark.parametrize("url", ROUTES)
def test_a_version_without_a_route_is_said_in_a_sentence(busy: Site, url: str) -> None:
    """The console may be newer than the deployed stack."""
    busy.platform.api.absent = ["GET /tenants$", "statistics", "suppressions"]
    page = busy.get(url)
    assert page.status == 200
    assert f"The deployed version of the service has no {ROUTES[url]}" in words(page.text)


@pytest.mark.parametrize(
    "url", ["/nothing", "/tenants/acme/nothing", "/inbox/99", "/inbox/99/html", "/inbox/3/files/9", "/dead-letters/work/x"]
)
def test_what_is_not_there_is_a_404(busy: Site, url: str) -> None:
    """With an error page of the console."""
    assert busy.get(url).status == 404


def test_now_shows_queues_alarms_outcomes_and_trouble(busy: Site) -> None:
    """The alarm with its step of the runbook, the troubles with who must do what."""
    said = words(busy.get("/now").text)
    for expected in (
        "Send queue 19",
        "DeadLettersAlarm",
        "Do list them, then redrive or drop.",
        "hooli",
        "Tenant the access key is unknown",
    ):
        assert expected in said


def test_a_chart_has_a_table_of_its_numbers(busy: Site) -> None:
    """For screen readers."""
    page = busy.get("/now?hours=1").text
    assert any(attributes.get("role") == "img" and attributes.get("aria-label") for attributes in tags(page, "svg"))
    assert words(page).count("2026-11-24 09:5") >= 10


def test_without_metrics_outcomes_are_counted_from_the_log(busy: Site) -> None:
    """As on the local AWS, which creates no metrics from logs."""
    busy.platform.health.series = {}
    said = words(busy.get("/now").text)
    assert "Counted by the functions' logs" in said
    assert "deferred 3" in said  # two of hooli, one of acme, however often


def test_filters_are_in_the_address(busy: Site) -> None:
    """So a list can be shared, and the page's own links keep the filters."""
    page = busy.get("/tenants?status=suspended").text
    assert "hooli" in words(page)
    assert "globex" not in words(page)
    links = [attributes["href"] for attributes in tags(busy.get("/messages?tenant=acme&status=sent").text, "a")]
    assert "?tenant=acme&status=failed" in links


def test_a_list_goes_on_at_its_cursor(busy: Site) -> None:
    """With the same filter."""
    busy.platform.api.records = [{**busy.platform.api.records[1], "requestId": f"r{number}"} for number in range(60)]
    first = busy.get("/messages?tenant=acme&status=sent").text
    [older] = [attributes["href"] for attributes in tags(first, "a") if attributes.get("rel") == "next"]
    assert older == "?tenant=acme&status=sent&cursor=50"
    assert "r59" in words(busy.get(f"/messages{older}").text)


def test_a_search_looks_through_all_pages(busy: Site) -> None:
    """By id and by from-address."""
    busy.platform.api.providers |= {f"t{n}": {**busy.platform.api.providers["acme"], "tenantId": f"t{n}"} for n in range(150)}
    busy.platform.api.providers["last"] = {**busy.platform.api.providers["acme"], "tenantId": "last", "fromAddress": "x@rare.example"}
    assert "last" in words(busy.get("/tenants?q=RARE").text)


FOUND = {
    "acme": "/tenants/acme",
    "acme/any-id": "/tenants/acme/messages/any-id",
    "reminder-0042": "/tenants/acme/messages/reminder-0042",
    "0100019-7c1e": "/tenants/acme/messages/invoice-2026-0117",
}


@pytest.mark.parametrize("wanted", FOUND)
def test_an_id_is_found_at_once(busy: Site, wanted: str) -> None:
    """A tenant, a request with and without its tenant, SES's messageId."""
    answered = busy.get(f"/find?q={wanted.replace('/', '%2F')}")
    assert (answered.status, answered.headers["location"]) == (303, FOUND[wanted])


def test_a_request_s_story_is_told_in_order(busy: Site) -> None:
    """Accepted, deferred and why, sent, delivered, bounced with the response of the receiving server."""
    said = words(busy.get("/tenants/acme/messages/invoice-2026-0117").text)
    steps = [
        "Accepted",
        "Deferred 3 times",
        "throttled",
        "SES accepted it",
        "Delivered jo@example.com",
        "Bounced gone@example.com",
        "5.1.1",
    ]
    assert [said.index(step) for step in steps] == sorted(said.index(step) for step in steps)


def test_a_story_without_the_log_still_tells_what_the_record_knows(busy: Site) -> None:
    """The page says what is missing."""
    busy.platform.log.trouble = DENIED
    said = words(busy.get("/tenants/acme/messages/invoice-2026-0117").text)
    assert "SES accepted it" in said
    assert "Without the intermediate steps" in said


def test_a_page_of_something_open_looks_again(busy: Site) -> None:
    """The page of an ended request does not."""
    assert any("data-live" in attributes for attributes in tags(busy.get("/tenants/hooli/messages/welcome-88213").text, "div"))
    ended = busy.get("/tenants/acme/messages/invoice-2026-0116").text
    assert not any("data-live" in attributes for attributes in tags(ended, "div"))


# ── actions ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def last_call(api: FakeApi, method: str) -> tuple[str, str, object]:
    return next(call for call in reversed(api.called) if call[0] == method)


def test_a_verify_shows_the_doctor_s_answer(busy: Site) -> None:
    """The code, and who must do what."""
    busy.platform.api.verdicts["initech"] = error("from_address_not_verified")
    said = words(busy.follow(busy.post("/tenants/initech/provider/verify", {"back": "onboarding"})).text)
    assert "from_address_not_verified" in said
    assert "Tenant verify the from-address" in said


def test_a_verify_can_ask_for_a_simulation(busy: Site) -> None:
    """Only if the box is checked."""
    busy.post("/tenants/acme/provider/verify", {"simulate": "1"})
    assert last_call(busy.platform.api, "POST")[2] == {"simulate": True}
    busy.post("/tenants/acme/provider/verify")
    assert last_call(busy.platform.api, "POST")[2] is None


@pytest.mark.parametrize(("action", "status"), [("disable", "disabled"), ("enable", "active")])
def test_a_provider_is_switched(busy: Site, action: str, status: str) -> None:
    """The page confirms it."""
    page = busy.follow(busy.post(f"/tenants/acme/provider/{action}"))
    assert busy.platform.api.providers["acme"]["status"] == status
    assert "Sending is" in words(page.text)


def test_a_provider_is_removed_when_its_name_was_typed(busy: Site) -> None:
    """Not by mistake."""
    assert "Nothing was removed" in words(busy.follow(busy.post("/tenants/acme/provider/delete", {"confirm": "acm"})).text)
    assert "acme" in busy.platform.api.providers
    busy.post("/tenants/acme/provider/delete", {"confirm": "acme"})
    assert "acme" not in busy.platform.api.providers


KEY = {"by": "key", "accessKeyId": "AKIAIOSFODNN7EXAMPLE", "secretAccessKey": " s3cr3t/canary+ ", "region": "eu-west-1", "fromName": "N"}


def test_a_secret_goes_to_the_api_and_nowhere_else(busy: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Unchanged; no page and no log has it, even if the config is rejected."""
    caplog.set_level("DEBUG")
    refused = busy.follow(busy.post("/tenants/newco/provider", {**KEY, "fromAddress": "nobody"}))
    assert "must be an address" in words(refused.text)
    assert any(field.get("value") == "AKIAIOSFODNN7EXAMPLE" for field in tags(refused.text, "input"))
    stored = busy.follow(busy.post("/tenants/newco/provider", {**KEY, "fromAddress": "n@newco.example"}))
    assert "The config is stored" in words(stored.text)
    sent = last_call(busy.platform.api, "PUT")[2]
    assert sent["config"]["secretAccessKey"] == " s3cr3t/canary+ "  # type: ignore[index]
    shown = refused.text + stored.text + busy.get("/tenants/newco").text + busy.get("/tenants/newco/onboarding").text + caplog.text
    assert "s3cr3t" not in shown


def test_numbers_of_a_config_go_as_numbers(busy: Site) -> None:
    """The API rejects anything that is not a number."""
    busy.post("/tenants/newco/provider", {**KEY, "fromAddress": "n@newco.example", "maxSendRate": "14"})
    assert last_call(busy.platform.api, "PUT")[2]["config"]["maxSendRate"] == 14.0  # type: ignore[index]
    busy.post("/tenants/newco/provider", {**KEY, "fromAddress": "n@newco.example", "maxSendRate": "many"})
    assert last_call(busy.platform.api, "PUT")[2]["config"]["maxSendRate"] == "many"  # type: ignore[index]


def test_the_template_comes_as_a_file(busy: Site) -> None:
    """For a manual launch."""
    answered = busy.get("/tenants/acme/onboarding/template")
    assert answered.headers["content-disposition"] == 'attachment; filename="mail-acme.json"'
    assert b"AWSTemplateFormatVersion" in answered.body


def test_a_suppression_is_put_and_lifted(busy: Site) -> None:
    """With the given reason; then the page says that SES's own list may contain the address."""
    page = "/tenants/acme/suppressions"
    busy.post(page, {"email": "new+tag@example.com", "why": "asked", "expiresAt": "2026-12-24"})
    put = last_call(busy.platform.api, "PUT")
    assert put[1] == "/tenants/acme/suppressions/new%2Btag%40example.com"
    assert put[2] == {"why": "asked", "expiresAt": "2026-12-24T00:00:00Z"}
    lifted = busy.follow(busy.post(page, {"email": "gone@example.com", "why": "mailbox is back", "action": "lift"}))
    assert "?why=mailbox+is+back" in last_call(busy.platform.api, "DELETE")[1]
    assert "aws sesv2 delete-suppressed-destination" in words(lifted.text)


def test_a_request_is_cancelled(busy: Site) -> None:
    """A waiting one."""
    assert "The request is cancelled" in words(busy.follow(busy.post("/tenants/hooli/messages/welcome-88213/cancel")).text)


@pytest.mark.parametrize(("outcome", "sent"), [("sent", True), ("resend", False)])
def test_an_unknown_is_settled(busy: Site, outcome: str, sent: bool) -> None:  # noqa: FBT001 - a case
    """With a messageId only if it was sent: the API rejects it otherwise."""
    word = {"outcome": outcome, "by": "ops", "why": "found it", "messageId": "0100-x"}
    busy.post("/tenants/acme/messages/reminder-0042/resolve", word)
    body = last_call(busy.platform.api, "POST")[2]
    assert body == {"outcome": outcome, "by": "ops", "why": "found it", **({"messageId": "0100-x"} if sent else {})}


def test_dead_letters_are_redriven_with_what_became_of_each(busy: Site) -> None:
    """Only the selected ones."""
    desk_page = busy.post("/dead-letters/redrive", {"tenant": "acme", "reason": "processing_crashed"})
    page = busy.follow(desk_page)
    while "In progress" in words(page.text):
        page = busy.follow(desk_page)
    assert "Done: 1 redriven." in words(page.text)
    assert len(busy.platform.dead_letters.messages) == 3


def test_a_drop_must_name_what_it_drops(busy: Site) -> None:
    """Not the whole queue by mistake."""
    assert "Nothing was dropped" in words(busy.follow(busy.post("/dead-letters/drop")).text)
    assert len(busy.platform.dead_letters.messages) == 4
    assert Selection(reason=" ".strip()).everything


# ── compose and inbox ───────────────────────────────────────────────────────────────────────────────────────────────────

LETTER = {"tenant": "acme", "to": "Jo Ünger <jo@example.com>, ann@example.com", "subject": "Hi", "text": "a\r\nb", "html": "<b>Hi</b>"}


def test_a_preview_shows_the_mail_and_the_code_that_sends_it(busy: Site) -> None:
    """JSON, curl and Python, each with the request as it would be sent."""
    page = busy.post("/compose", {**LETTER, "action": "preview"})
    assert page.status == 200
    assert last_call(busy.platform.api, "POST")[2] == {
        "message": {
            "to": [{"email": "jo@example.com", "name": "Jo Ünger"}, {"email": "ann@example.com"}],
            "subject": "Hi",
            "text": "a\nb",
            "html": "<b>Hi</b>",
        }
    }
    said = words(page.text)
    for expected in ("--aws-sigv4", "from mailer_client import MailClient", "MIME source", '"name": "Jo Ünger"'):
        assert expected in said
    [frame] = tags(page.text, "iframe")
    assert frame["sandbox"] is None  # the attribute is present and empty
    assert b"<b>Hi</b>" in busy.get(str(frame["src"])).body


def test_a_preview_with_problems_lists_them(busy: Site) -> None:
    """By their paths."""
    said = words(busy.post("/compose", {**LETTER, "to": "", "action": "preview"}).text)
    assert "message.to is missing" in said


def test_a_letter_is_sent_and_its_page_opened(busy: Site) -> None:
    """With a generated id unless one is given."""
    answered = busy.post("/compose", {**LETTER, "requestId": "mine-1", "action": "send"})
    assert answered.headers["location"].startswith("/tenants/acme/messages/mine-1?")
    assert busy.post("/compose", {**LETTER, "action": "send"}).headers["location"].startswith("/tenants/acme/messages/console-")


def test_what_is_refused_comes_back_as_it_was_written(busy: Site) -> None:
    """With the reason, for correction."""
    page = busy.post("/compose", {**LETTER, "tenant": "newco", "action": "send"})
    assert page.status == 400
    assert "provider_not_configured" in words(page.text)
    assert any(field.get("value") == LETTER["to"] for field in tags(page.text, "input"))


def test_a_whole_request_can_be_given_as_json(busy: Site) -> None:
    """Instead of the fields; unreadable JSON is reported."""
    busy.post("/compose", {**LETTER, "json": '{"message": {"to": [], "subject": "x", "calendar": {}}}', "action": "preview"})
    assert "calendar" in last_call(busy.platform.api, "POST")[2]["message"]  # type: ignore[index]
    assert "The JSON cannot be read" in words(busy.post("/compose", {**LETTER, "json": "{", "action": "preview"}).text)
    assert "must be an object" in words(busy.post("/compose", {**LETTER, "json": "[]", "action": "preview"}).text)


def test_files_go_along_as_the_api_takes_them(busy: Site) -> None:
    """In base64, as the page's script encodes them."""
    files = '[{"filename": "a.txt", "content": "YQ=="}]'
    busy.post("/compose", {**LETTER, "files": files, "action": "preview"})
    assert last_call(busy.platform.api, "POST")[2]["message"]["attachments"] == [{"filename": "a.txt", "content": "YQ=="}]  # type: ignore[index]


def test_a_mail_tells_which_request_it_was(busy: Site) -> None:
    """By its tags; without tags, by its messageId in the log."""
    hrefs = {attributes.get("href") for attributes in tags(busy.get("/inbox/3").text, "a")}
    assert "/tenants/acme/messages/invoice-2026-0117" in hrefs
    assert "/find?q=0100-verify" in {attributes.get("href") for attributes in tags(busy.get("/inbox/1").text, "a")}


def test_a_file_comes_as_a_download_whatever_it_claims_to_be(busy: Site) -> None:
    """A browser does not render them in the console."""
    answered = busy.get("/inbox/3/files/0")
    assert answered.headers["content-type"] == "application/octet-stream"
    assert answered.headers["content-disposition"].startswith("attachment;")


def test_on_aws_there_is_no_inbox() -> None:
    """Nor a link to it in the menu."""
    site = Site(Platform(mails=None, is_local=False))
    assert "Only the local AWS has an inbox" in words(site.get("/inbox").text)
    assert "/inbox" not in {attributes.get("href") for attributes in tags(site.get("/now").text, "a")}


def test_pages_carry_no_script_and_no_style_of_their_own(busy: Site) -> None:
    """The Content-Security-Policy blocks them."""
    for url in PAGES:
        for tag, attributes in elements(busy.get(url).text):
            assert tag != "style"
            assert not {name for name in attributes if name.startswith("on") or name == "style"}, (url, tag, attributes)
