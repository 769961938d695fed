"""Every adapter with the longest, largest and most inputs, checked by the services' own rules (tests/support/wire_rules).

A broken rule fails the test at its end, whatever the emulator accepts.
"""

import json
from contextlib import suppress
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest

from mailer import wiring
from mailer.adapters.providers.acting import TenantClients
from mailer.adapters.providers.credentials import AssumedRoles, RoleAssumption
from mailer.domain.changes import Fence
from mailer.domain.delivery import MaybeSent, NotSent, Outcome, Resolution, Sent, Status
from mailer.domain.errors import CODES, ErrorInfo
from mailer.domain.events import request_ended
from mailer.domain.large_mail import LARGE_BYTES, SMALL_BYTES
from mailer.domain.message import MAX_BODY, MAX_RECIPIENTS, MAX_TAGS
from mailer.domain.pacing import RateSource, RetryAt
from mailer.domain.proof import to_json
from mailer.domain.provider import SUSPEND_AFTER, ProviderStatus
from mailer.domain.tags import tagged
from mailer.domain.uploads import MAX_UPLOAD, UploadRequest
from mailer.observability import METRICS
from mailer.ports import QueueMessage, RefusedError
from mailer.services.pacing.pacing import Pacing
from support import tenants, transitions
from support.fakes.ports import NOON, FakeClock, a_config, a_delivery, a_provider
from support.servers.ses_server import SesServer, accepted, accepted_by_v2
from support.wire_rules import metrics

pytestmark = pytest.mark.usefixtures("aws")

TENANT = "t" * 64
REQUEST = "r" + "_" * 127
CORRELATION = "c" * 128
OWNER = "f" * 32
LONG = "é" * 500  # free text of an operator
FAR = datetime(9999, 12, 31, 23, 59, 59, 999000, UTC)
ERROR = ErrorInfo("from_address_not_verified", "x" * 2_000, "y" * 2_000)
ADDRESS = f"{'l' * 64}@{'d' * 63}.{'e' * 63}.{'f' * 63}.{'g' * 60}.example"[:320]
EDGES = [datetime(1970, 1, 1, tzinfo=UTC), NOON, datetime(9000, 1, 1, tzinfo=UTC)]
"""The first, an ordinary and the last time that the code may meet."""


# -- the status table ----------------------------------------------------------------------------------------------------


@pytest.fixture
def largest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a request with the longest of every field for each rule's change."""
    request = replace(
        transitions.REQUEST,
        tenant_id=TENANT,
        request_id=REQUEST,
        content_hash=f"sha256-v1:{'a' * 64}",
        recipients=MAX_RECIPIENTS,
        generation=10**6 - 1,
        correlation_id=CORRELATION,
    )
    monkeypatch.setattr(transitions, "REQUEST", request)
    monkeypatch.setattr(transitions, "ERROR", ERROR)
    monkeypatch.setattr(transitions, "LOST", ERROR)
    monkeypatch.setattr(transitions, "FENCE", Fence(10**6, OWNER))
    monkeypatch.setattr(transitions, "RESOLUTION", Resolution("resend", LONG, LONG, NOON))
    parked = f"parked/{TENANT}/{REQUEST}/{'0' * 16}.json"
    monkeypatch.setattr(transitions, "DEFERRAL", replace(transitions.DEFERRAL, error=ERROR, parked=parked))


@pytest.mark.usefixtures("largest")
@pytest.mark.parametrize("rule", transitions.CHANGES)
def test_every_rule_writes_what_dynamodb_accepts(rule: str) -> None:
    """With every attribute of a record at its longest."""
    seen = a_delivery(tenant_id=TENANT, request_id=REQUEST, attempt=10**6, owner=OWNER, error=ERROR, due_at=NOON, expires_at=FAR)
    with suppress(RefusedError):
        wiring.messages_table().apply(transitions.CHANGES[rule](seen))


@pytest.mark.usefixtures("largest")
@pytest.mark.parametrize("moment", EDGES)
def test_the_earliest_and_latest_times_are_accepted(moment: datetime) -> None:
    """Later ones are unreadable: no record has them."""
    request = replace(transitions.REQUEST, created_at=moment, expires_at=moment)
    table = wiring.messages_table()
    with suppress(RefusedError):
        table.apply(transitions.changes.queue(request, NOON))
    assert table.get(TENANT, REQUEST) is not None
    table.due(15, moment, 100)


def test_a_page_of_the_largest_list_is_read(largest: None) -> None:  # noqa: ARG001  # the fixture's effect
    """More records than BatchGetItem accepts keys, with the longest names, with and without a status, page after page."""
    table = wiring.messages_table()
    for number in range(120):
        request = replace(transitions.REQUEST, request_id=f"{REQUEST[:-3]}{number:03}")
        table.apply(transitions.changes.defer(request, NOON, transitions.DEFERRAL))
    for status in (None, Status.DEFERRED):
        first = table.list(TENANT, status=status, limit=110, cursor=None)
        assert len(first.deliveries) == 110
        assert len(table.list(TENANT, status=status, limit=110, cursor=first.cursor).deliveries) == 10
    assert len(list(table.waiting_for_provider(TENANT))) == 120


