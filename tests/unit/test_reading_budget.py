"""No request takes the worker's time or memory from the others: reading and composing have a budget, whatever the input."""

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


def beyond(costs: Iterable[tuple[str, Cost]], size: int = BYTES, seconds: float = SECONDS) -> list[tuple[str, Cost]]:
    """Return what costs more than it may."""
    return [(name, one) for name, one in costs if one.seconds > seconds or one.bytes > size]


def reading(body: str) -> Callable[[], object]:
    return lambda: parse_request(body)


def written(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False)


def test_no_number_depth_or_name_of_values_costs_more_than_the_budget() -> None:
    """Lists of objects, unknown fields, names given twice, nesting: a megabyte of each."""
    assert beyond((name, cost(reading(body))) for name, body in structures()) == []


@pytest.mark.parametrize("make", [everywhere, with_free_texts])
def test_no_text_costs_more_than_the_budget(make: Callable[..., dict[str, Any]]) -> None:
    """Each kind of text in all fields at once, at their limits."""
    assert beyond((name, cost(reading(written(make(text))))) for name, text in TEXTS.items()) == []


def test_no_subject_of_a_megabyte_costs_more_than_the_budget() -> None:
    """What is too long is not looked at: one of these words took minutes."""
    assert beyond((name, cost(reading(written(with_text("subject", text(MIB // 4)))))) for name, text in TEXTS.items()) == []


@pytest.mark.parametrize(
    "kind", ["links", "long references", "cid URLs of their own", "short lines", "dots at the start of lines", "emoji"]
)
def test_no_mail_within_the_limits_costs_more_than_the_budget_to_compose(kind: str) -> None:
    """Text from HTML, references to images, headers and their folding, quoted-printable, base64; the most expensive kinds."""
    mails = [with_free_texts(TEXTS[kind]), with_text("html", filling(kind, MAX_MARKUP, MIB * 9 // 10))]
    composed = [call for call in (composing(written(mail)) for mail in mails) if call]
    assert composed
    assert beyond(((kind, cost(call)) for call in composed), seconds=2 * SECONDS) == []


@pytest.mark.parametrize("line", ["ab\n", "\n", "a" * 998 + "\r\n", "a\r"])
def test_a_mail_inside_the_mail_costs_no_more_than_its_messages(line: str) -> None:
    """It may have seven megabytes, and as many lines: those are never made objects."""
    octets = b"A: b\n\n" + line.encode() * (7 * MIB // len(line))
    assert beyond([("", cost(lambda: bodies.message(octets)))], size=4 * len(octets), seconds=2 * SECONDS) == []


# ── the API: bodies of 6 MB, and a hundred requests in one ──────────────────────────────────────────────────────────────

ACME = "/tenants/acme"
ROUTES = [f"{ACME}/messages", f"{ACME}/messages/preview", f"{ACME}/messages/batch", f"{ACME}/messages/r1/resolve", f"{ACME}/attachments"]
MOST = 6 * MIB
"""Bytes of an event that Lambda takes, and of an answer."""


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
def test_no_route_costs_more_than_the_budget(api: Gateway, method: str, path: str) -> None:
    """Beside messages of the body, that Lambda and the event handler make too."""
    bodies = list(structures())[::9]
    assert beyond(((name, cost(calling(api, method, path, body))) for name, body in bodies), size=BYTES + 4 * MIB) == []


BAD: dict[str, dict[str, Any]] = {
    "addresses": {"to": ["x"] * 40, "cc": ["x"] * 30, "bcc": ["x"] * 30, "replyTo": ["x"] * 50},
    "domains": {"to": [{"email": f"jo@{number}{'üä' * 25}.example"} for number in range(100)]},
    "headers": {"headers": {f"{'X' * 73}{number}": "\n" for number in range(100)}},
    "unknown fields": {f"{'x' * 73}{number}": 1 for number in range(400)},
    "encoded-words": with_free_texts(TEXTS["encoded-words"], 50_000)["message"],
}


@pytest.mark.parametrize("name", BAD)
def test_a_batch_costs_no_more_than_its_requests(api: Gateway, name: str) -> None:
    """A hundred requests with all the faults that each can have; the answer lists them and stays one."""
    body = json.dumps([{"message": BAD[name]}] * 100)
    assert beyond([(name, cost(calling(api, "POST", f"{ACME}/messages/batch", body)))], seconds=100 * SECONDS / 5) == []


# ── the measure itself ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_measure_sees_time_and_memory() -> None:
    """The guard of the guard: what the budget forbids is found."""
    assert beyond([("memory", cost(lambda: bytearray(BYTES + 1)))])
    assert beyond([("time", cost(lambda: bytearray(BYTES // 32).hex()))], seconds=0)


def test_every_text_is_as_long_as_it_may_be() -> None:
    """Else nothing would be proven of long ones."""
    assert {name: len(make(1_000)) for name, make in TEXTS.items() if not 900 <= len(make(1_000)) <= 1_000} == {}
    assert set(PIECES) < set(TEXTS)
