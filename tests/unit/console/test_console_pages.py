"""The console's pages: with data, without data, without rights, and without responses."""

import pytest

from mailer_ops.console.sources.answers import Trouble
from mailer_ops.console.sources.dead_letters import Selection
from support.console_site import PAGES, Site, elements, tags, words
from support.fakes.console import FakeApi, Platform, error

DENIED = Trouble(kind="denied", text="These credentials lack a right: logs:FilterLogEvents.")


@pytest.mark.parametrize("url", PAGES)
def test_every_page_renders_with_data(busy: Site, url: str) -> None:
    """Each page has one main heading."""
    page = busy.get(url)
    assert page.status == 200
    assert len(list(tags(page.text, "h1"))) == 1


@pytest.mark.parametrize("url", ["/now", "/tenants", "/messages", "/dead-letters", "/compose", "/inbox"])
def test_every_screen_renders_without_data(empty: Site, url: str) -> None:
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
def test_an_empty_page_shows_the_first_step(empty: Site, url: str) -> None:
    """It replaces an empty table."""
    assert FIRST_STEPS[url] in words(empty.get(url).text)


@pytest.mark.parametrize("url", PAGES)
def test_data_denied_by_iam_is_shown_as_denied(busy: Site, url: str) -> None:
    """Each affected part shows the denial; no page fails, and denied data is not shown as empty."""
    busy.platform.api.denied = ["."]
    busy.platform.health.trouble = busy.platform.log.trouble = DENIED
    page = busy.get(url)
    page = busy.follow(page) if page.status == 303 else page
    assert page.status in (200, 404)
    uses_the_api = not url.startswith(("/inbox", "/dead-letters", "/compose"))
    assert ("Denied by IAM" in words(page.text)) is uses_the_api


MISSING_ROUTES = {"/tenants": "list of tenants", "/tenants/acme/statistics": "statistics", "/tenants/acme/suppressions": "suppressions"}


@pytest.mark.parametrize("url", MISSING_ROUTES)
def test_a_route_that_the_deployed_version_lacks_is_explained(busy: Site, url: str) -> None:
    """The console may be newer than the deployed stack."""
    busy.platform.api.absent = ["GET /tenants$", "statistics", "suppressions"]
    page = busy.get(url)
    assert page.status == 200
    assert f"The deployed version of the service has no {MISSING_ROUTES[url]}" in words(page.text)


@pytest.mark.parametrize(
    "url", ["/nothing", "/tenants/acme/nothing", "/inbox/99", "/inbox/99/html", "/inbox/3/files/9", "/dead-letters/work/x"]
)
def test_an_unknown_url_returns_404(busy: Site, url: str) -> None:
    """The response is an error page of the console."""
    assert busy.get(url).status == 404


def test_now_shows_queues_alarms_outcomes_and_problems(busy: Site) -> None:
    """Alarms have their step of the runbook, problems who must do what."""
    text = words(busy.get("/now").text)
    for expected in (
        "Send queue 19",
        "DeadLettersAlarm",
        "Do list them, then redrive or drop.",
        "hooli",
        "Tenant the access key is unknown",
    ):
        assert expected in text


def test_a_chart_has_a_table_with_its_numbers(busy: Site) -> None:
    """The table is for screen readers."""
    page = busy.get("/now?hours=1").text
    assert any(attributes.get("role") == "img" and attributes.get("aria-label") for attributes in tags(page, "svg"))
    assert words(page).count("2026-11-24 09:5") >= 10


def test_without_metrics_outcomes_are_counted_from_the_log(busy: Site) -> None:
    """The local AWS creates no metrics from logs."""
    busy.platform.health.series = {}
    text = words(busy.get("/now").text)
    assert "Counted by the functions' logs" in text
    assert "deferred 3" in text  # two requests of hooli, one of acme that was deferred three times


def test_filters_are_in_the_url(busy: Site) -> None:
    """A filtered list can be shared, and the page's links keep the filters."""
    page = busy.get("/tenants?status=suspended").text
    assert "hooli" in words(page)
    assert "globex" not in words(page)
    links = [attributes["href"] for attributes in tags(busy.get("/messages?tenant=acme&status=sent").text, "a")]
    assert "?tenant=acme&status=failed" in links


