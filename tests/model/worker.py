"""What a worker may do next: `services.send` and what it calls, reduced to their writes and to what they do between.

A worker is its pending write alone. What it does on its own before that write (receive, read, call SES, send the next copy) is one
move with what led there: sending earlier than it could changes nothing for anybody, and a worker that dies in between is a worker
that never began. A receipt that is lost is a copy that was handed out twice before.
"""

from collections.abc import Iterator
from enum import Enum

from mailer.domain.delivery import Status
from model.records import Answer, Write
from model.world import (
    FINAL,
    OPEN,
    RESULTS,
    Copy,
    Kind,
    Move,
    Pending,
    Setup,
    World,
    about_to,
    all_earlier,
    excused,
    late,
    next_copy,
    queued,
    written,
)


def receive(setup: Setup, world: World, copy: Copy) -> Iterator[Move]:
    """Yield what becomes of a copy that was just taken off the queue."""
    if copy.proof:
        yield _settle_proof(world, copy)
        return
    yield from _begin(setup, world, copy)
    yield from _wait(setup, world, copy)
    yield from _end(setup, world, copy)


def _wish(setup: Setup, deed: str, copy: Copy, *, is_late: bool = True) -> Write:
    return Write(deed, copy.content, setup.on_unknown, copy.hop, is_late=is_late)


def _settle_proof(world: World, copy: Copy) -> Move:
    """Do as `services.send._settle_proof` and `domain.proof.settled_by`."""
    record, plain = world.record, copy._replace(proof="", is_latest=False)
    is_open = record is not None and copy.is_latest and record.status in (Status.SENDING, Status.UNKNOWN)
    if record is None or (not is_open and (record.status is Status.SENT or copy.proof != "accept")):
        return "a proof is of no use", queued(world, plain), Kind.GOES_ON
    after = queued(world, next_copy(copy)) if copy.proof == "postpone" else world
    return f"settles the proof {copy.proof}", about_to(after, copy.proof, copy, is_latest=copy.is_latest), Kind.GOES_ON


def _begin(setup: Setup, world: World, copy: Copy) -> Iterator[Move]:
    """Do as `services.send._send_once`."""
    for is_late in (True, False) if world.record and world.record.is_due_later else (True,):
        after, answer = written(setup, world, _wish(setup, "begin", copy, is_late=is_late))
        if answer.is_done:
            yield from _call(_begun(after), copy)
        else:
            yield from _react(setup, world, copy, "is refused")
    yield "begin is not heard", queued(world, next_copy(copy, "postpone")), Kind.FAULT


def _begun(world: World) -> World:
    """Pass the fence: what excused an earlier attempt excuses this one only if that may have been accepted."""
    maybe_sent = world.record is not None and world.record.maybe_sent
    return all_earlier(world._replace(is_excused=world.is_excused and maybe_sent))


def _call(world: World, copy: Copy) -> Iterator[Move]:
    taken = world._replace(accepted=tuple(sorted((*world.accepted, copy.content))))
    yield "begins and is accepted", _result(taken, "accept", copy), Kind.GOES_ON
    yield "begins and is rejected", _result(world, "reject", copy), Kind.GOES_ON
    yield "begins and is throttled", _result(queued(world, next_copy(copy)), "postpone", copy), Kind.GOES_ON
    yield "begins and has to park", _result(world, "postpone parked", copy), Kind.GOES_ON
    yield "begins, is throttled, and the queue is out of reach", _result(world, "postpone here", copy), Kind.FAULT
    bad = world._replace(is_excused=True)
    yield "begins, is accepted, and does not hear of it", _result(taken._replace(is_excused=True), "lose", copy), Kind.FAULT
    yield "begins and its call gets lost", _result(bad, "lose", copy), Kind.FAULT
    yield "begins and dies", queued(bad, copy), Kind.FAULT
    yield "begins and does not hear of it", queued(bad, next_copy(copy, "postpone", is_latest=True)), Kind.FAULT


def _result(world: World, deed: str, copy: Copy) -> World:
    return about_to(world, deed, copy, is_latest=True)


def _wait(setup: Setup, world: World, copy: Copy) -> Iterator[Move]:
    """Do as `services.send.defer`."""
    record = world.record
    if record and not (record.content == copy.content and record.hop <= copy.hop and record.status in OPEN):
        yield from _react(setup, world, copy, "must wait")
        return
    yield "must wait on the queue", about_to(queued(world, next_copy(copy)), "wait", copy), Kind.GOES_ON
    yield "must wait, parked", about_to(world, "wait parked", copy), Kind.GOES_ON