# -- the providers table -------------------------------------------------------------------------------------------------


def test_the_largest_row_fits() -> None:
    """Two encrypted configs of the largest size that the API accepts, with everything that verify and sending store."""
    config = a_config(
        ciphertext=bytes(20_000),
        from_address=ADDRESS,
        from_name="é" * 320,
        credentials={"type": "role"},
        configuration_set="c" * 64,
        max_send_rate=0.001,
        account="1" * 12,
        quota_rate=100_000.0,
        quota_24h=1e15,
        error=ERROR,
    )
    row = a_provider(
        TENANT,
        status=ProviderStatus.SUSPENDED,
        active=config,
        candidate=replace(config, version=2),
        versions=10**9,
        encrypted_external_id=bytes(2000),
        updated_by="a" * 700,
        warnings=(LONG,) * 10,
        error=ERROR,
        faulty_requests=frozenset(f"{number}{REQUEST}"[:128] for number in range(SUSPEND_AFTER)),
        release_at=NOON,
    )
    table = wiring.providers_table()
    assert table.replace(row)
    assert table.replace(replace(row, revision=1))
    assert table.released(TENANT, NOON + timedelta(days=1))
    table.releasing()


def test_the_updates_of_sending_are_accepted() -> None:
    """Faults up to the suspension, the sandbox, and the reset of faults."""
    table = wiring.providers_table()
    assert table.replace(a_provider(TENANT, active=a_config(version=1)))
    table.learn_sandbox(TENANT, 1)
    table.record_fault(TENANT, 1, REQUEST, ERROR, NOON)
    table.clear_faults(TENANT, 1)
    for number in range(SUSPEND_AFTER):
        table.record_fault(TENANT, 1, f"{number}{REQUEST}"[:128], ERROR, NOON)
    stored = table.get(TENANT)
    assert stored is not None
    assert stored.status is ProviderStatus.SUSPENDED


def test_many_tenants_are_read() -> None:
    """In calls of a hundred keys, without duplicates."""
    names = [f"{number:064}" for number in range(250)]
    assert wiring.providers_table().get_many([*names, *names]) == {}


# -- pacing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.001, 1.0, 14.0, 100_000.0])
@pytest.mark.parametrize("kind", ["known", "asked", "learned"])
def test_an_account_rate_is_written_at_every_rate_and_state(rate: float, kind: str) -> None:
    """Idle, busy, full, throttled, quota exhausted, queried, learned; messages to one and to fifty recipients."""
    sources = {"known": RateSource(configured=rate), "asked": RateSource(quota=rate, ask=lambda: rate), "learned": RateSource()}
    pacing, account, source = Pacing(wiring.pacing_table(), functions=1000), f"tenant/{TENANT}/ap-southeast-99", sources[kind]
    for weights in ([1], [50] * 100, [50] * 1000, [1] * 3):
        pacing.reserve(account, source, weights, [None] * len(weights), NOON)
    pacing.reserve(account, source, [1], [1e12], NOON)
    pacing.throttled(account, NOON)
    pacing.quota_exhausted(account, NOON)
    answers = pacing.reserve(account, source, [1] * 100, [None] * 100, NOON)
    assert all(isinstance(answer, RetryAt) for answer in answers)


# -- the queues ----------------------------------------------------------------------------------------------------------

OUTCOMES = [Sent("m" * 80), NotSent(ERROR, timedelta(days=7)), MaybeSent(ErrorInfo("outcome_unknown", "x" * 2_000))]


def largest_copy(body: str, outcome: Outcome) -> QueueMessage:
    return QueueMessage(
        body=body,
        tenant_id=TENANT,
        created_at=FAR,
        generation=10**6 - 1,
        failures=10**6 - 1,
        parked=f"parked/{TENANT}/{REQUEST}/{'0' * 16}.json",
        expires_at=FAR,
        slot=1e12,
        upload_slot=1e12,
        proof=to_json(Fence(10**6, OWNER), outcome),
        correlation_id=CORRELATION,
        redeliveries=10**6 - 1,
        sender="A" * 128 + ":" + "s" * 64,
        schema=10**6,
        claimed=True,
    )


def test_the_largest_message_has_a_value_for_every_attribute() -> None:
    """So an attribute that is added later is also tested at its largest."""
    largest = largest_copy("{}", OUTCOMES[0])
    assert [field.name for field in fields(QueueMessage) if getattr(largest, field.name) == field.default] == []


