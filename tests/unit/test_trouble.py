"""The report of mail that is not sent now, without resolved cases."""

import json
from typing import Any

import pytest

from mailer.domain.delivery import Status
from mailer_ops.operations.trouble import Trouble, find_trouble


def line(minute: int, request_id: str, status: str, code: str | None = None, **fields: Any) -> str:
    shown = {"message": "request recorded", "timestamp": f"2026-11-24 12:{minute:02}:00,000+0000", "tenant_id": "acme"}
    reason = {"code": code, "hint": f"Tenant: mend {code}."} if code else {}
    return json.dumps({**shown, "request_id": request_id, "status": status, **reason, **fields})


def found(*lines: str) -> list[tuple[str, str, int]]:
    return [(trouble.tenant_id, trouble.code, trouble.requests) for trouble in find_trouble(lines)]


def test_requests_with_the_same_status_and_code_are_one_row() -> None:
    """A row has the newest hint; rows with most requests are first; a repeated line of a request counts once."""
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
@pytest.mark.parametrize("before", ["deferred", "unknown"])
def test_a_request_that_changed_since_is_left_out(before: str, since: str) -> None:
    """Cases: a resolved unknown, mail that is sent after a verify."""
    assert found(line(1, "r1", before, "outcome_unknown"), line(2, "r1", since)) == []


def test_an_acceptance_removes_a_request_and_its_tenant_s_earlier_failures() -> None:
    """The line of a sent mail is that of SES's response."""
    provider_answered = {"message": "provider answered", "outcome": "sent"}
    assert found(line(1, "r1", "deferred", "throttled"), line(2, "r1", "sent", **provider_answered)) == []
    assert found(line(1, "r1", "failed", "provider_not_active"), line(2, "r2", "sent", **provider_answered)) == []


def test_a_tenant_whose_mail_is_sent_again_is_left_out() -> None:
    """Failures of its account before that are left out, later ones are not."""
    lines = [line(1, "r1", "failed", "provider_not_active"), line(2, "r2", "sent")]
    assert found(*lines) == []
    assert found(*lines, line(3, "r3", "failed", "provider_not_active")) == [("acme", "provider_not_active", 1)]
    other = line(2, "r2", "sent", tenant_id="globex")
    assert found(lines[0], other) == [("acme", "provider_not_active", 1)]


def test_failures_of_single_mails_stay_even_if_other_mail_is_sent() -> None:
    """They are not resolved by other mail."""
    assert found(line(1, "r1", "failed", "unclassified"), line(2, "r2", "sent")) == [("acme", "unclassified", 1)]


def test_mail_that_waits_for_its_turn_is_left_out() -> None:
    """It has no code."""
    assert found(line(1, "r1", "deferred")) == []
