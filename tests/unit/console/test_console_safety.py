"""Protection of the console against other sites, other machines, and hostile content of mails and ids."""

from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.routing import Route

from mailer_ops.console.app import _forms
from mailer_ops.console.safety import Token
from mailer_ops.console.server import HOST
from mailer_ops.console.sources.mails import LocalMails
from mailer_ops.console.web import MAX_FORM, Console
from support.console_hostile import HOSTILE, hostile_platform, hostile_urls
from support.console_site import ORIGIN, Site, elements, words
from support.fakes.console import Platform


def routes_of_forms() -> list[str]:
    forms = [
        route for route in _forms(Console(Platform().sources(), Token())) if isinstance(route, Route) and "POST" in (route.methods or ())
    ]
    return [route.path.replace("{tenant}", "acme").replace("{request}", "reminder-0042") for route in forms]


FORMS = routes_of_forms()


@pytest.mark.parametrize("host", ["evil.example:4567", "127.0.0.1", "127.0.0.1:80", "localhost.evil.example:4567", "", "[::1]:4567"])
def test_another_host_name_is_refused(busy: Site, host: str) -> None:
    """A foreign name that resolves to this machine gets no page (DNS rebinding)."""
    assert busy.get("/now", host=host).status == 421


def test_both_names_of_this_machine_are_accepted(busy: Site) -> None:
    """The names are the IP address and localhost."""
    assert [busy.get("/now", host=f"{name}:4567").status for name in ("127.0.0.1", "localhost")] == [200, 200]


def test_it_listens_only_on_loopback() -> None:
    """No argument can change the address."""
    assert HOST == "127.0.0.1"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("origin", ["", "null", "http://evil.example", "http://127.0.0.1:4568", "https://127.0.0.1:4567"])
def test_a_form_from_another_origin_is_rejected(busy: Site, form: str, origin: str) -> None:
    """It is rejected even with the token, and also without an Origin."""
    token = busy.token
    busy.platform.api.called.clear()
    assert busy.post(form, origin=origin, token=token).status == 403
    assert not busy.platform.api.called


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("token", ["", "guess", "é"])
def test_a_form_without_the_token_is_rejected(busy: Site, form: str, token: str) -> None:
    """Every form of the app's routes is tested."""
    assert busy.post(form, token=token).status == 403
    assert not [call for call in busy.platform.api.called if call[0] != "GET"]
    assert len(busy.platform.dead_letters.messages) == 4


def test_each_run_has_its_own_token() -> None:
    """It is long enough not to be guessed."""
    assert len({Token().text for _ in range(100)}) == 100
    assert len(Token().text) >= 40


@pytest.mark.parametrize("url", FORMS)
def test_a_get_of_a_form_s_route_changes_nothing(busy: Site, url: str) -> None:
    """Changes are never made by GET."""
    before = [dict(row) for row in busy.platform.api.records]
    busy.get(url)
    assert not [call for call in busy.platform.api.called if call[0] != "GET"]
    assert busy.platform.api.records == before


def test_a_form_has_size_limits(busy: Site) -> None:
    """The limits are on bytes and fields; a larger form is not passed on."""
    assert busy.post("/compose", {"text": "x" * MAX_FORM}).status == 413
    assert busy.post("/compose", {f"f{number}": "" for number in range(200)}).status == 400


def test_another_site_may_link_to_pages_but_not_load_resources(busy: Site) -> None:
    """Otherwise it could detect a running console by loading an image or a script."""
    assert busy.get("/now", sec_fetch_site="cross-site", sec_fetch_mode="navigate").status == 200
    assert busy.get("/static/console.js", sec_fetch_site="cross-site", sec_fetch_mode="no-cors").status == 403


@pytest.mark.parametrize("url", ["/now", "/nothing", "/static/console.css", "/inbox/3/source"])
def test_every_response_has_the_security_headers(busy: Site, url: str) -> None:
    """Only our own scripts and styles, no framing, no caching."""
    headers = busy.get(url).headers
    policy = headers["content-security-policy"]
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(
        policy.split("; ")
    )
    assert "unsafe" not in policy
    assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")


def test_a_mail_s_html_is_sandboxed(busy: Site) -> None:
    """No scripts, no forms, no remote requests."""
    policy = set(busy.get("/inbox/3/html").headers["content-security-policy"].split("; "))
    assert policy == {
        "sandbox",
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "font-src data:",
        "img-src data:",
        "frame-ancestors 'self'",
    }
    assert busy.get("/inbox/3/html").headers["referrer-policy"] == "no-referrer"


def test_remote_images_are_loaded_only_on_request(busy: Site) -> None:
    """The request allows images only."""
    policy = busy.get("/inbox/3/html?images=1").headers["content-security-policy"]
    assert "img-src data: https: http:" in policy
    assert policy.startswith("sandbox; default-src 'none'")


def test_the_inbox_is_read_only_from_this_machine() -> None:
    """The environment cannot change that."""
    with pytest.raises(ValueError, match="not on this machine"):
        LocalMails("http://evil.example:1025")


# ── hostile content ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("url", list(hostile_urls()))
def test_hostile_content_is_escaped(tmp_path: Path, url: str) -> None:
    """On every page, from every source: the API, logs, alarms, dead letters, mails and the URL."""
    site = Site(hostile_platform(tmp_path))
    page = site.get(url)
    page = site.follow(page) if page.status == 303 else page
    assert page.status in (200, 404)
    for tag, attributes in elements(page.text):
        assert tag != "xss", page.text
        assert (tag, attributes) == ("script", {"src": "/static/console.js", "defer": None}) or tag != "script"
        assert not [name for name in attributes if name.startswith("on")]
        assert not str(attributes.get("href", "")).lower().startswith("javascript:")


SHOWING = [
    "/now",
    "/tenants",
    "/tenants/acme/suppressions",
    "/tenants/acme/messages/invoice-2026-0117",
    "/dead-letters",
    "/inbox",
    "/inbox/4",
]


@pytest.mark.parametrize("url", SHOWING)
def test_hostile_content_is_shown_unchanged(tmp_path: Path, url: str) -> None:
    """Nothing is removed from the data, and no template in it is evaluated."""
    text = words(Site(hostile_platform(tmp_path)).get(url).text)
    assert "<script>canary()</script>{{7*7}}" in text


def test_hostile_form_values_are_escaped(tmp_path: Path) -> None:
    """Typed text is shown again, escaped."""
    site = Site(hostile_platform(tmp_path))
    for action in ("preview", "send"):
        for tenant in ("acme", HOSTILE):
            values = dict.fromkeys(("to", "cc", "subject", "text", "html", "requestId", "sendAt"), HOSTILE)
            page = site.post("/compose", {**values, "tenant": tenant, "action": action})
            page = site.follow(page) if page.status == 303 else page
            assert not [tag for tag, _ in elements(page.text) if tag == "xss"]


def test_a_redirect_stays_on_the_console(busy: Site) -> None:
    """For any id."""
    for wanted in ("//evil.example/x", "/\\evil.example/x", "https://evil.example/x", "evil.example//x"):
        response = busy.get(f"/find?q={quote(wanted, safe='')}")
        assert response.status == 200 or response.headers["location"].startswith("/tenants/"), response.headers
    assert busy.get("/onboard?tenant=%2F%2Fevil.example").headers["location"].startswith("/tenants/%2F%2Fevil.example/")
    assert busy.post("/compose", {"tenant": "//evil.example", "action": "send"}, origin=ORIGIN).status == 400
