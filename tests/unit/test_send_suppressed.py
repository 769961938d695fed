"""Suppressed recipients are left out of every mail; without a lookup the mail waits."""

import email
from dataclasses import replace
from datetime import timedelta
from email import policy
from email.message import EmailMessage
from typing import Any

import pytest

from mailer.domain.delivery import Status
from mailer.domain.suppressions import Entry, Reason, Suppression
from mailer.services.sending.suppressed import AT_ONCE
from support.fakes.ports import NOON, a_provider
from support.fakes.sending import THROTTLED, VANISHED, Bench, a_queue_message, attempted
from support.fakes.suppressions import FakeSuppressionsTable, an_entry

MINUTE = timedelta(minutes=1)
JO, ANN, BOB = "jo@example.com", "ann@example.com", "bob@example.com"


def a_bench(*suppressed: str | Entry, **fields: Any) -> Bench:
    """Make a bench whose tenant has suppressions."""
    bench = Bench(**fields)
    bench.providers.rows["acme"] = a_provider(has_suppressions=True)
    entries = [an_entry(one) if isinstance(one, str) else one for one in suppressed]
    bench.suppressions.entries |= FakeSuppressionsTable(*entries).entries
    return bench


def a_message(request_id: str = "r1", **lists: list[str]) -> Any:
    """Make a queue message to these recipients."""
    named = {name: [{"email": one} for one in addresses] for name, addresses in lists.items()}
    return a_queue_message(request_id, message={"subject": "Hi", "text": "Hello.", **named})


