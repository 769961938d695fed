"""The events of SES that prove that a tenant's feedback works."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from mailer.domain.feedback import EventKind, Refusal, SesEvent, VerifyRef
from mailer.domain.moments import to_millis
from mailer.domain.provider import Provider, ProviderStatus, Simulation, StoredConfig
from mailer.domain.tags import verify_tags
from mailer.ports import SimulatedEvent
from mailer.services.feedback.proving import ProviderListener
from support.fakes.ports import NOON, FakeClock, a_config, a_provider
from support.fakes.providers import FakeStore
from support.ses_events import ACCOUNT, REGION, an_envelope, read
from tools.local_aws.ses_events import RecipientOutcome

LATER = NOON + timedelta(minutes=1)
SIMULATION = Simulation(started_at=NOON)


class Marks:
    """Stores marks."""

    def __init__(self) -> None:
        self.versions: list[tuple[str, int, datetime]] = []
        self.reported: list[tuple[str, int, datetime, SimulatedEvent, datetime]] = []

    def event_arrived(self, tenant_id: str, version: int, at: datetime) -> None:
        self.versions.append((tenant_id, version, at))

    def simulated(self, tenant_id: str, version: int, simulation: datetime, kind: SimulatedEvent, at: datetime) -> None:
        self.reported.append((tenant_id, version, simulation, kind, at))


class Scene:
    """A listener with a test's rows."""

    def __init__(self, *rows: Provider) -> None:
        self.marks = Marks()
        self.listener = ProviderListener(FakeStore(*rows), self.marks, FakeClock(LATER))

    def take(self, event: SesEvent) -> Refusal | None:
        assert isinstance(event.ref, VerifyRef)
        return self.listener.verify_event_arrived(event.ref, event)


def a_tested_config(**fields: Any) -> StoredConfig:
    return a_config(**{"version": 2, "configuration_set": "mail-acme", "account": ACCOUNT, "region": REGION, **fields})


def an_event(kind: str = "Send", *, version: int = 2, simulation: int | None = None, **fields: Any) -> SesEvent:
    """Make an event of a test mail."""
    outcome = {"Bounce": RecipientOutcome.BOUNCED, "Complaint": RecipientOutcome.COMPLAINED}.get(kind, RecipientOutcome.DELIVERED)
    return read(an_envelope(kind, outcome, tags=verify_tags("acme", version, simulation), **fields))


@pytest.mark.parametrize("kind", [kind for kind in EventKind if kind not in (EventKind.REJECT, EventKind.DELIVERY_DELAY)])
def test_any_event_of_the_test_mail_proves_its_version(kind: str) -> None:
    """The mark has the time of arrival, which the record shows."""
    scene = Scene(a_provider(active=a_tested_config()))
    assert scene.take(an_event(kind)) is None
    assert scene.marks.versions == [("acme", 2, LATER)]
    assert scene.marks.reported == []


def test_a_candidate_is_proven_before_it_is_promoted() -> None:
    """A role's account is known from its ARN, and the event may be faster than verify."""
    scene = Scene(a_provider(active=a_config(account="999999999999"), candidate=a_tested_config()))
    assert scene.take(an_event()) is None
    assert scene.marks.versions == [("acme", 2, LATER)]


@pytest.mark.parametrize(
    "config", [{"account": "999999999999"}, {"region": "us-east-1"}, {"provider": "smtp", "region": "", "account": "999999999999"}]
)
def test_an_event_of_another_account_or_region_proves_nothing(config: dict[str, Any]) -> None:
    """Anybody can tag their own mail with another tenant's name; the envelope has the true account and region."""
    scene = Scene(a_provider(active=a_tested_config(**config)))
    assert scene.take(an_event()) is Refusal.FOREIGN_ACCOUNT
    assert scene.marks.versions == []


def test_an_event_with_another_sending_account_proves_nothing() -> None:
    """SES also names the sending account."""
    envelope = an_envelope("Send", tags=verify_tags("acme", 2))
    envelope["detail"]["mail"]["sendingAccountId"] = "999999999999"
    scene = Scene(a_provider(active=a_tested_config()))
    assert scene.take(read(json.loads(json.dumps(envelope)))) is Refusal.FOREIGN_ACCOUNT
    assert scene.marks.versions == []


@pytest.mark.parametrize(
    "row",
    [
        a_provider(active=a_tested_config(account=None)),
        a_provider(active=None, candidate=a_tested_config(account=None), status=ProviderStatus.UNVERIFIED),
        a_provider(active=a_tested_config(version=3)),
        a_provider(active=None, status=ProviderStatus.DELETED),
    ],
    ids=["no account", "candidate without an account", "another version", "deleted"],
)
def test_an_event_waits_while_the_config_has_no_account(row: Provider) -> None:
    """Verify learns the account of an access key after its mail was accepted; without one the event is dropped and counted in the end."""
    scene = Scene(row)
    assert scene.take(an_event()) is Refusal.NO_RECORD
    assert Scene().take(an_event()) is Refusal.NO_RECORD
    assert scene.marks.versions == []


@pytest.mark.parametrize(("kind", "reported"), [("Bounce", "bounce"), ("Complaint", "complaint"), ("Send", None), ("Delivery", None)])
def test_events_of_a_simulation_are_marked(kind: str, reported: str | None) -> None:
    """Bounce and complaint have their own marks; each event proves that feedback works."""
    scene = Scene(a_provider(active=a_tested_config(simulation=SIMULATION)))
    assert scene.take(an_event(kind, simulation=to_millis(NOON))) is None
    assert scene.marks.versions == [("acme", 2, LATER)]
    assert scene.marks.reported == ([("acme", 2, NOON, reported, LATER)] if reported else [])


@pytest.mark.parametrize("simulation", [None, to_millis(NOON) - 1, 999_999_999_999_999_999])
def test_events_of_another_simulation_do_not_count(simulation: int | None) -> None:
    """It may be an earlier simulation, or a forged number."""
    scene = Scene(a_provider(active=a_tested_config(simulation=SIMULATION)))
    assert scene.take(an_event("Bounce", simulation=simulation)) is None
    assert scene.marks.reported == []


def test_an_event_of_a_mail_marks_its_version() -> None:
    """Any mail of the version counts."""
    scene = Scene()
    scene.listener.event_arrived("acme", 7, LATER)
    assert scene.marks.versions == [("acme", 7, LATER)]
