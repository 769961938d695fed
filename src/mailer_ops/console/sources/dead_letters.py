"""The dead-letter queue: what lies there, and work on it that goes on while its page is left."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
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
"""Dead letters that one page reads."""

type Action = Literal["redrive", "drop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which dead letters are meant; an empty text is any."""

    tenant: str = ""
    reason: str = ""
    request: str = ""

    def __call__(self, summary: DeadLetterSummary) -> bool:
        """Tell whether a dead letter is meant."""
        wanted = {"tenant_id": self.tenant, "reason": self.reason, "request_id": self.request}
        return all(value in ("", getattr(summary, name)) for name, value in wanted.items())

    @property
    def everything(self) -> bool:
        """Tell whether every dead letter is meant."""
        return not (self.tenant or self.reason or self.request)


@dataclass(slots=True)
class Work:
    """A redrive or a drop under way: what became of each dead letter so far."""

    id: str
    action: Action
    chosen: Chosen
    results: list[tuple[DeadLetterSummary, DeadLetterResult]] = field(default_factory=list)
    done: bool = False
    trouble: Trouble | None = None

    @property
    def counts(self) -> list[tuple[str, int]]:
        """Count what became of them, most first."""
        return Counter(str(result) for _, result in self.results).most_common()


class DeadLetterDesk(Protocol):
    """The dead letters of one stack."""

    def read(self) -> Answer[tuple[Sequence[DeadLetterSummary], bool]]:
        """List what lies there, and tell whether there is more than that."""
        ...

    def start(self, action: Action, chosen: Chosen) -> Work:
        """Begin to redrive or drop what was chosen."""
        ...

    def work(self, work_id: str) -> Work | None:
        """Return work that was begun."""
        ...


class StackDeadLetters:
    """The dead letters of one stack; one reader at a time, for each hides what it reads from the others."""

    def __init__(self, stack: str, open_deps: Callable[[], AbstractContextManager[DeadLetterDependencies]]) -> None:
        self._stack = stack
        self._open = open_deps
        self._turn = threading.Lock()
        self._begun: dict[str, Work] = {}

    def read(self) -> Answer[tuple[Sequence[DeadLetterSummary], bool]]:
        """List what lies there, and tell whether there is more than that."""
        return ask(self._read, self._stack)

    def _read(self) -> tuple[Sequence[DeadLetterSummary], bool]:
        with self._turn, self._open() as deps:
            letters = deps.dead_letters.receive_all()
            taken = list(islice(letters, SHOWN))
            cut = len(taken) == SHOWN and next(letters, None) is not None
            deps.dead_letters.put_back(taken)
            return [dead_letters.summarize(letter) for letter in taken], cut

    def start(self, action: Action, chosen: Chosen) -> Work:
        """Begin to redrive or drop what was chosen."""
        work = Work(uuid4().hex, action, chosen)
        self._begun[work.id] = work
        threading.Thread(target=self._run, args=(work,), name=f"{action} dead letters").start()
        return work

    def work(self, work_id: str) -> Work | None:
        """Return work that was begun."""
        return self._begun.get(work_id)

    def _run(self, work: Work) -> None:
        act: Callable[[DeadLetterDependencies, Selector], dead_letters.Results] = getattr(dead_letters, work.action)
        try:
            with self._turn, self._open() as deps:
                for result in act(deps, work.chosen):
                    work.results.append(result)
        except (ClientError, BotoCoreError, DependencyError) as failure:
            work.trouble = Trouble(kind="unreached", text=explain(failure, self._stack))
        finally:
            work.done = True
