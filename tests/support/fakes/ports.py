"""In-memory fakes of the ports: they follow the contracts of `mailer.ports`, and a test can make them fail."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from mailer.adapters.dynamodb.sweep_leases import LONGEST
from mailer.domain import delivery
from mailer.domain.changes import Fence
from mailer.domain.cursors import CREATED_KEY, from_cursor, to_cursor
from mailer.domain.delivery import Change, Delivery, Outcome, Status, WaitsFor
from mailer.domain.errors import DependencyError, ErrorInfo, Problem, RequestError, UnreadableError
from mailer.domain.events import Event
from mailer.domain.facts import NO_FACTS, Facts, RecipientStatus, merged
from mailer.domain.feedback import MailRef, Refusal, SesEvent
from mailer.domain.message import S3Object
from mailer.domain.onboarding import Platform
from mailer.domain.pacing import RateSource, RetryAt, Slot
from mailer.domain.producers import Producers
from mailer.domain.provider import SUSPEND_AFTER, Provider, ProviderStatus, StoredConfig
from mailer.domain.uploads import Upload, UploadRequest
from mailer.ports import LargerFileError, MergedFacts, Page, QueueMessage, RefusedError, Stage, Step, SweepPart, Trial

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
OUR_ROLES = ("arn:aws:iam::111111111111:role/mail-eu-west-1-send", "arn:aws:iam::111111111111:role/mail-eu-west-1-providers")
OUR_BUS = "arn:aws:events:eu-west-1:111111111111:event-bus/mail-feedback"
PLATFORM = Platform("Leadmetrics", "aws", "111111111111", OUR_ROLES, OUR_BUS, "eu-west-1")


class FakeClock:
    """A clock that moves only when a test or a wait moves it."""

    def __init__(self, now: datetime = NOON) -> None:
        self.time = now

    def now(self) -> datetime:
        return self.time

    def wait_until(self, moment: datetime) -> None:
        self.time = max(self.time, moment)

    def advance(self, step: timedelta) -> None:
        self.time += step


def do_nothing(_: Any) -> None:
    """Do nothing: the default hook."""


class FakeMessagesTable:
    """The status table; `domain.delivery` decides each change.

    `before` and `after` are called with each change, before it is decided and after it was written;
    a hook that raises DependencyError simulates a lost request or a lost reply.
    """

    def __init__(self, *deliveries: Delivery) -> None:
        self.records = {(d.tenant_id, d.request_id): d for d in deliveries}
        self.changes: list[Change] = []
        self.shard_of: Callable[[Delivery], int] = lambda _: 0
        """Returns the shard of the sweep index that a record is in."""
        self.before: Callable[[Change], None] = do_nothing
        self.after: Callable[[Change], None] = do_nothing

    def get(self, tenant_id: str, request_id: str) -> Delivery | None:
        return self.records.get((tenant_id, request_id))

    def apply(self, change: Change) -> Delivery:
        self.before(change)
        current = self.get(change.tenant_id, change.request_id)
        if not delivery.allows(change, current):
            if current is not None and delivery.already_done(change, current):
                return current
            raise RefusedError(current)
        written = delivery.apply(change, current)
        self.records[change.tenant_id, change.request_id] = written
        self.changes.append(change)
        self.after(change)
        return written

    def list(self, tenant_id: str, *, status: Status | None, limit: int, cursor: str | None) -> Page:
        mine = {_sort_key(d): d for (tenant, _), d in self.records.items() if tenant == tenant_id}
        start = from_cursor(cursor, tenant_id, status or "", key=CREATED_KEY) if cursor is not None else None
        keys = [k for k in sorted(mine, reverse=True) if (start is None or k < start) and status in (None, mine[k].status)]
        more = len(keys) > limit
        return Page([mine[k] for k in keys[:limit]], to_cursor(tenant_id, status or "", keys[limit - 1]) if more else None)

    def due(self, shard: int, now: datetime, limit: int) -> Sequence[Delivery]:
        of_shard = [d for d in self.records.values() if self.shard_of(d) == shard]
        found = [(d.sweep_at, d) for d in of_shard if d.sweep_at is not None and d.sweep_at <= now]
        return [d for _, d in sorted(found, key=lambda pair: pair[0])][:limit]

    def waiting_for_provider(self, tenant_id: str) -> Iterator[Delivery]:
        found = [
            d
            for d in self.records.values()
            if d.tenant_id == tenant_id and d.status is Status.DEFERRED and d.waits_for is WaitsFor.PROVIDER
        ]
        yield from sorted(found, key=lambda d: d.created_at)


class FakeFeedbackTable:
    """Facts and messageIds; `before` and `after` are called around each write, as in the status table."""

    def __init__(self) -> None:
        self.of_request: dict[tuple[str, str], Facts] = {}
        self.of_message: dict[tuple[str, str, str], MailRef] = {}
        self.before: Callable[[Any], None] = do_nothing
        self.after: Callable[[Any], None] = do_nothing

    def merge(self, tenant_id: str, request_id: str, facts: Facts) -> MergedFacts:
        self.before(facts)
        before = self.facts(tenant_id, request_id)
        self.of_request[tenant_id, request_id] = merged(before, facts)
        self.after(facts)
        return MergedFacts(before, self.of_request[tenant_id, request_id])

    def facts(self, tenant_id: str, request_id: str) -> Facts:
        return self.of_request.get((tenant_id, request_id), NO_FACTS)

    def forget(self, tenant_id: str, request_id: str, now: datetime) -> None:  # noqa: ARG002 - at once
        self.of_request.pop((tenant_id, request_id), None)

    def find(self, account: str, region: str, message_id: str) -> MailRef | None:
        return self.of_message.get((account, region, message_id))

    def remember(self, account: str, region: str, message_id: str, mail: MailRef, told_at: datetime) -> None:  # noqa: ARG002 - nothing expires
        self.before(mail)
        self.of_message[account, region, message_id] = mail
        self.after(mail)


def _sort_key(record: Delivery) -> str:
    return f"{record.created_at.isoformat(timespec='milliseconds')}#{record.request_id}"


@dataclass
class FakeTelemetry:
    """Stores its calls as (event, arguments)."""

    entries: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    steps: list[dict[Step, timedelta]] = field(default_factory=list)
    """Steps of each `recorded`."""

    def answered(self, record: Delivery, outcome: Outcome, steps: Mapping[Step, timedelta]) -> None:
        fence = Fence(record.attempt, record.owner or "")
        self.entries.append(("answered", (record.tenant_id, record.request_id, fence, outcome, steps["provider"])))

    def recorded(self, record: Delivery, steps: Mapping[Step, timedelta] = MappingProxyType({})) -> None:
        self.entries.append(("recorded", (record,)))
        self.steps.append(dict(steps))

    def paced(self, wait: timedelta) -> None:
        self.entries.append(("paced", (wait,)))

    def dead_lettered(self, queue_message: QueueMessage, reason: str) -> None:
        self.entries.append(("dead_lettered", (queue_message, reason)))

    def suspended(self, tenant_id: str, version: int, error: ErrorInfo) -> None:
        self.entries.append(("suspended", (tenant_id, version, error)))

    def feedback_silent(self, tenant_id: str, version: int, hint: str) -> None:
        self.entries.append(("feedback silent", (tenant_id, version, hint)))

    def provider_changed(self, event: Event) -> None:
        self.entries.append(("provider changed", (event.detail,)))

    def at_risk(self, tenant_id: str, signal: str, finding: str) -> None:
        self.entries.append(("at risk", (tenant_id, signal, finding)))

    def failed(self, step: str, tenant_id: str | None, error: Exception) -> None:
        self.entries.append(("failed", (step, tenant_id, error)))

    def feedback(self, status: RecipientStatus, delivered_after: timedelta | None) -> None:
        self.entries.append(("feedback", (status, delivered_after)))

    def feedback_refused(self, refusal: Refusal, event: SesEvent | None, fields: Sequence[str] = ()) -> None:
        self.entries.append(("feedback refused", (refusal, event, fields)))

    def swept(self, *, overdue: int, lag: timedelta) -> None:
        self.entries.append(("swept", (overdue, lag)))

    def flush(self) -> None:
        """Do nothing: the entries stay readable."""


@dataclass
class FakeDeadLetter:
    """A message on the dead-letter queue."""

    queue_message: QueueMessage
    reason: str
    detail: str


@dataclass
class FakeSendQueue:
    """Stores sent messages; `refuses` selects messages that SQS rejects, `broken` makes every call fail."""

    sent: list[tuple[QueueMessage, timedelta]] = field(default_factory=list)
    dead_letters: list[FakeDeadLetter] = field(default_factory=list)
    refuses: Callable[[QueueMessage], bool] = lambda _: False
    broken: bool = False

    @property
    def messages(self) -> list[QueueMessage]:
        return [queue_message for queue_message, _ in self.sent]

    def send(self, queue_messages: Iterable[tuple[QueueMessage, timedelta]]) -> Sequence[QueueMessage]:
        queue_messages = list(queue_messages)
        if self.broken:
            return [queue_message for queue_message, _ in queue_messages]
        self.sent += [pair for pair in queue_messages if not self.refuses(pair[0])]
        return [queue_message for queue_message, _ in queue_messages if self.refuses(queue_message)]

    def dead_letter(self, queue_message: QueueMessage, *, reason: str, detail: str) -> None:
        if self.broken:
            raise DependencyError("SQS", "SendMessage")
        self.dead_letters.append(FakeDeadLetter(queue_message, reason, detail))


@dataclass
class FakeParkedBodies:
    """Parked bodies in a dict; `broken` makes every call fail."""

    bodies: dict[str, str] = field(default_factory=dict)
    broken: bool = False

    def park(self, tenant_id: str, request_id: str, body: str) -> str:
        self._fail_if_broken("PutObject")
        key = f"parked/{tenant_id}/{request_id}/{hashlib.sha256(body.encode()).hexdigest()[:16]}.json"
        self.bodies[key] = body
        return key

    def fetch(self, key: str) -> str:
        self._fail_if_broken("GetObject")
        return self.bodies[key]

    def discard(self, key: str) -> None:
        self._fail_if_broken("DeleteObject")
        self.bodies.pop(key, None)

    def _fail_if_broken(self, operation: str) -> None:
        if self.broken:
            raise DependencyError("S3", operation)


@dataclass
class FakeEventSource:
    """The event source mapping of the queue, enabled since the day before by default."""

    since: datetime | None = NOON - timedelta(days=1)
    broken: bool = False
    calls: int = 0

    def running_since(self) -> datetime | None:
        self.calls += 1
        if self.broken:
            raise DependencyError("Lambda", "GetEventSourceMapping")
        return self.since


@dataclass
class FakeSweepInvocations:
    """Stores the parts of started invocations; `refuses` selects those that Lambda rejects."""

    begun: list[SweepPart] = field(default_factory=list)
    refuses: Callable[[SweepPart], bool] = lambda _: False

    def begin(self, part: SweepPart) -> None:
        if self.refuses(part):
            raise DependencyError("Lambda", "Invoke")
        self.begun.append(part)


@dataclass
class FakeSweepLeases:
    """The owner of each shard, and the end of its lease; `broken` makes every call fail."""

    taken: dict[int, tuple[str, datetime]] = field(default_factory=dict)
    taken_shards: list[int] = field(default_factory=list)
    """All shards in the order in which they were taken."""
    broken: bool = False

    def take(self, shard: int, owner: str, now: datetime, until: datetime) -> bool:
        if self.broken:
            raise DependencyError("DynamoDB", "UpdateItem")
        holder, ends = self.taken.get(shard, (owner, now))
        if holder != owner and now < ends <= now + LONGEST:
            return False
        self.taken[shard] = owner, until
        self.taken_shards.append(shard)
        return True

    def release(self, shard: int, owner: str) -> None:
        if self.broken:
            raise DependencyError("DynamoDB", "UpdateItem")
        if self.taken.get(shard, ("", NOON))[0] == owner:
            del self.taken[shard]


@dataclass
class FakeProducerRules:
    """Rules set by a test; `broken` makes them unreadable."""

    rules: str = ""
    broken: bool = False

    def current(self) -> Producers:
        if self.broken:
            raise DependencyError("SSM", "GetParameter")
        return Producers.parse(self.rules)


@dataclass
class FakeAttachments:
    """Uploaded files by key; each version that was looked up stays readable; a key of another tenant is missing."""

    files: dict[str, bytes] = field(default_factory=dict)
    kept: dict[tuple[str, str], bytes] = field(default_factory=dict)
    lookups: list[str] = field(default_factory=list)
    """Keys whose version was looked up."""
    broken: bool = False

    def version(self, tenant_id: str, ref: S3Object) -> str | None:
        self.lookups.append(ref.key)
        if self.broken:
            raise DependencyError("S3", "HeadObject")
        file = self._file(tenant_id, ref)
        version = ref.version or hashlib.sha256(file).hexdigest()[:16]
        self.kept[ref.key, version] = file
        return version

    def fetch(self, tenant_id: str, ref: S3Object, *, at_most: int | None = None) -> bytes:
        file = self._file(tenant_id, ref)
        if at_most is not None and len(file) > at_most:
            raise LargerFileError(len(file))
        return file

    def _file(self, tenant_id: str, ref: S3Object) -> bytes:
        file = self.files.get(ref.key)
        if ref.version and (file is None or hashlib.sha256(file).hexdigest()[:16] != ref.version):
            file = self.kept.get((ref.key, ref.version))
        if file is None or not ref.key.startswith(f"{tenant_id}/"):
            raise RequestError([Problem("", f"attachment {ref.key} does not exist")], "attachment_missing")
        return file

    def create_upload(self, tenant_id: str, request: UploadRequest) -> Upload:
        key = f"{tenant_id}/{len(self.files)}"
        self.files[key] = bytes(request.size)
        return Upload(key, f"https://bucket.example/{key}", {"Content-Type": request.media_type, "Content-Length": str(request.size)}, NOON)


class InlineExecutor(Executor):
    """Runs each call at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  # raised by `result()`
            future.set_exception(error)
        return future