def headers(bench: Bench) -> EmailMessage:
    [mail] = bench.provider.mails
    parsed = email.message_from_bytes(mail.mime, policy=policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


# ── sent mails ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_suppressed_recipients_are_in_neither_envelope_nor_headers() -> None:
    """The others get the mail, and the record has the number of suppressed ones."""
    bench = a_bench(ANN, BOB)
    bench.receive(a_message(to=[JO, "Ann@Example.com"], cc=["cc@example.com"], bcc=[BOB]))
    assert bench.provider.mails[0].recipients == (JO, "cc@example.com")
    assert (headers(bench)["To"], headers(bench)["Cc"]) == (JO, "cc@example.com")
    assert b"ann@" not in bench.provider.mails[0].mime.lower()
    record = bench.record()
    assert (record.status, record.recipients, record.suppressed) == (Status.SENT, 4, 2)


def test_a_mail_with_only_suppressed_to_recipients_is_sent_to_cc() -> None:
    """It has no To field, like a mail with only bcc."""
    bench = a_bench(JO)
    bench.receive(a_message(to=[JO], bcc=[BOB]))
    assert bench.provider.mails[0].recipients == (BOB,)
    assert headers(bench)["To"] is None


def test_idn_domains_match_their_listed_form() -> None:
    """Callers write IDN domains in Unicode, SES reports them in punycode."""
    bench = a_bench("jo@xn--bcher-kva.example")
    bench.receive(a_message(to=["jo@bücher.example", BOB]))
    assert bench.provider.mails[0].recipients == (BOB,)


def test_a_request_with_only_suppressed_recipients_fails_without_a_call() -> None:
    """No slot of the account is used."""
    bench = a_bench(JO, ANN)
    bench.receive(a_message(to=[JO], cc=[ANN]))
    record = bench.record()
    assert record.error is not None
    assert (record.status, record.error.code, record.suppressed, record.attempt) == (Status.FAILED, "recipient_suppressed", 2, 0)
    assert not record.error.retryable
    assert not bench.provider.mails
    assert not bench.pacer.requests
    assert JO not in record.error.message


def test_pacing_counts_the_remaining_recipients() -> None:
    """SES counts recipients of the sent mail."""
    bench = a_bench(ANN)
    bench.providers.rows["acme"] = replace(bench.providers.rows["acme"], has_suppressions=True)
    bench.receive(a_message(to=[JO, ANN, BOB]))
    [(_, _, weights, _)] = bench.pacer.requests
    assert weights == [2]


def test_expired_and_counted_entries_do_not_suppress() -> None:
    """The expiry is exact."""
    expired = Entry(
        tenant_id="acme", email=JO, suppression=Suppression(reason=Reason.MANUAL, at=NOON - 2 * MINUTE, expires_at=NOON), revision=1
    )
    counted = Entry(tenant_id="acme", email=ANN, soft_bounces={"r0": NOON}, revision=1)
    bench = a_bench(expired, counted)
    bench.receive(a_message(to=[JO, ANN]))
    assert bench.provider.mails[0].recipients == (JO, ANN)
    assert bench.record().suppressed == 0


def test_another_tenant_s_suppressions_do_not_apply() -> None:
    """Each tenant has its own list."""
    bench = a_bench(an_entry(JO, tenant_id="globex"))
    bench.receive(a_message(to=[JO]))
    assert bench.record().status is Status.SENT


# ── reads ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_tenant_without_suppressions_causes_no_read() -> None:
    """Most tenants have none."""
    bench = Bench()
    bench.receive(a_message(to=[JO]))
    assert not bench.suppressions.reads


def test_a_batch_is_looked_up_with_each_address_once() -> None:
    """Several messages to an address need one lookup."""
    bench = a_bench()
    bench.receive(*(a_message(f"r{n}", to=[JO, f"{n}@example.com"]) for n in range(40)))
    [read] = bench.suppressions.reads
    assert sorted(read) == sorted({("acme", JO), *(("acme", f"{n}@example.com") for n in range(40))})
    assert len(bench.provider.mails) == 40


def test_a_large_batch_is_looked_up_in_several_reads() -> None:
    """A hundred messages may have fifty recipients each."""
    bench = a_bench("9-9@example.com")
    bench.receive(*(a_message(f"r{n}", to=[f"{n}-{m}@example.com" for m in range(50)]) for n in range(10)))
    assert [len(read) for read in bench.suppressions.reads] == [AT_ONCE] * 5
    assert [bench.record(f"r{n}").suppressed for n in range(10)] == [0] * 9 + [1]


# ── failures ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_mail_that_cannot_be_looked_up_waits_and_others_are_sent() -> None:
    """No mail is sent without a lookup."""
    bench = a_bench()
    bench.suppressions.broken = {"0-0@example.com"}
    assert bench.receive(*(a_message(f"r{n}", to=[f"{n}-{m}@example.com" for m in range(50)]) for n in range(4))) == []
    records = [bench.record(f"r{n}") for n in range(4)]
    assert [record.status for record in records] == [Status.DEFERRED] * 2 + [Status.SENT] * 2
    assert records[0].error is not None
    assert (records[0].error.code, records[0].error.retryable) == ("dependency_unavailable", True)
    bench.suppressions.broken = set()
    for queue_message, delay in list(bench.queue.sent):
        bench.clock.advance(delay)
        bench.receive(queue_message)
    assert [bench.record(f"r{n}").status for n in range(4)] == [Status.SENT] * 4


def test_an_unreadable_entry_delays_only_its_own_mail() -> None:
    """A later version may have written it."""
    bench = a_bench()
    bench.suppressions.unreadable = {JO}
    bench.receive(a_message("r1", to=[JO]), a_message("r2", to=[ANN]))
    assert (bench.record("r1").status, bench.record("r2").status) == (Status.DEFERRED, Status.SENT)


def test_an_exception_in_the_lookup_returns_the_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQS redelivers them; none is lost or sent without a lookup."""
    bench = a_bench()

    def raise_exception(_: object) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(bench.suppressions, "get_many", raise_exception)
    bench.providers.rows["globex"] = a_provider("globex")
    assert bench.receive(a_message("r1", to=[JO]), a_queue_message("r2", tenant_id="globex")) == ["message-0"]
    assert len(bench.provider.mails) == 1


# ── retries ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_retry_is_looked_up_again() -> None:
    """Recipients that bounced meanwhile are left out, lifted ones get the mail."""
    bench = a_bench(ANN, outcomes=[THROTTLED])
    bench.receive(a_message(to=[JO, ANN, BOB]))
    assert (bench.record().status, bench.record().suppressed) == (Status.DEFERRED, 1)
    queue_message, delay = bench.take()
    bench.suppressions.entries = FakeSuppressionsTable(an_entry(BOB), an_entry(JO)).entries
    bench.clock.advance(delay)
    bench.receive(queue_message)
    assert bench.provider.mails[-1].recipients == (ANN,)
    assert bench.record().suppressed == 2


def test_parked_mail_keeps_all_recipients_and_is_looked_up_when_due() -> None:
    """The parked body is the caller's, unchanged."""
    bench = a_bench(ANN)
    message = {"subject": "Hi", "text": "Hello.", "to": [{"email": JO}, {"email": ANN}]}
    bench.receive(a_queue_message(sendAt=(NOON + 60 * MINUTE).isoformat(), message=message))
    [(parked, body)] = bench.parked.bodies.items()
    assert ANN in body
    bench.clock.advance(60 * MINUTE)
    bench.receive(replace(a_queue_message(generation=1), body='{"tenantId":"acme","requestId":"r1"}', parked=parked))
    assert bench.provider.mails[0].recipients == (JO,)
    assert (bench.record().status, bench.record().suppressed) == (Status.SENT, 1)


def test_a_redelivered_message_of_a_sent_request_changes_nothing() -> None:
    """Its recipient has bounced meanwhile, because of this mail."""
    bench = a_bench()
    queue_message = a_message(to=[JO])
    bench.receive(queue_message)
    bench.suppressions.entries = FakeSuppressionsTable(an_entry(JO)).entries
    assert bench.receive(queue_message) == []
    assert bench.record().status is Status.SENT
    assert bench.record().suppressed == 0


def test_a_resend_with_only_suppressed_recipients_ends_as_unknown() -> None:
    """It cannot end as failed: the first attempt may have been accepted."""
    resent = attempted(Status.QUEUED, on_unknown="resend", maybe_sent=True)
    bench = a_bench(JO)
    bench.messages.records["acme", "r1"] = resent
    bench.receive(a_queue_message())
    record = bench.record()
    assert record.error is not None
    assert record.status is Status.UNKNOWN
    assert "recipient_suppressed" in record.error.message
    assert not bench.provider.mails


def test_an_unknown_keeps_the_number_of_suppressed_recipients() -> None:
    """The attempt was only to the others."""
    bench = a_bench(ANN, outcomes=[VANISHED])
    bench.receive(a_message(to=[JO, ANN]))
    assert (bench.record().status, bench.record().suppressed) == (Status.UNKNOWN, 1)
