"""Let the wire fail: each service a little all the time, and now and then one of them altogether."""

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
"""What strikes how likely, for each service."""

Span = tuple[float, float]
"""From when to when, by the monotonic clock."""

SQUALL_EVERY = (4.0, 9.0)  # seconds from one to the next
SQUALL_LASTS = (0.3, 2.0)  # seconds


class Weather:
    """Faults by chance, the same ones for the same dice and order of calls."""

    def __init__(self, control: Control, dice: random.Random) -> None:
        self._control = control
        self._dice = dice
        self._over = threading.Event()
        self.refusals: list[Span] = []
        """When a service refused every connection, having reset those that were open; nobody can say whose calls that hit."""
        self._squalls = threading.Thread(target=self._blow)
        self._rules = [
            control.inject(action, service=service, probability=likely, seed=dice.randrange(1 << 30), **rest)
            for service, rules in FAULTS.items()
            for action, likely, rest in rules
        ]
        self._squalls.start()

    def clear(self) -> None:
        """Let it be calm from now on, and bring back what was away; more than once does no harm."""
        self._over.set()
        self._squalls.join()
        for service in FAULTS:
            self._control.set_listening(service, "accept")
        while self._rules:
            self._control.clear_faults(id=self._rules.pop())

    def _blow(self) -> None:
        while not self._over.wait(self._dice.uniform(*SQUALL_EVERY)):
            service = self._dice.choice(list(FAULTS))
            if self._dice.random() < 0.5:
                self._refuse(service)
            else:
                rule = self._control.inject("reset", service=service, when=self._dice.choice(["before", "after"]), probability=0.8)
                self._over.wait(self._dice.uniform(*SQUALL_LASTS))
                self._control.clear_faults(id=rule)

    def _refuse(self, service: str) -> None:
        began = time.monotonic()
        try:
            self._control.set_listening(service, "refuse")
            self._over.wait(self._dice.uniform(*SQUALL_LASTS))
        finally:
            self._control.set_listening(service, "accept")
            self.refusals.append((began, time.monotonic()))
