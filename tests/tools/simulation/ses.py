"""SES with a ledger of all accepted mail, independent of its responses."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from mailer.domain.delivery import MaybeSent, NotSent, Outcome, Sent
from mailer.domain.errors import ErrorInfo
from mailer.domain.mime import Mail, Sender
from mailer.domain.provider import StoredConfig
from mailer.ports import AccountFacts, Cleared
from tools.simulation.faults import Fault
from tools.simulation.tasks import Killed
from tools.simulation.world import World

MALLORY = "mallory"
"""A tenant whose config may crash the worker that creates its provider."""

VANISHED = MaybeSent(ErrorInfo("outcome_unknown", "the connection was lost"))
REFUSALS = (
    NotSent(ErrorInfo("throttled", "Maximum sending rate exceeded.")),
    NotSent(ErrorInfo("daily_quota_exceeded", "Daily message quota exceeded."), timedelta(hours=3)),
    NotSent(ErrorInfo("dependency_unavailable", "no connection")),
    NotSent(ErrorInfo("from_address_not_verified", "the identity is not verified")),
    NotSent(ErrorInfo("recipient_rejected", "SES refused an address")),
)


class SimSes:
    """Provider and provider factory in one: accepts, rejects, disconnects, or kills its caller."""

    name = "ses"
    sender = Sender("hello@acme.example", "Acme")

    def __init__(self, world: World) -> None:
        self._world = world
        self.ledger: dict[str, list[str]] = defaultdict(list)
        """Accepted messageIds by request, whose id is the local part of its recipient."""
        self.refusal_rate = world.rng.choice((0.0, 0.0, 0.15, 0.5))
        """Share of rejected calls."""
        self.accepted: Callable[[str, str, Mail, Mapping[str, str]], None] = lambda *_: None
        """Called with each accepted mail: its request, messageId and tags."""
        self.kills = world.rng.randrange(1, 9) if world.rng.random() < 0.08 else 0
        """Number of workers to kill while they create the provider."""

    def create(self, tenant_id: str, config: StoredConfig, since: datetime | None = None) -> "SimSes":  # noqa: ARG002 - as the port has it
        world = self._world
        if tenant_id == MALLORY:
            for request_id in sorted(world.poison):
                if request_id.startswith("prepare"):
                    world.crash_on(request_id, "prepare")
        if self.kills:
            self.kills -= 1
            world.leftovers_excused = True
            world.log("killed while it creates the provider")
            raise Killed
        return self if world.rng.random() < 0.8 else world.call("KMS", "decrypt", lambda: self)

    def send(self, mail: Mail, *, tags: Mapping[str, str]) -> Outcome:
        request_id = mail.recipients[0].partition("@")[0]
        world = self._world
        fault = world.faults.next("SES")
        world.pass_time(fault, timedelta(milliseconds=world.rng.randrange(1, 2000)), "SES")
        if fault is Fault.KILLED_BEFORE:
            raise world.killed(f"SES {request_id}")
        outcome = self._answer(request_id)
        if isinstance(outcome, Sent):
            self.accepted(request_id, outcome.message_id, mail, tags)
        world.log(f"SES {request_id}: {type(outcome).__name__} {fault.name}")
        world.pass_time(Fault.NONE, timedelta(milliseconds=world.rng.randrange(1, 500)), "SES")
        if fault is Fault.KILLED_AFTER:
            raise world.killed(f"SES {request_id}")
        if fault in (Fault.REFUSED, Fault.LOST, Fault.SLOW):
            world.excuse()
            return VANISHED
        return outcome

    def _answer(self, request_id: str) -> Outcome:
        """Accept or reject; a call whose response is lost may have had either result."""
        if self._world.rng.random() < self.refusal_rate:
            return self._world.rng.choice(REFUSALS)
        self.ledger[request_id].append(f"m{sum(map(len, self.ledger.values())) + 1}")
        return Sent(self.ledger[request_id][-1])

    def clear_suppression(self, email: str) -> Cleared:
        raise NotImplementedError

    def account_facts(self) -> AccountFacts:
        return AccountFacts()
