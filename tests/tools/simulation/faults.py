"""Faults of a scenario's calls."""

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from random import Random


class Fault(Enum):
    """Fault of one call."""

    NONE = auto()
    REFUSED = auto()  # an error without effect
    LOST = auto()  # an error, but with effect
    KILLED_BEFORE = auto()  # the process is killed before the call
    KILLED_AFTER = auto()  # the process is killed after the call
    SLOW = auto()  # it takes longer than any timeout


SERVICES = ("DynamoDB", "SQS", "S3", "KMS", "providers")

KINDS = (Fault.REFUSED, Fault.LOST, Fault.KILLED_BEFORE, Fault.KILLED_AFTER, Fault.SLOW)


@dataclass
class Faults:
    """The faults of one scenario: none, exactly one at some call, or many; and outages of single services."""

    rng: Random
    rate: float
    only: int | None
    kinds: tuple[Fault, ...]
    left: int
    """Remaining faults: after them every request must end."""
    outages: dict[str, tuple[timedelta, timedelta]]
    calls: int = 0
    done: int = 0

    @classmethod
    def draw(cls, rng: Random) -> "Faults":
        """Draw the faults of a scenario."""
        mode = rng.random()
        rate, only = 0.0, None
        if mode < 0.35:
            only = rng.randrange(60)
        elif mode < 0.95:
            rate = rng.choice((0.03, 0.1, 0.25, 0.5))
        outages = {}
        if rng.random() < 0.25:
            begin = timedelta(seconds=rng.randrange(900))
            outages[rng.choice(SERVICES)] = (begin, begin + timedelta(seconds=rng.choice((20, 300, 4000))))
        kinds = KINDS if rng.random() < 0.5 else tuple(rng.sample(KINDS, 2))
        return cls(rng, rate, only, kinds, rng.randrange(1, 25), outages)

    def next(self, service: str, age: timedelta = timedelta()) -> Fault:
        """Return the fault of the next call of a service; `age` is that of the scenario."""
        self.calls += 1
        fault = self._choose(service, age)
        self.done += fault is not Fault.NONE
        return fault

    def _choose(self, service: str, age: timedelta) -> Fault:
        begin, end = self.outages.get(service, (age, age))
        if begin <= age < end:
            return Fault.REFUSED
        if self.only is not None:
            return self.rng.choice(self.kinds) if self.calls == self.only + 1 else Fault.NONE
        if self.left and self.rate and self.rng.random() < self.rate:
            self.left -= 1
            return self.rng.choice(self.kinds)
        return Fault.NONE
