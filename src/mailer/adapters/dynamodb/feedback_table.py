"""The feedback table: one item per request with SES's reports, and one per messageId that links an event without tags to its mail.

Keys: pk `{tenantId}#{requestId}`, sk `facts`; pk `message#{account}#{region}#{messageId}`, sk `mail`. Both have tenantId and requestId.
Times are epoch milliseconds, `ttl` epoch seconds. An item of facts depends only on its facts, so that the same facts are the same bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mailer.adapters.aws import UNREADABLE, dependency_errors, readable
from mailer.adapters.dynamodb import codec
from mailer.adapters.dynamodb.codec import Item
from mailer.domain.errors import DependencyError, UnreadableError
from mailer.domain.facts import FACT_RETENTION, NO_FACTS, Fact, Facts, RecipientStatus, merged
from mailer.domain.feedback import MailRef
from mailer.ports import MergedFacts

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_TRIES = 10
"""Writes of one merge: a refused one means that another writer's succeeded."""


class DynamoFeedbackTable:
    """`ports.FeedbackTable` on DynamoDB."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def merge(self, tenant_id: str, request_id: str, facts: Facts) -> MergedFacts:
        """Join facts to those of a request; see `ports.FeedbackTable.merge`.

        The first try assumes that there are none, as for most mail: one recipient and one delivery.
        """
        before, read = NO_FACTS, None
        for _ in range(_TRIES):
            after = merged(before, facts)
            if read is not None and after == before:
                return MergedFacts(before, after)
            refused = self._put(item_of(tenant_id, request_id, after), read)
            if refused is None:
                return MergedFacts(before, after)
            before, read = facts_of(refused), refused.get("digest")
        raise DependencyError("DynamoDB", "PutItem (contention)")

    def _put(self, item: Item, read: Item | None) -> Item | None:
        """Replace the item with the digest that was read (None: there was none); if the condition fails, return the current item."""
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk)"}
        if read is not None:
            condition = {"ConditionExpression": "digest = :read", "ExpressionAttributeValues": {":read": read}}
        try:
            with dependency_errors("DynamoDB", "PutItem"):
                self._client.put_item(TableName=self._table, Item=item, ReturnValuesOnConditionCheckFailure="ALL_OLD", **condition)
        except self._client.exceptions.ConditionalCheckFailedException as refusal:
            current: Any = refusal.response.get("Item")
            if not current:  # deleted in between
                raise DependencyError("DynamoDB", "PutItem (contention)") from refusal
            return dict(current)
        return None

    def facts(self, tenant_id: str, request_id: str) -> Facts:
        """Read the facts of a request."""
        return facts_of(self._get(facts_key(tenant_id, request_id)))

    def forget(self, tenant_id: str, request_id: str, now: datetime) -> None:
        """Remove all facts of a request: write an empty item, as no function may delete items; DynamoDB deletes it by `ttl`."""
        item = _item(tenant_id, request_id, NO_FACTS, expires_at=now)
        with dependency_errors("DynamoDB", "PutItem"):
            self._client.put_item(TableName=self._table, Item=item)

    def find(self, account: str, region: str, message_id: str) -> MailRef | None:
        """Return the mail with an SES messageId."""
        item = self._get(message_key(account, region, message_id))
        if not item:
            return None
        with readable("DynamoDB", "GetItem"):
            return MailRef(codec.text(item["tenantId"]), codec.text(item["requestId"]), codec.integer(item["attempt"]))

    def remember(self, account: str, region: str, message_id: str, mail: MailRef, told_at: datetime) -> None:
        """Store which mail has an SES messageId."""
        names = {"tenantId": mail.tenant_id, "requestId": mail.request_id, "attempt": mail.attempt}
        item = message_key(account, region, message_id) | codec.encode_all(names) | {"ttl": codec.expiry(told_at + FACT_RETENTION)}
        with dependency_errors("DynamoDB", "PutItem"):
            self._client.put_item(TableName=self._table, Item=item)

    def _get(self, key: Item) -> Mapping[str, Any]:
        with dependency_errors("DynamoDB", "GetItem"):
            found = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        with readable("DynamoDB", "GetItem"):
            item: Mapping[str, Any] = found.get("Item", {})
            return item


def facts_key(tenant_id: str, request_id: str) -> Item:
    """Return the key of a request's facts."""
    return {"pk": {"S": f"{tenant_id}#{request_id}"}, "sk": {"S": "facts"}}


def message_key(account: str, region: str, message_id: str) -> Item:
    """Return the key of an SES messageId's item."""
    return {"pk": {"S": f"message#{account}#{region}#{message_id}"}, "sk": {"S": "mail"}}


# -- facts and their item ------------------------------------------------------------------------------------------------


def item_of(tenant_id: str, request_id: str, facts: Facts) -> Item:
    """Return the item of a request's facts; there must be at least one."""
    last_at = max(fact.at for of_one in facts.values() for fact in of_one.values())
    return _item(tenant_id, request_id, facts, expires_at=last_at + FACT_RETENTION)


def _item(tenant_id: str, request_id: str, facts: Facts, *, expires_at: datetime) -> Item:
    written = {email: {"M": {status.value: _fact(fact) for status, fact in of_one.items()}} for email, of_one in facts.items()}
    return {
        **facts_key(tenant_id, request_id),
        "tenantId": {"S": tenant_id},
        "requestId": {"S": request_id},
        "facts": {"M": written},
        "digest": {"S": hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()},
        "ttl": codec.expiry(expires_at),
    }


def _fact(fact: Fact) -> Item:
    texts = {"smtpStatus": fact.smtp_status or None, "diagnostic": fact.diagnostic or None}
    return {"M": codec.encode_all({"at": fact.at, "firstAt": fact.first_at, "unsent": fact.unsent or None, **texts})}


def facts_of(item: Mapping[str, Any]) -> Facts:
    """Read the facts of an item; an empty one has none.

    Raises:
        UnreadableError: they are damaged, or a later version wrote them.
    """
    if not item:
        return NO_FACTS
    try:
        each = {email: of_one["M"] for email, of_one in item["facts"]["M"].items()}
        return {
            email: {RecipientStatus(status): _to_fact(value["M"]) for status, value in of_one.items()} for email, of_one in each.items()
        }
    except UNREADABLE as error:
        ids = [item.get(name, {}).get("S", "?") for name in ("tenantId", "requestId")]
        raise UnreadableError("feedback table", *ids) from error


def _to_fact(fields: Mapping[str, Any]) -> Fact:
    smtp_status, diagnostic = (codec.text(fields[name]) if name in fields else "" for name in ("smtpStatus", "diagnostic"))
    first_at = codec.moment(fields["firstAt"]) if "firstAt" in fields else None
    unsent = "unsent" in fields and codec.flag(fields["unsent"])
    return Fact(codec.moment(fields["at"]), smtp_status, diagnostic, unsent, first_at)
