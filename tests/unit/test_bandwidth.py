"""Large mails: what they take of their account's bandwidth, how long they may take, and that small ones do not wait for them."""

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
LINE = f"{ACCOUNT}/bandwidth"
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


def asked_for_bandwidth(bench: Bench) -> list[tuple[RateSource, list[int], list[float | None]]]:
    return [(source, weights, carried) for account, source, weights, carried in bench.pacer.requests if account == LINE]


# -- slots ---------------------------------------------------------------------------------------------------------------


def test_a_large_mail_takes_a_slot_of_its_account_s_bandwidth_too(bench: Bench) -> None:
    """Weighed by its megabytes, at what SES takes of every account."""
    bench.receive(with_file("r1"))
    [mail] = bench.provider.mails
    assert asked_for_bandwidth(bench) == [(RateSource(configured=BANDWIDTH), [megabytes(len(mail.mime))], [None])]
    assert [weights for account, _, weights, _ in bench.pacer.requests if account == ACCOUNT] == [[1]]


def test_a_small_mail_takes_none(bench: Bench) -> None:
    """With an upload or without."""
    bench.receive(with_file("r1", "small"), a_queue_message("r2"))
    assert len(bench.provider.mails) == 2
    assert asked_for_bandwidth(bench) == []


def test_what_is_not_paced_takes_none(bench: Bench) -> None:
    """An SMTP server has no such limit."""
    bench.providers.rows = {"acme": a_provider(active=a_config(provider="smtp", region=""))}
    bench.receive(with_file("r1"))
    assert (len(bench.provider.mails), bench.pacer.requests) == (1, [])


def test_a_near_slot_is_waited_for(bench: Bench) -> None:
    """Inside the function, and before the account's own slot is looked at again."""
    bench.pacer.plans = [Slot(NOON), Slot(NOON + SECOND)]
    sent_at: list[object] = []

    def answer() -> Outcome:
        sent_at.append(bench.clock.now())
        return Sent("m1")

    bench.provider.outcomes.append(answer)
    bench.receive(with_file("r1"))
    assert sent_at == [NOON + SECOND]


def test_a_far_slot_travels_with_the_message_and_is_asked_for_again(bench: Bench) -> None:
    """The account's own slot is given up: it would be long over by then."""
    bench.pacer.plans = [Slot(NOON), RetryAt(NOON + 8 * SECOND, 320.5)]
    bench.receive(with_file("r1"))
    assert bench.provider.mails == []
    assert bench.record().status is Status.DEFERRED
    queue_message, delay = bench.take()
    assert (queue_message.upload_slot, queue_message.slot, delay) == (320.5, None, 8 * SECOND)
    bench.clock.advance(delay)
    bench.receive(queue_message)
    assert [carried for _, _, carried in asked_for_bandwidth(bench)] == [[None], [320.5]]
    assert bench.record().status is Status.SENT


def test_a_used_slot_travels_no_further(bench: Bench) -> None:
    """A retry takes another one."""
    bench.provider.outcomes.append(THROTTLED)
    bench.receive(with_file("r1", upload_slot=320.5))
    assert bench.take()[0].upload_slot is None


def test_a_pacing_table_that_does_not_answer_defers(bench: Bench) -> None:
    """Nothing large is sent that nobody paces; small mail goes on."""
    bench.pacer.failing.add(LINE)
    bench.receive(with_file("r1"), a_queue_message("r2"))
    assert (bench.record("r1").status, bench.record("r2").status) == (Status.DEFERRED, Status.SENT)
    assert len(bench.provider.mails) == 1


def test_large_mails_go_at_the_bandwidth_and_small_ones_before_them(bench: Bench) -> None:
    """Forty megabytes a second: one of the largest each second, whoever sends them; small mail of the account waits for none of them."""
    bench.deps = replace(bench.deps, pacer=Pacing(FakePacingTable(), functions=1))
    sent_at: list[float] = []

    def answer() -> Outcome:
        sent_at.append((bench.clock.now() - NOON).total_seconds())
        return Sent("m1")

    bench.provider.outcomes = [answer] * 7
    bench.receive(with_file("l1"), with_file("l2"), with_file("l3"), *(a_queue_message(f"s{n}") for n in range(4)))
    assert [len(mail.mime) > SMALL_BYTES for mail in bench.provider.mails] == [False] * 4 + [True] * 3
    assert max(sent_at[:4]) < 1
    assert [second - first >= 1 for first, second in pairwise(sent_at[4:])] == [True, True]
    assert sent_at[-1] < 3


@pytest.mark.parametrize(
    ("name", "outcome", "paced"),
    [
        ("large", THROTTLED, [("throttled", LINE)]),
        ("small", THROTTLED, [("throttled", ACCOUNT)]),
        ("large", QUOTA, [("quota exhausted", ACCOUNT)]),
        ("large", REJECTED, []),
    ],
)
def test_a_large_mail_that_is_throttled_slows_large_mails_alone(
    bench: Bench, name: str, outcome: NotSent, paced: list[tuple[str, str]]
) -> None:
    """The quota of 24 hours is of all mail."""
    bench.provider.outcomes.append(outcome)
    bench.receive(with_file("r1", name))
    assert bench.pacer.paced == paced


def test_the_bandwidth_of_an_account_has_a_line_of_its_own() -> None:
    """Beside the account's, and no account's own."""
    assert bandwidth_key(ACCOUNT) == LINE


# -- time ----------------------------------------------------------------------------------------------------------------


def test_an_attempt_with_a_large_mail_has_as_much_longer_as_it_may_take_to_write(bench: Bench) -> None:
    """Its worker is given up later, by just that."""
    bench.provider.outcomes.append(lambda: Sent("m1"))
    deadlines: list[object] = []

    def answer() -> Outcome:
        deadlines.append(bench.record().deadline)
        return Sent("m1")

    bench.provider.outcomes = [answer]
    bench.receive(with_file("r1"))
    [mail] = bench.provider.mails
    assert upload_time(len(mail.mime)) > 12 * SECOND
    assert deadlines == [NOON + CALL_SPAN + upload_time(len(mail.mime))]


def test_a_large_mail_is_not_begun_with_less_time_left_than_it_may_take(bench: Bench) -> None:
    """The function would end in the middle of it; a small one still goes."""
    bench.receive(with_file("r1"), a_queue_message("r2"), time_left=CALL_SPAN + 5 * SECOND)
    assert (bench.record("r1").status, bench.record("r2").status) == (Status.DEFERRED, Status.SENT)


def test_the_largest_mail_finds_the_time_that_it_may_take() -> None:
    """In a new invocation, and where it is tried by itself, with a third of the function's time to spare for all that comes before."""
    longest = CALL_SPAN + upload_time(LARGE_BYTES)
    assert longest <= TRIAL_SPAN
    assert longest + 20 * SECOND <= SEND_TIMEOUT


@pytest.mark.parametrize(("size", "seconds"), [(0, 0), (UPLOAD_SPEED - 1, 0), (UPLOAD_SPEED, 1), (SMALL_BYTES, 3), (LARGE_BYTES, 13)])
def test_time_to_write_goes_by_the_size(size: int, seconds: int) -> None:
    """In whole seconds, none of them for the mails that are nearly all."""
    assert upload_time(size) == seconds * SECOND


@pytest.mark.parametrize(("size", "used"), [(10_485_761, 11), (20_000_000, 20), (20_000_001, 21), (LARGE_BYTES, 42)])
def test_bandwidth_is_counted_in_whole_megabytes(size: int, used: int) -> None:
    """Rounded up."""
    assert megabytes(size) == used
