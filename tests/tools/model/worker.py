"""What a worker may do next: `services.send` and what it calls, reduced to their writes and to what they do between.

A worker is its pending write alone. What it does on its own before that write (receive, read, call SES, send the next message) is one
move with what led there: sending earlier than it could changes nothing for anybody, and a worker that dies in between is a worker
that never began. A receipt that is lost is a message that was handed out twice before.
"""

from collections.abc import Iterator
from enum import Enum

from mailer.domain.delivery import Status
from tools.model.records import Answer, Write
from tools.model.world import (
    FINAL,
    OPEN,
    RESULTS,
    Move,
    MoveKind,
    Pending,
    QueueMessage,
    Setup,
    World,
    about_to,
    all_earlier,
    excused,
    late,
    next_message,
    queued,
    written,
)


def receive(setup: Setup, world: World, queue_message: QueueMessage) -> Iterator[Move]:
    """Yield what becomes of a message that was just taken off the queue."""
    if queue_message.proof:
        yield _settle_proof(world, queue_message)
        return
    yield from _begin(setup, world, queue_message)
    yield from _wait(setup, world, queue_message)
    yield from _end(setup, world, queue_message)


def _wish(setup: Setup, deed: str, queue_message: QueueMessage, *, is_late: bool = True) -> Write:
    return Write(deed, queue_message.content, setup.on_unknown, queue_message.generation, is_late=is_late)


def _settle_proof(world: World, queue_message: QueueMessage) -> Move:
    """Do as `services.send._settle_proof` and `domain.proof.proven_outcome`."""
    record, plain = world.record, queue_message._replace(proof="", is_latest=False)
    is_open = record is not None and queue_message.is_latest and record.status in (Status.SENDING, Status.UNKNOWN)
    if record is None or (not is_open and (record.status is Status.SENT or queue_message.proof != "accept")):
        return "a proof is of no use", queued(world, plain), MoveKind.GOES_ON
    after = queued(world, next_message(queue_message)) if queue_message.proof == "defer attempt" else world
    return (
        f"settles the proof {queue_message.proof}",
        about_to(after, queue_message.proof, queue_message, is_latest=queue_message.is_latest),
        MoveKind.GOES_ON,
    )


def _begin(setup: Setup, world: World, queue_message: QueueMessage) -> Iterator[Move]:
    """Do as `services.send._send_once`."""
    for is_late in (True, False) if world.record and world.record.is_due_later else (True,):
        after, answer = written(setup, world, _wish(setup, "begin", queue_message, is_late=is_late))
        if answer.is_done:
            yield from _call(_begun(after), queue_message)
        else:
            yield from _react(setup, world, queue_message, "is refused")
    yield "begin is not heard", queued(world, next_message(queue_message, "defer attempt")), MoveKind.FAULT


def _begun(world: World) -> World:
    """Pass the fence: what excused an earlier attempt excuses this one only if that may have been accepted."""
    maybe_sent = world.record is not None and world.record.maybe_sent
    return all_earlier(world._replace(is_excused=world.is_excused and maybe_sent))


def _call(world: World, queue_message: QueueMessage) -> Iterator[Move]:
    taken = world._replace(accepted=tuple(sorted((*world.accepted, queue_message.content))))
    yield "begins and is accepted", _result(taken, "accept", queue_message), MoveKind.GOES_ON
    yield "begins and is rejected", _result(world, "fail rejected", queue_message), MoveKind.GOES_ON
    yield "begins and is throttled", _result(queued(world, next_message(queue_message)), "defer attempt", queue_message), MoveKind.GOES_ON
    yield "begins and has to park", _result(world, "defer attempt parked", queue_message), MoveKind.GOES_ON
    yield "begins, is throttled, and the queue is out of reach", _result(world, "defer attempt here", queue_message), MoveKind.FAULT
    bad = world._replace(is_excused=True)
    yield (
        "begins, is accepted, and does not hear of it",
        _result(taken._replace(is_excused=True), "mark unknown", queue_message),
        MoveKind.FAULT,
    )
    yield "begins and its call gets lost", _result(bad, "mark unknown", queue_message), MoveKind.FAULT
    yield "begins and dies", queued(bad, queue_message), MoveKind.FAULT
    yield "begins and does not hear of it", queued(bad, next_message(queue_message, "defer attempt", is_latest=True)), MoveKind.FAULT


def _result(world: World, deed: str, queue_message: QueueMessage) -> World:
    return about_to(world, deed, queue_message, is_latest=True)


def _wait(setup: Setup, world: World, queue_message: QueueMessage) -> Iterator[Move]:
    """Do as `services.send.defer`."""
    record = world.record
    if record and not (record.content == queue_message.content and record.generation <= queue_message.generation and record.status in OPEN):
        yield from _react(setup, world, queue_message, "must wait")
        return
    yield "must wait on the queue", about_to(queued(world, next_message(queue_message)), "defer", queue_message), MoveKind.GOES_ON
    yield "must wait, parked", about_to(world, "defer parked", queue_message), MoveKind.GOES_ON


def _end(setup: Setup, world: World, queue_message: QueueMessage) -> Iterator[Move]:
    """Do as `services.send.end`."""
    after, answer = written(setup, world, _wish(setup, "fail unsent", queue_message))
    if answer.is_done:
        yield "ends it", after, MoveKind.QUITS
    elif answer.record is not None and answer.record.maybe_sent:
        yield "cannot end it as failed", about_to(world, "give up", queue_message), MoveKind.QUITS
    else:
        yield from _react(setup, world, queue_message, "cannot end it")


def _react(setup: Setup, world: World, queue_message: QueueMessage, why: str) -> Iterator[Move]:
    """Do as `services.reconcile.reconcile` with the record as it stands."""
    record = world.record
    if record is None:
        yield f"{why}; begins anew", queued(world, queue_message), MoveKind.GOES_ON
    elif record.content != queue_message.content or record.status in FINAL or record.generation > queue_message.generation:
        yield f"{why}; leaves it {record.status}", world, MoveKind.GOES_ON
    elif record.status is Status.UNKNOWN and (record.on_unknown == "hold" or world.resent >= setup.resends):
        yield (
            f"{why}; holds it",
            world if record.is_parked and record.on_unknown == "hold" else about_to(world, "hold", queue_message),
            MoveKind.GOES_ON,
        )
        if not record.is_parked:  # the bucket is out of reach
            yield f"{why}; cannot hold it", about_to(queued(world, next_message(queue_message)), "annotate", queue_message), MoveKind.FAULT
    else:
        yield f"{why}; comes back", about_to(queued(world, next_message(queue_message)), "annotate", queue_message), MoveKind.GOES_ON
        if record.status not in OPEN:
            deed = "time out" if record.status is Status.SENDING else "resend"
            yield late(world, about_to(world, deed, queue_message, is_latest=True), f"{why}; takes it for dead")


def write(setup: Setup, others: World, pending: Pending, queue_message: QueueMessage) -> Iterator[Move]:
    """Yield what may come of a worker's write; `others` is the world without it."""
    wish = Write(pending.deed, queue_message.content, setup.on_unknown, pending.generation, pending.is_latest)
    after, answer = written(setup, others, wish)
    name = f"writes {pending.deed}" if answer.is_done else f"may not write {pending.deed}"
    yield from _after(setup, after, pending, queue_message, _then(pending, answer), name)
    for world in dict.fromkeys((others, after)):
        for report_nothing in _unheard(world, pending, queue_message):
            yield f"does not hear of {pending.deed}", excused(report_nothing, pending), MoveKind.FAULT


class Then(Enum):
    """What a worker does after a write that was answered."""

    RESTS = "the message is done"
    LOOKS = "the message does what the record asks"
    BEGINS = "it begins anew, with the same message"
    REMEMBERS = "the record notes the body that was parked for a stale message"
    LOSES = "it cannot have failed, so it is lost for good"


ALWAYS = {"annotate": Then.RESTS, "defer": Then.RESTS, "time out": Then.LOOKS, "give up": Then.LOOKS, "defer attempt here": Then.BEGINS}


def _then(pending: Pending, answer: Answer) -> Then:
    record, is_done = answer
    status = record.status if record else None
    match pending.deed:
        case deed if deed in ALWAYS:
            return ALWAYS[deed]
        case "defer parked" if record and record.generation > pending.generation:  # services.send._went_on
            return Then.RESTS if record.is_parked else Then.REMEMBERS
        case "park" | "hold" | "defer parked":  # services.reconcile._hold, services.send._went_on
            return Then.RESTS if is_done else Then.LOOKS
        case "resend":  # services.reconcile._meanwhile
            return Then.BEGINS if is_done or status is Status.QUEUED else Then.LOOKS
        case "fail rejected" if record and record.maybe_sent and not is_done:  # services.outcomes._rejected
            return Then.LOSES
        case _:  # services.outcomes.settle
            return Then.LOOKS if pending.is_latest and status is Status.UNKNOWN else Then.RESTS


def _after(setup: Setup, world: World, pending: Pending, queue_message: QueueMessage, then: Then, name: str) -> Iterator[Move]:
    match then:
        case Then.RESTS:
            yield name, world, MoveKind.GOES_ON
        case Then.LOOKS:
            yield from _react(setup, world, queue_message, name)
        case Then.BEGINS:
            yield name, queued(world, queue_message), MoveKind.GOES_ON
        case Then.REMEMBERS:
            yield name, about_to(world, "park", queue_message), MoveKind.GOES_ON
        case Then.LOSES:
            yield name, about_to(world, "mark unknown for good", queue_message, is_latest=pending.is_latest), MoveKind.GOES_ON


def _unheard(world: World, pending: Pending, queue_message: QueueMessage) -> Iterator[World]:
    """Do as the services where the table does not answer: carry the proof along the queue, or have the message handed out again."""
    if pending.deed in ("annotate", "defer"):
        yield world
    elif pending.deed == "defer parked":
        yield queued(world, next_message(queue_message))
    else:
        yield queued(world, queue_message)
        if pending.deed in RESULTS - {"defer attempt here"}:
            proof = {"mark unknown for good": "fail rejected", "defer attempt parked": "defer attempt"}.get(pending.deed, pending.deed)
            yield queued(world, next_message(queue_message, proof, is_latest=pending.is_latest))
