"""The full number of sends over 32 threads and 200 tenants."""

from support.isolation import assert_no_mix_up


def test_twenty_thousand_sends_without_a_mix_up() -> None:
    """One client for all: none of them signed by another tenant's key, none answered to another."""
    assert_no_mix_up(20_000)
