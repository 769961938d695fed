"""Tell which mail does not go out now, by tenant and code, from the log lines; what has been settled since is forgotten."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from mailer.domain.delivery import Status
from mailer.domain.errors import CODES, Kind
from mailer.services.told import Told, read_log

_BAD = frozenset({Status.DEFERRED, Status.FAILED, Status.UNKNOWN})


@dataclass(frozen=True, slots=True)
class Trouble:
    """Requests of one tenant that stand the same way for the same reason."""

    tenant_id: str
    status: Status
    code: str
    hint: str
    requests: int


def find_trouble(lines: Iterable[str]) -> Sequence[Trouble]:
    """Return what does not go out, most requests first. Of each request its last line counts.

    Mail that failed for its tenant's account is settled once that tenant's mail goes out again.
    """
    newest = list(read_log(lines).newest.values())
    last_sent: dict[str, datetime] = {}
    for told in newest:
        if told.status is Status.SENT:
            last_sent[told.tenant_id] = max(told.at, last_sent.get(told.tenant_id, told.at))
    rows: dict[tuple[str, Status, str], list[Told]] = {}
    for told in newest:
        if told.status in _BAD and told.code and not _is_settled(told, last_sent.get(told.tenant_id)):
            rows.setdefault((told.tenant_id, told.status, told.code), []).append(told)
    found = [Trouble(*row, max(some, key=lambda told: told.at).hint or "", len(some)) for row, some in rows.items()]
    return sorted(found, key=lambda trouble: -trouble.requests)


def _is_settled(told: Told, sent_at: datetime | None) -> bool:
    code = CODES.get(told.code or "")
    is_tenants = code is not None and code.kind is Kind.TENANT
    return told.status is Status.FAILED and is_tenants and sent_at is not None and sent_at > told.at