def test_the_next_page_of_a_list_keeps_the_filter(busy: Site) -> None:
    """The link has the cursor and the same filter."""
    busy.platform.api.records = [{**busy.platform.api.records[1], "requestId": f"r{number}"} for number in range(60)]
    first = busy.get("/messages?tenant=acme&status=sent").text
    [older] = [attributes["href"] for attributes in tags(first, "a") if attributes.get("rel") == "next"]
    assert older == "?tenant=acme&status=sent&cursor=50"
    assert "r59" in words(busy.get(f"/messages{older}").text)


def test_a_search_reads_all_pages(busy: Site) -> None:
    """A tenant is found by its id or from-address."""
    busy.platform.api.providers |= {f"t{n}": {**busy.platform.api.providers["acme"], "tenantId": f"t{n}"} for n in range(150)}
    busy.platform.api.providers["last"] = {**busy.platform.api.providers["acme"], "tenantId": "last", "fromAddress": "x@rare.example"}
    assert "last" in words(busy.get("/tenants?q=RARE").text)


FOUND = {
    "acme": "/tenants/acme",
    "acme/any-id": "/tenants/acme/messages/any-id",
    "reminder-0042": "/tenants/acme/messages/reminder-0042",
    "0100019-7c1e": "/tenants/acme/messages/invoice-2026-0117",
}


@pytest.mark.parametrize("query", FOUND)
def test_an_exact_id_redirects_to_its_page(busy: Site, query: str) -> None:
    """It may be a tenant, a request with or without its tenant, or SES's messageId."""
    response = busy.get(f"/find?q={query.replace('/', '%2F')}")
    assert (response.status, response.headers["location"]) == (303, FOUND[query])


def test_the_timeline_of_a_request_is_in_order(busy: Site) -> None:
    """It shows the acceptance, deferrals with their reason, the send, the delivery, and the bounce with the receiving server's response."""
    text = words(busy.get("/tenants/acme/messages/invoice-2026-0117").text)
    steps = [
        "Accepted",
        "Deferred 3 times",
        "throttled",
        "SES accepted it",
        "Delivered jo@example.com",
        "Bounced gone@example.com",
        "5.1.1",
    ]
    assert [text.index(step) for step in steps] == sorted(text.index(step) for step in steps)


def test_without_the_log_the_timeline_shows_the_record(busy: Site) -> None:
    """The page says that intermediate steps are missing."""
    busy.platform.log.trouble = DENIED
    text = words(busy.get("/tenants/acme/messages/invoice-2026-0117").text)
    assert "SES accepted it" in text
    assert "Without the intermediate steps" in text


def test_the_page_of_an_open_request_refreshes(busy: Site) -> None:
    """The page of an ended request does not."""
    assert any("data-live" in attributes for attributes in tags(busy.get("/tenants/hooli/messages/welcome-88213").text, "div"))
    ended = busy.get("/tenants/acme/messages/invoice-2026-0116").text
    assert not any("data-live" in attributes for attributes in tags(ended, "div"))


# ── actions ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def last_call(api: FakeApi, method: str) -> tuple[str, str, object]:
    return next(call for call in reversed(api.called) if call[0] == method)


def test_a_failed_verify_shows_the_code_and_the_hint(busy: Site) -> None:
    """The hint says who must do what."""
    busy.platform.api.verdicts["initech"] = error("from_address_not_verified")
    text = words(busy.follow(busy.post("/tenants/initech/provider/verify", {"back": "onboarding"})).text)
    assert "from_address_not_verified" in text
    assert "Tenant verify the from-address" in text


def test_verify_requests_a_simulation_if_the_box_is_checked(busy: Site) -> None:
    """Without the check there is no simulation."""
    busy.post("/tenants/acme/provider/verify", {"simulate": "1"})
    assert last_call(busy.platform.api, "POST")[2] == {"simulate": True}
    busy.post("/tenants/acme/provider/verify")
    assert last_call(busy.platform.api, "POST")[2] is None


@pytest.mark.parametrize(("action", "status"), [("disable", "disabled"), ("enable", "active")])
def test_a_provider_is_disabled_and_enabled(busy: Site, action: str, status: str) -> None:
    """The page confirms it."""
    page = busy.follow(busy.post(f"/tenants/acme/provider/{action}"))
    assert busy.platform.api.providers["acme"]["status"] == status
    assert "Sending is" in words(page.text)


def test_a_provider_is_removed_only_after_its_id_was_typed(busy: Site) -> None:
    """It cannot be removed by mistake."""
    assert "Nothing was removed" in words(busy.follow(busy.post("/tenants/acme/provider/delete", {"confirm": "acm"})).text)
    assert "acme" in busy.platform.api.providers
    busy.post("/tenants/acme/provider/delete", {"confirm": "acme"})
    assert "acme" not in busy.platform.api.providers


