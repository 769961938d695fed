"""Run SendFunctions and a SweepFunction in parallel, kill each at random moments, and replace it at once."""

import random
import re
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from tools.local_aws import worker
from tools.local_aws.worker import Pace, Worker
from tools.storm.faults import Span
from tools.storm.requests import MARK

Role = Literal["send", "sweep"]

SWEEP_KILL_DIVISOR = 3
"""Factor by which a sweeper is less likely to be killed in a run than a SendFunction in a batch."""

FIRST_GUESS = 0.5
"""Assumed seconds of a batch before one was measured: a worker is killed within about the duration of one."""

RECENT = 20
"""Number of latest batches that determine that duration."""

SKEW = 2.0
"""Most seconds by which a worker's clock is off."""

POLL = 0.5
"""Seconds between two checks of whether the pool was stopped."""


@dataclass(slots=True)
class Terminations:
    """Terminated workers, and the requests that they were processing."""

    kills: Counter[Role] = field(default_factory=Counter)
    timeouts: int = 0
    """Invocations that were ended by Lambda's timeout."""
    hit: set[str] = field(default_factory=set)
    """Ids of the requests that a worker was processing when it was terminated."""

    @property
    def killed(self) -> int:
        """Return the number of killed workers."""
        return self.kills.total()


class WorkerPool:
    """A number of workers until `stop`; after `stop_killing` none is killed any more."""

    def __init__(
        self, env: Mapping[str, str], log: Path, workers: int, *, pace: Pace, hidden: int, kill_probability: float, dice: random.Random
    ) -> None:
        """Start the workers; `hidden` is the visibility timeout in seconds, `kill_probability` is per batch."""
        self.terminations = Terminations()
        self.seen: set[str] = set()
        """Ids of the requests that a worker has received."""
        self.spans: defaultdict[str, list[Span]] = defaultdict(list)
        """Spans in which a worker processed each of them."""
        self.changed = threading.Condition()
        """Notified when a worker receives a batch, has processed it, or is terminated."""
        self._env, self._log, self._pace, self._hidden, self._kill_probability = env, log, pace, hidden, kill_probability
        self._took = deque([FIRST_GUESS], RECENT)
        self._no_kills, self._over = threading.Event(), threading.Event()
        sends: list[Role] = ["send"] * workers
        roles: list[Role] = [*sends, "sweep"]
        self._threads = [threading.Thread(target=self._run, args=(role, random.Random(dice.random()))) for role in roles]  # noqa: S311  # seeded
        for life in self._threads:
            life.start()

    def stop_killing(self) -> None:
        """Kill no worker from now on."""
        self._no_kills.set()

    def stop(self) -> None:
        """End all workers."""
        self._over.set()
        for life in self._threads:
            life.join()

    def _run(self, role: Role, dice: random.Random) -> None:
        while not self._over.is_set():
            pace = Pace(self._pace.speed, self._pace.began, skew=dice.uniform(-SKEW, SKEW))
            work: tuple[Any, ...] = (worker.poll, pace, self._hidden) if role == "send" else (worker.sweep_forever, pace)
            with worker.start(*work, env=self._env, log=self._log) as one:
                self._follow(one, role, dice)

    def _follow(self, one: Worker, role: Role, dice: random.Random) -> None:
        """Follow a worker until it is terminated or the pool is stopped."""
        held: set[str] = set()
        since = time.monotonic()
        while not self._over.is_set():
            try:
                heard = self._read(one, POLL)
            except EOFError:
                self._record_end(None, held, since)
                return
            if heard is None:
                continue
            if held and not heard:
                self._took.append(time.monotonic() - since)
                self._note(held, since)
            held, since = heard, time.monotonic()
            if self._should_kill(role, held, dice):
                self._record_end(role, *self._kill_in(dice.uniform(0, 1.2 * median(self._took)), one, held, since))
                return

    def _read(self, one: Worker, seconds: float) -> set[str] | None:
        """Return the ids of the requests that a worker reports as in progress; None if it reports nothing in time."""
        try:
            bodies = one.next_result(seconds)
        except TimeoutError:
            return None
        held = {found for body in bodies for found in re.findall(MARK, body)}
        with self.changed:
            self.seen |= held
            self.changed.notify_all()
        return held

    def _should_kill(self, role: Role, held: set[str], dice: random.Random) -> bool:
        if self._no_kills.is_set() or (role == "send" and not held):
            return False
        return dice.random() < (self._kill_probability if role == "send" else self._kill_probability / SWEEP_KILL_DIVISOR)

    def _kill_in(self, seconds: float, one: Worker, held: set[str], since: float) -> tuple[set[str], float]:
        """Kill a worker after some seconds; return the requests in progress by its last report, and since when."""
        moment = time.monotonic() + seconds
        with suppress(EOFError):
            while (left := moment - time.monotonic()) > 0:
                if (heard := self._read(one, left)) is not None:
                    self._note(held, since)
                    held, since = heard, time.monotonic()
            one.kill()
            while (heard := self._read(one, POLL)) is not None:
                self._note(held, since)
                held, since = heard, time.monotonic()
        return held, since

    def _record_end(self, role: Role | None, held: set[str], since: float) -> None:
        self._note(held, since)
        with self.changed:
            if role:
                self.terminations.kills[role] += 1
            else:
                self.terminations.timeouts += 1
            self.terminations.hit |= held
            self.changed.notify_all()

    def _note(self, held: set[str], since: float) -> None:
        with self.changed:
            for one in held:
                self.spans[one].append((since, time.monotonic()))
