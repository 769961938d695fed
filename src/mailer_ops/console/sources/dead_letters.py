"""The dead-letter queue, and its redrives and drops, which run in the background."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal, Protocol
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from mailer.domain.errors import DependencyError
from mailer_ops.console.sources.answers import Answer, Trouble, ask
from mailer_ops.operations import dead_letters
from mailer_ops.operations.dead_letters import DeadLetterDependencies, DeadLetterResult, DeadLetterSummary, Selector
from mailer_ops.stack import explain

SHOWN = 1000
"""Most dead letters that one page reads."""

type Action = Literal["redrive", "drop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A selection of dead letters; an empty text matches any."""

    tenant: str = ""
    reason: str = ""
    request: str = ""

    def __call__(self, summary: DeadLetterSummary) -> bool:
        """Return whether a dead letter matches."""
        wanted = {"tenant_id": self.tenant, "reason": self.reason, "request_id": self.request}
        return all(value in ("", getattr(summary, name)) for name, value in wanted.items())

    @property
    def everything(self) -> bool:
        """Return whether every dead letter matches."""
        return not (self.tenant or self.reason or self.request)


@dataclass(slots=True)
class Work:
    """A redrive or drop in progress, with the results so far."""

    id: str
    action: Action
    chosen: Selection
    results: list[tuple[DeadLetterSummary, DeadLetterResult]] = field(default_factory=list)
    done: bool = False
    trouble: Trouble | None = None

    def snapshot(self) -> "Work":
        """Return a copy that does not change: `done` only with all results."""
        done = self.done
        return replace(self, done=done, results=list(self.results))

    @property
    def counts(self) -> list[tuple[str, int]]:
        """Return the counts by result, largest first."""
        return Counter(str(result) for _, result in self.results).most_common()


class DeadLetterSource(Protocol):
    """The dead letters of one stack."""

    def read(self) -> Answer[tuple[Sequence[DeadLetterSummary], bool]]:
        """Return the dead letters, and whether there are more."""
        ...

    def start(self, action: Action, chosen: Selection) -> Work:
        """Start a redrive or drop of the selection."""
        ...

    def work(self, work_id: str) -> Work | None:
        """Return a redrive or drop by its id; None if it is unknown."""
        ...


class StackDeadLetters:
    """The dead letters of one stack; one reader at a time, because received messages are invisible to others."""

    def __init__(self, stack: str, open_deps: Callable[[], AbstractContextManager[DeadLetterDependencies]]) -> None:
        self._stack = stack
        self._open = open_deps
        self._lock = threading.Lock()
        self._works: dict[str, Work] = {}

    def read(self) -> Answer[tuple[Sequence[DeadLetterSummary], bool]]:
        """Return the dead letters, and whether there are more."""
        return ask(self._read, self._stack)

    def _read(self) -> tuple[Sequence[DeadLetterSummary], bool]:
        with self._lock, self._open() as deps:
            letters = deps.dead_letters.receive_all()
            taken = list(islice(letters, SHOWN))
            cut = len(taken) == SHOWN and next(letters, None) is not None
            deps.dead_letters.put_back(taken)
            return [dead_letters.summarize(letter) for letter in taken], cut

    def start(self, action: Action, chosen: Selection) -> Work:
        """Start a redrive or drop of the selection."""
        work = Work(uuid4().hex, action, chosen)
        self._works[work.id] = work
        threading.Thread(target=self._run, args=(work,), name=f"{action} dead letters").start()
        return work

    def work(self, work_id: str) -> Work | None:
        """Return a redrive or drop by its id; None if it is unknown."""
        return self._works.get(work_id)

    def _run(self, work: Work) -> None:
        act: Callable[[DeadLetterDependencies, Selector], dead_letters.Results] = getattr(dead_letters, work.action)
        try:
            with self._lock, self._open() as deps:
                for result in act(deps, work.chosen):
                    work.results.append(result)
        except (ClientError, BotoCoreError, DependencyError) as failure:
            work.trouble = Trouble(kind="unreached", text=explain(failure, self._stack))
        finally:
            work.done = True
