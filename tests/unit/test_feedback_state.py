"""The state of a tenant's feedback, and who must do what if no events arrive."""

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
def test_the_state_depends_on_the_marks(fields: dict[str, Any], state: str) -> None:
    """Time alone changes nothing: a tenant that sends nothing does not become silent."""
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
def test_a_version_becomes_silent_once_after_an_hour_of_sending(fields: dict[str, Any], after: timedelta, silent: bool) -> None:  # noqa: FBT001
    """The hour is from the first mail without a later event to the current one."""
    assert turns_silent(a_config(**WATCHED | fields), NOON + after) is silent


@pytest.mark.parametrize(
    ("fields", "addressee", "names"),
    [
        ({"configuration_set": None}, "Tenant: ", "onboarding"),
        ({"account": None}, "Caller: verify", "from the sending account"),
        ({"account": None, "silent_since": NOON}, "Caller: verify", "from the sending account"),
        ({}, "Caller: verify", "a minute later"),
        ({"silent_since": NOON}, "Tenant: ", "no event of it arrived"),
    ],
)
def test_each_state_without_events_has_a_hint(fields: dict[str, Any], addressee: str, names: str) -> None:
    """A version that was verified before accounts were stored has to be verified again, in any state."""
    hint = feedback_hint(a_config(**WATCHED | fields))
    assert hint is not None
    assert hint.startswith(addressee)
    assert names in hint


@pytest.mark.parametrize("fields", [{}, {"silent_since": NOON}])
def test_the_hint_names_the_resources(fields: dict[str, Any]) -> None:
    """It has account, region, configuration set and rule, with links to their pages."""
    hint = feedback_hint(a_config(**WATCHED | fields))
    assert hint is not None
    for part in ("222222222222", "eu-west-1", "mail-acme", "#/configuration-sets/mail-acme", "/events/home?region=eu-west-1#/rules"):
        assert part in hint


def test_a_working_state_has_no_hint() -> None:
    """Neither has a state in which there can be no events."""
    assert feedback_hint(a_config(**WATCHED, feedback_at=NOON)) is None
    assert feedback_hint(a_config(provider="smtp")) is None
