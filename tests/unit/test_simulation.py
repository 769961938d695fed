"""The real services, played through thousands of seeded stories of crashes, outages, duplicates and skewed clocks."""

import os
from collections import Counter

import pytest

from tools.simulation.check import figures, wrongs
from tools.simulation.story import Story

STORIES = 3000
CHUNK = 250

SEED = os.environ.get("SEED")
"""Replays one story: `SEED=123 pytest tests/unit/test_simulation.py`, or `python -m tools.simulation 123`."""


@pytest.mark.parametrize("first", [int(SEED)] if SEED else range(0, STORIES, CHUNK))
def test_no_story_loses_doubles_or_misreports_a_request(first: int) -> None:
    """Whatever befalls any call: one acceptance at most, one end with its reason, nothing left over; a failing story is printed."""
    for seed in range(first, first + (1 if SEED else CHUNK)):
        if found := wrongs(Story(seed).play()):
            trace = Story(seed, traced=True).play().world.trace or []
            pytest.fail("\n".join([f"story {seed}:", *trace, *found]), pytrace=False)


def test_stories_tell_of_what_they_are_to_try() -> None:
    """Crashes, messages that wait for a slot of their account, and those that find none."""
    told = sum((figures(Story(seed).play()) for seed in range(50)), Counter[str]())
    for what in ("faults", "processes killed", "messages that carried a slot", "messages that found no slot"):
        assert told[what] > 10, what


def test_a_story_comes_out_the_same_every_time() -> None:
    """Without this no seed could be replayed."""
    assert Story(7, traced=True).play().world.trace == Story(7, traced=True).play().world.trace
