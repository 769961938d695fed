"""Which mail does not go out now; what has been solved since is left out."""

import json
from typing import Any

import pytest

from mailer.domain.delivery import Status
from mailer_ops.operations.trouble import Trouble, find_trouble


def line(minute: int, request_id: str, status: str, code: str | None = None, **told: Any) -> str:
    shown = {"message": "request recorded", "timestamp": f"2026-11-24 12:{minute:02}:00,000+0000", "tenant_id": "acme"}
    reason = {"code": code, "hint": f"Tenant: mend {code}."} if code else {}
    return json.dumps({**shown, "request_id": request_id, "status": status, **reason, **told})


def found(*lines: str) -> list[tuple[str, str, int]]:
    return [(trouble.tenant_id, trouble.code, trouble.requests) for trouble in find_trouble(lines)]


def test_requests_that_stand_the_same_way_are_one_row() -> None:
    """With the newest hint, most requests first; the others of the line are not counted twice."""
    lines = [
        line(1, "r1", "unknown", "outcome_unknown"),
        line(2, "r2", "deferred", "credentials_invalid", hint="Tenant: an older hint."),
        line(3, "r3", "deferred", "credentials_invalid", hint="Tenant: make a new key."),
        line(4, "r3", "deferred", "credentials_invalid", generation=1, hint="Tenant: make a new key."),
    ]
    assert list(find_trouble(lines)) == [
        Trouble("acme", Status.DEFERRED, "credentials_invalid", "Tenant: make a new key.", 2),
        Trouble("acme", Status.UNKNOWN, "outcome_unknown", "Tenant: mend outcome_unknown.", 1),
    ]


@pytest.mark.parametrize("since", ["sent", "queued", "cancelled"])
@pytest.mark.parametrize("was", ["deferred", "unknown"])
def test_a_request_that_went_on_is_no_trouble(was: str, since: str) -> None:
    """An unknown that was resolved, mail that goes out again after a verify."""
    assert found(line(1, "r1", was, "outcome_unknown"), line(2, "r1", since)) == []


def test_an_acceptance_settles_a_request_and_its_tenant() -> None:
    """A mail that was sent has SES's answer for its line."""
    answered = {"message": "provider answered", "outcome": "sent"}
    assert found(line(1, "r1", "deferred", "throttled"), line(2, "r1", "sent", **answered)) == []
    assert found(line(1, "r1", "failed", "provider_not_active"), line(2, "r2", "sent", **answered)) == []


def test_a_tenant_whose_mail_goes_out_again_is_not_in_trouble() -> None:
    """What failed for its account before is settled; what fails after is not."""
    lines = [line(1, "r1", "failed", "provider_not_active"), line(2, "r2", "sent")]
    assert found(*lines) == []
    assert found(*lines, line(3, "r3", "failed", "provider_not_active")) == [("acme", "provider_not_active", 1)]
    other = line(2, "r2", "sent", tenant_id="globex")
    assert found(lines[0], other) == [("acme", "provider_not_active", 1)]


def test_mail_that_failed_for_itself_is_told_though_other_mail_goes_out() -> None:
    """Nobody has seen to it."""
    assert found(line(1, "r1", "failed", "unclassified"), line(2, "r2", "sent")) == [("acme", "unclassified", 1)]


def test_mail_that_waits_its_turn_is_no_trouble() -> None:
    """It has no code."""
    assert found(line(1, "r1", "deferred")) == []
