"""Rules for all tests: unit tests open no socket at all, the others talk to this machine only; nobody's AWS setup gets in."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import botocore.session
import pytest
from botocore.loaders import create_loader

HERE = Path(__file__).parent
LOOPBACK = ["127.0.0.1", "::1", "localhost"]

# Each session of botocore would read the services' models anew, which takes longer than most tests.
botocore.session.create_loader = cache(create_loader)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE / "unit"):
            item.add_marker(pytest.mark.disable_socket)
        elif not item.path.is_relative_to(HERE / "aws"):  # those ask the real SES, and only when told to
            item.add_marker(pytest.mark.allow_hosts(LOOPBACK))


@pytest.fixture(autouse=True, scope="session")
def _no_aws_setup() -> Iterator[None]:
    """Take the developer's profiles, credentials and endpoints away; tests bring their own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield
