"""Run SendFunctions, a SweepFunction and FeedbackFunctions in parallel, kill each at random moments, and replace it at once."""

import json
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
from typing import Any, Literal, NamedTuple

from tools.local_aws import worker
from tools.local_aws.worker import Pace, Progress, Worker
from tools.storm.faults import Span
from tools.storm.requests import MARK
from tools.storm.suppressions import Listed, suppressed_by

Role = Literal["send", "sweep", "feedback"]

KILL_DIVISOR = 3
"""Factor by which a SweepFunction or FeedbackFunction is less likely to be killed in a run than a SendFunction in a batch."""

FEEDBACK_WORKERS = 2
"""With one, which is killed again and again, events would be recorded minutes late: after the second mail that they prevent."""

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
        """Return the number of killed workers that send or requeue mail."""
        return self.kills["send"] + self.kills["sweep"]


class Report(NamedTuple):
    """A worker's progress."""

    at: float
    is_busy: bool
    held: frozenset[str]
    """Ids of the requests in progress; none of other workers than SendFunctions."""


IDLE = Report(0.0, is_busy=False, held=frozenset())


class WorkerPool:
    """A number of workers until `stop`; after `stop_killing` none is killed any more."""

    def __init__(
        self,
        env: Mapping[Role, Mapping[str, str]],
        log: Path,
        workers: int,
        *,
        pace: Pace,
        hidden: int,
        kill_probability: float,
        dice: random.Random,
    ) -> None:
        """Start the workers; `hidden` is the visibility timeout in seconds, `kill_probability` is per batch."""
        self.terminations = Terminations()
        self.seen: set[str] = set()
        """Ids of the requests that a worker has received."""
        self.spans: defaultdict[str, list[Span]] = defaultdict(list)
        """Spans in which a worker processed each of them."""
        self.acknowledged: dict[Listed, float] = {}
        """When the first event was acknowledged that suppresses an address, by the monotonic clock."""
        self.changed = threading.Condition()
        """Notified when a worker receives a batch, has processed it, or is terminated."""
        self._env, self._log, self._pace, self._hidden, self._kill_probability = env, log, pace, hidden, kill_probability
        self._took = {role: deque([FIRST_GUESS], RECENT) for role in env}
        self._no_kills, self._over = threading.Event(), threading.Event()
        sends: list[Role] = ["send"] * workers
        feedback: list[Role] = ["feedback"] * FEEDBACK_WORKERS
        roles: list[Role] = [*sends, "sweep", *feedback]
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
            with worker.start(*self._task(role, dice.uniform(-SKEW, SKEW)), env=self._env[role], log=self._log) as one:
                self._follow(one, role, dice)

    def _task(self, role: Role, skew: float) -> tuple[Any, ...]:
        """Return the task of a new worker, and its arguments."""
        pace = Pace(self._pace.speed, self._pace.began, skew=skew)
        match role:
            case "send":
                return worker.poll, pace, self._hidden
            case "sweep":
                return worker.sweep_forever, pace
            case "feedback":
                return worker.poll_events, self._hidden

    def _follow(self, one: Worker, role: Role, dice: random.Random) -> None:
        """Follow a worker until it is terminated or the pool is stopped."""
        last = IDLE
        while not self._over.is_set():
            try:
                report = self._read(one, role, POLL)
            except EOFError:
                self._record_end(None, last)
                return
            if report is None:
                continue
            if last.is_busy and not report.is_busy:
                self._took[role].append(time.monotonic() - last.at)
                self._note(last)
            last = report
            if self._should_kill(role, last, dice):
                self._record_end(role, self._kill_in(dice.uniform(0, 1.2 * median(self._took[role])), one, role, last))
                return

    def _read(self, one: Worker, role: Role, seconds: float) -> Report | None:
        """Return what a worker reports; None if it reports nothing in time."""
        try:
            progress = one.next_result(seconds)
        except TimeoutError:
            return None
        held = {found for body in progress.bodies for found in re.findall(MARK, body)} if role == "send" else set()
        with self.changed:
            self.seen |= held
            if role == "feedback":
                self._acknowledge(progress)
            self.changed.notify_all()
        return Report(progress.at, bool(progress.bodies), frozenset(held))

    def _acknowledge(self, progress: Progress) -> None:
        for body in progress.acknowledged:
            for listed in suppressed_by(json.loads(body)):
                self.acknowledged.setdefault(listed, progress.at)

    def _should_kill(self, role: Role, report: Report, dice: random.Random) -> bool:
        if self._no_kills.is_set() or (role != "sweep" and not report.is_busy):
            return False
        return dice.random() < (self._kill_probability if role == "send" else self._kill_probability / KILL_DIVISOR)

    def _kill_in(self, seconds: float, one: Worker, role: Role, last: Report) -> Report:
        """Kill a worker after some seconds; return its last report."""
        moment = time.monotonic() + seconds
        with suppress(EOFError):
            while (left := moment - time.monotonic()) > 0:
                if (report := self._read(one, role, left)) is not None:
                    self._note(last)
                    last = report
            one.kill()
            while (report := self._read(one, role, POLL)) is not None:
                self._note(last)
                last = report
        return last

    def _record_end(self, role: Role | None, last: Report) -> None:
        self._note(last)
        with self.changed:
            if role:
                self.terminations.kills[role] += 1
            else:
                self.terminations.timeouts += 1
            self.terminations.hit |= last.held
            self.changed.notify_all()

    def _note(self, report: Report) -> None:
        """Note that a worker has processed what it reported until now."""
        with self.changed:
            for one in report.held:
                self.spans[one].append((report.at, time.monotonic()))
