"""The status table: one item per send request, every change one conditional write compiled from the transition table.

Keys and indexes (template.yaml): tenantShard + requestId; `byCreated` tenantShard + createdKey; `byStatus` statusShard + createdKey;
`bySweep` sweepShard + sweepAt, sparse: it only has records that the sweeper must look at.
A tenant's records are spread over TENANT_SHARDS partitions by their requestId; lists merge them.
Times are epoch milliseconds, `ttl` epoch seconds.
"""

import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from heapq import merge
from itertools import batched
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args

from mailer.adapters.aws import UNREADABLE, ReportFailure, dependency_errors, readable, report_nothing
from mailer.adapters.dynamodb import codec
from mailer.adapters.dynamodb.batch_get import batch_get
from mailer.adapters.dynamodb.codec import Item, encode
from mailer.domain.cursors import CREATED_KEY, from_cursor, to_cursor
from mailer.domain.delivery import (
    BEGIN,
    END_STATUSES,
    ERASED_CONTENT,
    RECORD_RETENTION,
    WORKER_DEAD_MARGIN,
    Change,
    Delivery,
    EarlierAttempt,
    Guard,
    OnUnknown,
    Resolution,
    Rule,
    Status,
    WaitsFor,
    already_done,
)
from mailer.domain.errors import UnreadableError
from mailer.domain.facts import FeedbackCounts
from mailer.ports import Page, RefusedError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SWEEP_SHARDS = 64
"""Partitions of the sweep index. Each takes 1 000 write units a second (DynamoDB's limit); a request takes two when it is put back on the
queue, and three more until it has been sent."""

TENANT_SHARDS = 16
"""Partitions of one tenant's records, in the table and in each index. A partition takes 1 000 write units a second (DynamoDB's limit) and
a message up to five of each, so one tenant can send some thousands of messages a second."""

_PAGE = 100
"""Index entries per query: as many as BatchGetItem takes keys (DynamoDB's limit)."""