@dataclass
class FakeTrials:
    """Stores trials by message id; `broken` makes every call fail."""

    marks: dict[str, Trial] = field(default_factory=dict)
    broken: bool = False

    def find(self, sqs_message_id: str) -> Trial | None:
        self._fail_if_broken()
        return self.marks.get(sqs_message_id)

    def begin(self, sqs_message_id: str, by: str, now: datetime) -> Trial | None:
        self._fail_if_broken()
        trial = Trial(Stage.READING, by, now)
        stored = self.marks.setdefault(sqs_message_id, trial)
        return None if stored is trial else stored

    def reach(self, sqs_message_id: str, trial: Trial) -> None:
        self._fail_if_broken()
        self.marks[sqs_message_id] = trial

    def clear(self, sqs_message_id: str) -> None:
        self._fail_if_broken()
        self.marks.pop(sqs_message_id, None)

    def _fail_if_broken(self) -> None:
        if self.broken:
            raise DependencyError("DynamoDB", "UpdateItem")


@dataclass
class FakePacer:
    """Returns the slots that a test prepares, then slots at once; stores its calls."""

    plans: list[Slot | RetryAt] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)
    """Accounts whose rate cannot be read."""
    requests: list[tuple[str, RateSource, list[int], list[float | None]]] = field(default_factory=list)
    paced: list[tuple[str, str]] = field(default_factory=list)

    def reserve(
        self, account: str, source: RateSource, weights: Sequence[int], carried: Sequence[float | None], now: datetime
    ) -> Sequence[Slot | RetryAt]:
        self.requests.append((account, source, list(weights), list(carried)))
        self._fail_if_broken(account)
        return [self.plans.pop(0) if self.plans else Slot(now) for _ in weights]

    def throttled(self, account: str, now: datetime) -> datetime:
        return self._store("throttled", account, now)

    def quota_exhausted(self, account: str, now: datetime) -> datetime:
        return self._store("quota exhausted", account, now)

    def _store(self, call: str, account: str, now: datetime) -> datetime:
        self.paced.append((call, account))
        self._fail_if_broken(account)
        return now

    def _fail_if_broken(self, account: str) -> None:
        if account in self.failing:
            raise DependencyError("DynamoDB", "UpdateItem")