@pytest.mark.parametrize("outcome", OUTCOMES, ids=["sent", "not sent", "unknown"])
def test_messages_of_every_size_are_sent(outcome: Outcome) -> None:
    """Alone at the largest, and in calls within SQS's size limit; with delays at and beyond SQS's limit."""
    small, large = largest_copy("{}", outcome), largest_copy("x" * MAX_BODY, outcome)
    some, delays = largest_copy("x" * 100_000, outcome), [timedelta(seconds=-1), timedelta(seconds=0.5), timedelta(days=1)]
    queue_messages = [*((large, delay) for delay in delays), *[(small, delays[-1])] * 25, *[(some, timedelta())] * 25]
    assert wiring.send_queue().send(queue_messages) == []


@pytest.mark.parametrize("outcome", OUTCOMES, ids=["sent", "not sent", "unknown"])
@pytest.mark.parametrize("detail", ["", "é" * 2_000], ids=["none", "long"])
def test_a_message_is_dead_lettered_with_any_reason(outcome: Outcome, detail: str) -> None:
    """A dead letter that SQS refuses would be redelivered until SQS moves it, without a reason."""
    wiring.send_queue().dead_letter(largest_copy("x" * MAX_BODY, outcome), reason="request_id_reused", detail=detail)


# -- the bucket ----------------------------------------------------------------------------------------------------------


def test_the_largest_body_is_parked() -> None:
    """Under a key of the longest names."""
    body = "x" * MAX_BODY
    key = wiring.parked_bodies().park(TENANT, REQUEST, body)
    assert wiring.parked_bodies().fetch(key) == body
    wiring.parked_bodies().discard(key)


@pytest.mark.parametrize("content_type", [None, "application/" + "x" * 60])
def test_an_upload_with_the_longest_name_is_signed(content_type: str | None) -> None:
    """Its type is a header."""
    fields = {"filename": "ü" * 251 + ".pdf", "size": MAX_UPLOAD, **({"contentType": content_type} if content_type else {})}
    upload = wiring.attachments().create_upload(TENANT, UploadRequest.model_validate(fields))
    assert upload.key.startswith(f"{TENANT}/")


# -- events --------------------------------------------------------------------------------------------------------------


def test_the_largest_events_are_published() -> None:
    """Ten per call, each with the longest error."""
    record = a_delivery(
        tenant_id=TENANT, request_id=REQUEST, status=Status.FAILED, error=ERROR, correlation_id=CORRELATION, attempt=10**6, updated_at=FAR
    )
    event = request_ended("e" * 64, None, record)
    assert event is not None
    assert wiring.event_bus().put([event] * 25) == []


# -- acting as tenants ---------------------------------------------------------------------------------------------------


def test_the_largest_mail_is_sent_to_ses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The maximum of each operation, to fifty of the longest addresses, with every tag that a caller may set and all of ours."""
    tags = tagged(
        {f"{number:0256}": "v" * 256 for number in range(MAX_TAGS)},
        tenant_id=TENANT,
        request_id=REQUEST,
        attempt=10**6,
        correlation_id=CORRELATION,
    )
    for size, react in ((SMALL_BYTES, accepted()), (LARGE_BYTES, accepted_by_v2())):
        mail = tenants.mail(b"x" * size, mail_from=ADDRESS, recipients=(ADDRESS,) * MAX_RECIPIENTS)
        with SesServer(lambda _, react=react: react, keep=False) as server:  # type: ignore[misc]  # bound in each round
            monkeypatch.setenv("AWS_ENDPOINT_URL_SES", server.url)
            monkeypatch.setenv("AWS_ENDPOINT_URL_SESV2", server.url)
            sent = tenants.ses(TenantClients(width=1), configuration_set="c" * 64).send(mail, tags=tags)
        assert isinstance(sent, Sent)


def test_the_longest_role_is_assumed() -> None:
    """For a tenant with the longest name, on a platform of any name."""
    for platform in ("L", "Ünï " * 30):
        roles = AssumedRoles(wiring.sts, own_account="111111111111", platform=platform, clock=FakeClock())
        arn = f"arn:aws:iam::222222222222:role/{'p' * 127}/{'q' * 127}/{'r' * 127}/{'s' * 120}/{'n' * 64}"
        assert roles.session(RoleAssumption(TENANT, 10**9, arn, "x" * 43)).token
        roles.refuses_foreign_external_id(tenants.role(arn))


def test_the_largest_config_is_encrypted_and_decrypted() -> None:
    """With a context of the longest names."""
    sealed = wiring.config_cipher().encrypt(TENANT, "smtp", 10**9, b"x" * 16_384)
    assert wiring.config_cipher().decrypt(TENANT, "smtp", 10**9, sealed) == b"x" * 16_384


# -- metrics -------------------------------------------------------------------------------------------------------------


def test_the_metrics_of_the_largest_invocation_are_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    """Every metric and every code, with more values than fit into one line."""
    telemetry = wiring.telemetry()
    for number in range(250):
        for code in CODES:
            for name, dimensions in METRICS.items():
                telemetry._count(name, number, by=code if dimensions else None)
    telemetry.flush()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) >= 3 * len(CODES)
    assert [fault for line in lines for fault in metrics.broken(line)] == []
