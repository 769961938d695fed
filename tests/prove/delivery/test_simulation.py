"""The real services, played through a hundred thousand seeded stories."""

from tools.simulation.__main__ import play_all

STORIES = 100_000


def test_no_story_loses_doubles_or_misreports_a_request() -> None:
    """Other stories than those of `make test`; a bad seed is replayed by `python -m tools.simulation SEED`."""
    total, bad = play_all(range(1_000_000, 1_000_000 + STORIES))
    print("\n".join(f"{count:>10} {what}" for what, count in total.items()))
    assert bad == []
