"""The hash of a request: equal for every form of the same request, different for any other request."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticUndefined

from mailer.domain.message import (
    Attachment,
    Calendar,
    EmailMessage,
    ListUnsubscribe,
    Mailbox,
    S3Object,
    SendRequest,
    canonical_json,
    content_hash,
    parse_request,
)

Document = dict[str, Any]
Pick = Callable[[st.SearchStrategy[Any]], Any]

FLAG = st.booleans()

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def digest(request: Document) -> str:
    return content_hash(parse_request(json.dumps(request)))


# -- requests ------------------------------------------------------------------------------------------------------------

words = st.text("abc äß\U0001f600", max_size=8)
domains = st.sampled_from(["a.example", "b.example"])
boxes = st.fixed_dictionaries(
    {"email": st.builds(lambda name, domain: f"{name}@{domain}", st.text("aB1", min_size=1, max_size=3), domains)},
    optional={"name": words},
)
times = st.integers(0, 10_000).map(lambda minutes: (NOON + timedelta(minutes=minutes)).isoformat())
files = st.fixed_dictionaries(
    {"filename": st.sampled_from(["a.pdf", "b.png"]), "content": st.sampled_from(["QUJD", "QUJE", "QQ=="])},
    optional={"contentType": st.just("application/x-test"), "disposition": st.sampled_from(["inline", "attachment"])},
)
objects = st.fixed_dictionaries({"key": st.just("acme/1")}, optional={"versionId": st.sampled_from(["v1", "v2"])})
uploads = st.fixed_dictionaries({"filename": st.just("c.pdf"), "s3": objects})
leaving = st.fixed_dictionaries({"url": st.just("https://x.example/u")}, optional={"mailto": st.just("u@x.example"), "oneClick": FLAG})
mails = st.fixed_dictionaries(
    {"to": st.lists(boxes, min_size=1, max_size=3), "subject": words, "text": words},
    optional={
        "cc": st.lists(boxes, max_size=2),
        "bcc": st.lists(boxes, max_size=2),
        "replyTo": st.lists(boxes, max_size=2),
        "html": words,
        "textFromHtml": st.booleans(),
        "headers": st.dictionaries(st.sampled_from(["X-A", "X-B"]), st.just("1")),
        "tags": st.dictionaries(st.sampled_from(["a", "b"]), st.just("1")),
        "listUnsubscribe": leaving,
        "attachments": st.lists(files | uploads, max_size=2),
    },
)
requests = st.fixed_dictionaries(
    {"tenantId": st.just("acme"), "requestId": st.just("r1"), "message": mails},
    optional={"onUnknown": st.sampled_from(["hold", "resend"]), "sendAt": times, "expiresAt": times},
)


# -- other forms ---------------------------------------------------------------------------------------------------------


def rewritten(request: Document, pick: Pick) -> Document:
    """Write an equal request in another form."""
    outer = {**request, "message": _message(request["message"], pick)}
    _omit_or_set(outer, "onUnknown", "hold", pick)
    for field in ("sendAt", "expiresAt"):
        if field in outer:
            outer[field] = _time(outer[field], pick)
        _omit_or_set(outer, field, None, pick)
    return _shuffled(outer, pick)  # type: ignore[no-any-return]  # an object stays one


_DEFAULTS = {"textFromHtml": True, "headers": {}, "tags": {}, "attachments": [], "html": None, "calendar": None, "listUnsubscribe": None}


def _message(given: Document, pick: Pick) -> Document:
    message = {**given}
    for field in ("to", "cc", "bcc", "replyTo"):
        message[field] = [_box(box, pick) for box in message.get(field, [])]
        _omit_or_set(message, field, [], pick)
    if len(message.get("replyTo", ())) == 1 and pick(FLAG):
        [message["replyTo"]] = message["replyTo"]
    for field, default in _DEFAULTS.items():
        _omit_or_set(message, field, default, pick)
    if message.get("listUnsubscribe"):
        message["listUnsubscribe"] = {**message["listUnsubscribe"]}
        _omit_or_set(message["listUnsubscribe"], "oneClick", False, pick)
        _omit_or_set(message["listUnsubscribe"], "mailto", None, pick)
    if message.get("attachments"):
        message["attachments"] = [_file(file, pick) for file in message["attachments"]]
    return message


def _omit_or_set(node: Document, field: str, default: Any, pick: Pick) -> None:
    if node.get(field, default) == default:
        node.pop(field, None)
        if pick(FLAG):
            node[field] = default


def _box(box: Document, pick: Pick) -> Document:
    name, domain = box["email"].split("@")
    written = {**box, "email": f"{name}@{domain.upper() if pick(FLAG) else domain}"}
    _omit_or_set(written, "name", None, pick)
    return written


def _file(file: Document, pick: Pick) -> Document:
    written = {**file}
    _omit_or_set(written, "disposition", "attachment", pick)
    for field in ("contentType", "contentId", "content", "s3"):
        _omit_or_set(written, field, None, pick)
    if written.get("s3"):
        written["s3"] = {**written["s3"]}
        _omit_or_set(written["s3"], "versionId", None, pick)
    return written


def _time(written: str, pick: Pick) -> str:
    offset = timezone(timedelta(minutes=pick(st.integers(-700, 700))))
    moment = datetime.fromisoformat(written).astimezone(offset)
    return moment.isoformat(timespec=pick(st.sampled_from(["seconds", "milliseconds", "microseconds"])))


def _shuffled(node: Any, pick: Pick) -> Any:
    if isinstance(node, dict):
        return {key: _shuffled(node[key], pick) for key in pick(st.permutations(sorted(node)))}
    return [_shuffled(value, pick) for value in node] if isinstance(node, list) else node


@given(requests, st.data())
def test_equal_requests_have_equal_hashes_in_any_form(request: Document, data: st.DataObject) -> None:
    """Forms differ in key order, explicit defaults, nulls, an object for a list of one, time offsets and the case of a domain."""
    other = rewritten(request, data.draw)
    assert digest(other) == digest(request), other


@given(requests)
def test_the_queued_request_has_the_same_hash(request: Document) -> None:
    """A request has the same hash before and after the queue."""
    parsed = parse_request(json.dumps(request))
    assert content_hash(parse_request(canonical_json(parsed))) == content_hash(parsed)


# -- other requests ------------------------------------------------------------------------------------------------------


def meaning(request: Document) -> str:
    """Return a request's meaning, without optimization: every field by name, whether given or not."""
    parsed = parse_request(json.dumps(request)).model_dump(mode="json")
    for file in parsed["message"]["attachments"]:
        file["disposition"] = file["disposition"] or "attachment"
    return json.dumps(parsed, sort_keys=True)


