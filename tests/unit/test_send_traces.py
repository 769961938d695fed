"""What the send path leaves for those who look later: how long each step took, and what leads from SES back to the request."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from mailer.domain.delivery import Sent, Status
from mailer.domain.errors import ErrorInfo, NotSentError
from mailer.services.sending.jobs import Received
from support.fakes.ports import NOON
from support.fakes.sending import Bench, a_queue_message, a_record

SECOND = timedelta(seconds=1)


def taking(bench: Bench, span: timedelta, then: Any = None) -> Callable[..., Any]:
    """Make a step that takes its time."""

    def take(*_: Any) -> Any:
        bench.clock.advance(span)
        return then

    return take


def steps(bench: Bench) -> dict[Any, timedelta]:
    """Return the steps of the last outcome."""
    return bench.telemetry.steps[-1]


def test_a_sent_request_tells_what_each_step_took() -> None:
    """From the queue to the write; `total` is from when it was accepted."""
    bench = Bench()
    bench.messages.before = taking(bench, SECOND)
    bench.provider.outcomes = [taking(bench, 3 * SECOND, Sent("m-1"))]
    bench.clock.advance(10 * SECOND)
    bench.receive(Received("message-0", a_queue_message(), 1, sent_at=NOON + 4 * SECOND))
    assert bench.record().status is Status.SENT
    zero = timedelta()
    assert steps(bench) == {
        "queue": 6 * SECOND,
        "config": zero,
        "compose": zero,
        "pacing": zero,
        "fence": SECOND,
        "provider": 3 * SECOND,
        "write": SECOND,
        "total": 14 * SECOND,
    }


def test_a_mail_that_was_to_wait_did_not_lie_about_meanwhile() -> None:
    """Both ages count from its sendAt."""
    bench = Bench()
    bench.clock.advance(70 * SECOND)
    bench.receive(Received("message-0", a_queue_message(sendAt="2026-11-24T12:01:00Z"), 1, sent_at=NOON))
    assert (steps(bench)["queue"], steps(bench)["total"]) == (10 * SECOND, 10 * SECOND)


def test_a_later_message_has_no_age_on_the_queue() -> None:
    """It was told to wait there."""
    bench = Bench(a_record(generation=1))
    bench.receive(Received("message-0", a_queue_message(generation=1), 1, sent_at=NOON))
    assert "queue" not in steps(bench)


@pytest.mark.parametrize("code", ["credentials_denied", "config_unreadable"])
def test_a_request_that_did_not_get_to_the_fence_tells_the_steps_it_took(code: str) -> None:
    """Opening the provider is where it ended."""
    bench = Bench()
    bench.provider_factory.error = NotSentError(ErrorInfo(code, "…"))
    bench.receive(Received("message-0", a_queue_message(), 1, sent_at=NOON))
    assert set(steps(bench)) == {"queue", "config"}


def test_ses_is_told_what_a_mail_is_part_of() -> None:
    """With a configuration set, each event of the mail carries the correlation id of the call that it came by."""
    bench = Bench()
    bench.receive(a_queue_message(attributes={"correlation_id": "order.1"}))
    [tags] = bench.provider.tags
    assert tags["tenantmail-correlation"] == "order_d1"
