"""Fixtures of one local AWS per test run: the real template under `AUTH=true`, with a fault proxy in front of every service.

    def test_…(aws: LocalAws) -> None:                    everything: api, control, tenants, client("sqs"), enqueue, dead_letters
    def test_…(aws: LocalAws, tenant: Tenant) -> None:    and a tenant for this test only: verified, active, not in the sandbox

Tests are isolated by their tenants: each has its own AWS account, so `aws.control.mails(account=tenant.account)` are its mails only.
"""

from collections.abc import Iterator

import pytest

from tools.local_aws.running import LocalAws, local_aws
from tools.local_aws.tenants import Tenant


@pytest.fixture(scope="session")
def running_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """Build, start and deploy, once."""
    with local_aws(tmp_path_factory.mktemp("aws")) as running:
        yield running


@pytest.fixture
def aws(running_aws: LocalAws) -> Iterator[LocalAws]:
    """The local AWS, without faults at the start and the end of a test."""
    running_aws.control.reset_all()
    yield running_aws
    running_aws.control.reset_all()


@pytest.fixture
def tenant(aws: LocalAws) -> Tenant:
    """A tenant with a verified, active config."""
    return aws.active_tenant()
