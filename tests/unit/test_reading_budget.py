"""Reading and composing any request stays within a budget of time and memory."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from mailer.domain.message import MAX_MARKUP, parse_request
from mailer.domain.mime import bodies
from mailer.handlers import messages, providers
from support.fakes.messages import fake_deps, serve_from
from support.fakes.ports import FakeProvidersTable, a_provider
from support.fakes.providers import a_scene
from support.hostile import (
    BYTES,
    MIB,
    PIECES,
    SECONDS,
    TEXTS,
    Cost,
    composing,
    cost,
    everywhere,
    filling,
    structures,
    with_free_texts,
    with_text,
)
from support.servers.gateway import Gateway


def above_budget(costs: Iterable[tuple[str, Cost]], size: int = BYTES, seconds: float = SECONDS) -> list[tuple[str, Cost]]:
    """Return the calls above the budget."""
    return [(name, one) for name, one in costs if one.seconds > seconds or one.bytes > size]


def reading(body: str) -> Callable[[], object]:
    return lambda: parse_request(body)


def written(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False)


def test_json_structures_stay_within_the_budget() -> None:
    """A megabyte each of lists of objects, unknown fields, duplicate names and nesting is parsed."""
    assert above_budget((name, cost(reading(body))) for name, body in structures()) == []


@pytest.mark.parametrize("make", [everywhere, with_free_texts])
def test_texts_stay_within_the_budget(make: Callable[..., dict[str, Any]]) -> None:
    """Each kind of text is in all fields at once, at their limits."""
    assert above_budget((name, cost(reading(written(make(text))))) for name, text in TEXTS.items()) == []


def test_a_subject_of_a_megabyte_stays_within_the_budget() -> None:
    """A too long text is not parsed: one of these took minutes."""
    assert above_budget((name, cost(reading(written(with_text("subject", text(MIB // 4)))))) for name, text in TEXTS.items()) == []


@pytest.mark.parametrize(
    "kind", ["links", "long references", "cid URLs of their own", "short lines", "dots at the start of lines", "emoji"]
)
def test_composing_a_valid_mail_stays_within_the_budget(kind: str) -> None:
    """The most expensive kinds: text from HTML, references to images, folded headers, quoted-printable, base64."""
    mails = [with_free_texts(TEXTS[kind]), with_text("html", filling(kind, MAX_MARKUP, MIB * 9 // 10))]
    composed = [call for call in (composing(written(mail)) for mail in mails) if call]
    assert composed
    assert above_budget(((kind, cost(call)) for call in composed), seconds=2 * SECONDS) == []


@pytest.mark.parametrize("line", ["ab\n", "\n", "a" * 998 + "\r\n", "a\r"])
def test_an_attached_mail_stays_within_the_budget(line: str) -> None:
    """It may have seven megabytes of short lines, which must not become objects."""
    octets = b"A: b\n\n" + line.encode() * (7 * MIB // len(line))
    assert above_budget([("", cost(lambda: bodies.message(octets)))], size=4 * len(octets), seconds=2 * SECONDS) == []


# ── the API: bodies of 6 MB, and a hundred requests in one ──────────────────────────────────────────────────────────────

ACME = "/tenants/acme"
ROUTES = [f"{ACME}/messages", f"{ACME}/messages/preview", f"{ACME}/messages/batch", f"{ACME}/messages/r1/resolve", f"{ACME}/attachments"]
MOST = 6 * MIB
"""Maximum bytes of Lambda's events and responses."""


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Gateway:
    serve_from(fake_deps(providers=FakeProvidersTable(a_provider())), monkeypatch)
    monkeypatch.setattr("mailer.wiring.provider_dependencies", lambda: a_scene().deps)
    return Gateway(messages.handler, providers.handler)


def calling(api: Gateway, method: str, path: str, body: str) -> Callable[[], object]:
    def call() -> None:
        answer = api.call(method, path, body)
        assert answer.status < 500
        assert len(answer.text) < MOST

    return call


@pytest.mark.parametrize(("method", "path"), [*(("POST", path) for path in ROUTES), ("PUT", f"{ACME}/provider")])
def test_every_route_stays_within_the_budget(api: Gateway, method: str, path: str) -> None:
    """The cost includes the event handler."""
    bodies = list(structures())[::9]
    assert above_budget(((name, cost(calling(api, method, path, body))) for name, body in bodies), size=BYTES + 4 * MIB) == []


BAD: dict[str, dict[str, Any]] = {
    "addresses": {"to": ["x"] * 40, "cc": ["x"] * 30, "bcc": ["x"] * 30, "replyTo": ["x"] * 50},
    "domains": {"to": [{"email": f"jo@{number}{'üä' * 25}.example"} for number in range(100)]},
    "headers": {"headers": {f"{'X' * 73}{number}": "\n" for number in range(100)}},
    "unknown fields": {f"{'x' * 73}{number}": 1 for number in range(400)},
    "encoded-words": with_free_texts(TEXTS["encoded-words"], 50_000)["message"],
}


@pytest.mark.parametrize("name", BAD)
def test_a_batch_stays_within_the_budget_of_its_requests(api: Gateway, name: str) -> None:
    """A hundred requests with all possible problems each; the response lists them within its limit."""
    body = json.dumps([{"message": BAD[name]}] * 100)
    assert above_budget([(name, cost(calling(api, "POST", f"{ACME}/messages/batch", body)))], seconds=100 * SECONDS / 5) == []


# ── the measurement itself ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_measurement_detects_time_and_memory() -> None:
    """This tests the tests above: calls above the budget are detected."""
    assert above_budget([("memory", cost(lambda: bytearray(BYTES + 1)))])
    assert above_budget([("time", cost(lambda: bytearray(BYTES // 32).hex()))], seconds=0)


def test_every_text_has_its_maximum_length() -> None:
    """Otherwise long texts would not be tested."""
    assert {name: len(make(1_000)) for name, make in TEXTS.items() if not 900 <= len(make(1_000)) <= 1_000} == {}
    assert set(PIECES) < set(TEXTS)
