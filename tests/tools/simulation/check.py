"""The invariants of every scenario."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

from mailer.domain.delivery import Delivery, Status
from mailer.domain.facts import counts_of
from mailer.domain.provider import ProviderStatus
from tools.simulation.scenario import ACME, Scenario

MAX_CRASHES = 3
"""Workers that a poison message may crash: two while it is processed with others, one while it is processed alone."""


def violations(scenario: Scenario) -> list[str]:
    """Return the violations in a scenario after its run."""
    found: Iterable[str] = chain(
        scenario.world.violations,
        *(_request(scenario, request_id) for request_id in scenario.queue.bodies),
        _leftovers(scenario),
        _feedback(scenario),
    )
    return list(dict.fromkeys(found))


def figures(scenario: Scenario) -> Counter[str]:
    """Return the figures of a scenario."""
    records = [record for (_, request_id), record in scenario.table.records.items() if request_id in scenario.queue.bodies]
    counted = Counter(
        {"requests": len(scenario.queue.bodies), "faults": scenario.world.faults.done, "processes killed": scenario.world.crashes}
    )
    counted += Counter(f"ended as {record.status}" for record in records)
    counted["accepted by SES"] += sum(map(len, scenario.ses.ledger.values()))
    counted["accepted again, as onUnknown: resend allows"] += sum(len(ids) - 1 for ids in scenario.ses.ledger.values() if ids)
    counted["unknowns that an event settled"] += scenario.world.confirmed[Status.UNKNOWN]
    counted["settled when their resend was granted already"] += (
        scenario.world.confirmed[Status.QUEUED] + scenario.world.confirmed[Status.DEFERRED]
    )
    counted["messages that carried a slot"] += scenario.queue.slots
    counted["messages that found no slot"] += scenario.account_rates.promises
    counted["copies among the dead letters"] += len(scenario.queue.dead_letters)
    return counted


def _request(scenario: Scenario, request_id: str) -> Iterator[str]:
    record = next((record for (_, known), record in scenario.table.records.items() if known == request_id), None)
    accepted = scenario.ses.ledger[request_id]
    may_repeat = request_id in scenario.resent_by_operator or any('"resend"' in body for body in scenario.queue.bodies[request_id])
    if record is None:
        yield f"{request_id}: lost, it has no record"
        return
    if len(accepted) > 1 and not may_repeat:
        yield f"{request_id}: accepted {len(accepted)} times"
    yield from _end(scenario, record, accepted)
    yield from _crashes(scenario, request_id)


def _crashes(scenario: Scenario, request_id: str) -> Iterator[str]:
    """Only a poison message may become a dead letter as such, and it crashes a bounded number of workers."""
    world = scenario.world
    kept = [
        dead_letter
        for dead_letter in scenario.queue.dead_letters
        if dead_letter.reason == "processing_crashed" and f'"{request_id}"' in dead_letter.queue_message.body
    ]
    if kept and request_id not in world.time.crashed_alone and not world.is_skewed:
        yield f"{request_id}: dead-lettered as poison although no worker crashed while it processed only this one"
    most = MAX_CRASHES * scenario.queue.fresh[request_id] + world.faults.done
    if world.crashed_by[request_id] > most and not scenario.queue.redelivers:
        yield f"{request_id}: has crashed {world.crashed_by[request_id]} workers"


def _end(scenario: Scenario, record: Delivery, accepted: list[str]) -> Iterator[str]:
    request_id, status = record.request_id, record.status
    if status in (Status.QUEUED, Status.DEFERRED, Status.SENDING):
        yield f"{request_id}: never ends, it is {status}"
    if status is Status.SENT and record.message_id not in accepted:
        yield f"{request_id}: sent with a messageId that SES never gave"
    if status in (Status.FAILED, Status.CANCELLED) and accepted:
        yield f"{request_id}: {status} though SES accepted it"
    if status is Status.FAILED and record.error is None:
        yield f"{request_id}: failed without a reason"
    resent_too_early = scenario.has_loose_clocks and record.maybe_sent  # by a clock with more skew than the margin
    if status is Status.UNKNOWN and request_id not in scenario.world.excused and not resent_too_early:
        yield f"{request_id}: unknown without a fault of its call or of the write of its result"
    if status is Status.UNKNOWN and record.error is None:
        yield f"{request_id}: unknown without a reason"
    if record.error is not None and "expired" in record.error.code + record.error.message and not _may_expire(scenario, request_id):
        yield f"{request_id}: its message was lost: it expired although it could have been sent"


def _may_expire(scenario: Scenario, request_id: str) -> bool:
    """Return whether a request may expire: little time, a disabled provider, or a dead letter."""
    is_short = any('"expiresAt"' in body for body in scenario.queue.bodies[request_id])
    dead_letters = any(f'"{request_id}"' in dead_letter.queue_message.body for dead_letter in scenario.queue.dead_letters)
    is_on = scenario.providers.rows[ACME].status is ProviderStatus.ACTIVE and not scenario.troubled
    return is_short or dead_letters or not is_on


def _feedback(scenario: Scenario) -> Iterator[str]:
    """The records agree with the delivered events, in status and counts."""
    if scenario.feedback is None:
        return
    yield from scenario.feedback.telemetry.found
    yield from (f"event {one.number} of {one.request_id} was never processed" for one in scenario.feedback.waiting.values())
    for record in scenario.table.records.values():
        if record.request_id in scenario.feedback.delivered and record.status is not Status.SENT:
            yield f"{record.request_id}: {record.status} although an SES event shows that it was accepted"
        if record.feedback != counts_of(scenario.feedback.table.facts(record.tenant_id, record.request_id)):
            yield f"{record.request_id}: its counts differ from SES's events"


def _leftovers(scenario: Scenario) -> Iterator[str]:
    if scenario.queue.messages:
        yield f"{len(scenario.queue.messages)} messages are left on the queue"
    held = {record.parked for record in scenario.table.records.values() if record.status is Status.UNKNOWN}
    # With too much skew two attempts may overlap, and the later one may have parked its body.
    overtaken = scenario.has_loose_clocks and any(record.maybe_sent for record in scenario.table.records.values())
    if not scenario.world.leftovers_excused and not overtaken:
        yield from (f"{key} is left in the bucket" for key in scenario.bucket.bodies.keys() - held)
    for dead_letter in scenario.queue.dead_letters:
        if dead_letter.reason not in (None, "processing_crashed", "request_id_reused", "invalid_request"):
            yield f"a dead letter says {dead_letter.reason}"
