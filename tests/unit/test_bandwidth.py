"""Large mails: their share of the account's bandwidth, their time limit, and that small mails do not wait for them."""

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from mailer.domain.delivery import NotSent, Outcome, Sent, Status
from mailer.domain.large_mail import BANDWIDTH, LARGE_BYTES, SMALL_BYTES, UPLOAD_SPEED, megabytes, upload_time
from mailer.domain.message import MAX_RAW_BYTES
from mailer.domain.pacing import RateSource, RetryAt, Slot, bandwidth_key
from mailer.domain.uploads import MAX_UPLOAD
from mailer.ports import QueueMessage
from mailer.services.pacing.pacing import Pacing
from mailer.services.sending.byte_budget import ByteBudget
from mailer.services.sending.send import CALL_SPAN
from mailer.services.sending.suspects import TRIAL_SPAN
from support.fakes.pacing import FakePacingTable
from support.fakes.ports import NOON, a_config, a_provider
from support.fakes.sending import QUOTA, REJECTED, SEND_TIMEOUT, THROTTLED, Bench, a_queue_message

ACCOUNT = "123456789012/eu-west-1"
BANDWIDTH_KEY = f"{ACCOUNT}/bandwidth"
SECOND = timedelta(seconds=1)
FILE = MAX_UPLOAD - 10_000  # bytes of a file that makes a mail of nearly the largest size


@pytest.fixture
def bench() -> Bench:
    """Acme's account is known; one file is large, one small."""
    bench = Bench()
    bench.providers.rows = {"acme": a_provider(active=a_config(account="123456789012", max_send_rate=14.0))}
    bench.attachments.files = {"acme/large": bytes(FILE), "acme/small": b"x"}
    bench.deps = replace(bench.deps, budget=ByteBudget(2 * MAX_RAW_BYTES))
    return bench


def with_file(request_id: str, name: str = "large", **attributes: Any) -> QueueMessage:
    files = [{"filename": "a.pdf", "s3": {"key": f"acme/{name}"}}]
    message = {"to": [{"email": "jo@example.com"}], "subject": "", "attachments": files}
    return replace(a_queue_message(request_id, message=message), **attributes)


def bandwidth_requests(bench: Bench) -> list[tuple[RateSource, list[int], list[float | None]]]:
    return [(source, weights, carried) for account, source, weights, carried in bench.pacer.requests if account == BANDWIDTH_KEY]


# -- slots ---------------------------------------------------------------------------------------------------------------


def test_a_large_mail_also_takes_a_bandwidth_slot(bench: Bench) -> None:
    """The slot's weight is the mail's megabytes; the rate is SES's bandwidth per account."""
    bench.receive(with_file("r1"))
    [mail] = bench.provider.mails
    assert bandwidth_requests(bench) == [(RateSource(configured=BANDWIDTH), [megabytes(len(mail.mime))], [None])]
    assert [weights for account, _, weights, _ in bench.pacer.requests if account == ACCOUNT] == [[1]]


def test_a_small_mail_takes_no_bandwidth_slot(bench: Bench) -> None:
    """It takes none with or without an upload."""
    bench.receive(with_file("r1", "small"), a_queue_message("r2"))
    assert len(bench.provider.mails) == 2
    assert bandwidth_requests(bench) == []


def test_an_smtp_mail_takes_no_bandwidth_slot(bench: Bench) -> None:
    """An SMTP server has no such limit."""
    bench.providers.rows = {"acme": a_provider(active=a_config(provider="smtp", region=""))}
    bench.receive(with_file("r1"))
    assert (len(bench.provider.mails), bench.pacer.requests) == (1, [])


def test_a_near_slot_is_waited_for(bench: Bench) -> None:
    """The wait is inside the function, and before the account's own slot is checked again."""
    bench.pacer.plans = [Slot(NOON), Slot(NOON + SECOND)]
    sent_at: list[object] = []

    def respond() -> Outcome:
        sent_at.append(bench.clock.now())
        return Sent("m1")

    bench.provider.outcomes.append(respond)
    bench.receive(with_file("r1"))
    assert sent_at == [NOON + SECOND]


def test_a_far_slot_is_carried_by_the_message_and_requested_again(bench: Bench) -> None:
    """The account's own slot is dropped: it would be long past by then."""
    bench.pacer.plans = [Slot(NOON), RetryAt(NOON + 8 * SECOND, 320.5)]
    bench.receive(with_file("r1"))
    assert bench.provider.mails == []
    assert bench.record().status is Status.DEFERRED
    queue_message, delay = bench.take()
    assert (queue_message.upload_slot, queue_message.slot, delay) == (320.5, None, 8 * SECOND)
    bench.clock.advance(delay)
    bench.receive(queue_message)
    assert [carried for _, _, carried in bandwidth_requests(bench)] == [[None], [320.5]]
    assert bench.record().status is Status.SENT


