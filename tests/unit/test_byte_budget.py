"""The byte budget: the bytes in memory are limited, no thread is starved, and all bytes are released."""

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from threading import Condition, Event, Semaphore
from typing import Any

import pytest

from mailer.adapters.providers.provider_factory import PROVIDER_BYTES
from mailer.domain.delivery import Sent, Status
from mailer.domain.large_mail import LARGE_BYTES, SMALL_BYTES
from mailer.domain.message import MAX_RAW_BYTES, S3Object, parse_request
from mailer.domain.mime import Sender, compose
from mailer.domain.uploads import MAX_UPLOAD, file_size
from mailer.services.sending.byte_budget import ByteBudget
from mailer.settings import Settings
from support.fakes.ports import FakeAttachments
from support.fakes.sending import BUDGET, NOON, Bench, a_body, a_queue_message

TIMEOUT = 10  # seconds, for events that come at once
SIZE = 10


class SignallingCondition(Condition):
    """A condition that signals each thread that begins to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.release()
        return super().wait(timeout)


class Threads:
    """Threads that hold bytes until they are released; `entered` is the order in which they got them."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.budget = ByteBudget(SIZE)
        self.condition = self.budget._changed = SignallingCondition()
        self.entered: list[str] = []
        self._pool = pool

    def enter(self, name: str, weight: int, *, waits: bool = False) -> Callable[[], None]:
        """Start a thread; once it holds its bytes, or waits for them, return a function that ends it."""
        inside, leave = Event(), Event()
        done = self._pool.submit(self._stay, name, weight, inside, leave)
        assert self.condition.waits.acquire(timeout=TIMEOUT) if waits else inside.wait(TIMEOUT)

        def finish() -> None:
            assert inside.wait(TIMEOUT)
            leave.set()
            done.result(TIMEOUT)

        return finish

    def _stay(self, name: str, weight: int, inside: Event, leave: Event) -> None:
        with self.budget.hold(weight):
            self.entered.append(name)
            inside.set()
            assert leave.wait(TIMEOUT)


@pytest.fixture
def threads() -> Iterator[Threads]:
    with ThreadPoolExecutor(8) as pool:
        yield Threads(pool)


def test_bytes_that_fit_are_held_concurrently(threads: Threads) -> None:
    """No thread waits while enough bytes are left."""
    leave = [threads.enter("a", 5), threads.enter("b", 5)]
    assert threads.entered == ["a", "b"]
    for finish in leave:
        finish()


def test_a_thread_waits_for_bytes_that_do_not_fit(threads: Threads) -> None:
    """It continues when enough bytes are released."""
    a = threads.enter("a", 6)
    b = threads.enter("b", 5, waits=True)
    assert threads.entered == ["a"]
    a()
    b()
    assert threads.entered == ["a", "b"]


def test_a_large_weight_is_not_starved_by_small_ones(threads: Threads) -> None:
    """A later thread waits behind it, even if its own bytes would fit."""
    a = threads.enter("a", 6)
    large = threads.enter("large", SIZE, waits=True)
    small = threads.enter("small", 1, waits=True)
    assert threads.entered == ["a"]
    a()
    large()
    small()
    assert threads.entered == ["a", "large", "small"]


def test_a_weight_above_the_budget_takes_all_of_it(threads: Threads) -> None:
    """It does not wait forever."""
    huge = threads.enter("huge", 100 * SIZE)
    small = threads.enter("small", 1, waits=True)
    assert threads.entered == ["huge"]
    huge()
    small()


def test_shrinking_releases_bytes_at_once(threads: Threads) -> None:
    """An upload counts as large as SES allows until it is loaded."""
    with threads.budget.hold(SIZE) as held:
        small = threads.enter("small", 4, waits=True)
        held.shrink(6)
        small()
        held.shrink(8)
        assert held.weight == 6
    assert threads.budget._left == SIZE


def fail(holding: AbstractContextManager[object]) -> None:
    with holding:
        raise BrokenPipeError


def test_an_exception_releases_the_bytes() -> None:
    """Otherwise the budget would shrink until nothing is sent."""
    budget = ByteBudget(SIZE)
    with pytest.raises(BrokenPipeError):
        fail(budget.hold(SIZE))
    assert budget._left == SIZE


# ── bytes held by sending ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_message_s_bytes_are_held_while_it_is_sent() -> None:
    """They are held from composing to the record."""
    left: list[int] = []
    bench = Bench()

    def answer() -> Sent:
        left.append(BUDGET - bench.budget._left)
        return Sent("m1")

    bench.provider.outcomes.append(answer)
    bench.receive(a_queue_message())
    assert left == [len(bench.provider.mails[0].mime)]
    assert bench.budget._left == BUDGET


def uploads(*keys: str) -> dict[str, Any]:
    """A message with uploads."""
    files = [{"filename": f"{number}.pdf", "s3": {"key": f"acme/{key}"}} for number, key in enumerate(keys)]
    return {"to": [{"email": "jo@example.com"}], "subject": "", "attachments": files}


class MeasuringAttachments(FakeAttachments):
    """Stores the held bytes at each fetch of a file."""

    def __init__(self, budget: ByteBudget, **files: bytes) -> None:
        super().__init__({f"acme/{key}": file for key, file in files.items()})
        self.budget = budget
        self.held: list[int] = []

    def fetch(self, tenant_id: str, ref: S3Object, *, at_most: int | None = None) -> bytes:
        self.held.append(self.budget._size - self.budget._left)
        return super().fetch(tenant_id, ref, at_most=at_most)


