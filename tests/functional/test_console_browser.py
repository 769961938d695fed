"""The console in a real browser, with fake data: hostile content, accessibility, keyboard, narrow windows, screenshots for the docs."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect

from mailer_ops.console.app import create_app
from support.browsing import browser
from support.console_hostile import hostile_platform, hostile_urls
from support.console_site import PAGES
from support.fakes.console import FakeMails, Platform
from support.fakes.console_scene import busy_platform
from tools import browser as tools

__all__ = ["browser"]

PICTURES = Path(os.environ.get("TENANTMAIL_PICTURES", ""))
"""Directory of the docs' screenshots; unset: a temporary one."""

SCREENS = {
    "now": "/now",
    "tenants": "/tenants",
    "message": "/tenants/acme/messages/invoice-2026-0117",
    "dead-letters": "/dead-letters?reason=processing_crashed&tenant=acme",
    "compose": "/compose?tenant=acme",
    "inbox": "/inbox/3",
}


class Served:
    """A console on a local port, until it is closed."""

    def __init__(self, platform: Platform) -> None:
        config: dict[str, Any] = {"log_level": "error", "lifespan": "off", "timeout_graceful_shutdown": 1}
        listener = uvicorn.Config(lambda: None, host="127.0.0.1", port=0).bind_socket()
        port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._server = uvicorn.Server(uvicorn.Config(create_app(platform.sources(), port), **config))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(busy_platform(tmp_path_factory.mktemp("busy")))
    yield served
    served.close()


@pytest.fixture(scope="module")
def first_day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(Platform(mails=FakeMails(tmp_path_factory.mktemp("empty"))))
    yield served
    served.close()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(hostile_platform(tmp_path_factory.mktemp("hostile")))
    yield served
    served.close()


def context_of(browser: Browser, *, width: int = 1280, dark: bool = False, **more: Any) -> BrowserContext:
    size: Any = {"width": width, "height": 860}
    return browser.new_context(viewport=size, color_scheme="dark" if dark else "light", reduced_motion="reduce", **more)


