"""Simulated time and processes: real code in threads, of which exactly one runs at a time, switched at its calls."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Lock, Thread

NEVER = datetime.max.replace(tzinfo=UTC)


class Killed(BaseException):
    """Raised to end a process: no code may catch it, as with `kill -9`."""


@dataclass(eq=False)
class Task:
    """One run of a function: a batch, a sweep, a call of the API."""

    name: str
    wake_at: datetime
    dies_at: datetime
    """Time of its timeout."""
    skew: timedelta = timedelta()
    """Skew of its clock."""
    window: set[str] = field(default_factory=set)
    """Requests that it has sent or is about to send, and whose result is not stored yet."""
    alone: str | None = None
    """The only request that it is processing, if it is a suspect."""
    bug: BaseException | None = None
    lane: "Lane | None" = None


class Lane:
    """A reusable thread: threads are expensive to create, and scenarios are short."""

    idle: "list[Lane]" = []  # noqa: RUF012 - shared by all scenarios of the process

    def __init__(self) -> None:
        self.go = Lock()
        self.go.acquire()
        self.work: Callable[[], None] = lambda: None
        Thread(target=self._run, daemon=True, name="lane").start()

    def _run(self) -> None:
        while True:
            self.go.acquire()
            self.work()

    @classmethod
    def take(cls) -> "Lane":
        return cls.idle.pop() if cls.idle else cls()


class Timeline:
    """The clock of a scenario and its running tasks."""

    def __init__(self, start: datetime) -> None:
        self.now = start
        self.tasks: list[Task] = []
        self.current: Task | None = None
        self.horizon = NEVER
        """Time of the next other event: until then the current task runs without a switch."""
        self.crashed_alone: set[str] = set()
        """Requests that a process was processing alone when it was killed."""
        self._back = Lock()
        self._back.acquire()

    def start(self, task: Task, work: Callable[[], None]) -> None:
        """Start a task at its `wake_at`."""
        lane = task.lane = Lane.take()

        def run() -> None:
            try:
                work()
            except Killed:
                self.crashed_alone |= {task.alone} if task.alone else set()
            except BaseException as bug:  # noqa: BLE001 - raised by the caller
                task.bug = bug
            self.tasks.remove(task)
            Lane.idle.append(lane)
            self._back.release()

        lane.work = run
        self.tasks.append(task)

    def resume(self, task: Task, horizon: datetime) -> None:
        """Run a task until it waits past the horizon, or ends."""
        self.now = max(self.now, task.wake_at)
        self.current, self.horizon = task, horizon
        assert task.lane is not None
        task.lane.go.release()
        self._back.acquire()
        self.current = None

    def wait(self, moment: datetime) -> None:
        """Hold the current task until a moment; others run meanwhile."""
        task = self.current
        assert task is not None
        if moment < self.horizon:
            self.now = max(self.now, moment)
            return
        task.wake_at = moment
        assert task.lane is not None
        self._back.release()
        task.lane.go.acquire()