def measuring_bench(**files: bytes) -> tuple[Bench, MeasuringAttachments]:
    """A bench with a budget of four of the largest messages."""
    bench = Bench()
    budget = ByteBudget(4 * MAX_RAW_BYTES)
    attachments = MeasuringAttachments(budget, **files)
    bench.deps = replace(bench.deps, budget=budget, attachments=attachments)
    return bench, attachments


def test_an_upload_counts_as_a_small_mail_until_it_is_loaded() -> None:
    """Its size is not known before, and most uploads are small: as many are loaded concurrently as small mails are sent."""
    bench, attachments = measuring_bench(a=b"x", b=b"y")
    bench.receive(a_queue_message(message=uploads("a", "b")))
    assert attachments.held == [SMALL_BYTES] * 2
    assert (bench.record().status, bench.deps.budget._left) == (Status.SENT, 4 * MAX_RAW_BYTES)


@pytest.mark.parametrize(
    "sizes", [{"a": SMALL_BYTES}, {"a": 4_000_000, "b": 4_000_000}], ids=["a large file", "files that are large together"]
)
def test_a_large_mail_counts_as_the_limit_while_it_is_loaded(sizes: Mapping[str, int]) -> None:
    """Its held bytes are released first: no thread waits for bytes while it holds some."""
    bench, attachments = measuring_bench(**{key: bytes(size) for key, size in sizes.items()})
    bench.receive(a_queue_message(message=uploads(*sizes)))
    [mail] = bench.provider.mails
    assert attachments.held == [SMALL_BYTES] * len(sizes) + [MAX_RAW_BYTES] * len(sizes)
    assert len(mail.mime) > SMALL_BYTES
    assert bench.deps.budget._left == 4 * MAX_RAW_BYTES


def test_small_mails_of_a_batch_are_sent_before_large_ones() -> None:
    """None of them waits for the memory of a large mail, in any order of the batch."""
    bench, _ = measuring_bench(large=bytes(SMALL_BYTES), small=b"x")
    queued = [
        a_queue_message("large", message=uploads("large")),
        a_queue_message("plain"),
        a_queue_message("small", message=uploads("small")),
    ]
    assert bench.receive(*queued) == []
    sizes = [len(mail.mime) for mail in bench.provider.mails]
    assert [size > SMALL_BYTES for size in sizes] == [False, False, True]


def test_uploads_that_never_fit_are_refused_with_both_numbers() -> None:
    """They are rejected before a third file is loaded, and all bytes are released."""
    half = MAX_UPLOAD // 2 + 1000
    bench, attachments = measuring_bench(a=bytes(half), b=bytes(half), c=b"x")
    bench.receive(a_queue_message(message=uploads("a", "b", "c")))
    error = bench.record().error
    assert error is not None
    assert (error.code, bench.deps.budget._left) == ("message_too_large", 4 * MAX_RAW_BYTES)
    assert {str(MAX_RAW_BYTES), str(2 * file_size(half))} <= set(re.findall(r"\d+", error.message))
    assert len(attachments.held) == 3  # one of them for a small mail


@pytest.mark.parametrize(
    "content",
    [{"text": "😀" * 3000}, {"html": "😀<br>" * 3000}, {"text": "=" * 3000}, {"html": "<p>" * 20, "text": "\x01" * 999}],
    ids=["emoji", "emoji in HTML alone", "escapes", "control characters"],
)
def test_no_mail_is_larger_than_its_estimate(content: dict[str, str]) -> None:
    """`most_bytes` is an upper bound."""
    message = parse_request(a_body(message={"to": [{"email": "jo@example.com"}], "subject": "", **content})).message
    assert message.most_bytes >= len(compose(message, Sender("a@acme.example", "A"), date=NOON).mime)


# ── the setting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def settings_of(**environment: str) -> Settings:
    return Settings.from_environment(environment)


def test_the_default_memory_allows_small_mails_on_all_threads() -> None:
    """At the template's memory size the budget limits only large mails, to eight at once."""
    settings = settings_of(AWS_LAMBDA_FUNCTION_MEMORY_SIZE="1769")
    assert settings.send_bytes >= settings.send_threads * SMALL_BYTES
    assert settings.send_bytes // LARGE_BYTES == 8


@pytest.mark.parametrize("memory", [128, 512, 1024, 1769, 3008, 10_240])
def test_mails_and_caches_fit_into_the_functions_memory(memory: int) -> None:
    """Four times the mails, the caches, the interpreter and a batch's bodies fit, except in a function too small for one mail."""
    settings, mib = settings_of(AWS_LAMBDA_FUNCTION_MEMORY_SIZE=str(memory)), 1024 * 1024
    sizes = settings.cache_sizes
    cached = PROVIDER_BYTES + sizes.configs + sizes.sessions
    assert max(memory, 400) * mib >= 4 * settings.send_bytes + cached + 240 * mib
    assert (cached > 150 * mib) == (memory > 1700)


@pytest.mark.parametrize(("memory", "small", "large"), [("1024", 17, 4), ("512", 4, 1), ("128", 1, 0)])
def test_a_smaller_function_sends_fewer_mails_at_once(memory: str, small: int, large: int) -> None:
    """One small mail always fits; below 512 MB a large one takes the whole budget."""
    room = settings_of(AWS_LAMBDA_FUNCTION_MEMORY_SIZE=memory).send_bytes
    assert (room // SMALL_BYTES, room // LARGE_BYTES) == (small, large)