def test_hostile_content_never_runs(browser: Browser, hostile: Served) -> None:
    """Neither on a page nor in a mail's frame; a mail makes no remote request, and a long text does not overflow a narrow page."""
    context = context_of(browser, width=390)
    page, elsewhere, wide = context.new_page(), [], {}
    page.expose_function("canary", lambda: elsewhere.append("the canary was called"))
    page.on("dialog", lambda dialog: (elsewhere.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: None if request.url.startswith((hostile.url, "data:")) else elsewhere.append(request.url))
    page.on("requestfailed", lambda request: elsewhere.remove(request.url) if request.failure == "csp" else None)  # it was never sent
    for url in hostile_urls():
        page.goto(hostile.url + url)
        assert page.locator("xss").count() == 0, url
        assert page.evaluate("document.scripts.length") == 1, url
        wide[url] = page.evaluate("document.documentElement.scrollWidth")
    assert elsewhere == []
    assert {url: width for url, width in wide.items() if width > 390} == {}
    context.close()


VISITED = [
    url
    for url in PAGES
    if url not in ("/tenants?q=ac", "/messages?status=unknown", "/inbox/3?view=text", "/tenants/acme/onboarding?by=role")
]

AXE = {
    "light": "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']})",
    "dark": "axe.run(document, {runOnly: {type: 'rule', values: ['color-contrast', 'link-in-text-block']}})",
}
"""All rules once; in dark those that depend on colours."""


def faults_of(page: Page, scheme: str) -> set[str]:
    """Return axe-core's serious findings on a page."""
    found = page.evaluate(AXE[scheme])["violations"]
    serious = [fault for fault in found if fault["impact"] in ("serious", "critical")]
    return {f"{fault['id']}: {fault['nodes'][0]['html'][:160]}" for fault in serious}


def test_every_page_is_accessible(browser: Browser, busy: Served, first_day: Served) -> None:
    """axe-core finds nothing serious on any page, light or dark: contrast, names, roles, order."""
    source = tools.axe()
    if source is None:
        (pytest.fail if tools.is_required() else pytest.skip)("axe-core could not be had from npm")
    context = context_of(browser, bypass_csp=True)  # otherwise the page's own policy would block axe-core
    page, faults = context.new_page(), {}
    for url in [*(busy.url + url for url in VISITED), *(first_day.url + url for url in ("/now", "/tenants", "/messages", "/inbox"))]:
        page.goto(url)
        page.evaluate(source)
        for scheme in AXE:
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            faults[url, scheme] = faults_of(page, scheme)
    assert {where: found for where, found in faults.items() if found} == {}
    context.close()


def test_nothing_overflows_at_390_pixels_and_no_page_violates_its_own_policy(browser: Browser, busy: Served) -> None:
    """Long ids wrap, tables fold, and no script fails."""
    context = context_of(browser, width=390)
    page, said, wide = context.new_page(), [], {}
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    for url in VISITED:
        page.goto(busy.url + url)
        wide[url] = page.evaluate("document.documentElement.scrollWidth")
    assert {url: width for url, width in wide.items() if width > 390} == {}
    assert [text for text in said if "track.example" not in text] == []  # requests of a mail are blocked and reported
    assert any("track.example" in text for text in said)
    context.close()


def test_it_can_be_used_by_keyboard(browser: Browser, busy: Served) -> None:
    """The slash focuses the search, Tab moves, Enter opens, Escape closes."""
    context = context_of(browser)
    page = context.new_page()
    page.goto(f"{busy.url}/tenants/acme")
    page.keyboard.press("/")
    page.keyboard.type("reminder-0042")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{busy.url}/tenants/acme/messages/reminder-0042")
    page.goto(f"{busy.url}/tenants")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to content")).to_be_focused()
    page.get_by_text("Onboard a tenant").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Its id").focus()
    page.keyboard.press("Escape")
    expect(page.get_by_label("Its id")).to_be_hidden()
    expect(page.get_by_text("Onboard a tenant")).to_be_focused()
    context.close()


def test_rates_are_loaded_after_the_list(browser: Browser, busy: Served) -> None:
    """They take one call per tenant, and do not delay the list."""
    context = context_of(browser)
    page = context.new_page()
    page.goto(f"{busy.url}/tenants")
    expect(page.get_by_text("4.25 %")).to_be_visible()
    context.close()


def test_the_copied_text_is_the_shown_one(browser: Browser, busy: Served) -> None:
    """The button confirms it."""
    context = context_of(browser, permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(f"{busy.url}/tenants/acme/onboarding?by=key")
    page.locator("[data-copy=iam-policy]").click()
    expect(page.locator("[data-copy=iam-policy]")).to_have_text("Copied")
    assert '"ses:SendRawEmail"' in page.evaluate("navigator.clipboard.readText()")
    context.close()


def test_a_file_can_be_attached_to_a_message(browser: Browser, busy: Served) -> None:
    """The page reads it, and the preview shows it."""
    context = context_of(browser)
    page = context.new_page()
    page.goto(f"{busy.url}/compose?tenant=acme")
    page.locator("input[type=file]").set_input_files({"name": "plan.txt", "mimeType": "text/plain", "buffer": b"a plan"})
    expect(page.locator("#files-names")).to_have_text("plan.txt")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("plan.txt (7 bytes)")).to_be_visible()
    context.close()


@pytest.mark.parametrize("name", SCREENS)
def test_screenshots_of_the_pages(browser: Browser, busy: Served, tmp_path: Path, name: str) -> None:
    """For docs/console.md, in the directory TENANTMAIL_PICTURES: `make pictures`."""
    folder = PICTURES if PICTURES.name else tmp_path
    context = context_of(browser, dark=name == "inbox")
    page = context.new_page()
    page.goto(busy.url + SCREENS[name], wait_until="networkidle")
    if name == "compose":
        page.get_by_label("HTML", exact=True).fill("<p style='font:15px Georgia'>Hello Jo,<p>your <b>invoice</b> is attached.")
        page.get_by_role("button", name="Preview").click()
        page.frame_locator("iframe").get_by_text("Hello Jo").wait_for()
    page.screenshot(path=folder / f"{name}.png")
    assert (folder / f"{name}.png").stat().st_size < 200_000
    context.close()
