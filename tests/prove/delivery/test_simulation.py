"""The real services, played through a hundred thousand seeded stories."""

from tools.simulation.__main__ import compared, play_all

STORIES = 100_000
TOLD = 10_000
"""Stories that are played without SES's events and with them."""

AGAIN = "accepted again, as onUnknown: resend allows"


def test_no_story_loses_doubles_or_misreports_a_request() -> None:
    """Other stories than those of `make test`; a bad seed is replayed by `python -m tools.simulation SEED`."""
    total, bad = play_all(range(1_000_000, 1_000_000 + STORIES))
    print("\n".join(f"{count:>10} {what}" for what, count in total.items()))
    assert bad == []


def test_what_ses_tells_ends_as_sent_and_is_sent_no_second_time() -> None:
    """Every request of which an event comes; fewer mails go out twice than in the same stories without events."""
    seeds = range(2_000_000, 2_000_000 + TOLD)
    (without, bad), (with_feedback, worse) = play_all(seeds), play_all(seeds, has_feedback=True)
    print(compared(without, with_feedback))
    assert [*bad, *worse] == []
    assert 0 < with_feedback[AGAIN] < without[AGAIN] / 2
    assert with_feedback["ended as unknown"] < without["ended as unknown"]
