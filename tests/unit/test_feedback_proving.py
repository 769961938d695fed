"""Which of SES's events prove that a tenant's feedback works."""

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
    """Keeps what was marked."""

    def __init__(self) -> None:
        self.versions: list[tuple[str, int, datetime]] = []
        self.reported: list[tuple[str, int, datetime, SimulatedEvent, datetime]] = []

    def heard(self, tenant_id: str, version: int, at: datetime) -> None:
        self.versions.append((tenant_id, version, at))

    def simulated(self, tenant_id: str, version: int, simulation: datetime, kind: SimulatedEvent, at: datetime) -> None:
        self.reported.append((tenant_id, version, simulation, kind, at))


class Scene:
    """A listener over rows that a test prepares."""

    def __init__(self, *rows: Provider) -> None:
        self.marks = Marks()
        self.listener = ProviderListener(FakeStore(*rows), self.marks, FakeClock(LATER))

    def take(self, event: SesEvent) -> Refusal | None:
        assert isinstance(event.ref, VerifyRef)
        return self.listener.verify_heard(event.ref, event)


def a_tested_config(**fields: Any) -> StoredConfig:
    return a_config(**{"version": 2, "configuration_set": "mail-acme", "account": ACCOUNT, "region": REGION, **fields})


def an_event(kind: str = "Send", *, version: int = 2, simulation: int | None = None, **fields: Any) -> SesEvent:
    """Make an event of a test mail."""
    outcome = {"Bounce": RecipientOutcome.BOUNCED, "Complaint": RecipientOutcome.COMPLAINED}.get(kind, RecipientOutcome.DELIVERED)
    return read(an_envelope(kind, outcome, tags=verify_tags("acme", version, simulation), **fields))


@pytest.mark.parametrize("kind", [kind for kind in EventKind if kind not in (EventKind.REJECT, EventKind.DELIVERY_DELAY)])
def test_any_event_of_the_test_mail_proves_the_version_that_was_tested(kind: str) -> None:
    """At the moment when it came: that is what the record tells."""
    scene = Scene(a_provider(active=a_tested_config()))
    assert scene.take(an_event(kind)) is None
    assert scene.marks.versions == [("acme", 2, LATER)]
    assert scene.marks.reported == []


def test_a_candidate_is_proven_before_it_is_promoted() -> None:
    """A role's account is known by its ARN: the event may be faster than verify."""
    scene = Scene(a_provider(active=a_config(account="999999999999"), candidate=a_tested_config()))
    assert scene.take(an_event()) is None
    assert scene.marks.versions == [("acme", 2, LATER)]


@pytest.mark.parametrize(
    "config", [{"account": "999999999999"}, {"region": "us-east-1"}, {"provider": "smtp", "region": "", "account": "999999999999"}]
)
def test_an_event_from_elsewhere_proves_nothing(config: dict[str, Any]) -> None:
    """Anybody can tag mail of its own with another tenant's name; the envelope tells from which account and region it comes."""
    scene = Scene(a_provider(active=a_tested_config(**config)))
    assert scene.take(an_event()) is Refusal.FOREIGN_ACCOUNT
    assert scene.marks.versions == []


def test_an_event_of_mail_that_another_account_sent_proves_nothing() -> None:
    """SES names the sender too."""
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
    ids=["no account", "candidate of no account", "another version", "deleted"],
)
def test_an_event_that_cannot_be_held_against_an_account_waits_for_it(row: Provider) -> None:
    """Verify learns the account of an access key after its mail was accepted; what never gets one is counted in the end."""
    scene = Scene(row)
    assert scene.take(an_event()) is Refusal.NO_RECORD
    assert Scene().take(an_event()) is Refusal.NO_RECORD
    assert scene.marks.versions == []


@pytest.mark.parametrize(("kind", "reported"), [("Bounce", "bounce"), ("Complaint", "complaint"), ("Send", None), ("Delivery", None)])
def test_what_comes_of_a_simulation_is_marked(kind: str, reported: str | None) -> None:
    """The two that it was made for; all of them prove that feedback works."""
    scene = Scene(a_provider(active=a_tested_config(simulation=SIMULATION)))
    assert scene.take(an_event(kind, simulation=to_millis(NOON))) is None
    assert scene.marks.versions == [("acme", 2, LATER)]
    assert scene.marks.reported == ([("acme", 2, NOON, reported, LATER)] if reported else [])


@pytest.mark.parametrize("simulation", [None, to_millis(NOON) - 1, 999_999_999_999_999_999])
def test_what_comes_of_another_simulation_is_no_report_of_this_one(simulation: int | None) -> None:
    """An earlier one, or a number that somebody made up."""
    scene = Scene(a_provider(active=a_tested_config(simulation=SIMULATION)))
    assert scene.take(an_event("Bounce", simulation=simulation)) is None
    assert scene.marks.reported == []


def test_a_mail_that_is_heard_of_is_marked_with_its_version() -> None:
    """Whatever was sent with it."""
    scene = Scene()
    scene.listener.heard("acme", 7, LATER)
    assert scene.marks.versions == [("acme", 7, LATER)]
