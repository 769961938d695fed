"""A real SES account in the sandbox, named by its owner: these tests run by `make test-aws` alone.

TEST_SES_ACCESS_KEY_ID, TEST_SES_SECRET_ACCESS_KEY, TEST_SES_REGION,
TEST_SES_FROM (verified), TEST_SES_TO (verified; default: the from-address).
"""

import os

import pytest

from support.aws.sandbox import Sandbox

NAMES = ("TEST_SES_ACCESS_KEY_ID", "TEST_SES_SECRET_ACCESS_KEY", "TEST_SES_REGION", "TEST_SES_FROM")


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    missing = [name for name in NAMES if not os.environ.get(name)]
    if missing:
        pytest.exit(f"set {', '.join(missing)} to those of an SES sandbox account", returncode=2)
    key, secret, region, sender = (os.environ[name] for name in NAMES)
    return Sandbox(key, secret, region, sender, os.environ.get("TEST_SES_TO", sender))
