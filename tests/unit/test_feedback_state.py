"""Whether SES's events of a tenant's mail come back, and who must do what where they do not."""

from datetime import timedelta
from typing import Any

import pytest

from mailer.domain.feedback_state import SILENT_AFTER, feedback_hint, feedback_state, turns_silent
from support.fakes.ports import NOON, a_config

WATCHED = {"configuration_set": "mail-acme", "account": "222222222222"}


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"configuration_set": None}, "off"),
        ({}, "unproven"),
        ({"unheard_since": NOON}, "unproven"),
        ({"feedback_at": NOON}, "proven"),
        ({"feedback_at": NOON, "unheard_since": NOON}, "proven"),
        ({"unheard_since": NOON, "silent_since": NOON}, "silent"),
        ({"feedback_at": NOON, "unheard_since": NOON, "silent_since": NOON}, "silent"),
    ],
)
def test_the_state_follows_from_what_is_marked(fields: dict[str, Any], state: str) -> None:
    """That some time has passed is no mark: a tenant that sends nothing does not become silent."""
    assert feedback_state(a_config(**WATCHED | fields)) == state


@pytest.mark.parametrize(
    ("fields", "after", "silent"),
    [
        ({"unheard_since": NOON}, SILENT_AFTER, True),
        ({"unheard_since": NOON}, SILENT_AFTER - timedelta(milliseconds=1), False),
        ({"unheard_since": NOON, "feedback_at": NOON - timedelta(days=1)}, SILENT_AFTER, True),
        ({}, SILENT_AFTER, False),
        ({"unheard_since": NOON, "silent_since": NOON}, SILENT_AFTER, False),
        ({"unheard_since": NOON, "configuration_set": None}, SILENT_AFTER, False),
    ],
)
def test_it_turns_silent_once_when_it_has_sent_for_an_hour(fields: dict[str, Any], after: timedelta, silent: bool) -> None:  # noqa: FBT001
    """Counted from the first mail after which nothing came to one that is sent now."""
    assert turns_silent(a_config(**WATCHED | fields), NOON + after) is silent


@pytest.mark.parametrize(
    ("fields", "begins", "names"),
    [
        ({"configuration_set": None}, "Tenant: ", "onboarding"),
        ({"account": None}, "Caller: verify", "from the sending account"),
        ({"account": None, "silent_since": NOON}, "Caller: verify", "from the sending account"),
        ({}, "Caller: verify", "a minute later"),
        ({"silent_since": NOON}, "Tenant: ", "no event of it arrived"),
    ],
)
def test_each_state_that_brings_nothing_says_who_must_do_what(fields: dict[str, Any], begins: str, names: str) -> None:
    """One that was verified before accounts were kept has to be verified again, whatever else there is to see."""
    hint = feedback_hint(a_config(**WATCHED | fields))
    assert hint is not None
    assert hint.startswith(begins)
    assert names in hint


@pytest.mark.parametrize("fields", [{}, {"silent_since": NOON}])
def test_what_to_look_at_is_named_exactly(fields: dict[str, Any]) -> None:
    """Account, region, configuration set and rule, with the pages that show them."""
    hint = feedback_hint(a_config(**WATCHED | fields))
    assert hint is not None
    for part in ("222222222222", "eu-west-1", "mail-acme", "#/configuration-sets/mail-acme", "/events/home?region=eu-west-1#/rules"):
        assert part in hint


def test_where_events_come_there_is_nothing_to_do() -> None:
    """Nor where there can be none."""
    assert feedback_hint(a_config(**WATCHED, feedback_at=NOON)) is None
    assert feedback_hint(a_config(provider="smtp")) is None
