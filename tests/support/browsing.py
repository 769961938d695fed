"""A headless Chromium for tests."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tools.browser import ARGUMENTS, MISSING, chromium, is_required


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start the installed Chromium; without one the test is skipped, or fails if a browser is required."""
    path = chromium()
    if path is None:
        if is_required():
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield started
        started.close()
