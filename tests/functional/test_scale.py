"""The figures of docs/scale.md for KMS and STS are those of the current caches."""

from unittest.mock import patch

import pytest

from tools.scale import keys
from tools.scale.keys import A_DAY, STS_QUOTA, Figures


def simulated(kind: str, *, concurrency: int = 10) -> Figures:
    """Simulate a small share of 100 000 tenants with equal load."""
    with patch.dict(keys.SCALES, {100_000: 5_000}):
        return keys.run(100_000, keys.LOADS["flat"], kind, A_DAY, 100, concurrency)


@pytest.fixture(scope="module")
def roles() -> Figures:
    return simulated("roles")


def test_a_hundred_thousand_tenants_with_roles_use_little_of_the_quotas(roles: Figures) -> None:
    """At a hundred million mails a day."""
    assert roles.kms <= 0.05
    assert roles.assumed <= 0.1
    assert roles.assumed * A_DAY <= STS_QUOTA / 2


def test_more_sandboxes_make_no_more_sts_calls(roles: Figures) -> None:
    """They share the sessions."""
    assert simulated("roles", concurrency=40).assumed <= 1.2 * roles.assumed


def test_each_sandbox_decrypts_an_access_key_once() -> None:
    """It is never shared: ten sandboxes, two hours each."""
    assert 0.08 < simulated("access keys").kms < 0.16


def test_the_same_seed_gives_the_same_figures(roles: Figures) -> None:
    """The figures of the page can be reproduced."""
    assert simulated("roles") == roles
