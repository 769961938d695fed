"""Sites of the console: a busy one, and an empty one."""

from pathlib import Path

import pytest

from support.console_site import Site
from support.fakes.console import FakeMails, Platform
from support.fakes.console_scene import busy_platform


@pytest.fixture
def busy(tmp_path: Path) -> Site:
    return Site(busy_platform(tmp_path))


@pytest.fixture
def empty(tmp_path: Path) -> Site:
    return Site(Platform(mails=FakeMails(tmp_path)))
