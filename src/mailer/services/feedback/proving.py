"""Mark on a tenant's provider row that SES's events arrive: of its mail, and of the test mail of `verify`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from mailer.domain.feedback import EventKind, Refusal, SesEvent, VerifyRef
from mailer.domain.moments import to_millis
from mailer.domain.provider import Provider, StoredConfig
from mailer.ports import Clock, ProviderFeedback, SimulatedEvent


class ProviderRows(Protocol):
    """The rows, to read."""

    def get(self, tenant_id: str) -> Provider | None:
        """Read a row, consistently."""
        ...


@dataclass(frozen=True, slots=True)
class ProviderListener:
    """`ports.FeedbackListener` that marks received events on the rows."""

    rows: ProviderRows
    marks: ProviderFeedback
    clock: Clock

    def event_arrived(self, tenant_id: str, version: int, at: datetime) -> None:
        """Mark that an event of a version's mail arrived."""
        self.marks.event_arrived(tenant_id, version, at)

    def verify_event_arrived(self, ref: VerifyRef, event: SesEvent) -> Refusal | None:
        """Mark that an event of a test mail arrived, if it is from the account and region of the tested version.

        `no_record` has the event retried: the account of an access key is stored only after its test mail was accepted.
        """
        config = _config(self.rows.get(ref.tenant_id), ref.version)
        if config is None or config.account is None:
            return Refusal.NO_RECORD
        if (config.account, config.region) != (event.account, event.region) or event.sending_account not in (None, event.account):
            return Refusal.FOREIGN_ACCOUNT
        self.marks.event_arrived(ref.tenant_id, ref.version, self.clock.now())
        kind, simulation = _SIMULATED.get(event.kind), config.simulation
        if kind and simulation and to_millis(simulation.started_at) == ref.simulation:
            self.marks.simulated(ref.tenant_id, ref.version, simulation.started_at, kind, self.clock.now())
        return None


_SIMULATED: dict[EventKind, SimulatedEvent] = {EventKind.BOUNCE: "bounce", EventKind.COMPLAINT: "complaint"}


def _config(row: Provider | None, version: int) -> StoredConfig | None:
    configs = (row.active, row.candidate) if row else ()
    return next((config for config in configs if config and config.version == version), None)
