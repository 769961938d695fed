"""Fixtures of one local AWS for a whole test run: the real template under `AUTH=true`, a fault proxy before every service.

    def test_…(aws: LocalAws) -> None:                    everything: api, control, tenants, client("sqs"), enqueue, dead_letters
    def test_…(aws: LocalAws, tenant: Tenant) -> None:    and a tenant of this test alone: verified, active, out of the sandbox

Tests keep apart by their tenants: each has an AWS account of its own, so `aws.control.mails(account=tenant.account)` are its mails only.
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
    """The local AWS, with no fault in force at the start and the end of a test."""
    running_aws.control.calm()
    yield running_aws
    running_aws.control.calm()


@pytest.fixture
def tenant(aws: LocalAws) -> Tenant:
    """A tenant whose config is stored, verified and active."""
    return aws.active_tenant()