class DynamoMessagesTable:
    """`ports.MessagesTable` on DynamoDB."""

    def __init__(
        self, client: "DynamoDBClient", table: str, report: ReportFailure = report_nothing, workers: Executor | None = None
    ) -> None:
        self._client = client
        self._table = table
        self._report = report
        self._map: Callable[..., Iterable[Any]] = workers.map if workers else map

    def get(self, tenant_id: str, request_id: str) -> Delivery | None:
        """Read one record, consistently."""
        with dependency_errors("DynamoDB", "GetItem"):
            found = self._client.get_item(TableName=self._table, Key=record_key(tenant_id, request_id), ConsistentRead=True)
        with readable("DynamoDB", "GetItem"):
            return read_record(found["Item"]) if "Item" in found else None

    def apply(self, change: Change) -> Delivery:
        """Make one conditional write; see `ports.MessagesTable.apply`."""
        try:
            with dependency_errors("DynamoDB", "UpdateItem"):
                written = self._client.update_item(
                    TableName=self._table,
                    Key=record_key(change.tenant_id, change.request_id),
                    ReturnValues="ALL_NEW",
                    # Shows without a second read whether this write had succeeded and its reply was lost.
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    **expressions(change),
                )
        except self._client.exceptions.ConditionalCheckFailedException as refusal:
            old: Any = refusal.response.get("Item")
            current = read_record(old) if old else None
            if current is not None and already_done(change, current):
                return current
            raise RefusedError(current) from None
        with readable("DynamoDB", "UpdateItem"):
            return read_record(written["Attributes"])

    def list(self, tenant_id: str, *, status: Status | None, limit: int, cursor: str | None) -> Page:
        """List a tenant's records, newest first: the newest of all its shards."""
        before = from_cursor(cursor, tenant_id, status or "", key=CREATED_KEY) if cursor is not None else None
        pages = list(self._map(lambda shard: self._newest(_in_shard(tenant_id, status, shard), limit, before), range(TENANT_SHARDS)))
        with readable("DynamoDB", "Query"):
            entries = sorted((entry for page in pages for entry in page["Items"]), key=_created_key, reverse=True)
            is_last = len(entries) <= limit and not any("LastEvaluatedKey" in page for page in pages)
            last = None if is_last else _created_key(entries[:limit][-1])
        deliveries = [d for d in self._read(entries[:limit]) if status in (None, d.status)]
        return Page(deliveries, to_cursor(tenant_id, status or "", last) if last else None)

    def _newest(self, of: "_Partition", limit: int, before: str | None) -> Any:
        """Return the newest entries of one partition of an index, of those before a key."""
        query = of.query() if before is None else of.query(" AND createdKey < :before", {":before": {"S": before}})
        with dependency_errors("DynamoDB", "Query"):
            return self._client.query(TableName=self._table, IndexName=of.index, ScanIndexForward=False, Limit=limit, **query)

    def due(self, shard: int, now: datetime, limit: int) -> Sequence[Delivery]:
        """Return open records of one shard whose `sweepAt` has passed, longest overdue first; records that cannot be read are left out."""
        query: dict[str, Any] = {}
        found: list[Delivery] = []
        while len(found) < limit:
            with dependency_errors("DynamoDB", "Query"):
                page = self._client.query(
                    TableName=self._table,
                    IndexName="bySweep",
                    KeyConditionExpression="sweepShard = :shard AND sweepAt <= :now",
                    ExpressionAttributeValues={":shard": {"S": str(shard)}, ":now": encode(now)},
                    Limit=limit - len(found),
                    **query,
                )
            with readable("DynamoDB", "Query"):
                entries = page["Items"]
            found += [d for d in self._read(entries) if d.sweep_at and d.sweep_at <= now]
            if "LastEvaluatedKey" not in page:
                break
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]
        return found

    def waiting_for_provider(self, tenant_id: str) -> Iterator[Delivery]:
        """Yield a tenant's parked records that wait for its provider, oldest first, read as they are taken."""
        partitions = [_in_shard(tenant_id, Status.DEFERRED, shard) for shard in range(TENANT_SHARDS)]
        firsts = list(self._map(self._oldest_waiting, partitions))
        entries = merge(*map(self._all_waiting, partitions, firsts), key=itemgetter(0))
        for some in batched(entries, _PAGE, strict=False):
            yield from (d for d in self._read([entry for _, entry in some]) if d.waits_for is WaitsFor.PROVIDER)

    def _all_waiting(self, of: "_Partition", page: Mapping[str, Any]) -> Iterator[tuple[str, Item]]:
        """Yield the entries of one partition that wait for the provider, from its first page on, oldest first, each after its key."""
        while True:
            with readable("DynamoDB", "Query"):
                entries = [(_created_key(entry), entry) for entry in page["Items"]]
            yield from entries
            if "LastEvaluatedKey" not in page:
                return
            page = self._oldest_waiting(of, ExclusiveStartKey=page["LastEvaluatedKey"])

    def _oldest_waiting(self, of: "_Partition", **start: Any) -> Any:
        query = of.query("", {":waits": {"S": WaitsFor.PROVIDER}})
        with dependency_errors("DynamoDB", "Query"):
            return self._client.query(
                TableName=self._table, IndexName=of.index, FilterExpression="waitsFor = :waits", Limit=_PAGE, **query, **start
            )

    def _read(self, entries: Sequence[Mapping[str, Any]]) -> Sequence[Delivery]:
        """Read the whole records of index entries, in their order; those that are gone or cannot be read are left out."""
        with readable("DynamoDB", "Query"):
            wanted = [(entry["tenantShard"]["S"], entry["requestId"]["S"]) for entry in entries]
        whole = batch_get(self._client, self._table, [_table_key(*key) for key in wanted])
        with readable("DynamoDB", "BatchGetItem"):
            found = {(tenant_shard(d.tenant_id, d.request_id), d.request_id): d for d in self._readable(whole)}
        return [found[k] for k in wanted if k in found]

    def _readable(self, items: Iterable[Mapping[str, Any]]) -> Iterator[Delivery]:
        for item in items:
            try:
                yield read_record(item)
            except UnreadableError as error:
                self._report("read record", _ids(item)[0], error)


# -- the record and its item ---------------------------------------------------------------------------------------------


def _resolution(value: Resolution) -> Item:
    fields = {"outcome": value.outcome, "by": value.by, "why": value.why, "at": value.at, "principal": value.principal}
    return {"M": codec.encode_all(fields)}


def _from_resolution(value: Item) -> Resolution:
    fields = value["M"]
    outcome: Any = codec.text(fields["outcome"])
    if outcome not in ("sent", "resend"):
        raise ValueError("outcome")
    principal = codec.text(fields["principal"]) if "principal" in fields else None
    return Resolution(outcome, codec.text(fields["by"]), codec.text(fields["why"]), codec.moment(fields["at"]), principal)


