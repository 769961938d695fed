"""The CPU and memory budget of reading and composing, with every kind of text in every field, bodies of 6 MB, and random mixtures."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailer.domain.message import MAX_MARKUP
from support.hostile import (
    BYTES,
    LIMITS,
    MIB,
    SECONDS,
    TEXTS,
    composing,
    cost,
    everywhere,
    filling,
    structures,
    with_free_texts,
    with_text,
    within,
)
from unit.test_reading_budget import MOST, above_budget, reading, written


def test_no_text_in_any_field_exceeds_the_budget() -> None:
    """With one character more than the limit, and with a megabyte."""
    bodies = (
        (f"{size} characters of {kind} as {field}", written(with_text(field, within(make, size))))
        for field, limit in LIMITS.items()
        for kind, make in TEXTS.items()
        for size in {min(limit, MIB), min(limit + 1, MIB), MIB}
    )
    assert above_budget((name, cost(reading(body))) for name, body in bodies) == []


def test_composing_no_valid_mail_exceeds_the_budget() -> None:
    """With every kind of text, in all fields, as HTML alone, and as text."""
    size = MIB * 9 // 10
    mails = (
        (f"{kind}, {number}", composing(written(mail)))
        for kind, make in TEXTS.items()
        for number, mail in enumerate(
            [with_free_texts(make), with_text("html", filling(kind, MAX_MARKUP, size)), with_text("text", within(make, size))]
        )
    )
    assert above_budget(((name, cost(call)) for name, call in mails if call), seconds=2 * SECONDS) == []


def test_a_body_of_lambda_s_maximum_size_costs_only_its_copies() -> None:
    """On the API a body larger than the queue's limit is refused, but only after it was read."""
    size = BYTES + 6 * MOST
    assert above_budget(((name, cost(reading(body))) for name, body in structures(MOST)), size=size) == []
    whole = ((kind, written(everywhere(make, MOST))) for kind, make in TEXTS.items())
    assert above_budget(((name, cost(reading(body))) for name, body in whole), size=size) == []


GROWTH = """
from itertools import chain
from pathlib import Path

from support.hostile import TEXTS, cost, everywhere, structures
from unit.test_reading_budget import reading, written


def most() -> int:
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


cost(reading(written(everywhere(TEXTS["emoji"]))))
before = most()
for body in chain((body for _, body in structures()), (written(everywhere(text)) for text in TEXTS.values())):
    cost(reading(body))
print(most() - before)
"""
"""Prints the peak growth of a separate process, in KB."""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells the most memory that a process had in /proc")
def test_no_body_makes_the_process_exceed_the_memory_budget() -> None:
    """The validator's memory is not Python's; two megabytes and more are the bodies themselves."""
    path = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]}
    grown = subprocess.run([sys.executable, "-c", GROWTH], env=path, check=True, capture_output=True, text=True).stdout
    assert 0 < int(grown) * 1024 < BYTES


FIELDS = st.sampled_from(sorted(LIMITS))
KINDS = st.sampled_from(sorted(TEXTS))


SMALL = [body for _, body in structures(MIB // 8)]


@st.composite
def mixtures(draw: st.DrawFn) -> str:
    """Return a body of some texts and structures, each of any kind and size."""
    message: dict[str, Any] = {}
    document: dict[str, Any] = {"message": message}
    for field in draw(st.lists(FIELDS, min_size=1, max_size=8, unique=True)):
        limit = min(LIMITS[field], MIB // 8)
        size = draw(st.sampled_from([limit // 2, limit, limit + 1]) | st.integers(1, MIB // 8))
        kinds = draw(st.lists(KINDS, min_size=1, max_size=2))
        found = with_text(field, "".join(within(TEXTS[kind], size // len(kinds)) for kind in kinds))
        message |= found.pop("message")
        document |= found
    structure = draw(st.none() | st.sampled_from(SMALL))
    return written(document) if structure is None else f'{{"a":{structure},{written(document)[1:]}'


@settings(max_examples=2_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(mixtures())
def test_no_mixture_exceeds_the_budget(body: str) -> None:
    """When it is read, and composed if valid."""
    assert above_budget([("read", cost(reading(body)))]) == []
    if call := composing(body):
        assert above_budget([("composed", cost(call))], seconds=2 * SECONDS) == []


def test_the_mixtures_are_valid_json() -> None:
    """So they reach the models."""
    assert json.loads(f'{{"a":1,{written({"message": {}})[1:]}') == {"a": 1, "message": {}}
