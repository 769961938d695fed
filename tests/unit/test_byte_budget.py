"""The byte budget: the bytes in memory are limited, every thread gets its share in time, and all are returned."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from threading import Condition, Event, Semaphore

import pytest

from mailer.domain.delivery import Sent
from mailer.domain.message import MAX_RAW_BYTES, parse_request
from mailer.domain.mime import Sender, compose
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
    """It goes on when enough was given back."""
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


def test_an_upload_is_held_at_the_limit_until_it_is_loaded() -> None:
    """Nobody knows its size before."""
    left: list[int] = []

    class Watched(FakeAttachments):
        def fetch(self, tenant_id: str, ref: object) -> bytes:  # noqa: ARG002 - as the port has it
            left.append(bench.budget._left)
            return b"x"

    bench = Bench()
    bench.attachments.files["acme/1"] = b"x"
    bench.attachments.fetch = Watched().fetch  # type: ignore[method-assign]
    upload = {"filename": "a.pdf", "s3": {"key": "acme/1"}}
    bench.receive(a_queue_message(message={"to": [{"email": "jo@example.com"}], "subject": "", "attachments": [upload]}))
    assert left == [0]
    assert bench.budget._left == BUDGET


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


def test_the_templates_function_sends_the_largest_messages_on_all_its_threads() -> None:
    """The budget binds only where somebody makes the function smaller."""
    settings = of(AWS_LAMBDA_FUNCTION_MEMORY_SIZE="1769")
    assert settings.send_bytes >= settings.send_threads * MAX_RAW_BYTES


@pytest.mark.parametrize(("memory", "messages"), [("1024", 17), ("512", 4), ("128", 1)])
def test_a_smaller_function_sends_fewer_at_once(memory: str, messages: int) -> None:
    """One always passes."""
    assert of(AWS_LAMBDA_FUNCTION_MEMORY_SIZE=memory).send_bytes // MAX_RAW_BYTES == messages