def _earlier_attempts(value: Iterable[EarlierAttempt]) -> Item:
    # What is not known is empty, because an earlier version of this service, after a roll-back, reads a text.
    return encode([{"attempt": earlier.number, "account": earlier.account or "", "region": earlier.region or ""} for earlier in value])


def _from_earlier_attempts(value: Item) -> tuple[EarlierAttempt, ...]:
    maps = [entry["M"] for entry in value["L"]]
    return tuple(
        EarlierAttempt(codec.integer(of["attempt"]), codec.text(of["account"]) or None, codec.text(of["region"]) or None) for of in maps
    )


_COUNTED = {
    "delivered": "delivered",
    "delayed": "delayed",
    "bounced": "bounced",
    "soft_bounced": "softBounced",
    "complained": "complained",
    "rejected": "rejected",
    "bounced_unsent": "bouncedUnsent",
    "complained_unsent": "complainedUnsent",
    "rank": "rank",
}


def _feedback(value: FeedbackCounts) -> Item:
    counted = {attribute: getattr(value, name) for name, attribute in _COUNTED.items() if getattr(value, name)}
    return encode({**counted, "firstAt": value.first_at, "lastAt": value.last_at})


def _from_feedback(value: Item) -> FeedbackCounts:
    fields = value["M"]
    counted = {name: codec.integer(fields[attribute]) for name, attribute in _COUNTED.items() if attribute in fields}
    return FeedbackCounts(**{"rank": 0, **counted}, first_at=codec.moment(fields["firstAt"]), last_at=codec.moment(fields["lastAt"]))


_Codec = tuple[str, Callable[[Any], Item], Callable[[Item], Any]]


def _text(attribute: str, kind: Callable[[str], Any] = str) -> _Codec:
    return attribute, encode, lambda v: kind(codec.text(v))


def _integer(attribute: str) -> _Codec:
    return attribute, encode, codec.integer


def _time(attribute: str) -> _Codec:
    return attribute, encode, codec.moment


def _on_unknown(text: str) -> str:
    if text not in get_args(OnUnknown):  # an unknown choice must not be read as permission to send again
        raise ValueError("onUnknown")
    return text


FIELDS: Mapping[str, _Codec] = {
    "tenant_id": _text("tenantId"),
    "request_id": _text("requestId"),
    "status": _text("status", Status),
    "content_hash": _text("contentHash"),
    "created_at": _time("createdAt"),
    "updated_at": _time("updatedAt"),
    "expires_at": _time("expiresAt"),
    "recipients": _integer("recipients"),
    "on_unknown": _text("onUnknown", _on_unknown),
    "attempt": _integer("attempt"),
    "owner": _text("owner"),
    "deadline": _time("deadline"),
    "generation": _integer("generation"),
    "redeliveries": _integer("redeliveries"),
    "due_at": _time("dueAt"),
    "waits_for": _text("waitsFor", WaitsFor),
    "parked": _text("parked"),
    "maybe_sent": ("maybeSent", encode, codec.flag),
    "provider": _text("provider"),
    "provider_version": _integer("providerVersion"),
    "account": _text("account"),
    "region": _text("region"),
    "earlier_attempts": ("earlierAttempts", _earlier_attempts, _from_earlier_attempts),
    "suppressed": _integer("suppressed"),
    "message_id": _text("messageId"),
    "accepted_attempt": _integer("acceptedAttempt"),
    "confirmed_by": _text("confirmedBy"),
    "sent_at": _time("sentAt"),
    "feedback": ("feedback", _feedback, _from_feedback),
    "error": ("error", lambda e: encode(codec.error_fields(e)), codec.error),
    "correlation_id": _text("correlationId"),
    "resolution": ("resolution", _resolution, _from_resolution),
    "cancelled_by": _text("cancelledBy"),
    "sweep_at": _time("sweepAt"),
}
"""Every field of `Delivery`: its attribute, how it is written, how it is read."""


def from_item(item: Mapping[str, Any]) -> Delivery:
    """Read a record from its item; missing attributes keep the fields' defaults."""
    return Delivery(**{name: read(item[attribute]) for name, (attribute, _, read) in FIELDS.items() if attribute in item})


def read_record(item: Mapping[str, Any]) -> Delivery:
    """Read a record from its item.

    Raises:
        UnreadableError: it is damaged, or a later version wrote it.
    """
    try:
        return from_item(item)
    except UNREADABLE as error:
        raise UnreadableError("messages table", *_ids(item)) from error


def _ids(item: Mapping[str, Any]) -> Sequence[str]:
    return [item.get(name, {}).get("S", "?") for name in ("tenantId", "requestId")]


