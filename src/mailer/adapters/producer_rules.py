"""Which producers may send for which tenants, from the stack's parameter in Systems Manager."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any, Protocol

from mailer.adapters.aws import ReportFailure, dependency_errors, report_nothing
from mailer.domain.errors import DependencyError
from mailer.domain.producers import Producers

FRESH_FOR = timedelta(minutes=1)
"""Time after which an update of the stack is effective everywhere; a process makes at most one call a minute."""

ASK_AGAIN_AFTER = timedelta(seconds=5)
"""While Systems Manager does not answer, the other messages of a batch do not each wait for it."""


class Client(Protocol):
    """The part of an SSM client that is used."""

    def get_parameter(self, *, Name: str) -> Any:  # noqa: N803 - boto3's name
        """Read one parameter."""
        ...


class SsmProducerRules:
    """`ports.ProducerRules` on Systems Manager; without a parameter name each producer may send for every tenant."""

    def __init__(
        self, client: Callable[[], Client], name: str, now: Callable[[], datetime], report: ReportFailure = report_nothing
    ) -> None:
        self._client = client
        self._name = name
        self._now = now
        self._report = report
        self._lock = Lock()
        self._known = None if name else Producers({})
        self._ask_at = datetime.min.replace(tzinfo=UTC)

    def current(self) -> Producers:
        """Return the rules; the last known ones while they cannot be read."""
        with self._lock:
            if self._name and self._now() >= self._ask_at:
                self._ask()
            if self._known is None:
                raise DependencyError("SSM", "GetParameter")
            return self._known

    def _ask(self) -> None:
        try:
            self._known, good_for = self._read(), FRESH_FOR
        except DependencyError as failure:
            self._report("read producer rules", None, failure)
            good_for = ASK_AGAIN_AFTER
        self._ask_at = self._now() + good_for

    def _read(self) -> Producers:
        with dependency_errors("SSM", "GetParameter"):
            answer = self._client().get_parameter(Name=self._name)
        try:
            return Producers.parse(answer["Parameter"]["Value"])
        except (KeyError, TypeError, ValueError) as error:
            raise DependencyError("SSM", "GetParameter (unreadable answer)") from error