def _end(setup: Setup, world: World, copy: Copy) -> Iterator[Move]:
    """Do as `services.send.end`."""
    after, answer = written(setup, world, _wish(setup, "refuse", copy))
    if answer.is_done:
        yield "ends it", after, Kind.QUITS
    elif answer.record is not None and answer.record.maybe_sent:
        yield "cannot end it as failed", about_to(world, "give up", copy), Kind.QUITS
    else:
        yield from _react(setup, world, copy, "cannot end it")


def _react(setup: Setup, world: World, copy: Copy, why: str) -> Iterator[Move]:
    """Do as `services.redelivery.redelivered` with the record as it stands."""
    record = world.record
    if record is None:
        yield f"{why}; begins anew", queued(world, copy), Kind.GOES_ON
    elif record.content != copy.content or record.status in FINAL or record.hop > copy.hop:
        yield f"{why}; leaves it {record.status}", world, Kind.GOES_ON
    elif record.status is Status.UNKNOWN and (record.on_unknown == "hold" or world.resent >= setup.resends):
        yield f"{why}; holds it", world if record.is_parked and record.on_unknown == "hold" else about_to(world, "hold", copy), Kind.GOES_ON
    else:
        yield f"{why}; comes back", about_to(queued(world, next_copy(copy)), "note", copy), Kind.GOES_ON
        if record.status not in OPEN:
            deed = "time out" if record.status is Status.SENDING else "resend"
            yield late(world, about_to(world, deed, copy, is_latest=True), f"{why}; takes it for dead")


def write(setup: Setup, others: World, pending: Pending, copy: Copy) -> Iterator[Move]:
    """Yield what may come of a worker's write; `others` is the world without it."""
    wish = Write(pending.deed, copy.content, setup.on_unknown, pending.hop, pending.is_latest)
    after, answer = written(setup, others, wish)
    name = f"writes {pending.deed}" if answer.is_done else f"may not write {pending.deed}"
    yield from _after(setup, after, pending, copy, _then(pending, answer), name)
    for world in dict.fromkeys((others, after)):
        for unheard in _unheard(world, pending, copy):
            yield f"does not hear of {pending.deed}", excused(unheard, pending), Kind.FAULT


class Then(Enum):
    """What a worker does after a write that was answered."""

    RESTS = "the copy is done"
    LOOKS = "the copy does what the record asks"
    BEGINS = "it begins anew, with the same copy"
    REMEMBERS = "the record hears of the body that was parked for a stale copy"
    LOSES = "it cannot have failed, so it is lost for good"


ALWAYS = {"note": Then.RESTS, "wait": Then.RESTS, "time out": Then.LOOKS, "give up": Then.LOOKS, "postpone here": Then.BEGINS}


def _then(pending: Pending, answer: Answer) -> Then:
    record, is_done = answer
    status = record.status if record else None
    match pending.deed:
        case deed if deed in ALWAYS:
            return ALWAYS[deed]
        case "wait parked" if record and record.hop > pending.hop:  # services.send._went_on
            return Then.RESTS if record.is_parked else Then.REMEMBERS
        case "park" | "hold" | "wait parked":  # services.redelivery._hold, services.send._went_on
            return Then.RESTS if is_done else Then.LOOKS
        case "resend":  # services.redelivery._meanwhile
            return Then.BEGINS if is_done or status is Status.QUEUED else Then.LOOKS
        case "reject" if record and record.maybe_sent and not is_done:  # services.outcomes._rejected
            return Then.LOSES
        case _:  # services.outcomes.settle
            return Then.LOOKS if pending.is_latest and status is Status.UNKNOWN else Then.RESTS


def _after(setup: Setup, world: World, pending: Pending, copy: Copy, then: Then, name: str) -> Iterator[Move]:
    match then:
        case Then.RESTS:
            yield name, world, Kind.GOES_ON
        case Then.LOOKS:
            yield from _react(setup, world, copy, name)
        case Then.BEGINS:
            yield name, queued(world, copy), Kind.GOES_ON
        case Then.REMEMBERS:
            yield name, about_to(world, "park", copy), Kind.GOES_ON
        case Then.LOSES:
            yield name, about_to(world, "lose for good", copy, is_latest=pending.is_latest), Kind.GOES_ON


def _unheard(world: World, pending: Pending, copy: Copy) -> Iterator[World]:
    """Do as the services where the table does not answer: carry the proof along the queue, or have the copy handed out again."""
    if pending.deed in ("note", "wait"):
        yield world
    elif pending.deed == "wait parked":
        yield queued(world, next_copy(copy))
    else:
        yield queued(world, copy)
        if pending.deed in RESULTS - {"postpone here"}:
            proof = {"lose for good": "reject", "postpone parked": "postpone"}.get(pending.deed, pending.deed)
            yield queued(world, next_copy(copy, proof, is_latest=pending.is_latest))