def record_key(tenant_id: str, request_id: str) -> dict[str, Any]:
    """Return the key of a record in the table."""
    return _table_key(tenant_shard(tenant_id, request_id), request_id)


def _table_key(shard: str, request_id: str) -> Item:
    return {"tenantShard": {"S": shard}, "requestId": {"S": request_id}}


def tenant_shard(tenant_id: str, request_id: str) -> str:
    """Return the partition of a record: `acme#7`."""
    return f"{tenant_id}#{_shard_number(request_id)}"


def tenant_shards(tenant_id: str) -> Sequence[str]:
    """Return all partitions of a tenant's records."""
    return [f"{tenant_id}#{number}" for number in range(TENANT_SHARDS)]


def status_attribute(tenant_id: str, request_id: str, status: Status) -> Item:
    """Return the partition of a record in the index by status: `acme#sent#7`."""
    return {"statusShard": {"S": f"{tenant_id}#{status}#{_shard_number(request_id)}"}}


def _shard_number(request_id: str) -> int:
    return zlib.crc32(request_id.encode()) % TENANT_SHARDS


@dataclass(frozen=True, slots=True)
class _Partition:
    """One partition of one index by time."""

    index: str
    attribute: str
    value: str

    def query(self, more: str = "", operands: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
        """Return the members of a query; `more` is appended to its condition."""
        return {
            "KeyConditionExpression": f"#partition = :partition{more}",
            "ExpressionAttributeNames": {"#partition": self.attribute},
            "ExpressionAttributeValues": {":partition": {"S": self.value}, **operands},
        }


def _in_shard(tenant_id: str, status: Status | None, number: int) -> _Partition:
    """Return where the index entries of one of a tenant's shards are."""
    if status is None:
        return _Partition("byCreated", "tenantShard", f"{tenant_id}#{number}")
    return _Partition("byStatus", "statusShard", f"{tenant_id}#{status}#{number}")


def _created_key(entry: Mapping[str, Any]) -> str:
    return codec.text(entry["createdKey"])


# -- a change and its expressions ----------------------------------------------------------------------------------------

_CONDITIONS: Mapping[Guard, str] = {
    Guard.SAME_CONTENT: "(contentHash = :hash OR NOT begins_with(contentHash, :scheme))",
    Guard.NEWEST_GENERATION: "#generation <= :generation",
    Guard.DUE: "(#status <> :deferred OR attribute_not_exists(dueAt) OR dueAt <= :now)",
    Guard.SAME_ATTEMPT: "attempt = :attempt AND #owner = :owner",
    Guard.DEADLINE_PASSED: "deadline < :now",
    Guard.WORKER_DEAD: "(attribute_not_exists(deadline) OR deadline < :deadBefore)",
    Guard.NOT_MAYBE_SENT: "attribute_not_exists(maybeSent)",
    Guard.MAYBE_SENT: "attribute_exists(maybeSent)",
    Guard.RESEND_CHOSEN: "onUnknown = :resend",
    Guard.ATTEMPT_MADE: "attempt >= :attempt",
    Guard.NEW_FEEDBACK: (
        "(attribute_not_exists(feedback) OR feedback.#rank < :rank OR feedback.lastAt < :lastAt OR feedback.firstAt > :firstAt)"
    ),
    Guard.NOT_ERASED: "contentHash <> :erased",
}
"""Each guard as a condition expression; `domain.delivery.HOLDS` has the same in Python, and a test compares the two."""


_OPERANDS: Mapping[str, Callable[[Change], Item]] = {
    ":hash": lambda change: {"S": change.content_hash or ""},
    ":scheme": lambda change: {"S": (change.content_hash or "").partition(":")[0] + ":"},
    ":generation": lambda change: encode(change.generation),
    ":deferred": lambda _: {"S": Status.DEFERRED},
    ":now": lambda change: encode(change.now),
    ":attempt": lambda change: encode(change.attempt or 0),
    ":owner": lambda change: {"S": change.owner or "-"},
    ":deadBefore": lambda change: encode(change.now - change.send_timeout - WORKER_DEAD_MARGIN),
    ":resend": lambda _: {"S": "resend"},
    ":rank": lambda change: encode(_counts(change).rank),
    ":lastAt": lambda change: encode(_counts(change).last_at),
    ":firstAt": lambda change: encode(_counts(change).first_at),
    ":erased": lambda _: {"S": ERASED_CONTENT},
}
"""The values of the conditions' placeholders."""


def _counts(change: Change) -> FeedbackCounts:
    if change.feedback is None:
        raise ValueError("feedback")
    return change.feedback


@dataclass(frozen=True, slots=True)
class _Condition:
    """A rule's condition: the expression, its names, the values of its source statuses, and the operands that each change fills in."""

    expression: str
    names: Mapping[str, str]
    statuses: Mapping[str, Item]
    operands: Mapping[str, Callable[[Change], Item]]


@cache
def _condition(rule: Rule) -> _Condition:
    names = {f":from{i}": {"S": str(status)} for i, status in enumerate(sorted(source for source in rule.sources if source is not None))}
    alternatives = []
    if None in rule.sources:
        alternatives.append("attribute_not_exists(tenantShard)")
    if names:
        guards = [_CONDITIONS[guard] for guard in sorted(rule.guards)]
        alternatives.append(" AND ".join([f"#status IN ({', '.join(names)})", *guards]))
    expression = " OR ".join(f"({a})" for a in alternatives)
    used = set(re.findall(r":\w+", expression))
    return _Condition(
        expression,
        {name: name[1:] for name in re.findall(r"#\w+", expression)},
        names,
        {name: operand for name, operand in _OPERANDS.items() if name in used},
    )


def expressions(change: Change) -> dict[str, Any]:
    """Compile a change into the condition and update expressions of one UpdateItem."""
    condition = _condition(change.rule)
    values = dict(condition.statuses)
    update, names = _update(change, values)
    return {
        "ConditionExpression": condition.expression,
        "UpdateExpression": update,
        "ExpressionAttributeNames": {**names, **condition.names},
        "ExpressionAttributeValues": values | {name: operand(change) for name, operand in condition.operands.items()},
    }


def _update(change: Change, values: Item) -> tuple[str, dict[str, str]]:
    sets, removes, names = [], [], {}
    for attribute, value in _written(change).items():
        names[f"#{attribute}"] = attribute
        if value is None:
            removes.append(f"#{attribute}")
        else:
            values[f":set_{attribute}"] = value
            sets.append(f"#{attribute} = :set_{attribute}")
    for attribute, value in _initial_attributes(change).items():
        if f"#{attribute}" not in names:
            names[f"#{attribute}"] = attribute
            values[f":initial_{attribute}"] = value
            sets.append(f"#{attribute} = if_not_exists(#{attribute}, :initial_{attribute})")
    if change.rule is BEGIN:
        names["#attempt"] = "attempt"
        values |= {":zero": encode(0), ":one": encode(1)}
        sets.append("#attempt = if_not_exists(#attempt, :zero) + :one")
    return " ".join([f"SET {', '.join(sets)}", *([f"REMOVE {', '.join(removes)}"] if removes else [])]), names


def _written(change: Change) -> dict[str, Item | None]:
    """Return the attributes that the change sets, None for those that it removes."""
    fields = change.written
    target = change.rule.target
    derived: dict[str, Item | None] = {}
    if target is not None:
        derived |= status_attribute(change.tenant_id, change.request_id, target)
        derived["ttl"] = codec.expiry(change.now + RECORD_RETENTION) if target in END_STATUSES else None
    if "sweep_at" in fields:
        derived["sweepShard"] = {"S": sweep_shard(change.tenant_id, change.request_id)} if fields["sweep_at"] else None
    # A false `maybeSent` is left out; a 0 is not, because `generation` is compared.
    encoded = {FIELDS[name][0]: None if value is None or value is False else FIELDS[name][1](value) for name, value in fields.items()}
    return encoded | derived


def _initial_attributes(change: Change) -> Item:
    """Return the attributes of a new record; it always has `generation`, which a guard compares."""
    if change.initial_fields is None:
        return {}
    initial_fields = {"generation": 0, **change.initial_fields}
    encoded = {FIELDS[name][0]: FIELDS[name][1](value) for name, value in initial_fields.items() if value is not None}
    return encoded | {"tenantId": {"S": change.tenant_id}} | created_key_attribute(initial_fields["created_at"], change.request_id)


def created_key_attribute(created_at: datetime, request_id: str) -> Item:
    """Return the sort key of the indexes: by time, and unique."""
    return {"createdKey": {"S": f"{created_at.isoformat(timespec='milliseconds')}#{request_id}"}}


def sweep_shard(tenant_id: str, request_id: str) -> str:
    """Return the sweep index partition of a record."""
    return str(zlib.crc32(f"{tenant_id}/{request_id}".encode()) % SWEEP_SHARDS)
