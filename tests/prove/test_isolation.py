"""The full number of sends over 32 threads and 200 tenants."""

from support.isolation import assert_no_mix_up


def test_twenty_thousand_sends_without_a_mix_up() -> None:
    """One client for all: no send is signed with another tenant's key, no response goes to another tenant."""
    assert_no_mix_up(20_000)