@given(requests, requests)
def test_two_requests_have_equal_hashes_only_if_they_are_equal(one: Document, other: Document) -> None:
    """This holds for any two requests."""
    assert (digest(one) == digest(other)) == (meaning(one) == meaning(other))


def _in(*path: str | int, to: Any) -> Callable[[Document], None]:
    def change(request: Document) -> None:
        node: Any = request
        for step in path[:-1]:
            node = node[step]
        node[path[-1]] = to

    return change


FULL: Document = {
    "tenantId": "acme",
    "requestId": "r1",
    "onUnknown": "hold",
    "sendAt": "2026-11-25T08:00:00Z",
    "expiresAt": "2026-11-25T12:00:00Z",
    "message": {
        "to": [{"email": "jo@example.com", "name": "Jo"}, {"email": "al@example.com"}],
        "cc": [],
        "replyTo": {"email": "billing@example.com"},
        "subject": "Hello",
        "html": "<p>",
        "text": "Hi",
        "headers": {"X-A": "1"},
        "tags": {"a": "1"},
        "listUnsubscribe": {"url": "https://x.example/u", "oneClick": True},
        "attachments": [
            {"filename": "a.pdf", "contentType": "application/pdf", "content": "QUJD"},
            {"filename": "b.png", "contentId": "b", "s3": {"key": "acme/1", "versionId": "v1"}},
        ],
    },
}


