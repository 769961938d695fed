"""Traces of the send path: the duration of each step, and the tags that lead from SES to the request."""

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


def a_step_of(bench: Bench, span: timedelta, then: Any = None) -> Callable[..., Any]:
    """Return a step with a duration."""

    def take(*_: Any) -> Any:
        bench.clock.advance(span)
        return then

    return take


def steps(bench: Bench) -> dict[Any, timedelta]:
    """Return the steps of the last outcome."""
    return bench.telemetry.steps[-1]


def test_a_sent_request_has_the_duration_of_each_step() -> None:
    """Steps are from the queue to the write; `total` is from the acceptance of the request."""
    bench = Bench()
    bench.messages.before = a_step_of(bench, SECOND)
    bench.provider.outcomes = [a_step_of(bench, 3 * SECOND, Sent("m-1"))]
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


def test_the_age_of_a_scheduled_mail_starts_at_send_at() -> None:
    """Both `queue` and `total` are measured from there."""
    bench = Bench()
    bench.clock.advance(70 * SECOND)
    bench.receive(Received("message-0", a_queue_message(sendAt="2026-11-24T12:01:00Z"), 1, sent_at=NOON))
    assert (steps(bench)["queue"], steps(bench)["total"]) == (10 * SECOND, 10 * SECOND)


def test_a_requeued_message_has_no_queue_time() -> None:
    """It was delayed on purpose."""
    bench = Bench(a_record(generation=1))
    bench.receive(Received("message-0", a_queue_message(generation=1), 1, sent_at=NOON))
    assert "queue" not in steps(bench)


@pytest.mark.parametrize("code", ["credentials_denied", "config_unreadable"])
def test_a_request_before_the_fence_has_the_steps_until_then(code: str) -> None:
    """It ended while creating the provider."""
    bench = Bench()
    bench.provider_factory.error = NotSentError(ErrorInfo(code, "…"))
    bench.receive(Received("message-0", a_queue_message(), 1, sent_at=NOON))
    assert set(steps(bench)) == {"queue", "config"}


def test_a_mail_is_tagged_with_the_correlation_id() -> None:
    """With a configuration set, each event of the mail has the correlation id of its call."""
    bench = Bench()
    bench.receive(a_queue_message(attributes={"correlation_id": "order.1"}))
    [tags] = bench.provider.tags
    assert tags["tenantmail-correlation"] == "order_d1"
