"""The byte budget: the bytes in memory are limited, every thread gets its share in time, and all are returned."""

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

PATIENCE = 10  # seconds, for what comes at once
SIZE = 10


class Telling(Condition):
    """A condition that tells of each thread that begins to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.release()
        return super().wait(timeout)


class Threads:
    """Threads that hold a budget until they are told to leave; `entered` is the order in which they got it."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.budget = ByteBudget(SIZE)
        self.condition = self.budget._changed = Telling()
        self.entered: list[str] = []
        self._pool = pool

    def enter(self, name: str, weight: int, *, waits: bool = False) -> Callable[[], None]:
        """Start a thread; return how to make it leave once it holds its bytes, or has begun to wait for them."""
        inside, leave = Event(), Event()
        done = self._pool.submit(self._stay, name, weight, inside, leave)
        assert self.condition.waits.acquire(timeout=PATIENCE) if waits else inside.wait(PATIENCE)

        def go() -> None:
            assert inside.wait(PATIENCE)
            leave.set()
            done.result(PATIENCE)

        return go

    def _stay(self, name: str, weight: int, inside: Event, leave: Event) -> None:
        with self.budget.hold(weight):
            self.entered.append(name)
            inside.set()
            assert leave.wait(PATIENCE)


@pytest.fixture
def threads() -> Iterator[Threads]:
    with ThreadPoolExecutor(8) as pool:
        yield Threads(pool)


def test_what_fits_is_held_side_by_side(threads: Threads) -> None:
    """Nobody waits while there is enough."""
    leave = [threads.enter("a", 5), threads.enter("b", 5)]
    assert threads.entered == ["a", "b"]
    for go in leave:
        go()


def test_what_does_not_fit_waits(threads: Threads) -> None:
    """It continues when enough was released."""
    a = threads.enter("a", 6)
    b = threads.enter("b", 5, waits=True)
    assert threads.entered == ["a"]
    a()
    b()
    assert threads.entered == ["a", "b"]


def test_a_large_one_is_not_starved_by_small_ones(threads: Threads) -> None:
    """Who comes later stands behind it, though there would be room for him."""
    a = threads.enter("a", 6)
    large = threads.enter("large", SIZE, waits=True)
    small = threads.enter("small", 1, waits=True)
    assert threads.entered == ["a"]
    a()
    large()
    small()
    assert threads.entered == ["a", "large", "small"]


def test_one_that_is_larger_than_the_budget_goes_alone(threads: Threads) -> None:
    """It takes all there is instead of waiting for ever."""
    huge = threads.enter("huge", 100 * SIZE)
    small = threads.enter("small", 1, waits=True)
    assert threads.entered == ["huge"]
    huge()
    small()


def test_what_turns_out_not_to_be_needed_is_free_at_once(threads: Threads) -> None:
    """An upload is taken for as large as SES allows until it is loaded."""
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


def test_a_failure_gives_back_what_it_held() -> None:
    """Or the budget would shrink until nothing is sent any more."""
    budget = ByteBudget(SIZE)
    with pytest.raises(BrokenPipeError):
        fail(budget.hold(SIZE))
    assert budget._left == SIZE


# ── what sending holds ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_message_is_held_at_its_size_while_it_is_sent() -> None:
    """From composing to the record, and not a byte longer."""
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


class Watched(FakeAttachments):
    """Notes how much of the budget is held whenever a file is asked for."""

    def __init__(self, budget: ByteBudget, **files: bytes) -> None:
        super().__init__({f"acme/{key}": file for key, file in files.items()})
        self.budget = budget
        self.held: list[int] = []

    def fetch(self, tenant_id: str, ref: S3Object, *, at_most: int | None = None) -> bytes:
        self.held.append(self.budget._size - self.budget._left)
        return super().fetch(tenant_id, ref, at_most=at_most)


def watched(**files: bytes) -> tuple[Bench, Watched]:
    """A bench with room for a few of the largest messages."""
    bench = Bench()
    budget = ByteBudget(4 * MAX_RAW_BYTES)
    attachments = Watched(budget, **files)
    bench.deps = replace(bench.deps, budget=budget, attachments=attachments)
    return bench, attachments