KEY = {"by": "key", "accessKeyId": "AKIAIOSFODNN7EXAMPLE", "secretAccessKey": " s3cr3t/canary+ ", "region": "eu-west-1", "fromName": "N"}


def test_a_secret_is_passed_only_to_the_api(busy: Site, caplog: pytest.LogCaptureFixture) -> None:
    """It is passed unchanged; no page and no log has it, even if the config is rejected."""
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


def test_numbers_of_a_config_are_sent_as_numbers(busy: Site) -> None:
    """The API rejects anything that is not a number."""
    busy.post("/tenants/newco/provider", {**KEY, "fromAddress": "n@newco.example", "maxSendRate": "14"})
    assert last_call(busy.platform.api, "PUT")[2]["config"]["maxSendRate"] == 14.0  # type: ignore[index]
    busy.post("/tenants/newco/provider", {**KEY, "fromAddress": "n@newco.example", "maxSendRate": "many"})
    assert last_call(busy.platform.api, "PUT")[2]["config"]["maxSendRate"] == "many"  # type: ignore[index]


def test_the_template_is_a_download(busy: Site) -> None:
    """It can be launched by hand."""
    response = busy.get("/tenants/acme/onboarding/template")
    assert response.headers["content-disposition"] == 'attachment; filename="mail-acme.json"'
    assert b"AWSTemplateFormatVersion" in response.body


def test_a_suppression_is_put_and_lifted(busy: Site) -> None:
    """Both have the given reason; after a lift the page says that SES's own list may contain the address."""
    page = "/tenants/acme/suppressions"
    busy.post(page, {"email": "new+tag@example.com", "why": "asked", "expiresAt": "2026-12-24"})
    put = last_call(busy.platform.api, "PUT")
    assert put[1] == "/tenants/acme/suppressions/new%2Btag%40example.com"
    assert put[2] == {"why": "asked", "expiresAt": "2026-12-24T00:00:00Z"}
    lifted = busy.follow(busy.post(page, {"email": "gone@example.com", "why": "mailbox is back", "action": "lift"}))
    assert "?why=mailbox+is+back" in last_call(busy.platform.api, "DELETE")[1]
    assert "aws sesv2 delete-suppressed-destination" in words(lifted.text)


def test_a_request_is_cancelled(busy: Site) -> None:
    """A waiting request can be cancelled."""
    assert "The request is cancelled" in words(busy.follow(busy.post("/tenants/hooli/messages/welcome-88213/cancel")).text)


@pytest.mark.parametrize(("outcome", "sent"), [("sent", True), ("resend", False)])
def test_an_unknown_is_resolved(busy: Site, outcome: str, sent: bool) -> None:  # noqa: FBT001 - a case
    """A messageId is passed only if the mail was sent: the API rejects it otherwise."""
    form = {"outcome": outcome, "by": "ops", "why": "found it", "messageId": "0100-x"}
    busy.post("/tenants/acme/messages/reminder-0042/resolve", form)
    body = last_call(busy.platform.api, "POST")[2]
    assert body == {"outcome": outcome, "by": "ops", "why": "found it", **({"messageId": "0100-x"} if sent else {})}


def test_a_redrive_shows_its_result(busy: Site) -> None:
    """Only the selected dead letters are redriven."""
    started = busy.post("/dead-letters/redrive", {"tenant": "acme", "reason": "processing_crashed"})
    page = busy.follow(started)
    while "In progress" in words(page.text):
        page = busy.follow(started)
    assert "Done: 1 redriven." in words(page.text)
    assert len(busy.platform.dead_letters.messages) == 3


def test_a_drop_requires_a_selection(busy: Site) -> None:
    """The whole queue cannot be dropped by mistake."""
    assert "Nothing was dropped" in words(busy.follow(busy.post("/dead-letters/drop")).text)
    assert len(busy.platform.dead_letters.messages) == 4
    assert Selection(reason=" ".strip()).everything


# ── compose and inbox ───────────────────────────────────────────────────────────────────────────────────────────────────

COMPOSED = {"tenant": "acme", "to": "Jo Ünger <jo@example.com>, ann@example.com", "subject": "Hi", "text": "a\r\nb", "html": "<b>Hi</b>"}