def test_a_used_slot_is_not_carried_on(bench: Bench) -> None:
    """A retry takes another one."""
    bench.provider.outcomes.append(THROTTLED)
    bench.receive(with_file("r1", upload_slot=320.5))
    assert bench.take()[0].upload_slot is None


def test_a_pacing_table_that_does_not_answer_defers(bench: Bench) -> None:
    """Large mail is not sent unpaced; small mail is sent."""
    bench.pacer.failing.add(BANDWIDTH_KEY)
    bench.receive(with_file("r1"), a_queue_message("r2"))
    assert (bench.record("r1").status, bench.record("r2").status) == (Status.DEFERRED, Status.SENT)
    assert len(bench.provider.mails) == 1


def test_large_mails_are_sent_at_the_bandwidth_and_after_small_ones(bench: Bench) -> None:
    """At forty megabytes a second one of the largest mails is sent each second; the account's small mail does not wait."""
    bench.deps = replace(bench.deps, pacer=Pacing(FakePacingTable(), functions=1))
    sent_at: list[float] = []

    def respond() -> Outcome:
        sent_at.append((bench.clock.now() - NOON).total_seconds())
        return Sent("m1")

    bench.provider.outcomes = [respond] * 7
    bench.receive(with_file("l1"), with_file("l2"), with_file("l3"), *(a_queue_message(f"s{n}") for n in range(4)))
    assert [len(mail.mime) > SMALL_BYTES for mail in bench.provider.mails] == [False] * 4 + [True] * 3
    assert max(sent_at[:4]) < 1
    assert [second - first >= 1 for first, second in pairwise(sent_at[4:])] == [True, True]
    assert sent_at[-1] < 3


@pytest.mark.parametrize(
    ("name", "outcome", "paced"),
    [
        ("large", THROTTLED, [("throttled", BANDWIDTH_KEY)]),
        ("small", THROTTLED, [("throttled", ACCOUNT)]),
        ("large", QUOTA, [("quota exhausted", ACCOUNT)]),
        ("large", REJECTED, []),
    ],
)
def test_a_throttled_large_mail_slows_only_large_mails(bench: Bench, name: str, outcome: NotSent, paced: list[tuple[str, str]]) -> None:
    """The quota of 24 hours counts all mail."""
    bench.provider.outcomes.append(outcome)
    bench.receive(with_file("r1", name))
    assert bench.pacer.paced == paced


def test_the_bandwidth_of_an_account_has_its_own_key() -> None:
    """The key differs from the account's and from every other account's."""
    assert bandwidth_key(ACCOUNT) == BANDWIDTH_KEY


# -- time ----------------------------------------------------------------------------------------------------------------


def test_a_large_mail_s_deadline_includes_its_upload_time(bench: Bench) -> None:
    """Its worker counts as dead later by exactly that time."""
    bench.provider.outcomes.append(lambda: Sent("m1"))
    deadlines: list[object] = []

    def respond() -> Outcome:
        deadlines.append(bench.record().deadline)
        return Sent("m1")

    bench.provider.outcomes = [respond]
    bench.receive(with_file("r1"))
    [mail] = bench.provider.mails
    assert upload_time(len(mail.mime)) > 12 * SECOND
    assert deadlines == [NOON + CALL_SPAN + upload_time(len(mail.mime))]


def test_a_large_mail_is_not_started_without_enough_time(bench: Bench) -> None:
    """The function would time out during the call; a small mail is still sent."""
    bench.receive(with_file("r1"), a_queue_message("r2"), time_left=CALL_SPAN + 5 * SECOND)
    assert (bench.record("r1").status, bench.record("r2").status) == (Status.DEFERRED, Status.SENT)


def test_the_function_has_time_for_the_largest_mail() -> None:
    """Both in a new invocation and as a suspect that is tried alone, with 20 seconds for the steps before the call."""
    longest = CALL_SPAN + upload_time(LARGE_BYTES)
    assert longest <= TRIAL_SPAN
    assert longest + 20 * SECOND <= SEND_TIMEOUT


@pytest.mark.parametrize(("size", "seconds"), [(0, 0), (UPLOAD_SPEED - 1, 0), (UPLOAD_SPEED, 1), (SMALL_BYTES, 3), (LARGE_BYTES, 13)])
def test_upload_time_depends_on_the_size(size: int, seconds: int) -> None:
    """It is in whole seconds, and 0 for most mails."""
    assert upload_time(size) == seconds * SECOND


@pytest.mark.parametrize(("size", "used"), [(10_485_761, 11), (20_000_000, 20), (20_000_001, 21), (LARGE_BYTES, 42)])
def test_bandwidth_is_counted_in_whole_megabytes(size: int, used: int) -> None:
    """Megabytes are rounded up."""
    assert megabytes(size) == used
