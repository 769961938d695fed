"""Fault schedule of a storm: random single faults of each service all the time, and occasional outages of one service."""

import random
import threading
import time
from collections.abc import Mapping
from typing import Any

from tools.local_aws.control import Control

FAULTS: Mapping[str, list[tuple[str, float, dict[str, Any]]]] = {
    "ses": [
        ("reset", 0.015, {"when": "before"}),
        ("reset", 0.015, {"when": "after"}),
        ("reset", 0.005, {"when": "head"}),
        ("truncate", 0.005, {"when": "after"}),
        ("garbage", 0.005, {"when": "after"}),
        ("close", 0.01, {"when": "before"}),
        ("error", 0.01, {"when": "before", "status": 503, "code": "ServiceUnavailable", "message": "later"}),
        ("error", 0.005, {"when": "before", "status": 400, "code": "Throttling", "message": "Maximum sending rate exceeded."}),
        ("hang", 0.002, {"when": "before"}),
        ("slow", 0.01, {"when": "after", "seconds": 1.0}),
    ],
    "dynamodb": [
        ("error", 0.02, {"when": "before", "status": 400, "code": "ProvisionedThroughputExceededException", "message": "slow down"}),
        ("error", 0.01, {"when": "before", "status": 500, "code": "InternalServerError", "message": "sorry"}),
        ("error", 0.01, {"when": "after", "status": 500, "code": "InternalServerError", "message": "done, and lost"}),
        ("reset", 0.01, {"when": "before"}),
        ("reset", 0.015, {"when": "after"}),
        ("truncate", 0.005, {"when": "after"}),
    ],
    "sqs": [
        ("error", 0.03, {"when": "before", "status": 503, "code": "ServiceUnavailable", "message": "later"}),
        ("reset", 0.02, {"when": "before"}),
        ("reset", 0.02, {"when": "after"}),
    ],
    "kms": [
        ("error", 0.05, {"when": "before", "status": 400, "code": "ThrottlingException", "message": "slow down"}),
        ("reset", 0.03, {"when": "before"}),
    ],
    "s3": [
        ("error", 0.05, {"when": "before", "status": 503, "code": "SlowDown", "message": "slow down"}),
        ("reset", 0.03, {"when": "after"}),
    ],
}
"""Faults of each service with their probabilities."""

Span = tuple[float, float]
"""Start and end, by the monotonic clock."""

OUTAGE_EVERY = (4.0, 9.0)  # seconds from one to the next
OUTAGE_LASTS = (0.3, 2.0)  # seconds


class FaultSchedule:
    """Random faults, reproducible for the same random generator and order of calls."""

    def __init__(self, control: Control, dice: random.Random) -> None:
        self._control = control
        self._dice = dice
        self._over = threading.Event()
        self.refusals: list[Span] = []
        """Spans in which a service refused all connections, after resetting the open ones; the affected requests are not known."""
        self._thread = threading.Thread(target=self._run)
        self._rules = [
            control.inject(action, service=service, probability=likely, seed=dice.randrange(1 << 30), **rest)
            for service, rules in FAULTS.items()
            for action, likely, rest in rules
        ]
        self._thread.start()

    def clear(self) -> None:
        """Remove all faults and make all services available; may be called more than once."""
        self._over.set()
        self._thread.join()
        for service in FAULTS:
            self._control.set_listening(service, "accept")
        while self._rules:
            self._control.clear_faults(id=self._rules.pop())

    def _run(self) -> None:
        while not self._over.wait(self._dice.uniform(*OUTAGE_EVERY)):
            service = self._dice.choice(list(FAULTS))
            if self._dice.random() < 0.5:
                self._refuse(service)
            else:
                rule = self._control.inject("reset", service=service, when=self._dice.choice(["before", "after"]), probability=0.8)
                self._over.wait(self._dice.uniform(*OUTAGE_LASTS))
                self._control.clear_faults(id=rule)

    def _refuse(self, service: str) -> None:
        began = time.monotonic()
        try:
            self._control.set_listening(service, "refuse")
            self._over.wait(self._dice.uniform(*OUTAGE_LASTS))
        finally:
            self._control.set_listening(service, "accept")
            self.refusals.append((began, time.monotonic()))
