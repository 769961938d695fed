"""What docs/scale.md says of KMS and STS holds for the caches as they are."""

from unittest.mock import patch

import pytest

from tools.scale import keys
from tools.scale.keys import A_DAY, STS_QUOTA, Figures


def simulated(kind: str, *, concurrency: int = 10) -> Figures:
    """Simulate 100 000 tenants of equal load, by few of them."""
    with patch.dict(keys.SCALES, {100_000: 5_000}):
        return keys.run(100_000, keys.LOADS["flat"], kind, A_DAY, 100, concurrency)


@pytest.fixture(scope="module")
def roles() -> Figures:
    return simulated("roles")


def test_a_hundred_thousand_tenants_with_roles_leave_most_of_the_quotas_free(roles: Figures) -> None:
    """At a hundred million mails a day."""
    assert roles.kms <= 0.05
    assert roles.assumed <= 0.1
    assert roles.assumed * A_DAY <= STS_QUOTA / 2


def test_more_sandboxes_ask_sts_no_more_often(roles: Figures) -> None:
    """They share the sessions."""
    assert simulated("roles", concurrency=40).assumed <= 1.2 * roles.assumed


def test_an_access_key_is_decrypted_by_each_sandbox_once() -> None:
    """As it is never shared: ten sandboxes in two hours each."""
    assert 0.08 < simulated("access keys").kms < 0.16


def test_the_same_seed_gives_the_same_figures(roles: Figures) -> None:
    """What the page says can be printed again."""
    assert simulated("roles") == roles
