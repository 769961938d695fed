"""Platforms for the console's pages: a busy one, and one on its first day."""

from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("starlette") and find_spec("uvicorn"):
    from support.console_site import Site
    from support.fakes.console import FakeMails, Platform
    from support.fakes.console_scene import busy_platform
else:
    collect_ignore_glob = ["test_*.py"]  # an environment of before the console, until the next `make setup`


@pytest.fixture
def busy(tmp_path: Path) -> "Site":
    return Site(busy_platform(tmp_path))


@pytest.fixture
def empty(tmp_path: Path) -> "Site":
    return Site(Platform(mails=FakeMails(tmp_path)))
