"""Mark on tenants' rows whether SES's events of their mail arrive, by version, in the config that sent it.

Marks increment the row's revision, as every write does, so that no concurrent write overwrites them. They do not change `updatedAt`:
nothing that a caller stored has changed.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from mailer.adapters.aws import dependency_errors, readable
from mailer.adapters.dynamodb.codec import Item, encode, operands
from mailer.adapters.dynamodb.providers_table import from_item
from mailer.domain.feedback_state import HEARD_EVERY, SILENT_AFTER, UNHEARD_AFTER, turns_silent
from mailer.domain.provider import StoredConfig
from mailer.ports import SimulatedEvent

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

REMEMBERED = 50_000
"""Maximum versions that a process remembers as marked, about 300 bytes each."""

UNWATCHED_FOR = timedelta(days=1)
"""How long a process remembers that a version has no configuration set, which never changes."""

_TRIES = 3
"""Tries of a mark: a verify may promote the candidate once, between two of them."""

_Place = Literal["active", "candidate"]


class DynamoProviderFeedback:
    """`ports.ProviderFeedback` and `ports.FeedbackWatch` on the providers table; safe to share between threads."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table
        self._heard, self._sent = _Recently(), _Recently()

    def event_arrived(self, tenant_id: str, version: int, at: datetime) -> None:
        """Mark that an event of a version's mail arrived; see `ports.ProviderFeedback.event_arrived`."""
        if self._heard.includes(tenant_id, version, at):
            return
        mark = _Mark(
            update="SET #config.feedbackAt = :at REMOVE #config.unheardSince, #config.silentSince ADD revision :one",
            condition="(attribute_not_exists(#config.feedbackAt) OR #config.feedbackAt <= :before"
            " OR attribute_exists(#config.unheardSince))",
            values=operands(at=at, before=at - HEARD_EVERY, one=1),
        )
        self._mark_wherever(tenant_id, version, mark)
        self._heard.add(tenant_id, version, at + HEARD_EVERY)

    def simulated(self, tenant_id: str, version: int, simulation: datetime, kind: SimulatedEvent, at: datetime) -> None:
        """Mark that an event of a simulation arrived; see `ports.ProviderFeedback.simulated`."""
        mark = _Mark(
            update="SET #config.simulation.#reported = :at ADD revision :one",
            condition="#config.simulation.startedAt = :simulation AND attribute_not_exists(#config.simulation.#reported)",
            values=operands(at=at, simulation=simulation, one=1),
            names={"#reported": f"{kind}ReportedAt"},
        )
        self._mark_wherever(tenant_id, version, mark)

    def sent(self, tenant_id: str, version: int, at: datetime) -> StoredConfig | None:
        """Mark that a version sent and no event has arrived since; see `ports.FeedbackWatch.sent`."""
        if self._sent.includes(tenant_id, version, at):
            return None
        config = self._mark_unheard(tenant_id, version, at)
        is_watched = config is None or config.configuration_set is not None
        silent = config if config and turns_silent(config, at) and self._turned_silent(tenant_id, version, at) else None
        self._sent.add(tenant_id, version, at + (HEARD_EVERY if is_watched else UNWATCHED_FOR))
        return silent

    def _mark_unheard(self, tenant_id: str, version: int, at: datetime) -> StoredConfig | None:
        """Mark that a version is unheard from now on; return its current config if it needs no such mark."""
        unheard = _Mark(
            update="SET #config.unheardSince = :at ADD revision :one",
            condition="attribute_exists(#config.configurationSet) AND attribute_not_exists(#config.unheardSince)"
            " AND (attribute_not_exists(#config.feedbackAt) OR #config.feedbackAt < :recently)",
            values=operands(at=at, recently=at - UNHEARD_AFTER, one=1),
        )
        current = self._mark(tenant_id, version, "active", unheard)
        if current is None or _place_of(version, current) != "active":
            return None
        with readable("DynamoDB", "UpdateItem"):
            return from_item(current).active

    def _turned_silent(self, tenant_id: str, version: int, at: datetime) -> bool:
        """Mark a version silent; True if this call did it."""
        silent = _Mark(
            update="SET #config.silentSince = :at ADD revision :one",
            condition="#config.unheardSince <= :before AND attribute_not_exists(#config.silentSince)",
            values=operands(at=at, before=at - SILENT_AFTER, one=1),
        )
        current = self._mark(tenant_id, version, "active", silent)
        # If the reply to our own write was lost, the SDK's retry fails on that write.
        return current is None or current.get("active", {}).get("M", {}).get("silentSince") == encode(at)

    def _mark_wherever(self, tenant_id: str, version: int, mark: "_Mark") -> None:
        """Mark the config of a version, active or candidate: a verify may promote it at the same time."""
        place: _Place | None = "active"
        for _ in range(_TRIES):
            current = self._mark(tenant_id, version, place, mark) if place else None
            found = _place_of(version, current) if current else None
            if found in (None, place):  # written, needs no mark, or is gone
                return
            place = found

    def _mark(self, tenant_id: str, version: int, place: _Place, mark: "_Mark") -> Item | None:
        """Write a mark to the active config or the candidate if it is of the version; return the row if the condition fails."""
        try:
            with dependency_errors("DynamoDB", "UpdateItem"):
                self._client.update_item(
                    TableName=self._table,
                    Key={"tenantId": {"S": tenant_id}},
                    UpdateExpression=mark.update,
                    ConditionExpression=f"#config.version = :version AND {mark.condition}",
                    ExpressionAttributeNames={"#config": place, **mark.names},
                    ExpressionAttributeValues=mark.values | operands(version=version),
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
        except self._client.exceptions.ConditionalCheckFailedException as refusal:
            current: Any = refusal.response.get("Item", {})
            return dict(current)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    """An update of a config, and its condition."""

    update: str
    condition: str
    values: Item
    names: Mapping[str, str] = MappingProxyType({})


def _place_of(version: int, row: Item) -> _Place | None:
    """Return where in a row the config of a version is; no other part of the row has to be readable."""
    places: tuple[_Place, ...] = ("active", "candidate")
    return next((place for place in places if row.get(place, {}).get("M", {}).get("version") == encode(version)), None)


class _Recently:
    """The versions that need no mark for a while; bounded, the oldest entry is evicted first."""

    def __init__(self) -> None:
        self._until: OrderedDict[tuple[str, int], datetime] = OrderedDict()
        self._lock = Lock()

    def includes(self, tenant_id: str, version: int, at: datetime) -> bool:
        with self._lock:
            until = self._until.get((tenant_id, version))
            return until is not None and at < until

    def add(self, tenant_id: str, version: int, until: datetime) -> None:
        with self._lock:
            self._until[tenant_id, version] = until
            self._until.move_to_end((tenant_id, version))
            if len(self._until) > REMEMBERED:
                self._until.popitem(last=False)