def test_an_upload_is_held_as_a_small_mail_until_it_is_loaded() -> None:
    """Nobody knows its size before, and most are small: as many are loaded at once as small mails are sent."""
    bench, attachments = watched(a=b"x", b=b"y")
    bench.receive(a_queue_message(message=uploads("a", "b")))
    assert attachments.held == [SMALL_BYTES] * 2
    assert (bench.record().status, bench.deps.budget._left) == (Status.SENT, 4 * MAX_RAW_BYTES)


@pytest.mark.parametrize(
    "sizes", [{"a": SMALL_BYTES}, {"a": 4_000_000, "b": 4_000_000}], ids=["a large file", "files that are large together"]
)
def test_a_large_mail_is_held_at_the_limit_while_it_is_loaded(sizes: Mapping[str, int]) -> None:
    """What had been loaded of it by then is given back first: nobody waits for room while holding some."""
    bench, attachments = watched(**{key: bytes(size) for key, size in sizes.items()})
    bench.receive(a_queue_message(message=uploads(*sizes)))
    [mail] = bench.provider.mails
    assert attachments.held == [SMALL_BYTES] * len(sizes) + [MAX_RAW_BYTES] * len(sizes)
    assert len(mail.mime) > SMALL_BYTES
    assert bench.deps.budget._left == 4 * MAX_RAW_BYTES


def test_small_mails_of_a_batch_go_before_large_ones() -> None:
    """None of them waits for the memory that a large mail takes, wherever it stands in the batch."""
    bench, _ = watched(large=bytes(SMALL_BYTES), small=b"x")
    queued = [
        a_queue_message("large", message=uploads("large")),
        a_queue_message("plain"),
        a_queue_message("small", message=uploads("small")),
    ]
    assert bench.receive(*queued) == []
    sizes = [len(mail.mime) for mail in bench.provider.mails]
    assert [size > SMALL_BYTES for size in sizes] == [False, False, True]


def test_uploads_that_never_fit_are_refused_with_both_numbers() -> None:
    """Before a third is loaded; no memory stays taken."""
    half = MAX_UPLOAD // 2 + 1000
    bench, attachments = watched(a=bytes(half), b=bytes(half), c=b"x")
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
def test_nothing_is_larger_than_it_was_taken_for(content: dict[str, str]) -> None:
    """What a message may come to is an upper bound."""
    message = parse_request(a_body(message={"to": [{"email": "jo@example.com"}], "subject": "", **content})).message
    assert message.most_bytes >= len(compose(message, Sender("a@acme.example", "A"), date=NOON).mime)


# ── the setting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def of(**environment: str) -> Settings:
    return Settings.from_environment(environment)


def test_the_templates_function_sends_the_largest_small_mails_on_all_its_threads() -> None:
    """The budget binds only large mails, of which it takes some beside each other, unless somebody makes the function smaller."""
    settings = of(AWS_LAMBDA_FUNCTION_MEMORY_SIZE="1769")
    assert settings.send_bytes >= settings.send_threads * SMALL_BYTES
    assert settings.send_bytes // LARGE_BYTES == 8


@pytest.mark.parametrize("memory", [128, 512, 1024, 1769, 3008, 10_240])
def test_mails_and_caches_fit_into_the_functions_memory(memory: int) -> None:
    """Four times the mails, the caches, and what the interpreter and a batch's bodies take; a function too small for one mail apart."""
    settings, mib = of(AWS_LAMBDA_FUNCTION_MEMORY_SIZE=str(memory)), 1024 * 1024
    sizes = settings.cache_sizes
    cached = PROVIDER_BYTES + sizes.configs + sizes.sessions
    assert max(memory, 400) * mib >= 4 * settings.send_bytes + cached + 240 * mib
    assert (cached > 150 * mib) == (memory > 1700)


@pytest.mark.parametrize(("memory", "small", "large"), [("1024", 17, 4), ("512", 4, 1), ("128", 1, 0)])
def test_a_smaller_function_sends_fewer_at_once(memory: str, small: int, large: int) -> None:
    """One always passes; below 512 MB a large one takes more than there is."""
    room = of(AWS_LAMBDA_FUNCTION_MEMORY_SIZE=memory).send_bytes
    assert (room // SMALL_BYTES, room // LARGE_BYTES) == (small, large)
