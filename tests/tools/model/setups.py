"""The models to explore, and deliberately wrong machines."""

from collections.abc import Mapping
from dataclasses import replace

from mailer.domain.delivery import BEGIN, CONFIRM, RULES, Status
from tools.model.records import Machine
from tools.model.state import Setup

CONTENTS = ("v1:a", "v1:b")

QUICK: Mapping[str, Setup] = {
    "2 workers, 2 messages, held": Setup(queue_messages=2),
    "2 workers, sent again as its caller chose": Setup(on_unknown="resend"),
    "2 workers, sent again by an operator": Setup(resolutions=1),
    "2 workers, other content under the id": Setup(contents=CONTENTS),
}
"""Take seconds; part of `make test`."""

THOROUGH: Mapping[str, Setup] = {
    "3 workers, 2 messages, held": Setup(workers=3, queue_messages=2),
    "3 workers, sent again as its caller chose": Setup(workers=3, on_unknown="resend"),
    "2 workers, 2 messages, held, messages further ahead": Setup(queue_messages=2, ahead=2),
    "2 workers, 2 messages, sent again as its caller chose": Setup(queue_messages=2, on_unknown="resend"),
    "2 workers, sent again twice": Setup(on_unknown="resend", resends=2),
    "2 workers, 2 messages, sent again by an operator": Setup(queue_messages=2, resolutions=1),
    "2 workers, sent again by caller and operator": Setup(on_unknown="resend", resolutions=1),
    "2 workers, 2 messages, other content under the id": Setup(queue_messages=2, contents=CONTENTS),
}
"""Take minutes; part of `make prove`."""

BROKEN: Mapping[str, Machine] = {
    "a lease that may be taken over": Machine({**RULES, "begin": replace(BEGIN, sources=BEGIN.sources | {Status.SENDING})}),
    "a record that an exception deletes": Machine(forgets=frozenset({"mark_unknown"})),
}
"""Designs of other systems: a lock that expires, and the usual idempotency decorator."""

MISREADING: Mapping[str, tuple[Machine, str]] = {
    "an event that only leads back to the queue": (
        Machine({**RULES, "confirm": replace(CONFIRM, sources=frozenset({Status.UNKNOWN}), target=Status.QUEUED)}),
        "accepted again after an event of the first was recorded",
    ),
    "an event of an attempt that was never made": (
        Machine({**RULES, "confirm": replace(CONFIRM, guards=frozenset())}),
        "sent although it was never accepted",
    ),
}
"""Machines that misinterpret SES's events, and the invariant that each violates."""