def test_a_preview_shows_the_mail_and_the_code_that_sends_it(busy: Site) -> None:
    """The samples are JSON, curl and Python, each with the request as it would be sent."""
    page = busy.post("/compose", {**COMPOSED, "action": "preview"})
    assert page.status == 200
    assert last_call(busy.platform.api, "POST")[2] == {
        "message": {
            "to": [{"email": "jo@example.com", "name": "Jo Ünger"}, {"email": "ann@example.com"}],
            "subject": "Hi",
            "text": "a\nb",
            "html": "<b>Hi</b>",
        }
    }
    text = words(page.text)
    for expected in ("--aws-sigv4", "from mailer_client import MailClient", "MIME source", '"name": "Jo Ünger"'):
        assert expected in text
    [frame] = tags(page.text, "iframe")
    assert frame["sandbox"] is None  # the attribute is present and empty
    assert b"<b>Hi</b>" in busy.get(str(frame["src"])).body


def test_a_preview_with_problems_lists_them(busy: Site) -> None:
    """Each problem has its path."""
    text = words(busy.post("/compose", {**COMPOSED, "to": "", "action": "preview"}).text)
    assert "message.to is missing" in text


def test_a_sent_mail_redirects_to_its_page(busy: Site) -> None:
    """The request has a generated id unless one is given."""
    response = busy.post("/compose", {**COMPOSED, "requestId": "mine-1", "action": "send"})
    assert response.headers["location"].startswith("/tenants/acme/messages/mine-1?")
    assert busy.post("/compose", {**COMPOSED, "action": "send"}).headers["location"].startswith("/tenants/acme/messages/console-")


def test_a_rejected_form_is_shown_again_with_its_values(busy: Site) -> None:
    """The page shows the reason."""
    page = busy.post("/compose", {**COMPOSED, "tenant": "newco", "action": "send"})
    assert page.status == 400
    assert "provider_not_configured" in words(page.text)
    assert any(field.get("value") == COMPOSED["to"] for field in tags(page.text, "input"))


def test_a_whole_request_can_be_given_as_json(busy: Site) -> None:
    """JSON replaces the fields; unreadable JSON is reported."""
    busy.post("/compose", {**COMPOSED, "json": '{"message": {"to": [], "subject": "x", "calendar": {}}}', "action": "preview"})
    assert "calendar" in last_call(busy.platform.api, "POST")[2]["message"]  # type: ignore[index]
    assert "The JSON cannot be read" in words(busy.post("/compose", {**COMPOSED, "json": "{", "action": "preview"}).text)
    assert "must be an object" in words(busy.post("/compose", {**COMPOSED, "json": "[]", "action": "preview"}).text)


def test_files_are_sent_in_base64(busy: Site) -> None:
    """The page's script encodes them."""
    files = '[{"filename": "a.txt", "content": "YQ=="}]'
    busy.post("/compose", {**COMPOSED, "files": files, "action": "preview"})
    assert last_call(busy.platform.api, "POST")[2]["message"]["attachments"] == [{"filename": "a.txt", "content": "YQ=="}]  # type: ignore[index]


def test_a_mail_links_to_its_request(busy: Site) -> None:
    """The link is found by its tags; without tags, by its messageId in the log."""
    hrefs = {attributes.get("href") for attributes in tags(busy.get("/inbox/3").text, "a")}
    assert "/tenants/acme/messages/invoice-2026-0117" in hrefs
    assert "/find?q=0100-verify" in {attributes.get("href") for attributes in tags(busy.get("/inbox/1").text, "a")}


def test_a_file_is_a_download_regardless_of_its_type(busy: Site) -> None:
    """A browser does not render it in the console."""
    response = busy.get("/inbox/3/files/0")
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"].startswith("attachment;")


def test_on_aws_there_is_no_inbox() -> None:
    """The menu has no link to it."""
    site = Site(Platform(mails=None, is_local=False))
    assert "Only the local AWS has an inbox" in words(site.get("/inbox").text)
    assert "/inbox" not in {attributes.get("href") for attributes in tags(site.get("/now").text, "a")}


def test_pages_have_no_inline_scripts_or_styles(busy: Site) -> None:
    """The Content-Security-Policy blocks them."""
    for url in PAGES:
        for tag, attributes in elements(busy.get(url).text):
            assert tag != "style"
            assert not {name for name in attributes if name.startswith("on") or name == "style"}, (url, tag, attributes)
