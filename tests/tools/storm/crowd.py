"""Run SendFunctions and a SweepFunction side by side, kill each at random moments, and put a new one in its place at once."""

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
from tools.storm.mail import MARK
from tools.storm.weather import Span

Role = Literal["send", "sweep"]

SWEEPS_SPARED = 3
"""A sweeper is so many times less likely to be killed in a run than a SendFunction in a batch."""

FIRST_GUESS = 0.5
"""Seconds that a batch takes, before one has been seen: a worker is killed within about the time of one."""

RECENT = 20
"""Batches by which that time is told."""

SKEW = 2.0
"""Seconds by which a worker's clock may be off."""

LISTEN = 0.5
"""Seconds after which a thread that hears nothing looks whether all is over."""


@dataclass(slots=True)
class Deaths:
    """Who died, and what they had in their hands."""

    kills: Counter[Role] = field(default_factory=Counter)
    timeouts: int = 0
    """Invocations that outlived Lambda's limit and were ended by it."""
    hit: set[str] = field(default_factory=set)
    """Ids of the requests whose worker died while it had them."""

    @property
    def killed(self) -> int:
        """How many were killed."""
        return self.kills.total()


class Crowd:
    """So many workers until `stop`; from `spare` on nobody is killed any more."""

    def __init__(
        self, env: Mapping[str, str], log: Path, workers: int, *, pace: Pace, hidden: int, deadly: float, dice: random.Random
    ) -> None:
        """`hidden` is the visibility timeout in seconds, `deadly` how likely a worker is killed in a batch."""
        self.deaths = Deaths()
        self.seen: set[str] = set()
        """Ids of the requests that a worker has had in its hands."""
        self.spans: defaultdict[str, list[Span]] = defaultdict(list)
        """When it had each of them."""
        self.moved = threading.Condition()
        """Notified when a worker takes a batch, is done with it, or dies."""
        self._env, self._log, self._pace, self._hidden, self._deadly = env, log, pace, hidden, deadly
        self._took = deque([FIRST_GUESS], RECENT)
        self._spared, self._over = threading.Event(), threading.Event()
        sends: list[Role] = ["send"] * workers
        roles: list[Role] = [*sends, "sweep"]
        self._lives = [threading.Thread(target=self._live, args=(role, random.Random(dice.random()))) for role in roles]  # noqa: S311  # a seeded story
        for life in self._lives:
            life.start()

    def spare(self) -> None:
        """Kill nobody from now on."""
        self._spared.set()

    def stop(self) -> None:
        """End all workers."""
        self._over.set()
        for life in self._lives:
            life.join()

    def _live(self, role: Role, dice: random.Random) -> None:
        while not self._over.is_set():
            pace = Pace(self._pace.speed, self._pace.began, skew=dice.uniform(-SKEW, SKEW))
            work: tuple[Any, ...] = (worker.poll, pace, self._hidden) if role == "send" else (worker.sweep_on, pace)
            with worker.start(*work, env=self._env, log=self._log) as one:
                self._follow(one, role, dice)

    def _follow(self, one: Worker, role: Role, dice: random.Random) -> None:
        """Follow a worker until it is dead, or all is over."""
        held: set[str] = set()
        since = time.monotonic()
        while not self._over.is_set():
            try:
                heard = self._hear(one, LISTEN)
            except EOFError:
                self._bury(None, held, since)
                return
            if heard is None:
                continue
            if held and not heard:
                self._took.append(time.monotonic() - since)
                self._note(held, since)
            held, since = heard, time.monotonic()
            if self._strikes(role, held, dice):
                self._bury(role, *self._kill_in(dice.uniform(0, 1.2 * median(self._took)), one, held, since))
                return

    def _hear(self, one: Worker, seconds: float) -> set[str] | None:
        """Return which requests a worker says it has in its hands now; None when it says nothing in time."""
        try:
            told = one.told(seconds)
        except TimeoutError:
            return None
        held = {found for body in told for found in re.findall(MARK, body)}
        with self.moved:
            self.seen |= held
            self.moved.notify_all()
        return held

    def _strikes(self, role: Role, held: set[str], dice: random.Random) -> bool:
        if self._spared.is_set() or (role == "send" and not held):
            return False
        return dice.random() < (self._deadly if role == "send" else self._deadly / SWEEPS_SPARED)

    def _kill_in(self, seconds: float, one: Worker, held: set[str], since: float) -> tuple[set[str], float]:
        """Kill a worker at a moment, whatever it does until then; return what it had in its hands by its last words, and since when."""
        moment = time.monotonic() + seconds
        with suppress(EOFError):
            while (left := moment - time.monotonic()) > 0:
                if (heard := self._hear(one, left)) is not None:
                    self._note(held, since)
                    held, since = heard, time.monotonic()
            one.kill()
            while (heard := self._hear(one, LISTEN)) is not None:
                self._note(held, since)
                held, since = heard, time.monotonic()
        return held, since

    def _bury(self, role: Role | None, held: set[str], since: float) -> None:
        self._note(held, since)
        with self.moved:
            if role:
                self.deaths.kills[role] += 1
            else:
                self.deaths.timeouts += 1
            self.deaths.hit |= held
            self.moved.notify_all()

    def _note(self, held: set[str], since: float) -> None:
        with self.moved:
            for one in held:
                self.spans[one].append((since, time.monotonic()))