class FakeProvidersTable:
    """The provider rows; suspends like the real table, after `SUSPEND_AFTER` distinct faulty requests."""

    def __init__(self, *providers: Provider) -> None:
        self.rows = {p.tenant_id: p for p in providers}
        self.reads: list[Collection[str]] = []
        self.unreadable: dict[str, UnreadableError] = {}

    def get_many(self, tenant_ids: Collection[str]) -> Mapping[str, Provider | UnreadableError]:
        self.reads.append(tenant_ids)
        return {t: self.unreadable.get(t, self.rows[t]) for t in tenant_ids if t in self.rows}

    def record_fault(self, tenant_id: str, version: int, request_id: str, error: ErrorInfo, verified_at: datetime | None) -> bool:
        row = self.rows.get(tenant_id)
        if row is None or row.active is None or row.active.version != version or row.verified_at != verified_at:
            return False
        faulty = row.faulty_requests | {request_id}
        suspend = row.status is ProviderStatus.ACTIVE and len(faulty) >= SUSPEND_AFTER
        status = ProviderStatus.SUSPENDED if suspend else row.status
        self.rows[tenant_id] = replace(row, faulty_requests=faulty)
        if suspend:
            self.rows[tenant_id] = replace(self.rows[tenant_id], status=status, error=error, updated_by=None)
        return suspend

    def clear_faults(self, tenant_id: str, version: int) -> None:
        row = self.rows.get(tenant_id)
        if row is not None and row.active is not None and row.active.version == version:
            self.rows[tenant_id] = replace(row, faulty_requests=frozenset())

    def learn_sandbox(self, tenant_id: str, version: int) -> None:
        row = self.rows.get(tenant_id)
        if row is not None and row.active is not None and row.active.version == version:
            self.rows[tenant_id] = replace(row, sandbox="true")


