"""After a restore, ends are read from the log lines that told them."""

import json
from typing import Any

import pytest

from mailer.domain.delivery import Status
from mailer.ports import End
from mailer.services.replay import read_ends, replay


def line(request_id: str = "r1", *, message: str = "request recorded", **told: Any) -> str:
    shown = {"level": "INFO", "message": message, "timestamp": "2026-11-24 08:32:54,180+0000", "tenant_id": "acme", "attempt": 1}
    return json.dumps({**shown, "request_id": request_id, **told})


def ends(*lines: str) -> dict[str, Status]:
    return {request: end.status for (_, request), end in read_ends(lines).items()}


class FakeLostEnds:
    def __init__(self, *known: str) -> None:
        self.known = known
        self.written: list[End] = []

    def write(self, end: End) -> bool:
        self.written.append(end)
        return end.request_id not in self.known


def test_what_ses_accepted_is_sent_though_it_was_never_recorded() -> None:
    """The answer is logged before the record is written."""
    [end] = read_ends([line(message="provider answered", outcome="sent", message_id="m1", attempt=2)]).values()
    assert (end.status, end.message_id, end.attempt) == (Status.SENT, "m1", 2)
    assert end.at.isoformat() == "2026-11-24T08:32:54.180000+00:00"


@pytest.mark.parametrize("later", ["unknown", "failed"])
def test_nothing_that_was_told_later_undoes_an_acceptance(later: str) -> None:
    """A worker that was taken for dead may have come back."""
    assert ends(line(status="sent", message_id="m1"), line(status=later)) == {"r1": Status.SENT}


def test_the_last_end_counts() -> None:
    """An unknown that was sent again ended as the second attempt did."""
    assert ends(line(status="unknown"), line(status="queued"), line(status="failed", code="expired")) == {"r1": Status.FAILED}


@pytest.mark.parametrize(
    "other",
    [
        "",
        "REPORT RequestId: 1",
        "[]",
        line(status="deferred"),
        line(status="sending"),
        line(message="provider answered", outcome="not sent", code="throttled"),
        line(message="swept", status="sent"),
    ],
)
def test_lines_that_tell_no_end_are_passed_over(other: str) -> None:
    """A whole log may be given."""
    assert ends(other, line("r2", status="cancelled")) == {"r2": Status.CANCELLED}


def test_a_replay_says_what_it_wrote_and_what_was_known() -> None:
    """So an operator sees when nothing is left to write."""
    lines = [line("r1", status="sent"), line("r2", status="failed"), line("r3", status="sent")]
    assert replay(lines, FakeLostEnds("r3")) == {"sent": 1, "failed": 1, "known": 1}
