"""The real services, played through thousands of seeded stories of crashes, outages, duplicates and skewed clocks."""

import os
from collections import Counter

import pytest

from tools.simulation.__main__ import compared, play_some
from tools.simulation.check import figures, wrongs
from tools.simulation.story import Story

STORIES = 3000
CHUNK = 250
TOLD = 250
"""Stories that are played without SES's events and with them."""

AGAIN = "accepted again, as onUnknown: resend allows"

SEED = os.environ.get("SEED")
"""Replays one story: `SEED=123 pytest tests/unit/test_simulation.py`, or `python -m tools.simulation 123`."""


@pytest.mark.parametrize("first", [int(SEED)] if SEED else range(0, STORIES, CHUNK))
def test_no_story_loses_doubles_or_misreports_a_request(first: int) -> None:
    """Whatever befalls any call: one acceptance at most, one end with its reason, nothing left over; a failing story is printed."""
    for seed in range(first, first + (1 if SEED else CHUNK)):
        if found := wrongs(Story(seed).play()):
            trace = Story(seed, traced=True).play().world.trace or []
            pytest.fail("\n".join([f"story {seed}:", *trace, *found]), pytrace=False)


@pytest.fixture(scope="module")
def both() -> tuple[Counter[str], Counter[str]]:
    """The figures of the same stories without feedback, and with it."""
    (without, _), (with_feedback, bad) = (play_some(range(TOLD), has_feedback=has_feedback) for has_feedback in (False, True))
    assert bad == [], f"replay one: python -m tools.simulation SEED --feedback\n{'\n'.join(bad)}"
    return without, with_feedback


def test_what_ses_tells_ends_as_sent_and_is_sent_no_second_time(both: tuple[Counter[str], Counter[str]]) -> None:
    """Every request of which an event comes, whatever befalls FeedbackFunction; the same stories without events send more mails twice."""
    without, with_feedback = both
    print(compared(without, with_feedback))
    assert with_feedback["unknowns that an event settled"] > 0
    for what in (AGAIN, "ended as unknown"):
        assert with_feedback[what] < without[what], what


def test_stories_tell_of_what_they_are_to_try() -> None:
    """Crashes, messages that wait for a slot of their account, and those that find none."""
    told = sum((figures(Story(seed).play()) for seed in range(50)), Counter[str]())
    for what in ("faults", "processes killed", "messages that carried a slot", "messages that found no slot"):
        assert told[what] > 10, what


@pytest.mark.parametrize("has_feedback", [False, True])
def test_a_story_comes_out_the_same_every_time(has_feedback: bool) -> None:  # noqa: FBT001
    """Without this no seed could be replayed."""
    once, again = (Story(7, traced=True, has_feedback=has_feedback).play().world.trace for _ in range(2))
    assert once == again