def a_config(**fields: Any) -> StoredConfig:
    """Make a stored SES config with an access key."""
    return StoredConfig(
        **{
            "provider": "ses",
            "version": 1,
            "ciphertext": b"sealed",
            "region": "eu-west-1",
            "from_address": "hello@acme.example",
            "from_name": "Acme",
            "credentials": {"type": "accessKey", "accessKeyId": "…WXYZ"},
            **fields,
        }
    )


def a_provider(tenant_id: str = "acme", status: ProviderStatus = ProviderStatus.ACTIVE, **fields: Any) -> Provider:
    """Make a provider row, verified and active by default."""
    return Provider(
        **{
            "tenant_id": tenant_id,
            "status": status,
            "versions": 1,
            "encrypted_external_id": f"encrypted-external-id-of-{tenant_id}".encode(),
            "active": a_config(),
            "verified_at": NOON,
            "updated_at": NOON,
            **fields,
        }
    )


def a_delivery(request_id: str = "r1", status: Status = Status.QUEUED, **fields: Any) -> Delivery:
    """Make a record of tenant acme with one recipient."""
    return Delivery(
        **{
            "tenant_id": "acme",
            "request_id": request_id,
            "status": status,
            "content_hash": "sha256:0",
            "created_at": NOON,
            "updated_at": NOON,
            "expires_at": NOON + timedelta(hours=24),
            "recipients": 1,
            **fields,
        }
    )