@pytest.mark.parametrize(
    "change",
    [
        _in("onUnknown", to="resend"),
        _in("sendAt", to="2026-11-25T08:00:00.001Z"),
        _in("sendAt", to=None),
        _in("expiresAt", to="2026-11-25T12:00:01Z"),
        _in("message", "to", to=[{"email": "jo@example.com", "name": "Jo"}]),
        _in("message", "to", 0, "email", to="Jo@example.com"),
        _in("message", "to", 0, "name", to="JO"),
        _in("message", "to", 0, "name", to=None),
        _in("message", "cc", to=[{"email": "al@example.com"}]),
        _in("message", "replyTo", to=[]),
        _in("message", "subject", to="hello"),
        _in("message", "subject", to=""),
        _in("message", "html", to="<p> "),
        _in("message", "html", to=""),
        _in("message", "textFromHtml", to=False),
        _in("message", "text", to=None),
        _in("message", "headers", to={"X-A": "2"}),
        _in("message", "headers", to={}),
        _in("message", "tags", to={"b": "1"}),
        _in("message", "listUnsubscribe", "oneClick", to=False),
        _in("message", "attachments", 0, "content", to="QUJE"),
        _in("message", "attachments", 0, "content", to=hashlib.sha256(b"QUJD").hexdigest()),
        _in("message", "attachments", 0, "filename", to="A.pdf"),
        _in("message", "attachments", 0, "disposition", to="inline"),
        _in("message", "attachments", 1, "disposition", to="attachment"),
        _in("message", "attachments", 1, "contentId", to="c"),
        _in("message", "attachments", 1, "s3", to={"key": "acme/1", "versionId": "v2"}),
        _in("message", "attachments", 1, "s3", to={"key": "acme/1"}),
        _in("message", "attachments", 1, "s3", to={"key": "acme/2", "versionId": "v1"}),
    ],
)
def test_any_change_of_meaning_has_another_hash(change: Callable[[Document], None]) -> None:
    """One field is changed at a time."""
    other = json.loads(json.dumps(FULL))
    change(other)
    assert digest(other) != digest(FULL)


def test_an_address_is_hashed_as_it_is_sent() -> None:
    """An IDN domain in any case equals its punycode; the local part keeps its case."""
    domains = ("münchen.example", "MÜNCHEN.example", "xn--mnchen-3ya.example", "XN--mnchen-3ya.Example")
    spelled = [{**FULL, "message": {**FULL["message"], "to": [{"email": f"jo@{domain}"}]}} for domain in domains]
    assert len({digest(one) for one in spelled}) == 1


# -- across releases -----------------------------------------------------------------------------------------------------


def test_the_hash_scheme_does_not_change() -> None:
    """Records outlive releases: a hash made today is compared for 35 days."""
    written = {
        "expiresAt": "2026-11-25T12:00:00Z",
        "message": {
            "attachments": [
                {"content": hashlib.sha256(b"QUJD").hexdigest(), "contentType": "application/pdf", "filename": "a.pdf"},
                {"contentId": "b", "filename": "b.png", "s3": {"key": "acme/1", "versionId": "v1"}},
            ],
            "headers": {"X-A": "1"},
            "html": "<p>",
            "listUnsubscribe": {"oneClick": True, "url": "https://x.example/u"},
            "replyTo": [{"email": "billing@example.com"}],
            "subject": "Hello",
            "tags": {"a": "1"},
            "text": "Hi",
            "to": [{"email": "jo@example.com", "name": "Jo"}, {"email": "al@example.com"}],
        },
        "sendAt": "2026-11-25T08:00:00Z",
    }
    assert digest(FULL) == "sha256-v2:" + hashlib.sha256(json.dumps(written, separators=(",", ":")).encode()).hexdigest()


def test_a_changed_default_requires_a_new_scheme() -> None:
    """Defaults are left out of the hash: with another default the same request would have another hash. New fields may be added here."""
    models = (SendRequest, EmailMessage, Mailbox, Attachment, S3Object, ListUnsubscribe, Calendar)
    defaults = {
        f"{model.__name__}.{name}": field.get_default(call_default_factory=True, validated_data={})
        for model in models
        for name, field in model.model_fields.items()
    }
    assert {name: value for name, value in defaults.items() if value is not None and value is not PydanticUndefined} == {
        "SendRequest.on_unknown": "hold",
        "EmailMessage.to": (),
        "EmailMessage.cc": (),
        "EmailMessage.bcc": (),
        "EmailMessage.reply_to": (),
        "EmailMessage.text_from_html": True,
        "EmailMessage.headers": {},
        "EmailMessage.tags": {},
        "EmailMessage.attachments": (),
        "ListUnsubscribe.one_click": False,
    }
