"""Find which mail does not go out, by tenant and code, from the log lines; problems that are solved by now are left out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from mailer.domain.delivery import Status
from mailer.domain.errors import CODES, ErrorClass
from mailer_ops.operations.request_log import LoggedState, read_log

_BAD = frozenset({Status.DEFERRED, Status.FAILED, Status.UNKNOWN})


@dataclass(frozen=True, slots=True)
class Trouble:
    """Requests of one tenant with the same status for the same reason."""

    tenant_id: str
    status: Status
    code: str
    hint: str
    requests: int


def find_trouble(lines: Iterable[str]) -> Sequence[Trouble]:
    """Return the mail that does not go out, most requests first. Of each request its last line counts.

    Failures of a tenant's account count as solved once that tenant's mail goes out again.
    """
    newest = list(read_log(lines).newest.values())
    last_sent: dict[str, datetime] = {}
    for logged in newest:
        if logged.status is Status.SENT:
            last_sent[logged.tenant_id] = max(logged.at, last_sent.get(logged.tenant_id, logged.at))
    rows: dict[tuple[str, Status, str], list[LoggedState]] = {}
    for logged in newest:
        if logged.status in _BAD and logged.code and not _is_settled(logged, last_sent.get(logged.tenant_id)):
            rows.setdefault((logged.tenant_id, logged.status, logged.code), []).append(logged)
    found = [Trouble(*row, max(some, key=lambda logged: logged.at).hint or "", len(some)) for row, some in rows.items()]
    return sorted(found, key=lambda trouble: -trouble.requests)


def _is_settled(logged: LoggedState, sent_at: datetime | None) -> bool:
    code = CODES.get(logged.code or "")
    is_tenants = code is not None and code.error_class is ErrorClass.TENANT
    return logged.status is Status.FAILED and is_tenants and sent_at is not None and sent_at > logged.at
