"""What must hold in every story."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

from mailer.domain.delivery import Delivery, Status
from mailer.domain.facts import counts_of
from mailer.domain.provider import ProviderStatus
from tools.simulation.story import ACME, Story

DEATHS = 3
"""Workers that a deadly message may take: two while it is tried beside others, one while it is tried by itself."""


def wrongs(story: Story) -> list[str]:
    """List what went wrong in a story that was played; nothing, as it should be."""
    found: Iterable[str] = chain(
        story.world.wrongs, *(_request(story, request_id) for request_id in story.queue.asked), _leftovers(story), _feedback(story)
    )
    return list(dict.fromkeys(found))


def figures(story: Story) -> Counter[str]:
    """Count what happened in a story."""
    records = [record for (_, request_id), record in story.table.records.items() if request_id in story.queue.asked]
    counted = Counter({"requests": len(story.queue.asked), "faults": story.world.faults.done, "processes killed": story.world.deaths})
    counted += Counter(f"ended as {record.status}" for record in records)
    counted["accepted by SES"] += sum(map(len, story.ses.ledger.values()))
    counted["accepted again, as onUnknown: resend allows"] += sum(len(ids) - 1 for ids in story.ses.ledger.values() if ids)
    counted["unknowns that an event settled"] += story.world.confirmed[Status.UNKNOWN]
    counted["second mails that an event prevented"] += story.world.confirmed[Status.QUEUED] + story.world.confirmed[Status.DEFERRED]
    counted["messages that carried a slot"] += story.queue.slots
    counted["messages that found no slot"] += story.account_rates.promises
    counted["copies among the dead letters"] += len(story.queue.dead_letters)
    return counted


def _request(story: Story, request_id: str) -> Iterator[str]:
    record = next((record for (_, known), record in story.table.records.items() if known == request_id), None)
    accepted = story.ses.ledger[request_id]
    may_repeat = request_id in story.chosen_again or any('"resend"' in body for body in story.queue.asked[request_id])
    if record is None:
        yield f"{request_id}: lost, it has no record"
        return
    if len(accepted) > 1 and not may_repeat:
        yield f"{request_id}: accepted {len(accepted)} times"
    yield from _end(story, record, accepted)
    yield from _crashes(story, request_id)


def _crashes(story: Story, request_id: str) -> Iterator[str]:
    """Only what killed its worker may be kept as such, and it kills no more workers than it takes to find it."""
    world = story.world
    kept = [
        dead_letter
        for dead_letter in story.queue.dead_letters
        if dead_letter.reason == "processing_crashed" and f'"{request_id}"' in dead_letter.queue_message.body
    ]
    if kept and request_id not in world.time.died_alone and not world.is_skewed:
        yield f"{request_id}: kept as a crasher though no worker died while it tried it by itself"
    most = DEATHS * story.queue.fresh[request_id] + world.faults.done
    if world.killed_by[request_id] > most and not story.queue.sloppy:
        yield f"{request_id}: has killed {world.killed_by[request_id]} workers"


def _end(story: Story, record: Delivery, accepted: list[str]) -> Iterator[str]:
    request_id, status = record.request_id, record.status
    if status in (Status.QUEUED, Status.DEFERRED, Status.SENDING):
        yield f"{request_id}: never ends, it is {status}"
    if status is Status.SENT and record.message_id not in accepted:
        yield f"{request_id}: sent with a messageId that SES never gave"
    if status in (Status.FAILED, Status.CANCELLED) and accepted:
        yield f"{request_id}: {status} though SES accepted it"
    if status is Status.FAILED and record.error is None:
        yield f"{request_id}: failed without a reason"
    resent_too_early = story.wild and record.maybe_sent  # by a clock that is further off than the margin allows for
    if status is Status.UNKNOWN and request_id not in story.world.excused and not resent_too_early:
        yield f"{request_id}: unknown though no fault hit its call or the write of its result"
    if status is Status.UNKNOWN and record.error is None:
        yield f"{request_id}: unknown without a reason"
    if record.error is not None and "expired" in record.error.code + record.error.message and not _may_expire(story, request_id):
        yield f"{request_id}: its message was lost, it expired though nothing kept it from being sent"


def _may_expire(story: Story, request_id: str) -> bool:
    """Whether a request met more than passing trouble: little time, a provider that was off, a message among the dead letters."""
    is_short = any('"expiresAt"' in body for body in story.queue.asked[request_id])
    dead_letters = any(f'"{request_id}"' in dead_letter.queue_message.body for dead_letter in story.queue.dead_letters)
    is_on = story.providers.rows[ACME].status is ProviderStatus.ACTIVE and not story.troubled
    return is_short or dead_letters or not is_on


def _feedback(story: Story) -> Iterator[str]:
    """What SES has told is believed, and counted right, whatever failed on the way."""
    if story.feedback is None:
        return
    yield from story.feedback.telemetry.found
    yield from (f"event {one.number} of {one.request_id} was never taken" for one in story.feedback.waiting.values())
    for record in story.table.records.values():
        if record.request_id in story.feedback.told and record.status is not Status.SENT:
            yield f"{record.request_id}: {record.status} though an event of SES tells that it was accepted"
        if record.feedback != counts_of(story.feedback.table.facts(record.tenant_id, record.request_id)):
            yield f"{record.request_id}: its counts are not those of what SES told"


def _leftovers(story: Story) -> Iterator[str]:
    if story.queue.messages:
        yield f"{len(story.queue.messages)} messages are left on the queue"
    held = {record.parked for record in story.table.records.values() if record.status is Status.UNKNOWN}
    # A clock that is too far off lets two attempts go on at once: the one that comes too late may have parked its body.
    overtaken = story.wild and any(record.maybe_sent for record in story.table.records.values())
    if not story.world.leftovers_excused and not overtaken:
        yield from (f"{key} is left in the bucket" for key in story.bucket.bodies.keys() - held)
    for dead_letter in story.queue.dead_letters:
        if dead_letter.reason not in (None, "processing_crashed", "request_id_reused", "invalid_request"):
            yield f"a dead letter says {dead_letter.reason}"
